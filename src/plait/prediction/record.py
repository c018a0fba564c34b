"""What `metrics.json` holds: checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from plait.runs import files
from plait.runs.folder import Record

Number = float | None  # null stands for NaN


class _Score(BaseModel):
    value: Number
    low: Number
    high: Number


class _Target(BaseModel):
    """The scores of one target, as `evaluation.scores` writes them."""

    rows: int
    score: str
    metrics: dict[str, _Score]
    baseline: dict[str, Number]
    subsets: list[tuple[list[str], _Score]]


class _Direction(BaseModel):
    """The scores of one direction of an alignment, as `evaluation.alignment` writes them."""

    query: str
    gallery: str
    queries: int
    size: int
    metrics: dict[str, tuple[Number, Number, Number]]
    chance: dict[str, Number]
    baselines: dict[str, dict[str, Number]]


class _Alignments(BaseModel):
    directions: list[_Direction] = Field(min_length=1)
    geometry: dict[str, dict[str, Number]]


class _Evaluation(BaseModel):
    name: str
    targets: dict[str, _Target]
    resamples: int
    alignments: dict[str, _Alignments]


class _Environment(BaseModel):
    """The machine of the training. Prediction goes on in the same precision."""

    model_config = ConfigDict(extra="allow")
    precision: Literal["fp32", "bf16"]
    frozen: Literal["fp32", "bf16"]


class _Member(BaseModel):
    value: Number
    rows: int
    weight: Number


class _Record(BaseModel):
    """All that is known of a training at its end."""

    environment: _Environment
    rows: dict[Literal["train", "valid", "test", "unlabelled"], int]
    split: str
    priors: dict[str, JsonValue]
    best_epoch: int
    epochs: int
    history: list[dict[str, Number]]
    evaluation: dict[Literal["validation", "test"], _Evaluation]
    seconds: float
    members: dict[str, dict[str, _Member]] = {}
    singles: dict[str, dict[str, _Score | None]] = {}
    refit: int = 0  # rows that the network was trained on again


def read(path: Path) -> Record:
    """Read a record. Raises `ArtifactError` if it is damaged, with the entry that is wrong."""
    fields = files.read_checked(path)
    try:
        _Record.model_validate(fields)
    except ValidationError as error:
        raise files.wrong_entry(path, error) from error

    record: Record = dict(fields)
    for name in ("history", "evaluation", "members"):
        if name in record:
            record[name] = _with_nan(record[name])

    # Here null also stands for a side without rows: only what is in a score can be NaN.
    for sides in record.get("singles", {}).values():
        for side, score in sides.items():
            if score is not None:
                sides[side] = _with_nan(score)
    return record


def _with_nan(value: JsonValue) -> JsonValue:
    """Return JSON with NaN for null."""
    if value is None:
        return float("nan")
    if isinstance(value, dict):
        return {name: _with_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_nan(inner) for inner in value]
    return value
