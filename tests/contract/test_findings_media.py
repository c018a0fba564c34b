"""Damaged files and bombs in a column of good ones are problems of `inspect`, and take no memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from support.files import black_png, inspected, photo, saved
from support.media import wav, wave

ROWS = 24
DAMAGED = 5


def lossless_webp(row: int) -> bytes:
    return saved(photo(row), "WEBP", lossless=True)


# how a good file is made, and which bytes are then overwritten by which; None cuts the file there
DAMAGE: dict[str, tuple[Callable[[int], bytes], int, bytes | None]] = {
    "an AVIF without frames": (lambda row: saved(photo(row), "AVIF"), 200, bytes(40)),
    "a TIFF without a directory": (lambda row: saved(photo(row), "TIFF"), 4, b"\xff" * 4),
    "a GIF of an absurd size": (lambda row: saved(photo(row), "GIF"), 6, b"\xff" * 4),
    "a PNG with a wrong sum": (lambda row: saved(photo(row), "PNG"), 60, b"\xff" * 3),
    "a BMP without a place of pixels": (lambda row: saved(photo(row), "BMP"), 10, b"\xff" * 20),
    "a JPEG 2000 without a header": (lambda row: saved(photo(row), "JPEG2000"), 20, bytes(60)),
    "a lossless WebP that is cut": (lossless_webp, 300, None),
    "a WAV with an absurd rate": (lambda row: wav(wave(0.1, seed=row)), 24, b"\xff" * 4),
    "a WAV without a rate": (lambda row: wav(wave(0.1, seed=row)), 24, bytes(4)),
    "a FLAC with a wrong sum": (lambda row: wav(wave(0.1, seed=row), kind="FLAC"), 1000, b"\xff" * 3),
    "an AIFF that is cut": (lambda row: wav(wave(0.1, seed=row), kind="AIFF"), 1500, None),
    "an AU that is cut": (lambda row: wav(wave(0.1, seed=row), kind="AU"), 1500, None),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_one_damaged_file_is_one_problem(name: str) -> None:
    make, place, content = DAMAGE[name]
    cells = list(map(make, range(ROWS)))
    good = cells[DAMAGED]
    behind = b"" if content is None else content + good[place + len(content) :]
    cells[DAMAGED] = good[:place] + behind
    assert cells[DAMAGED] != good
    inspection = inspected(cells)
    assert inspection.schema["cell"].modality in ("image", "audio")
    assert [problem.row for problem in inspection.problems] == [DAMAGED]


def vast_jpeg(mode: str) -> bytes:
    """Return a progressive JPEG of a few hundred bytes whose header states 13,000 x 13,000 pixels."""
    content = bytearray(saved(Image.new(mode, (64, 64)), "JPEG", progressive=True))
    size = content.index(b"\xff\xc2") + 5
    content[size : size + 4] = (13_000).to_bytes(2, "big") * 2
    return bytes(content)


BOMBS: dict[str, Callable[[], bytes]] = {
    "a PNG": lambda: black_png(13_000, 13_000),
    "a JPEG": lambda: vast_jpeg("RGB"),
    "a JPEG of four colours": lambda: vast_jpeg("CMYK"),
    "a GIF": lambda: saved(Image.new("P", (9000, 9000)), "GIF"),
}

# Each bomb is there several times, so that several threads would decode it at once.
PEAK = """
import resource, sys
from pathlib import Path
from support.files import inspected

folder = Path(sys.argv[1])
good = [path.name for path in folder.glob("good*")]
bombs = [path.name for path in folder.glob("bomb*")]
inspected(good, folder)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
inspection = inspected([*good, *3 * bombs], folder)
reasons = {problem.reason.partition(":")[0] for problem in inspection.problems}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(inspection.problems), sorted(reasons))
"""


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    for number, make in enumerate(BOMBS.values()):
        (tmp_path / f"bomb{number}.png").write_bytes(make())
    for row in range(40):
        (tmp_path / f"good{row}.png").write_bytes(saved(photo(row), "PNG"))
    with (tmp_path / "bomb.png").open("wb") as file:
        file.write(saved(photo(), "PNG")[:60])
        file.truncate(3 << 30)
    command = [sys.executable, "-c", PEAK, str(tmp_path)]
    tests = Path(__file__).parents[1]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tests).stdout
    kilobytes, count, reasons = shown.strip().split(" ", 2)
    assert int(count) == 3 * (len(BOMBS) + 1)
    assert reasons == "['a file with a hole', 'absurd size']"
    assert int(kilobytes) < 50_000
