"""The cache prepares a cell once, across runs, processes and kills, and stays within its limit."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plait
from plait.errors import PlaitError
from plait.media import cache, cache_packs
from plait.media.cache import Cache
from plait.media.cell import Cell, Media
from plait.modalities.image import Image
from support.damage import flips
from support.media import wav, wave
from support.tables import FAST, make_rows, write_csv


def array(seed: int, size: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, 2), dtype=np.uint8)


def test_a_stored_cell_is_read_back_here_and_in_the_next_run(tmp_path: Path) -> None:
    with Cache(tmp_path, 1e9) as store:
        for i in range(5):
            stored = store.put("image", bytes([i]), Cell(array(i), ("note",) if i else ()))
            assert np.array_equal(stored.array, array(i))  # type: ignore[arg-type]
        store.put("image", b"bad", Cell(None, ("broken",)))
        assert store.get("other", b"\0") is None
    with Cache(tmp_path, 1e9) as next_run:
        for i in range(5):
            cell = next_run.get("image", bytes([i]))
            assert cell is not None
            assert np.array_equal(cell.array, array(i))  # type: ignore[arg-type]
            assert cell.notes == (("note",) if i else ())
        bad = next_run.get("image", b"bad")
        assert bad is not None
        assert (bad.array, bad.notes) == (None, ("broken",))
        assert (next_run.usage().cells, next_run.usage().bad) == (6, 1)
        next_run.clear()
        assert next_run.usage().cells == next_run.usage().bytes == 0


def test_a_file_is_hashed_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    with Cache(tmp_path / "cache", 1e9) as cells:
        first = Media("a.bin", tmp_path, cells).digest
    with Cache(tmp_path / "cache", 1e9) as cells:
        assert cells.digest_of(str(path), path.stat()) == first
        path.write_bytes(b"two!")
        assert cells.digest_of(str(path), path.stat()) is None
        assert Media("a.bin", tmp_path, cells).digest != first


def test_the_least_recently_used_packs_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_packs, "SIZE", 100_000)
    for run in range(4):
        with Cache(tmp_path, 1e9) as cells:
            cells.put("x", bytes([run]), Cell(array(run, 50_000)))
        time.sleep(0.02)
    with Cache(tmp_path, 1e9) as cells:
        assert cells.get("x", b"\0") is not None  # used again
    with Cache(tmp_path, 250_000) as cells:
        pass
    with Cache(tmp_path, 1e9) as cells:
        assert [cells.get("x", bytes([run])) is not None for run in range(4)] == [True, False, False, True]
        assert cells.usage().bytes <= 250_000


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with Cache(tmp_path, 1e9) as cells:
        assert np.array_equal(cells.put("x", b"\0", Cell(array(0))).array, array(0))  # type: ignore[arg-type]
        assert cells.get("x", b"\0") is None
    assert not list(tmp_path.glob("*.pack"))


def filled(folder: Path, count: int = 12) -> Path:
    """Fill a cache, and return its only pack."""
    with Cache(folder, 1e9) as cells:
        for i in range(count):
            cells.put("image", bytes([i]), Cell(array(i), (f"note {i}",)))
            cells.put("bad", bytes([i]), Cell(None, ("broken",)))
            cells.remember(f"{i}.png", os.stat(folder), bytes([i]))
    (pack,) = folder.glob("*.pack")
    return pack


def read_all(folder: Path, count: int = 12) -> int:
    """Return the number of arrays that a cache still has. Each of them must be the one that was put."""
    found = 0
    with Cache(folder, 1e9) as cells:
        for i in range(count):
            image, bad = cells.get("image", bytes([i])), cells.get("bad", bytes([i]))
            if image is not None:
                found += 1
                assert np.array_equal(image.array, array(i))  # type: ignore[arg-type]
                assert image.notes == (f"note {i}",)
            assert bad is None or (bad.array, bad.notes) == (None, ("broken",))
            cells.digest_of(f"{i}.png", os.stat(folder))
    return found


def test_a_flipped_byte_costs_one_entry_and_gives_no_other_array(tmp_path: Path) -> None:
    pack = filled(tmp_path)
    database = (tmp_path / "index.sqlite").read_bytes()
    for _ in flips(pack):
        assert read_all(tmp_path) == 11
        (tmp_path / "index.sqlite").write_bytes(database)
    assert read_all(tmp_path) == 12


def test_a_damaged_database_gives_no_other_array_and_no_error(tmp_path: Path) -> None:
    pack = filled(tmp_path)
    index, arrays = tmp_path / "index.sqlite", pack.read_bytes()
    database = index.read_bytes()
    for number, _ in enumerate(flips(index)):
        read_all(tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()
        pack.write_bytes(arrays)
        if number % 20 == 0:
            index.write_bytes(database[: len(database) * number // 200])
            read_all(tmp_path)
            index.unlink()


def test_a_digest_of_a_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    filled(tmp_path)
    status = os.stat(tmp_path)
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as database, database:
        database.execute(
            "UPDATE files SET digest = ?, size = ?, changed = ?", (b"x", status.st_size, status.st_mtime_ns)
        )
    with Cache(tmp_path, 1e9) as cells:
        assert cells.digest_of("3.png", status) is None


def test_a_cache_that_fails_is_left_out_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(cache, "EVERY", 0)
    with Cache(tmp_path, 1e9, told.append) as cells:
        cells.put("x", b"0", Cell(array(0)))

        def full(*arguments: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(cells, "_commit", full)
        for i in range(3):
            assert np.array_equal(cells.put("x", bytes([i]), Cell(array(i))).array, array(i))  # type: ignore[arg-type]
            assert cells.get("x", b"0") is None
            cells.remember("a", os.stat(tmp_path), b"1")
    assert [text for text in told if "database or disk is full" in text] == told
    assert len(told) == 1


def test_the_tables_of_another_version_are_replaced(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as database, database:
        database.execute("CREATE TABLE cells (identity TEXT)")
        database.execute("CREATE TABLE files (path TEXT)")
    filled(tmp_path)
    assert read_all(tmp_path) == 12


WRITER = """
import sys, time, numpy as np
from contextlib import closing
from pathlib import Path
from plait.media.cache import Cache
from plait.media.cell import Cell
who, forever = int(sys.argv[2]), sys.argv[3] == "forever"
with Cache(Path(sys.argv[1]), 1e9) as cells:
    i = 0
    while forever or i < 300:
        cells.put("x", f"{who}-{i}".encode(), Cell(np.full((1000, 2), (who * 7 + i) % 251, np.uint8)))
        cells.put("both", f"{i}".encode(), Cell(np.full((10, 2), i % 251, np.uint8)))
        i += 1
        if forever:
            time.sleep(0.005)
        if i == 200:
            print("ready", flush=True)
