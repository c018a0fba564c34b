"""What a run was asked to do, and how another request differs from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from plait.errors import ArtifactError, RecipeError
from plait.runs import content, files
from plait.table.sides import Sources
from plait.table.table import Table

FORMAT = 11  # of the files in a run's folder
REQUEST = "run.json"


class _Paths(BaseModel):
    """The absolute paths of the tables; None for a table in memory, or none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    train: str | None
    valid: str | None
    test: str | None


class Request(BaseModel):
    """What a run was asked to do: all that is needed to ask again, and to notice another table.

    `recipe` is the recipe as asked, never what plait decided, so that a resume decides anew and alike.
    `sources` are absolute paths; None stands for a table in memory. `content` has a hash of each column's
    cells, `media` one of the files that a column's cells name: known only once they have been read.
    `encoders` names those that plait chose, by column: they depend on the weights that the machine has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    format: int = FORMAT
    recipe: dict[str, object]
    targets: list[str]
    sources: _Paths
    root: str | None
    strict: bool
    rows: int
    columns: list[str]
    content: dict[str, str]
    encoders: dict[str, str] = {}
    media: dict[str, str] = {}

    @classmethod
    def make(
        cls,
        recipe: Mapping[str, object],
        targets: list[str],
        sources: Sources,
        strict: bool,
        table: Table,
        encoders: Mapping[str, str],
    ) -> Request:
        """Describe a call of `fit`. `table` is what was read from the sources."""
        paths = {side: _path(source) for side, source in sources.sides().items()}
        return cls(
            recipe=dict(recipe),
            targets=targets,
            sources=_Paths(**paths),
            root=_path(sources.root),
            strict=strict,
            rows=len(table),
            columns=table.data.column_names,
            content=content.content(table.data),
            encoders=dict(encoders),
        )

    @classmethod
    def read(cls, folder: Path) -> Request:
        """Read what the run in a folder was asked to do.

        Raises `RecipeError` when there is no run, and `ArtifactError` when its request is damaged, or when
        another version of plait began it.
        """
        path = folder / REQUEST
        if not path.is_file():
            raise RecipeError(f"'{folder}' holds no training to go on with")

        # Other formats have other fields, and no checksum.
        format_before = files.read_json(path).get("format")
        if format_before != FORMAT or isinstance(format_before, bool):
            raise ArtifactError(
                f"'{folder}' has format {format_before}; this plait goes on with {FORMAT}. Train again into "
                f"another folder, or go on with the plait that began it"
            )
        fields = files.read_checked(path)
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise files.wrong_entry(path, error) from error

    def write(self, folder: Path) -> None:
        """Write the request into the folder of its run."""
        files.write_checked(folder / REQUEST, self.model_dump(mode="json"))

    @property
    def is_of_files(self) -> bool:
        """Whether all tables were files, so that they can be read again."""
        return self.sources.train is not None

    def differences(self, before: Request) -> list[str]:
        """Say in what this request differs from one that was made before."""
        # `sources` and `root` may differ: a table that has moved is still the same table.
        differences = []
        if self.rows != before.rows:
            differences.append(f"the tables have {self.rows:,} rows, had {before.rows:,}")
        differences += _differing_names("column", before.columns, self.columns)
        if self.rows == before.rows:
            for name in content.changed(before.content, self.content):
                differences.append(f"column '{name}' holds other cells")
            if not differences and self.columns != before.columns:
                differences.append("the columns are in another order")
        differences += _differing_names("target", before.targets, self.targets)
        differences += _differing_options("recipe", before.recipe, self.recipe)
        differences += _differing_encoders(before.encoders, self.encoders)
        if self.strict != before.strict:
            differences.append(f"strict is {self.strict}, was {before.strict}")
        return differences


def _differing_names(what: str, before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Say which names are new and which are gone."""
    names_before, names_now = set(before), set(now)
    differences = []
    for name in now:
        if name not in names_before:
            differences.append(f"{what} '{name}' is new")
    for name in before:
        if name not in names_now:
            differences.append(f"{what} '{name}' is gone")
    return differences


def _differing_encoders(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say of which columns plait would choose another encoder today."""
    differences = []
    for column, encoder in now.items():
        if before.get(column, encoder) != encoder:
            differences.append(f"the encoder of '{column}' is {encoder}, was {before[column]}")
    return differences


def _differing_options(name: str, before: object, now: object) -> list[str]:
    """Say which options differ, by their paths, and what they are and were."""
    if before == now:
        return []
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        is_now = "left out" if now is None else repr(now)
        was = "left out" if before is None else repr(before)
        return [f"{name} is {is_now}, was {was}"]
    differences = []
    for key in dict.fromkeys([*before, *now]):
        differences += _differing_options(f"{name}.{key}", before.get(key), now.get(key))
    return differences


def _path(source: object) -> str | None:
    """Return the absolute path of a file, so that a resume finds it from any folder; None for no file."""
    if not isinstance(source, (str, Path)):
        return None
    return str(Path(source).absolute())
