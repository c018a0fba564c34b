"""The classic recipe is the primer's model: as many parameters as the Keras original, layer by layer."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

import plait
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch, Values
from plait.recipe import recipe
from plait.table.table import Table
from support.tables import make_rows, write_csv

# What keras.Model.count_params() says of each layer (Keras 3.15.1): three convolutions of 64, 128 and 256
# channels, an embedding of 10,000 words, an LSTM and three dense layers, on 224 x 224 images and 100 tokens.
KERAS = {
    "encoders.of_photo.encoder.convolutions.0": 3 * 3 * 3 * 64 + 64,
    "encoders.of_photo.encoder.convolutions.1": 3 * 3 * 64 * 128 + 128,
    "encoders.of_photo.encoder.convolutions.2": 3 * 3 * 128 * 256 + 256,
    "encoders.of_text.encoder.embedding": 10_000 * 64,
    "encoders.of_text.encoder.lstm": 4 * (64 * 64 + 64 * 64 + 64),
    "fusers.of_photo,text.fusion.mlp.0": (26 * 26 * 256 + 64) * 128 + 128,
    "fusers.of_photo,text.fusion.mlp.2": 128 * 64 + 64,
    "tasks.of_label.head": 64 + 1,
}


def build(classes: int) -> MultimodalModel:
    labels = [f"class {i}" for i in range(classes)]
    cells = {"photo": ["a"] * classes, "text": ["a b"] * classes, "label": labels}
    table = Table(pa.table(cells), Path(), "t")
    columns = {"photo": "image", "text": "text"}
    plan = Plan.make(table, recipe_from("classic", columns=columns, overrides=["split.valid=0"]), "label")
    return MultimodalModel.build(plan, Preprocessing.fit(table, plan, plan.split.train))


def test_parameters_are_those_of_the_keras_original() -> None:
    model = build(2)
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    by_layer = {
        layer: sum(n for name, n in trained.items() if name.startswith(f"{layer}.")) for layer in KERAS
    }
    assert by_layer == KERAS
    assert sum(trained.values()) == sum(KERAS.values()) == 23_211_649


def test_the_second_bias_of_the_lstm_stays_zero() -> None:
    lstm = build(2).encoders["of_text"].encoder.lstm  # type: ignore[union-attr]
    assert not lstm.bias_hh_l0.requires_grad  # type: ignore[union-attr]
    assert not lstm.bias_hh_l0.any()  # type: ignore[operator,union-attr]


def test_shapes_on_the_way_are_those_of_the_primer() -> None:
    model = build(2).eval()
    values = {
        "photo": Values(torch.rand(2, 3, 224, 224)),
        "text": Values(torch.randint(1, 10_000, (2, 100)), torch.tensor([100, 7])),
    }
    present = {c: torch.ones(2, dtype=torch.bool) for c in values}
    with torch.no_grad():
        encoded = model.encode(Batch(values, present, present, torch.arange(2)))
    assert encoded.tokens["photo"].x_BLD.shape == (2, 1, 26 * 26 * 256)
    assert encoded.tokens["text"].x_BLD.shape == (2, 1, 64)


def test_training_options_are_those_of_the_primer() -> None:
    training = recipe.load("classic").training
    options = training.model_dump()
    primer = {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "epsilon": 1e-7,
        "batch_size": 32,
        "epochs": 10,
        "weight_decay": 0,
        "clip": 0,
        "warmup": 0,
        "schedule": "constant",
        "keep": "last",
    }
    assert {name: options[name] for name in primer} == primer
    assert recipe.load("classic").split.valid == 0.2


@pytest.mark.parametrize("classes", [2, 3])
def test_it_runs_by_name_on_a_table(tmp_path: Path, classes: int) -> None:
    rows = [row for row in make_rows(tmp_path, 16) if classes == 3 or row["label"] != "blue"]
    table = write_csv(tmp_path / "t.csv", rows)
    small = [
        "training.epochs=1",
        "modalities.image.size=32",
        "columns.price.role=ignored",
        "columns.shop.role=ignored",
    ]
    model = plait.fit(table, "label", recipe="classic", out=tmp_path / "run", overrides=small, quiet=True)
    assert [column.encoder.name for column in model.plan.columns.values()] == ["cnn", "lstm"]
    head = model.artifact.model.task("label").head
    assert head.out_features == (1 if classes == 2 else 3)  # type: ignore[union-attr]
    answers = model.predict(table)
    labels = {row["label"] for row in rows}
    total = sum(answers[f"label_probability_{label}"][0].as_py() for label in labels)
    assert total == pytest.approx(1, abs=1e-5)
