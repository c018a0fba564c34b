"""What strangers and disks do to tables, recipes and runs ends in an error of plait, wherever one begins."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet
import pytest
import torch

import plait
from plait.cli.main import run
from plait.errors import PlaitError, RecipeError, TableError

ROWS = 24
EVIL = "\x1b[31mred\x07\u202e"


def columns() -> dict[str, Any]:
    numbers = np.random.default_rng(0).normal(size=ROWS)
    return {"x": numbers, "words": [f"word {row} of many" for row in range(ROWS)], "label": ["a", "b"] * 12}


def as_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def as_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


FORMATS: dict[str, Callable[[pa.Table, Path], None]] = {
    "arrow": as_arrow,
    "arrows": as_stream,
    "feather": lambda table, path: pa.feather.write_feather(table, str(path)),
    "parquet": lambda table, path: pa.parquet.write_table(table, path),
    "orc": lambda table, path: pa.orc.write_table(table, str(path)),
}


@pytest.mark.parametrize("ending", FORMATS)
def test_a_damaged_table_ends_in_an_error_of_plait(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{ending}"
    FORMATS[ending](pa.table({**columns(), "lists": [[row] * (row % 4) for row in range(ROWS)]}), path)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    refused = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        damaged = whole.copy()
        damaged[rng.integers(8, len(whole), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            plait.inspect(path, probe=False)
        except PlaitError:
            refused += 1
    assert refused


def aliases() -> bytes:
    """Return a list that refers to lists, which refer to lists: 2^24 entries if all are written out."""
    lines = ["a: &a [1, 1]"]
    for number in range(ord("a"), ord("x")):
        before, name = chr(number), chr(number + 1)
        lines.append(f"{name}: &{name} [*{before}, *{before}]")
    return "\n".join(lines).encode()


RECIPES = {
    "another encoding": (b"seed: 1 # \xe9", "is not text in UTF-8"),
    "nested": (b"[" * 5000, "expected at most 50 levels"),
    "aliases": (aliases(), "aliases written out"),
    "code": (b"!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    "an absurd number": (b"training: {epochs: 100000000000000}", "expected 1 to 1,000,000"),
    "a number that is none": (b"training: {learning_rate: .nan}", "expected a finite number"),
    "many digits": (b"seed: " + b"1" * 5000, "is not valid YAML"),
    "an infinite number": (b"training: {learning_rate: 1.0e+400}", "expected a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_strange_recipe_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    content, message = RECIPES[name]
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        plait.fit(
            pa.table(columns()),
            "label",
            recipe=str(tmp_path / "recipe.yaml"),
            out=tmp_path / "run",
            quiet=True,
        )
    assert not (tmp_path / "run").exists()


# --- models ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model whose columns have names that steer terminals."""
    folder = tmp_path_factory.mktemp("run") / "run"
    table = pa.table(columns()).rename_columns([EVIL, "words", "label"])
    plait.fit(table, "label", out=folder, overrides=["training.epochs=1"], quiet=True)
    return folder


USES: dict[str, Callable[[plait.Model, pa.Table], object]] = {
    "load": lambda model, table: plait.load(model.folder),
    "predict": lambda model, table: model.predict(table),
    "evaluate": lambda model, table: model.evaluate(table),
    "embed": lambda model, table: model.embed(table),
    "inspect": lambda model, table: plait.inspect(table, "label"),
}


@pytest.mark.parametrize("name", USES)
def test_a_use_leaves_the_callers_random_numbers_alone(name: str, folder: Path) -> None:
    table = pa.table(columns()).rename_columns([EVIL, "words", "label"])
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    USES[name](plait.load(folder, quiet=True), table)
    assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == before


def test_a_model_that_is_shown_cannot_steer_the_terminal(folder: Path) -> None:
    shown = repr(plait.load(folder))
    assert r"\x1b[31mred\x07\u202e" in shown
    assert not set(EVIL) & set(shown) - set("[31mred")


def test_a_report_replaces_links_and_follows_none(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("report.html", "README.md"):
        (tmp_path / "run" / name).unlink()
        (tmp_path / "run" / name).symlink_to(victim)
    assert run(["report", str(tmp_path / "run")]) == 0
    assert victim.read_text() == "precious"
    assert not (tmp_path / "run" / "report.html").is_symlink()


@pytest.mark.parametrize(
    ("out", "message"),
    [("file/run", "a file is in the way"), ("a\0b", "NUL character"), ("x" * 300, "the name is too long")],
)
def test_a_run_that_cannot_be_written_is_refused_first(out: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlaitError, match=message):
        plait.fit("no-table.csv", "label", out=f"{tmp_path}/{out}")


def test_the_index_of_the_same_table_again_has_no_more_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.table({"words": columns()["words"], "other": columns()["words"]})
    pa.parquet.write_table(table, tmp_path / "table.parquet")
    plait.fit(
        table, align=["words", "other"], out=tmp_path / "run", overrides=["training.epochs=1"], quiet=True
    )
    for _ in range(2):
        assert run(["index", str(tmp_path / "run"), str(tmp_path / "table.parquet")]) == 0
        assert f"{ROWS} rows" in "".join(capsys.readouterr())


def test_rows_without_a_column_are_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="has no column 'label'"):
        plait.fit([{}] * ROWS, "label", out=tmp_path / "run")
