"""Every command that reads a table says what it had to guess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import plait
from plait.cli.main import run

ROWS = 24
WORDS = ("haus", "tür", "straße", "garten")
NOTE = "is not UTF-8; it was read as cp1252"
FAST = ["--set", "training.epochs=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in cp1252, and models that predict from it and that align its texts."""
    folder = tmp_path_factory.mktemp("notes")
    lines = ["title,body,size,label"]
    for row in range(ROWS):
        word = WORDS[row % 4]
        lines.append(f"ein {word} mit nummer {row},das {word} {row} ist schön,{row * 7 % 11},{'ab'[row % 2]}")
    (folder / "t.csv").write_bytes("\n".join(lines).encode("cp1252"))
    texts = {"title": "text", "body": "text"}
    overrides = ["training.epochs=1"]
    plait.fit(folder / "t.csv", "label", out=folder / "model", overrides=overrides, quiet=True)
    plait.fit(
        folder / "t.csv", align=["title", "body"], columns=texts, out=folder / "pairs", overrides=overrides,
        quiet=True,
    )  # fmt: skip
    return folder


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "fit": lambda folder, out: ["fit", f"{folder}/t.csv", "--target", "label", "--out", str(out), *FAST],
    "tune": lambda folder, out: [
        "tune", f"{folder}/t.csv", "--target", "label", "--trials", "1", "--out", str(out), *FAST,
    ],
    "inspect": lambda folder, out: ["inspect", f"{folder}/t.csv", "--target", "label"],
    "predict": lambda folder, out: ["predict", f"{folder}/model", f"{folder}/t.csv"],
    "evaluate": lambda folder, out: ["evaluate", f"{folder}/model", f"{folder}/t.csv"],
    "embed": lambda folder, out: ["embed", f"{folder}/model", f"{folder}/t.csv", "-o", f"{out}.jsonl"],
    "index": lambda folder, out: ["index", f"{folder}/pairs", f"{folder}/t.csv", "--index", str(out)],
    "classify": lambda folder, out: [
        "classify", f"{folder}/pairs", f"{folder}/t.csv", "--labels", "haus,garten", "--column", "title",
        "--text", "body",
    ],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_how_a_table_was_read(
    command: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command in ("index", "tune"):
        pytest.importorskip({"index": "lancedb", "tune": "optuna"}[command])
    assert run(COMMANDS[command](folder, tmp_path / "out")) == 0
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert NOTE in said
    if command == "tune":
        assert said.index(NOTE) < said.index("trials, the best first"), "before the trials, not after them"
