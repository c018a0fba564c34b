"""Checksums of the files of an index, and what an interrupted change of it leaves.

LanceDB never changes a file of a table once it is written: a change adds files and a version. So the
checksums of one version's files say whether they are whole, and files that are not among them belong to a
change that has not ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError
from xxhash import xxh3_128

from plait.console import command
from plait.disk import whole
from plait.errors import ArtifactError, OutputError
from plait.runs import files
from plait.runs.lock import LOCK, locked

if TYPE_CHECKING:
    from lancedb.table import Table

FILE = "plait-index.json"
HINT = "latest_version_hint.json"  # the one file that LanceDB writes again
BLOCK = 1 << 20  # bytes that are hashed at once

# The checksums that this process has computed, by path, size and time of change.
_computed: dict[tuple[str, int, int], str] = {}


class _State(BaseModel):
    """What is kept of an index: its version, the checksums of its files, and whether a change has begun."""

    model_config = ConfigDict(extra="forbid", strict=True)
    version: int
    changing: bool
    checksums: dict[str, str]


class Seal:
    """Guards the files of an index in a local folder. An object store has checksums of its own."""

    def __init__(self, address: str | Path) -> None:
        self.folder = None if "://" in str(address) else Path(address)

    def check_place(self) -> None:
        """Raise `OutputError` if an index cannot be made in its folder."""
        if self.folder is not None:
            whole.check_folder(self.folder)

    def renew(self, table: Table) -> None:
        """Write down the checksums of all files, which are whole now."""
        if self.folder is not None:
            self._write(_State(version=table.version, changing=False, checksums=self._checksums()))

    def roll_back(self, table: Table) -> None:
        """Let a table show its last whole version, if a change of it was interrupted.

        Raises `ArtifactError` if its files are damaged.
        """
        state = self._verified()
        if state is None or state.version == table.version:
            return
        if not state.changing:
            raise ArtifactError(
                f"the index '{self.folder}' was changed by something else than plait; {_remedy()}"
            )
        with _explained(self.folder):
            table.checkout(state.version)

    def verify(self) -> None:
        """Raise `ArtifactError` if a file of the index is damaged, or gone."""
        self._verified()

    @contextmanager
    def changing(self, table: Table) -> Iterator[None]:
        """Hold the index while it is changed. A change that is interrupted leaves it as it was.

        Raises `OutputError` if it cannot be written, and `RecipeError` if another process changes it.
        """
        if self.folder is None:
            with _explained(self.folder):
                yield
            return
        with locked(self.folder, "another change is being made of the index"):
            state = self._verified()
            assert state is not None
            with _explained(self.folder):
                table.checkout_latest()
                if table.version != state.version:
                    table.checkout(state.version)
                    table.restore()
                self._write(state.model_copy(update={"changing": True}))
                yield
            self.renew(table)

    def _verified(self) -> _State | None:
        """Return the state of the index, if its files are those that were written."""
        if self.folder is None:
            return None
        path = self.folder / FILE
        fields = files.read_checked(path)
        try:
            state = _State.model_validate(fields)
        except ValidationError as error:
            raise files.wrong_entry(path, error) from error

        for name, checksum in state.checksums.items():
            if state.changing and name.endswith(HINT):
                continue
            if _checksum(self.folder / name) != checksum:
                raise ArtifactError(f"the index '{self.folder}' is damaged: {name} has changed; {_remedy()}")
        return state

    def _checksums(self) -> dict[str, str]:
        assert self.folder is not None
        checksums = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in (FILE, LOCK) and not path.name.startswith("."):
                checksums[name] = _checksum(path)
        return checksums

    def _write(self, state: _State) -> None:
        assert self.folder is not None
        files.write_checked(self.folder / FILE, state.model_dump(mode="json"))


def _remedy() -> str:
    return f"remove its folder, and make it again with: {command('index', 'RUN', 'TABLE')}"


def _checksum(path: Path) -> str:
    """Return the checksum of a file; nothing if it cannot be read."""
    try:
        status = path.stat()
        key = (str(path.absolute()), status.st_size, status.st_mtime_ns)
        if key not in _computed:
            digest = xxh3_128()
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
            _computed[key] = digest.hexdigest()
        return _computed[key]
    except (OSError, ValueError):
        return ""


@contextmanager
def _explained(folder: Path | None) -> Iterator[None]:
    """Turn what LanceDB raises for a disk that cannot be written to into an `OutputError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise OutputError(f"the index '{folder}' cannot be changed: {reason}") from error
