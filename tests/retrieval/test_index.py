"""An index is whole or refused: damaged files, interrupted changes, and tables that are added again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from plait.errors import ArtifactError, OutputError, RecipeError, TableError
from plait.retrieval.index import About, Index
from plait.retrieval.rows import CONTENT, content_ids, plain_columns
from plait.retrieval.seal import FILE
from plait.runs import files
from plait.runs.lock import locked
from support.damage import flips

pytest.importorskip("lancedb")

ABOUT = About("model", ("photo", "text"), 4)


def table(first: int, rows: int) -> pa.Table:
    numbers = list(range(first, first + rows))
    return pa.table({"number": numbers, "name": [f"name {number}" for number in numbers]})


def vectors(first: int, rows: int) -> np.ndarray:
    return np.random.default_rng(first).normal(size=(rows, 2, 4)).astype(np.float32)


def add(index: Index, first: int, rows: int) -> int:
    data = table(first, rows)
    return index.add(plain_columns(data).append_column(CONTENT, content_ids(data)), vectors(first, rows))


def made(folder: Path, rows: int = 20) -> Index:
    index = Index.create(folder, ABOUT, table(0, 1).schema)
    add(index, 0, rows)
    return index


def test_rows_without_an_id_column_are_not_doubled(tmp_path: Path) -> None:
    index = made(tmp_path)
    assert add(index, 0, 20) == 20
    assert add(index, 10, 20) == 30
    assert sorted(index.search(vectors(0, 1)[0, 0], "photo", k=50)["number"].to_pylist()) == list(range(30))
    assert index.plain == ["row", "number", "name"], "the hash is not shown"


def test_rows_that_are_alike_stay_apart(tmp_path: Path) -> None:
    index = Index.create(tmp_path, ABOUT, table(0, 1).schema)
    alike = pa.concat_tables([table(0, 2), table(0, 2)])
    rows = plain_columns(alike).append_column(CONTENT, content_ids(alike))
    assert index.add(rows, vectors(0, 4)) == 4
    assert index.add(rows, vectors(0, 4)) == 4


def test_an_index_that_cannot_be_locked_is_an_error_of_output(tmp_path: Path) -> None:
    index = made(tmp_path)
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").mkdir()
    with pytest.raises(OutputError, match=f"cannot write '{tmp_path / 'lock'}'"):
        index.delete("number > 5")


def test_any_flipped_byte_of_an_index_is_an_error(tmp_path: Path) -> None:
    index = made(tmp_path)
    index.delete("number = 3")
    paths = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"]
    assert {path.suffix for path in paths} >= {".lance", ".manifest", ".txn", ".arrow", ".json"}
    for path in paths:
        for _ in flips(path, count=20):
            with pytest.raises(ArtifactError, match="is damaged"):
                Index.open(tmp_path, "model")
    assert len(Index.open(tmp_path, "model")) == 19


def test_files_that_are_gone_are_an_error(tmp_path: Path) -> None:
    made(tmp_path)
    for pattern in ("*.lance", "*.manifest", FILE):
        path = next(path for path in tmp_path.rglob(pattern) if path.is_file())
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(ArtifactError):
            Index.open(tmp_path, "model")
        path.write_bytes(content)
    assert len(Index.open(tmp_path, "model")) == 20


def test_an_interrupted_addition_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("plait.retrieval.index.WRITTEN", 5)
        add_batch = index._batch

        def stop_at_the_third(rows: pa.Table, of_rows: np.ndarray, first: int) -> pa.Table:
            if first >= 30:
                raise KeyboardInterrupt
            return add_batch(rows, of_rows, first)

        patch.setattr(index, "_batch", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            add(index, 100, 20)

    for _ in range(2):
        opened = Index.open(tmp_path, "model")
        assert len(opened) == 20
        assert max(opened.search(vectors(0, 1)[0, 0], "photo", k=50)["number"].to_pylist()) == 19
    assert add(opened, 100, 20) == 40
    assert len(Index.open(tmp_path, "model")) == 40


def test_an_index_that_another_program_has_changed_is_refused(tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    made(tmp_path)
    lancedb.connect(str(tmp_path)).open_table("rows").delete("number = 3")
    with pytest.raises(ArtifactError, match=r"changed by something else|has changed"):
        Index.open(tmp_path, "model")


def test_two_changes_at_once_are_refused(tmp_path: Path) -> None:
    index = made(tmp_path)
    errors: list[str] = []

    def change() -> None:
        try:
            add(index, 50, 1)
        except RecipeError as error:
            errors.append(str(error))

    import threading

    with locked(tmp_path):
        thread = threading.Thread(target=change)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert "another change is being made of the index" in errors[0]


def test_a_place_for_an_index_is_looked_at_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a file is in the way"):
        Index.create(tmp_path / "file" / "index", ABOUT, table(0, 1).schema)


def test_a_strangers_seal_and_description_are_checked(tmp_path: Path) -> None:
    made(tmp_path)
    for entries in ({"version": "1"}, {"checksums": []}, {"extra": 1}):
        whole = {"version": 2, "changing": False, "checksums": {}, **entries}
        files.write_checked(tmp_path / FILE, whole)
        with pytest.raises(ArtifactError, match=f"is damaged: {next(iter(entries))}"):
            Index.open(tmp_path, "model")
    with pytest.raises(TableError, match="no index"):
        Index.open(tmp_path / "nothing", "model")
