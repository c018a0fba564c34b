"""Members that a table gets, or does not: networks from scratch, and what would only repeat something."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import plait
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.encoders import pretrained
from plait.errors import RecipeError
from plait.pretrained.files import present
from plait.recipe.registry import Choice
from plait.table.read import read
from support import tiny_models
from support.tiny_models import WORDS

Photos = Callable[[int], pa.Table]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of tiny networks for images and texts on this machine."""
    monkeypatch.setitem(pretrained.DEFAULT, "text", str(tiny_models.bert(tmp_path / "tiny-bert")))
    monkeypatch.setitem(pretrained.DEFAULT, "image", str(tiny_models.vit(tmp_path / "tiny-vit")))
    monkeypatch.setattr(pretrained, "present", present)


def image(label: int, side: int) -> bytes:
    """A white picture with a black bar, upright or across."""
    pixels = np.full((side, side - 2), 255, np.uint8)
    pixels[side // 2, :] = 0
    file = io.BytesIO()
    Image.fromarray(pixels.T if label else pixels).save(file, "PNG")
    return file.getvalue()


def photos(side: int, count: int = 40) -> pa.Table:
    labels = [row % 2 for row in range(count)]
    cells = [image(label, side) for label in labels]
    return pa.table({"photo": cells, "label": ["ab"[label] for label in labels]})


def notes() -> pa.Table:
    texts = [f"{WORDS[row % 6]} {WORDS[row * 5 % 6]} {WORDS[row // 6]}" for row in range(30)]
    return pa.table({"note": texts, "label": ["ab"[row % 2] for row in range(30)]})


def planned(data: pa.Table, quality: str, *overrides: str) -> Plan:
    return Plan.make(read(data), recipe_from(None, quality=quality, overrides=overrides), "label")


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(("side", "size"), [(8, 16), (40, 48)])
def test_small_images_are_also_learned_from_scratch(side: int, size: int) -> None:
    plan = planned(photos(side), "fast")
    member = plan.ensemble.members["scratch"]
    assert member == Choice(
        name="network", encoders={"image": {"name": "vgg"}}, cells={"image": {"size": size}}
    )
    (reason,) = plan.ensemble.added
    assert reason.startswith(
        f"scratch: photo ({side} pixels a side): an encoder is also trained from scratch"
    )


@pytest.mark.usefixtures("weights")
def test_large_images_are_learned_from_scratch_by_best_alone() -> None:
    data = photos(150)
    assert "scratch" not in planned(data, "fast").ensemble.members
    assert "scratch" not in planned(data, "good").ensemble.members
    assert planned(data, "best").ensemble.members["scratch"].options["cells"] == {}


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("override", ["pretrained=off", "encoders.image=cnn", "columns.photo.encoder=cnn"])
def test_where_no_frozen_encoder_was_chosen_nothing_is_compared(override: str) -> None:
    assert "scratch" not in planned(photos(8), "fast", override).ensemble.members


@pytest.mark.usefixtures("weights")
def test_a_member_that_was_asked_for_is_named_if_left_out() -> None:
    members = "ensemble.members={mine: {name: network, scratch: {image: 20}}, line: linear}"
    plan = planned(photos(40), "fast", members)
    assert list(plan.ensemble.members) == ["line"]
    assert "mine: left out, since there are no images" in plan.ensemble.left_out[0]


@pytest.mark.usefixtures("weights")
def test_a_member_that_repeats_the_network_is_left_out() -> None:
    columns = "columns.note.modality=text"
    plan = planned(notes(), "good", columns)
    assert "frozen" not in plan.ensemble.members
    assert plan.ensemble.left_out == (
        "frozen: left out, since the network has the same encoders and fusion already",
    )
    assert "frozen" in planned(notes(), "good", columns, "fusion=gated").ensemble.members
    assert "frozen" in planned(notes(), "good", columns, "encoders.text=lstm").ensemble.members
    assert "frozen, logit sum" in planned(notes(), "best", columns).ensemble.members


def test_n_grams_are_counted_only_where_there_are_texts() -> None:
    plain = pa.table({"x": [float(row) for row in range(30)], "label": ["ab"[row % 2] for row in range(30)]})
    assert "linear with n-grams" not in planned(plain, "best").ensemble.members
    assert "linear with n-grams" in planned(notes(), "best", "columns.note.modality=text").ensemble.members


@pytest.mark.usefixtures("weights")
def test_a_network_from_scratch_is_an_ordinary_member(tmp_path: Path) -> None:
    data = photos(8, 60)
    overrides = ["training.epochs=8"]
    model = plait.fit(data, "label", quality="fast", overrides=overrides, out=tmp_path / "run", quiet=True)
    scratch = model.record["members"]["label"]["scratch"]
    assert scratch["rows"] in (12, 60)
    assert scratch["value"] > 0.5
    answers = model.predict(data)
    assert plait.load(tmp_path / "run", quiet=True).predict(data).equals(answers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("scratch: {imag: 8}", "image"),
        ("scratch: {image: 8}, encoders: {image: cnn}", "both encoders and scratch"),
        ("cells: {image: {size: 16}}", "names no encoder for it"),
        ("scratch: {image: 0}", "scratch"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: str, message: str, tmp_path: Path) -> None:
    members = f"ensemble.members={{mine: {{name: network, {options}}}}}"
    with pytest.raises(RecipeError, match=f"(?s)member 'mine': .*{message}"):
        plait.fit(notes(), "label", overrides=[members], out=tmp_path / "run", quiet=True)
