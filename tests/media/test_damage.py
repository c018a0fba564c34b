"""Whatever a decoder raises becomes a bad cell, formats with checksums are checked, and bombs are bounded."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from plait.errors import BadCell, PlaitError
from plait.media import memory, still
from plait.media.cell import Cell, Media, Nowhere
from plait.media.image import Framing
from plait.media.loading import load_together
from plait.media.memory import Budget
from plait.modalities.base import modalities
from plait.table.table import Source
from support.files import animation, black_png, inspected, photo, plain_mp3, saved
from support.media import RATE, clip, encoded, wav, wave, within


def modality(name: str, **options: Any) -> Any:
    return modalities.find(name).fit(modalities.configure(name, options), pa.chunked_array([pa.nulls(0)]))


SMALL = {
    "image": modality("image", size=16),
    "audio": modality("audio", bands=16),
    "video": modality("video", size=16, frames=4),
}
FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": ("image", lambda: saved(photo(), "PNG")),
    "jpeg": ("image", lambda: saved(photo(), "JPEG")),
    "mpo": ("image", lambda: saved(photo(), "MPO", save_all=True, append_images=[photo(1)])),
    "gif": ("image", lambda: saved(photo(), "GIF")),
    "tiff": ("image", lambda: animation("TIFF", compression="tiff_lzw")),
    "webp": ("image", lambda: saved(photo(), "WEBP")),
    "avif": ("image", lambda: saved(photo(), "AVIF")),
    "ico": ("image", lambda: saved(photo(), "ICO")),
    "tga": ("image", lambda: saved(photo(), "TGA")),
    "flac": ("audio", lambda: wav(wave(0.5), kind="FLAC")),
    "wav": ("audio", lambda: wav(wave(0.5))),
    "mp3": ("audio", lambda: encoded(wave(0.5), "mp3", "libmp3lame")),
    "m4a": ("audio", lambda: encoded(wave(0.5), "ipod", "aac")),
    "opus": ("audio", lambda: encoded(wave(0.5), "ogg", "libopus", 48_000)),
    "aiff": ("audio", lambda: wav(wave(0.5), kind="AIFF")),
    "w64": ("audio", lambda: wav(wave(0.5), kind="W64")),
    "animated gif": ("video", animation),
    "animated webp": ("video", lambda: animation("WEBP")),
    "mp4": ("video", lambda: clip(6)),
    "matroska": ("video", lambda: clip(6, "matroska")),
}
CHECKED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": FILES["png"],
    "animated png": ("video", lambda: animation("PNG")),
    "flac": FILES["flac"],
    "flac of 24 bits": ("audio", lambda: wav(wave(0.5), kind="FLAC", subtype="PCM_24")),
    "stereo flac": ("audio", lambda: wav(np.stack([wave(0.5), wave(0.5, 900)], 1), kind="FLAC")),
    "vorbis": ("audio", lambda: wav(wave(0.5), kind="OGG", subtype="VORBIS")),
    "opus": FILES["opus"],
}
LIBRARY_WORDS = re.compile(r"0x[0-9a-f]{6}|Errno|avcodec|libtiff|PIL|Traceback|<.* object", re.IGNORECASE)


@pytest.mark.parametrize("name", FILES)
def test_any_damage_makes_a_bad_cell_with_plain_words(name: str) -> None:
    kind, make = FILES[name]
    intact = make()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        damaged = bytearray(intact)

        # headers are short, so half of the damage is done to the first bytes
        reach = 80 if seed % 2 else len(intact)
        for position in rng.integers(0, min(reach, len(intact)), int(rng.integers(1, 6))):
            damaged[position] = int(rng.integers(256))
        loaded = SMALL[kind].load(pa.chunked_array([pa.array([bytes(damaged)])]), Source("cell", Path()))
        assert loaded.present.tolist() == [not loaded.problems]
        for problem in loaded.problems:
            assert not LIBRARY_WORDS.search(problem.reason)


@pytest.mark.parametrize("name", CHECKED)
def test_every_damage_to_a_format_with_checksums_is_seen(name: str) -> None:
    kind, make = CHECKED[name]
    intact = make()
    expected = SMALL[kind].prepare(Media(intact, Path())).array
    silent = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        damaged = bytearray(intact)
        damaged[int(rng.integers(len(intact)))] ^= int(rng.integers(1, 256))
        try:
            # a changed title, say, changes no sample
            cell = SMALL[kind].prepare(Media(bytes(damaged), Path()))
        except BadCell:
            continue
        assert np.array_equal(cell.array, expected), f"seed {seed}"
        silent += 1
    assert silent <= 2


class Raising:
    """A modality whose decoder raises."""

    nothing = "nothing in it"
    suffixes = ()
    ragged = False
    shape = (1,)
    identity = "raising"

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.dtype = SMALL["audio"].dtype

    def prepare(self, media: Media) -> Cell:
        raise self.error


class Kept(Nowhere):
    """A store that counts what it is asked to keep."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        self.cells.append(cell)
        return cell


