"""Images are read upright, in RGB and completely, or the reason why not is given."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from plait.errors import BadCell, RecipeError
from plait.media.image import augment
from plait.media.still import decode as decode_still
from plait.modalities.base import modalities
from plait.modalities.image import Config
from plait.modalities.image import Image as Modality
from plait.table.table import Source

CONFIG = Config(size=32, fit="stretch")


def decode(content: bytes, config: Config) -> np.ndarray:
    return decode_still(content, config).pixels


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def half(mode: str, left_colour: Any, right_colour: Any, size: tuple[int, int] = (64, 48)) -> Image.Image:
    image = Image.new(mode, size, left_colour)
    image.paste(right_colour, (size[0] // 2, 0, *size))
    return image


def sides(pixels: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the colours left and right."""
    return pixels[16, 4].tolist(), pixels[16, 27].tolist()


RED, WHITE, BLACK, GREY = [255, 0, 0], [255, 255, 255], [0, 0, 0], [128, 128, 128]


@pytest.mark.parametrize(
    ("content", "left_colour", "right_colour"),
    [
        (file_of(half("RGB", (255, 0, 0), (0, 0, 0)), "PNG"), RED, BLACK),
        (file_of(half("RGB", (255, 0, 0), (0, 0, 0)), "JPEG", quality=95), RED, BLACK),
        (file_of(half("L", 128, 255), "JPEG", quality=95), GREY, WHITE),
        (file_of(half("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), "JPEG", quality=95), RED, BLACK),
        (file_of(half("RGBA", (255, 0, 0, 255), (0, 0, 0, 0)), "PNG"), RED, WHITE),
        (file_of(half("RGBA", (255, 0, 0, 255), (0, 0, 0, 128)), "PNG"), RED, [127, 127, 127]),
        (file_of(half("LA", (0, 255), (0, 0)), "PNG"), BLACK, WHITE),
        (file_of(half("L", 0, 128), "PNG"), BLACK, GREY),
        (file_of(half("1", 0, 1), "PNG"), BLACK, WHITE),
        (file_of(half("I;16", 0, 128 * 257), "PNG"), BLACK, GREY),
        (file_of(half("I;16", 0, 128 * 257), "TIFF"), BLACK, GREY),
        (file_of(half("F", 0.0, 1.0), "TIFF"), BLACK, WHITE),
        (file_of(half("RGB", (255, 0, 0), (0, 0, 0)).quantize(4), "PNG"), RED, BLACK),
        (file_of(half("RGB", (255, 0, 0), (0, 0, 0)).quantize(4), "PNG", transparency=1), None, None),
        (
            file_of(
                half("RGB", (255, 0, 0), (0, 0, 0)),
                "GIF",
                save_all=True,
                append_images=[Image.new("RGB", (64, 48), "blue")],
            ),
            RED,
            BLACK,
        ),
        (file_of(half("RGB", (255, 0, 0), (0, 0, 0)), "WEBP", lossless=True), RED, BLACK),
        (file_of(half("RGB", (255, 0, 0), (0, 0, 0)), "BMP"), RED, BLACK),
    ],
)
def test_every_mode_becomes_rgb(
    content: bytes, left_colour: list[int] | None, right_colour: list[int] | None
) -> None:
    pixels = decode(content, CONFIG)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    if left_colour and right_colour:
        colours = sides(pixels)
        assert np.abs(np.array(colours) - np.array([left_colour, right_colour])).max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 180), (6, 90), (8, 270)])
def test_exif_orientation_is_followed(kind: str, orientation: int, turned: int) -> None:
    upright = half("RGB", (255, 0, 0), (0, 0, 0), (48, 48))
    exif = Image.Exif()
    exif[274] = orientation
    content = file_of(upright.rotate(turned), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    left_colour, right_colour = sides(decode(content, CONFIG))
    assert np.abs(np.array([left_colour, right_colour]) - np.array([RED, BLACK])).max() <= 4


def test_an_image_is_padded_or_cropped_to_a_square() -> None:
    content = file_of(half("RGB", (255, 0, 0), (0, 0, 0), (64, 32)), "PNG")
    padded = decode(content, Config(size=32, fit="pad", background=128))
    assert padded[2, 16].tolist() == GREY
    assert padded[16, 4].tolist() == RED
    cropped = decode(content, Config(size=32, fit="crop"))
    assert cropped[2, 4].tolist() == RED
    assert cropped[2, 27].tolist() == BLACK


def test_large_jpeg_is_close_to_pillow() -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (1200, 900), Image.Resampling.BICUBIC
    )
    content = file_of(smooth, "JPEG", quality=90)
    reference = np.asarray(smooth.resize((64, 64), Image.Resampling.BOX)).astype(int)
    assert np.abs(decode(content, Config(size=64, fit="stretch")).astype(int) - reference).mean() < 3


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 5)])
@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_odd_sizes_become_squares(size: tuple[int, int], fit: Any, kind: str) -> None:
    assert decode(file_of(Image.new("RGB", size, "red"), kind), Config(size=32, fit=fit)).shape == (32, 32, 3)


