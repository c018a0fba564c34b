"""Media cells that cannot be read: each has its reason, none crashes, none is replaced."""

from __future__ import annotations

import io
import os
import re
import stat
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
import torch
from PIL import Image

import plait
from plait.errors import BadCell, TableError
from plait.media.cell import Media, is_file
from plait.media.loading import Arrays, Held, load_together
from plait.modalities.base import modalities
from plait.table.table import Source
from support.media import clip, encoded, wav, wave
from support.tables import FAST, make_rows


def modality(name: str, **options: Any) -> Any:
    return modalities.find(name).fit(modalities.configure(name, options), pa.chunked_array([pa.nulls(0)]))


SMALL = {
    "image": modality("image", size=16),
    "audio": modality("audio", bands=16),
    "video": modality("video", size=16, frames=4),
}


def png(size: tuple[int, int] = (40, 30), kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_of_wrong_path_gives_its_reason(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "note.png").write_text("I am a text")
    os.mkfifo(tmp_path / "pipe.png")
    cells = [
        "gone.png",
        "folder.png",
        "empty.png",
        "note.png",
        "pipe.png",
        "https://example.org/a.png",
        "HTTP://example.org",
        "x" * 5000,
        "a\0b",
        None,
    ]
    loaded = SMALL[name].load(pa.chunked_array([pa.array(cells)]), Source("column", tmp_path))
    reasons = [p.reason for p in loaded.problems]
    expected = [
        "no such file",
        "a folder",
        "an empty file",
        "not an image|neither audio nor video",
        "neither a file",
        "a URL",
        "a URL",
        "cannot be opened",
        "cannot be opened",
    ]
    assert [p.row for p in loaded.problems] == list(range(9))
    for pattern, reason in zip(expected, reasons, strict=True):
        assert re.search(pattern, reason)
    assert not loaded.present.any()


STRANGE = {
    "255 bytes": "x" * 255,
    "256 bytes": "x" * 256,
    "256 bytes of two each": "é" * 128,
    "999 characters": "x" * 999,
    "999 words": "x y " * 250,
    "a long folder": f"{'x' * 300}/a",
    "many folders": "a/" * 3000,
    "ten megabytes": "x" * 10_000_000,
    "a million folders": "a/" * 1_000_000,
    "null": "a\0b",
    "spaces": "   ",
    "line end": "\n",
    "parent": "..",
    "many parents": "../" * 400,
    "root": "/",
    "device": "/dev/null",
    "drive": "C:\\a.png",
    "share": "\\\\server\\share\\a.png",
    "reserved": "CON",
    "home": "~/a.png",
    "URL": "https://example.org/" + "a" * 300,
    "markup": "[/red] <b> {} %s",
    "escape": "\x1b[31m",
    "no character": "\ufffe\uffff",
}
ONE_EPOCH = ["training.epochs=1"]
HALVES = {"first half": "\ud800", "second half": "\udfff", "byte": "a\udcff"}  # of surrogate pairs


@pytest.mark.parametrize("cell", [*STRANGE.values(), *HALVES.values()], ids=[*STRANGE, *HALVES])
def test_strange_strings_name_no_file(cell: str, tmp_path: Path) -> None:
    assert not is_file(cell, tmp_path)
    with pytest.raises(BadCell):
        Media(cell, tmp_path)


def test_the_name_of_a_file_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "é 1.png").touch()
    (tmp_path / "folder").mkdir()
    assert is_file("é 1.png", tmp_path)
    assert is_file("folder/../é 1.png", tmp_path)
    assert is_file(str(tmp_path / "é 1.png"), Path("/"))
    assert not is_file("é 1.png", tmp_path / "folder")
    assert not is_file("folder", tmp_path)


@pytest.mark.parametrize("form", ["{cell}", "{row} {cell}", "{cell}{row}.png", "{row}{cell}.pdf"])
@pytest.mark.parametrize("cell", STRANGE.values(), ids=STRANGE)
def test_strange_strings_are_inspected(cell: str, form: str, tmp_path: Path) -> None:
    texts = [form.format(cell=cell[:1_000_000], row=row) for row in range(8)]
    rows = [{"text": text, "price": float(row), "label": "ab"[row % 2]} for row, text in enumerate(texts)]
    assert plait.inspect(rows, "label", root=tmp_path, probe=False).schema.rows == 8