ERRORS = [
    SystemError("error return without exception set"), MemoryError(), OverflowError(), RecursionError(),
    AttributeError("at 0x7f00deadbeef"), ZeroDivisionError(), KeyError(3), OSError(5, "Input/output error"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), AssertionError(), NotImplementedError(),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_is_raised_is_one_bad_cell(error: Exception) -> None:
    store = Kept()
    cells = pa.chunked_array([pa.array([b"some bytes", None])])
    [loaded] = load_together([Raising(error)], cells, [Source("cell", Path(), store=store)])  # type: ignore[list-item]
    assert [problem.row for problem in loaded.problems] == [0]
    assert not LIBRARY_WORDS.search(loaded.problems[0].reason)

    # what another try may read must not be kept as bad
    is_passing = isinstance(error, MemoryError) or getattr(error, "errno", None) == 5
    assert len(store.cells) == (0 if is_passing else 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_arrays_that_are_not_finite_are_bad_cells(value: float) -> None:
    class NotFinite(Raising):
        def prepare(self, media: Media) -> Cell:
            return Cell(np.array([value], np.float16))

    cells = pa.chunked_array([pa.array([b"some bytes"])])
    [loaded] = load_together([NotFinite(ValueError())], cells, [Source("cell", Path())])  # type: ignore[list-item]
    assert "no numbers" in loaded.problems[0].reason


def test_one_damaged_file_among_good_ones_is_one_problem(tmp_path: Path) -> None:
    cells: list[bytes] = [saved(photo(row), "AVIF") for row in range(24)]
    cells[5] = cells[5][:200] + bytes(40) + cells[5][240:]
    inspection = inspected(cells, tmp_path)
    assert inspection.schema["cell"].modality == "image"
    assert [problem.row for problem in inspection.problems] == [5]


# frames of these many pixels take 1 to 4 GB if all of them are decoded
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": ("image", lambda: black_png(13_000, 13_000)),
    "gif": ("video", lambda: saved(Image.new("P", (7000, 7000)), "GIF")),
    "webp": ("image", lambda: saved(Image.new("RGB", (7000, 7000)), "WEBP", lossless=True, method=0)),
    "tiff": ("image", lambda: saved(Image.new("L", (7000, 7000)), "TIFF", compression="tiff_deflate")),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(name: str) -> None:
    kind, make = BOMBS[name]
    content = pa.chunked_array([pa.array([make()])])
    start = time.process_time()
    loaded = SMALL[kind].load(content, Source("cell", Path()))
    assert re.search(r"absurd size: .* most likely a decompression bomb", loaded.problems[0].reason)
    assert time.process_time() - start < 1


PEAK = """
import resource, sys
from pathlib import Path
from plait.media.cell import Media
from plait.media.image import Framing
from plait.media.still import decode
decode(Media(sys.argv[2], Path()).data, Framing(size=16))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
still = decode(Media(sys.argv[1], Path()).data, Framing(size=16))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, still.pixels.std() > 1)
"""


PEAK_OF_AUDIO = """
import resource, sys
from plait.media.audio import read_audio
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
recording = read_audio(sys.argv[1], 16_000, 10.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, recording.seconds)
"""


def test_a_large_image_takes_no_more_than_its_own_pixels(tmp_path: Path) -> None:
    """12 megapixels of four channels are 48 MB; with copies, as decoders make them, they were 250 MB."""
    large = photo().convert("RGBA").resize((4000, 3000), Image.Resampling.NEAREST)
    large.save(tmp_path / "large.png", compress_level=1)
    photo().convert("RGBA").save(tmp_path / "small.png")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large.png"), str(tmp_path / "small.png")]
    kilobytes, is_read = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert is_read == "True"
    assert int(kilobytes) < 100_000


def test_reduced_images_look_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("RGB", "RGBA", "L", "P", "CMYK"):
        content = saved(photo(size=(900, 700)).convert(mode), "TIFF" if mode == "CMYK" else "PNG")
        monkeypatch.setattr(still, "LARGE", 4_000_000)
        expected = still.decode(content, Framing(size=32)).pixels.astype(int)
        monkeypatch.setattr(still, "LARGE", 10_000)
        assert np.abs(still.decode(content, Framing(size=32)).pixels - expected).mean() < 2


@pytest.mark.parametrize("container", ["mp4", "h264"])
def test_a_video_of_absurdly_many_frames_is_not_decoded(container: str) -> None:
    content = clip(24, container, draw=lambda step, size: np.zeros((size[1], size[0], 3), np.uint8))
    reason = r"absurd size: .* frames of 48 x 32 pixels"
    with within(video=10_000, video_ratio=1), pytest.raises(BadCell, match=reason):
        SMALL["video"].prepare(Media(content, Path()))


def test_a_file_with_a_hole_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.png").open("wb") as file:
        file.write(saved(photo(), "PNG")[:60])
        file.truncate(3 << 30)
    start = time.perf_counter()
    with pytest.raises(BadCell, match=r"a file with a hole: of its 3\.2 GB"):
        SMALL["image"].prepare(Media("sparse.png", tmp_path))
    assert time.perf_counter() - start < 1


def test_threads_share_the_budget_of_memory() -> None:
    budget = Budget(100)
    held: list[int] = []
    most = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal most
        with budget.take(40):
            with lock:
                held.append(40)
                most = max(most, sum(held))
            time.sleep(0.01)
            with lock:
                held.pop()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 80
    with pytest.raises(BadCell, match="absurd size"), budget.take(101):
        pass


def test_the_budget_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(photo(size=(3000, 2500)), "PNG", compress_level=1)
    monkeypatch.setattr(memory, "_budgets", {})
    monkeypatch.setenv("PLAIT_DECODE_MEMORY", "0.01")
    progressive = saved(Image.new("CMYK", (1500, 1500)), "JPEG", progressive=True)
    for file in (content, progressive):
        with pytest.raises(BadCell, match="absurd size: decoding it takes"):
            SMALL["image"].prepare(Media(file, Path()))
    monkeypatch.setattr(memory, "_budgets", {})
    monkeypatch.setenv("PLAIT_DECODE_MEMORY", "much")
    with pytest.raises(PlaitError, match="expected a number of gigabytes"):
        memory.budget()


def test_loading_leaves_the_filters_of_warnings_as_they_were() -> None:
    before = list(warnings.filters)
    for _ in range(3):
        inspected([saved(photo(row), "PNG") for row in range(16)])
    assert list(warnings.filters) == before


def test_an_hour_that_states_no_length_takes_little_memory(tmp_path: Path) -> None:
    """An hour is 230 MB at 16 kHz; half of it is needed, since nothing says where the middle will be."""
    (tmp_path / "long.mp3").write_bytes(plain_mp3(np.zeros(RATE * 60, np.float32)) * 60)
    command = [sys.executable, "-c", PEAK_OF_AUDIO, str(tmp_path / "long.mp3")]
    kilobytes, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert float(seconds) == pytest.approx(3600, rel=0.01)
    assert int(kilobytes) < 180_000
