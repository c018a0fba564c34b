"""What each column of a table is: its role, its modality, and why plait thinks so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from plait.errors import TableError, nearest

SOUND = ".sound"  # `video.sound` is the sound of the videos in column `video`
TEXT = ".text"  # `photo.text` is the text in the images in column `photo`

Role = Literal["input", "target", "id", "group", "split", "ignored"]
ROLES: tuple[str, ...] = get_args(Role)


class Column(BaseModel):
    """One column. `modality` is None unless the role is `input`; `missing` counts the null cells."""

    model_config = ConfigDict(frozen=True)
    name: str
    role: Role
    modality: str | None = None
    reason: str = ""
    missing: int = 0


class Schema(BaseModel):
    """All columns of a table, in order, and how many rows they were judged by."""

    model_config = ConfigDict(frozen=True)
    columns: tuple[Column, ...]
    rows: int

    def __iter__(self) -> Iterator[Column]:  # type: ignore[override]
        return iter(self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise TableError(f"no column '{name}': {nearest(name, [c.name for c in self.columns])}")

    def of(self, role: Role) -> list[str]:
        """Return the names of the columns that have this role, in the table's order."""
        return [column.name for column in self.columns if column.role == role]


def origin(name: str, column_names: Iterable[str]) -> str:
    """Return the column that an input is read from: its own, or that of the media that it is a part of.

    That is a video, for its sound, or an image, for the text in it.
    """
    if name in column_names:
        return name
    return name.removesuffix(SOUND).removesuffix(TEXT)
