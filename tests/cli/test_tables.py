"""The command line with the tables that people really have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import plait
from plait.cli.main import run
from plait.table.read import read
from support.tables import FAST, make_rows, write_csv

ROWS = 48


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model in `run`, beside its table and photos."""
    folder = tmp_path_factory.mktemp("tables")
    rows = make_rows(folder, ROWS)
    for row in rows:
        row["name, of it"] = row.pop("shop")
    write_csv(folder / "train.csv", rows)
    plait.fit(folder / "train.csv", "label", out=folder / "run", overrides=FAST, quiet=True)
    return folder


def as_utf_16(text: str) -> tuple[str, bytes]:
    return "t.txt", text.replace(",", "\t").encode("utf-16")


def as_gzip(text: str) -> tuple[str, bytes]:
    import gzip

    return "t.csv.gz", gzip.compress(text.encode())


def as_pipes(text: str) -> tuple[str, bytes]:
    return "t.csv", text.replace(",", "|").encode()


@pytest.mark.parametrize("form", [as_utf_16, as_gzip, as_pipes])
def test_answers_do_not_depend_on_how_the_table_is_written(
    trained: Path, tmp_path: Path, form: Callable[[str], tuple[str, bytes]]
) -> None:
    rows = read(trained / "train.csv").data.drop_columns(["name, of it"]).to_pylist()
    for row in rows:
        row["photo"] = str(trained / row["photo"])
    expected = write_csv(tmp_path / "plain.csv", rows)
    name, data = form(expected.read_text())
    (tmp_path / name).write_bytes(data)
    answers = []
    for table in (expected, tmp_path / name):
        out = tmp_path / f"{table.name}.parquet"
        assert run(["predict", str(trained / "run"), str(table), "-o", str(out)]) == 0
        answers.append(read(out).data)
    assert answers[0].equals(answers[1])


def test_answers_go_into_a_folder_that_is_not_there(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "answers.csv"
    assert run(["predict", str(trained / "run"), str(trained / "train.csv"), "-o", str(out)]) == 0
    assert len(read(out)) == ROWS


def test_an_output_is_checked_before_the_work(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "answers.csv")
    assert run(["predict", str(tmp_path / "no model"), "no table", "-o", out]) == 1
    assert "a file is in the way of its folder" in capsys.readouterr().err


def test_a_flat_folder_of_photos_is_predicted_file_by_file(trained: Path, tmp_path: Path) -> None:
    for number in range(3):
        shutil.copy(trained / "photos" / f"0-{number}.png", tmp_path / f"{number}.png")
    answers = plait.load(trained / "run").predict(tmp_path)
    assert answers.num_rows == 3
    assert answers["problem"].null_count == 3
    assert set(answers["label"].to_pylist()) <= {"red", "green", "blue"}


def test_what_was_guessed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{number};Zoé und Jörg;{number % 2}\n" for number in range(20))
    (tmp_path / "t.csv").write_bytes(f"Bericht 2023\n\nzahl;städte;label\n{rows}5;x\n".encode("cp1252"))
    assert run(["inspect", str(tmp_path / "t.csv"), "--target", "label"]) == 0
    said = capsys.readouterr().out
    assert "is not UTF-8; it was read as cp1252" in said
    assert "what stands above the header was left out: 'Bericht 2023'" in said
    assert "1 row has fewer than 3 cells" in said


def test_a_console_that_is_not_utf_8(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", [{"名字": f"值{n}", "\x1b[31mx": n, "y": n % 2} for n in range(20)])
    done = subprocess.run(
        [sys.executable, "-m", "plait", "inspect", str(table), "--target", "y"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u540d\\u5b57" in done.stdout
    assert b"\\x1b[31mx" in done.stdout
    assert b"\x1b" not in done.stdout


def test_standard_input(tmp_path: Path) -> None:
    table = "x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(20))
    done = subprocess.run(
        [sys.executable, "-m", "plait", "inspect", "-", "--target", "y"],
        input=table.encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"standard input: 20 rows, 2 columns" in done.stdout
