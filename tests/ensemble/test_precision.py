"""An ensemble that answers in 16 bits is loaded as it was."""

from __future__ import annotations

from pathlib import Path

import plait
from support.answers import assert_same_answers
from support.tables import FAST, make_rows, write_csv

MEMBERS = "ensemble={members: {first: network, second: {name: network, fusion: gated}}, folds: 2, bags: 2}"


def test_members_in_bf16_are_saved_and_loaded(tmp_path: Path) -> None:
    """Their weights are kept in 32 bits, and rounded when they answer."""
    table = write_csv(tmp_path / "train.csv", make_rows(tmp_path))
    overrides = [*FAST, "training.precision=bf16", MEMBERS]
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=overrides, quiet=True)
    assert any(bag.choice for bag in model.answering.bags)  # type: ignore[attr-defined]
    answers = plait.load(tmp_path / "run", quiet=True).predict(table)
    assert_same_answers(answers, model.predict(table))