@pytest.mark.parametrize("length", [256, 999])
def test_a_column_of_long_strings_is_text(length: int, tmp_path: Path) -> None:
    rows = [{"text": f"{row} ".ljust(length, "xy"[row % 2]), "label": "ab"[row % 2]} for row in range(24)]
    model = plait.fit(rows, "label", root=tmp_path, out=tmp_path / "run", overrides=ONE_EPOCH, quiet=True)
    assert model.schema["text"].modality == "text"
    assert model.predict(rows[:2], root=tmp_path).num_rows == 2


def test_a_fit_reads_strange_strings(tmp_path: Path) -> None:
    strange = [cell[:100_000] for cell in STRANGE.values()]
    texts = [f"{strange[row % len(strange)]} is in row {row}" for row in range(48)]
    rows = [{"text": text, "label": "ab"[row % 2]} for row, text in enumerate(texts)]
    model = plait.fit(rows, "label", root=tmp_path, out=tmp_path / "run", overrides=ONE_EPOCH, quiet=True)
    answers = model.predict([{"text": cell} for cell in strange], root=tmp_path)
    assert answers.num_rows == len(strange)


@pytest.mark.parametrize("cell", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("frame", [list, partial(pandas.DataFrame, dtype=object)], ids=["rows", "pandas"])
def test_halves_of_surrogate_pairs_give_an_error(cell: str, frame: Any, tmp_path: Path) -> None:
    rows = frame([{"text": cell, "label": label} for label in "abab"])
    with pytest.raises(TableError, match="surrogate pair"):
        plait.inspect(rows, "label")
    with pytest.raises(TableError, match="surrogate pair"):
        plait.fit(rows, "label", out=tmp_path / "run", quiet=True)


@pytest.mark.parametrize("text", ["x" * 256, "x" * 10_000, "a\0b", "\ud800"])
def test_a_strange_string_is_no_table(text: str) -> None:
    with pytest.raises(TableError):
        plait.inspect(text, "label")


def test_strings_that_are_not_utf8_give_an_error(tmp_path: Path) -> None:
    """Arrow checks nothing when it reads a file; its cells fail later, one by one."""
    offsets = pa.array([0, 1, 2], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff")])
    with pytest.raises(TableError, match="column 'text' is not valid"):
        plait.inspect(pa.table({"text": broken, "label": ["a", "b"]}), "label")


def test_a_file_without_permission_gives_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    access = os.access

    def deny_secrets(path: Any, mode: int) -> bool:
        """Deny one file; a test that runs as root may open every other."""
        return not str(path).endswith("secret.png") and access(path, mode)

    monkeypatch.setattr(os, "access", deny_secrets)
    with pytest.raises(BadCell, match="permission denied"):
        Media("secret.png", tmp_path)
    (tmp_path / "secret.png").chmod(stat.S_IRWXU)


def test_images_of_absurd_size_are_not_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    with pytest.raises(BadCell, match="absurd size"):
        SMALL["image"].prepare(Media(buffer.getvalue(), Path()))


GOOD = {
    "image": [png(), png(kind="JPEG"), png(kind="GIF"), png(kind="WEBP"), png(kind="BMP"), png(kind="TIFF")],
    "audio": [
        wav(wave(0.6)),
        wav(wave(0.6), kind="FLAC"),
        encoded(wave(0.6), "mp3", "libmp3lame"),
        wav(wave(0.6), kind="OGG", subtype="VORBIS"),
        encoded(wave(0.6), "ogg", "libopus", 48_000),
        encoded(wave(0.6), "ipod", "aac"),
        clip(6, sound=wave(0.3)),
    ],
    "video": [
        clip(12),
        clip(12, "webm", "libvpx"),
        clip(12, "avi", "mpeg4"),
        clip(12, "matroska", sound=wave(0.5)),
        clip(12, "mpegts"),
        png(kind="GIF"),
    ],
}


def corrupted(seed: int, data: bytes, donor: bytes) -> tuple[str, bytes]:
    """Truncate a file, flip some of its bytes, or splice in bytes of another file, the `donor`."""
    rng = np.random.default_rng(seed)
    damage = ["truncate", "flip", "splice"][seed % 3]
    if damage == "truncate":
        return damage, data[: int(rng.integers(1, len(data) - len(data) // 10))]
    if damage == "flip":
        changed = bytearray(data)
        for offset in rng.integers(0, len(data), int(rng.integers(1, 20))):
            changed[offset] ^= int(rng.integers(1, 256))
        return damage, bytes(changed)
    first, last = sorted(int(i) for i in rng.integers(0, len(data), 2))
    start = int(rng.integers(0, len(donor)))
    return damage, data[:first] + donor[start : start + last - first] + data[last:]


@pytest.mark.parametrize("name", GOOD)
def test_a_corrupted_file_is_refused_or_read_completely(name: str) -> None:
    """A damaged file gives an array of the right shape, or a reason.

    A truncated file gives a reason, unless what is read of it is complete: only its index is missing, say.
    Transport streams state no end, so nobody can tell whether one is truncated.
    """
    files, small = GOOD[name], SMALL[name]
    reasons: set[str] = set()
    intact = [small.prepare(Media(data, Path())).array for data in files]
    for seed in range(500 // len(GOOD) + 1):
        number = seed % len(files)
        damage, data = corrupted(seed, files[number], files[(number + 1) % len(files)])
        try:
            cell = small.prepare(Media(data, Path()))
        except BadCell as bad:
            reasons.add(bad.reason)
            continue
        if cell is None:  # a column of audio files gives this reason
            reasons.add(small.nothing)
            continue
        first_fixed = 1 if small.ragged else 0
        assert cell.array.shape[first_fixed:] == small.shape[first_fixed:]
        if cell.array.dtype == np.float16:
            assert np.isfinite(cell.array).all()
        has_stated_end = name != "video" or number != 4
        if damage == "truncate" and has_stated_end:
            assert np.array_equal(cell.array, intact[number]), (
                f"{name} {number}, seed {seed}: {len(data)} of {len(files[number])} bytes pass for all"
            )
    assert len(reasons) > 2
    assert all(reasons)


def test_frames_and_audio_of_a_column_are_read_together(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(clip(8, sound=wave(0.4)))
    (tmp_path / "b.mp4").write_bytes(clip(8))
    (tmp_path / "c.mp4").write_bytes(clip(8)[:500])
    cells = pa.chunked_array([pa.array(["a.mp4", "b.mp4", "c.mp4", None])])
    sources = [Source("clip", tmp_path), Source("clip.sound", tmp_path, part=True)]
    frames, audio = load_together([SMALL["video"], SMALL["audio"]], cells, sources)
    assert frames.present.tolist() == [True, True, False, False]
    assert audio.present.tolist() == [True, False, False, False]
    problems = [(problem.row, problem.column) for problem in [*frames.problems, *audio.problems]]
    assert problems == [(2, "clip"), (2, "clip.sound")], "a video without audio, as in row 1, is no problem"


def test_odd_cells_give_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(tmp_path, 48)
    for i, row in enumerate(rows):
        (tmp_path / f"{i}.wav").write_bytes(wav(wave(0.2, seed=i) * (0 if i in (3, 5) else 1)))
        (tmp_path / "same.mp4").write_bytes(
            clip(4, draw=lambda step, size: np.zeros((size[1], size[0], 3), np.uint8))
        )
        row["sound"], row["clip"] = f"{i}.wav", "same.mp4"
    options = [option for option in FAST if "epochs" not in option]
    plait.fit(rows, "label", root=tmp_path, out=tmp_path / "run", overrides=[*options, "training.epochs=1"])
    messages = capsys.readouterr().err
    assert "column 'sound': 2 cells are silent (rows 3, 5)" in messages
    assert "column 'clip': 48 cells are black in every frame looked at" in messages
    assert "column 'clip': every cell has the same content" in messages
    assert "in both the training and the validation rows" in messages


@pytest.mark.parametrize("ragged", [False, True])
def test_held_media_are_the_same_a_few_at_a_time_or_all_at_once(ragged: bool) -> None:
    rng = np.random.default_rng(0)
    arrays: list[np.ndarray | None] = [
        rng.integers(0, 255, (4 - i if ragged else 4, 3), dtype=np.uint8) for i in range(3)
    ]
    arrays.insert(1, None)
    held = Held(Arrays(arrays, (0, 3) if ragged else (4, 3), torch.uint8, ragged))
    items = torch.tensor([3, 0, 1])
    few = held.some(items)
    assert "x" not in vars(held), "nothing else was copied"
    all_at_once = held.take(items)
    assert len(held) == 4
    assert torch.equal(few.x, all_at_once.x)
    assert all_at_once.x.shape == (3, 4, 3)
    assert not all_at_once.x[2].any()
    if ragged:
        assert few.length_B is not None
        assert few.length_B.tolist() == [2, 4, 0] == all_at_once.length_B.tolist()  # type: ignore[union-attr]
    assert torch.equal(held.some(items).x, few.x), "once all are in one tensor, from it"
