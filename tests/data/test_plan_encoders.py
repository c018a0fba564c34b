"""Which encoder a column gets where the recipe names none: pretrained where its weights are here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import plait
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.data.plan_columns import ColumnPlan
from plait.encoders import pretrained
from plait.errors import Interrupted, RecipeError
from plait.pretrained.files import present
from plait.table.read import read
from plait.table.write import write
from support import tiny_models
from support.tiny_models import WORDS

CHINESE = "红蓝猫狗小大"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Weights of a tiny text network on this machine; its name."""
    name = str(tiny_models.bert(tmp_path / "tiny-bert"))
    monkeypatch.setitem(pretrained.DEFAULT, "text", name)
    monkeypatch.setattr(pretrained, "present", present)
    return name


def table(chinese: bool = False) -> pa.Table:
    notes = []
    for row in range(30):
        words = [WORDS[row % 6], WORDS[row * 5 % 6], WORDS[row // 6]]
        letters = [CHINESE[row % 6], CHINESE[row * 5 % 6], CHINESE[row // 6]]
        notes.append("".join(letters) if chinese else " ".join(words))
    labels = [["a", "b"][row % 2] for row in range(30)]
    return pa.table({"note": notes, "price": [float(row % 7) for row in range(30)], "label": labels})


def planned(data: pa.Table, *overrides: str) -> ColumnPlan:
    recipe = recipe_from(None, overrides=["columns.note.modality=text", *overrides])
    return Plan.make(read(data), recipe, "label").columns["note"]


def test_weights_that_are_here_are_used_frozen(weights: str) -> None:
    column = planned(table())
    assert (column.encoder.name, column.encoder.options["model"]) == ("pretrained", weights)
    assert column.frozen
    assert "are on this machine" in column.reason


def test_without_weights_the_remedy_is_named() -> None:
    column = planned(table())
    assert column.encoder.name == "bag"
    assert "plait[pretrained,weights]" in column.remedy


def test_the_recipe_comes_before_the_weights(weights: str) -> None:
    assert planned(table(), "pretrained=off").encoder.name == "bag"
    assert planned(table(), "encoders.text=lstm").encoder.name == "lstm"
    assert planned(table(), "columns.note.encoder=lstm").encoder.name == "lstm"


def test_words_that_the_tokenizer_lacks_keep_n_grams(weights: str) -> None:
    column = planned(table(chinese=True))
    assert column.encoder.name == "bag"
    assert "does not know these words" in column.reason
    assert not column.remedy


def test_cells_that_a_network_cannot_read_stay_the_recipes(weights: str) -> None:
    column = planned(table(), "modalities.text.split=word")
    assert column.encoder.name == "bag"
    assert "the recipe sets split=word" in column.reason


def test_a_fit_says_what_it_chose_and_why(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: dict[str, Any] = {"columns": {"note": "text"}, "overrides": ["training.epochs=1"]}
    model = plait.fit(table(), "label", out=tmp_path / "run", **arguments)
    shown = " ".join(capsys.readouterr().err.split())
    assert "note: " in shown
    assert "frozen, because the weights of" in shown
    assert model.predict({"note": "red cat big", "price": 1.0}).num_rows == 1


def test_a_resume_notices_that_the_weights_are_gone(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_file = tmp_path / "table.csv"
    write(table(), table_file)
    out = tmp_path / "run"

    def stop(epoch: int, epochs: int, score: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    overrides = ["columns.note.modality=text", "training.checkpoint_minutes=1e-9", "training.epochs=3"]
    arguments: dict[str, Any] = {"overrides": overrides, "out": out, "quiet": True}
    with pytest.raises(Interrupted):
        plait.fit(table_file, "label", watch=stop, **arguments)
    monkeypatch.setattr(pretrained, "present", lambda name: False)
    with pytest.raises(RecipeError, match="the encoder of 'note' is bag, was pretrained"):
        plait.fit(table_file, "label", **arguments)