COMPLETE = {
    kind: file_of(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind
    )
    for kind in ("PNG", "JPEG", "GIF")
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello, I am a text", "not an image: it begins with the text 'hello, I am a text'$"),
        (b"\x00\x01\xff" * 20, "not an image: its first bytes are 00 01 ff 00 01 ff 00 01$"),
        (COMPLETE["PNG"][: len(COMPLETE["PNG"]) // 2], "broken or cut short"),
        (COMPLETE["JPEG"][: len(COMPLETE["JPEG"]) // 2], "broken or cut short"),
        (COMPLETE["GIF"][: len(COMPLETE["GIF"]) // 2], "broken or cut short"),
        (COMPLETE["PNG"][:20], "not an image|broken or cut short"),
        (
            file_of(Image.new("1", (20_000, 20_000)), "PNG"),
            "absurd size",
        ),
    ],
)
def test_a_damaged_image_gives_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(BadCell, match=reason):
        decode(content, CONFIG)


def test_files_that_cannot_be_opened_give_the_reason(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "note.png").write_text("I am a text")
    names = ["gone.png", "folder", "empty.png", "note.png", "https://example.org/a.png", "x" * 5000, "a\0b"]
    loaded = Modality(CONFIG).load(pa.chunked_array([pa.array([*names, None])]), Source("photo", tmp_path))
    problem_of_row = {problem.row: problem for problem in loaded.problems}
    reasons = [
        "no such file",
        "a folder, not a file",
        "an empty file",
        "not an image",
        "a URL: plait fetches nothing",
        "cannot be opened",
        "cannot be opened",
    ]
    for row, reason in enumerate(reasons):
        assert reason in problem_of_row[row].reason
    assert problem_of_row[3].file == str(tmp_path / "note.png")
    assert not loaded.present.any()


def test_two_hundred_corruptions_never_crash() -> None:
    rng = np.random.default_rng(0)
    for i in range(200):
        content = bytearray(COMPLETE[["PNG", "JPEG", "GIF"][i % 3]])
        if i % 2:
            content = content[: int(rng.integers(1, len(content)))]
        for offset in rng.integers(0, len(content), 8):
            content[offset] = int(rng.integers(256))
        with contextlib.suppress(BadCell):  # and nothing else
            assert decode(bytes(content), CONFIG).shape == (32, 32, 3)


def test_augmentation_follows_its_seed_and_options() -> None:
    x = torch.rand(6, 3, 32, 32)
    config = Config(size=32, crop=0.5, shift=0.1, rotate=30, colour=0.5, erase=0.5)
    augmented, again, with_another_seed = (
        augment(x.clone(), config, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(augmented, again)
    assert not torch.equal(augmented, with_another_seed)
    assert augmented.min() >= 0
    assert augmented.max() <= 1
    nothing = Config(size=32, crop=1, shift=0, flip=False, rotate=0, colour=0, erase=0)
    assert torch.equal(augment(x.clone(), nothing, torch.Generator()), x)


def test_mirroring_mirrors_half_of_the_images() -> None:
    x = torch.rand(64, 1, 8, 8)
    augmented = augment(
        x.clone(),
        Config(size=8, crop=1, shift=0, flip=True, rotate=0, colour=0),
        torch.Generator().manual_seed(0),
    )
    mirrored, unchanged = 0, 0
    for after, before in zip(augmented, x, strict=True):
        mirrored += torch.allclose(after, before.flip(-1), atol=1e-5)
        unchanged += torch.allclose(after, before, atol=1e-5)
    assert mirrored + unchanged == 64
    assert 16 < mirrored < 48


@pytest.mark.parametrize("std", [0, -1.0, (1.0, 0.0, 1.0)])
def test_a_standard_deviation_must_be_above_zero(std: Any) -> None:
    with pytest.raises(RecipeError, match=r"option 'std' is .*: expected numbers above 0"):
        modalities.configure("image", {"std": std})