"""


def start(folder: Path, who: int, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(who), how], stdout=subprocess.PIPE, text=True
    )


def test_a_new_cache_waits_for_another_process_that_writes(tmp_path: Path) -> None:
    """SQLite itself does not wait here.

    It says "locked" at once to a process that changes the journal's mode while another is about to write.
    """
    writer = sqlite3.connect(tmp_path / "index.sqlite", check_same_thread=False)
    writer.executescript("CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
    release = threading.Timer(0.3, writer.commit)
    release.start()
    with Cache(tmp_path, 1e9):
        assert not release.is_alive()
    writer.close()


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    with start(tmp_path, 1, "300") as first_process, start(tmp_path, 2, "300") as second_process:
        assert [w.wait(120) for w in (first_process, second_process)] == [0, 0]
    with Cache(tmp_path, 1e9) as cells:
        for who in (1, 2):
            for i in range(300):
                cell = cells.get("x", f"{who}-{i}".encode())
                assert cell is not None
                assert (cell.array == (who * 7 + i) % 251).all()


def test_a_killed_process_leaves_a_cache_that_works(tmp_path: Path) -> None:
    with start(tmp_path, 1, "forever") as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(4)
        os.kill(writer.pid, signal.SIGKILL)
    with Cache(tmp_path, 1e9) as cells:
        cells_by_number = [(i, cells.get("x", f"1-{i}".encode())) for i in range(5000)]
        readable = [(i, cell) for i, cell in cells_by_number if cell is not None]
        assert readable, "two seconds of work are committed"
        assert all((cell.array == (7 + i) % 251).all() for i, cell in readable)
        cells.put("x", b"new", Cell(array(1)))
    with Cache(tmp_path, 1e9) as cells:
        assert cells.get("x", b"new") is not None


def test_a_second_fit_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    rows = make_rows(tmp_path, 48)
    for i, row in enumerate(rows):
        (tmp_path / f"{i}.wav").write_bytes(wav(wave(0.2, seed=i)))
        row["sound"] = f"{i}.wav"
    rows[7]["photo"] = "0.wav"
    table = write_csv(tmp_path / "train.csv", rows)
    prepared: list[Media] = []
    prepare = Image.prepare

    def count_and_prepare(self: Image, media: Media) -> Cell:
        prepared.append(media)
        return prepare(self, media)

    monkeypatch.setattr(Image, "prepare", count_and_prepare)

    def fit(name: str, **options: Any) -> plait.Model:
        return plait.fit(
            table,
            "label",
            out=tmp_path / name,
            overrides=[*FAST, *(f"{k}={v}" for k, v in options.items())],
            quiet=True,
        )

    first_run = fit("first")
    assert len(prepared) == 48
    second_run = fit("second")
    assert len(prepared) == 48
    first_losses, second_losses = (
        [epoch["loss"] for epoch in run.record["history"]] for run in (first_run, second_run)
    )
    assert first_losses == second_losses
    problems = [(tmp_path / name / "problems.csv").read_text() for name in ("first", "second")]
    assert problems[0] == problems[1]
    assert "7,photo" in problems[0]
    plait.fit(
        table, "label", out=tmp_path / "third", overrides=[*FAST, "modalities.image.background=9"], quiet=True
    )
    assert len(prepared) == 96  # prepared in another way
    assert list(first_run.predict(table)["label"].to_pylist())
    assert len(prepared) == 96  # predicting finds them too


def test_a_folder_that_cannot_be_written_to_gives_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "file"))
    messages: list[str] = []
    assert cache.open_store(messages.append) is None
    assert "no cache of prepared cells" in messages[0]
    monkeypatch.setenv("PLAIT_CACHE", "off")
    assert cache.open_store(messages.append) is None
    assert len(messages) == 1


@pytest.mark.parametrize("limit", ["much", "inf", "nan", "-1", "1e300"])
def test_a_limit_that_is_no_number_of_gigabytes_is_an_error(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PLAIT_CACHE_LIMIT", limit)
    with pytest.raises(PlaitError, match=f"PLAIT_CACHE_LIMIT is '{limit}'; expected a number of gigabytes"):
        cache.open_store()
    with pytest.raises(PlaitError, match="expected a number of gigabytes"):
        cache.show()
