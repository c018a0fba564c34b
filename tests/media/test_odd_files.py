"""Files that programs really write are read, or refused for a true reason, whatever is odd about them."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import plait
from plait.errors import BadCell
from plait.media.audio import read_audio
from plait.media.image import Framing
from plait.media.still import decode
from support.files import (
    animation,
    inspected,
    photo,
    piped_wav,
    plain_mp3,
    saved,
    speech_then_noise,
    unmarked_ogg,
    with_png_chunk,
)
from support.media import RATE, clip, encoded, wav, wave

FRAMING = Framing(size=32, fit="stretch")
WAVE = wave(2.0)


def notes_of(file: bytes) -> str:
    return "; ".join(decode(file, FRAMING).notes)


def with_second_image(seed: int) -> bytes:
    """Return a photo as phones write it, with a smaller image behind it (MPO)."""
    return saved(photo(seed), "MPO", save_all=True, append_images=[photo(seed + 1, (32, 24))])


def test_photos_with_a_second_image_are_images() -> None:
    inspection = inspected([with_second_image(row) for row in range(8)])
    assert inspection.schema["cell"].modality == "image"
    assert not inspection.problems
    assert not inspection.warnings


def test_animated_images_among_still_ones_are_images() -> None:
    cells = [animation(seed=row) if row % 3 else saved(photo(row), "GIF") for row in range(9)]
    inspection = inspected(cells)
    assert inspection.schema["cell"].modality == "image"
    assert any("6 cells are animated: only the first frame is read" in text for text in inspection.warnings)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_a_column_of_animated_images_is_video(kind: str) -> None:
    inspection = inspected([animation(kind, row) for row in range(8)])
    assert inspection.schema["cell"].modality == "video"
    assert not inspection.problems


def test_the_recipe_can_make_animated_images_images() -> None:
    inspection = inspected([animation(seed=row) for row in range(8)], columns={"cell": {"modality": "image"}})
    assert inspection.schema["cell"].modality == "image"
    assert not inspection.problems


def test_pages_of_a_tiff_are_no_frames() -> None:
    inspection = inspected([animation("TIFF", row) for row in range(8)])
    assert inspection.schema["cell"].modality == "image"
    assert any("of several pages: only the first is read" in text for text in inspection.warnings)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG2000"])
def test_formats_of_phones_and_archives_are_images(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    inspection = inspected([saved(photo(row), kind) for row in range(8)])
    assert inspection.schema["cell"].modality == "image"
    assert not inspection.problems


def test_a_missing_package_for_heif_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    cells = [saved(photo(row), "HEIF") for row in range(8)]
    monkeypatch.setitem(__import__("sys").modules, "pi_heif", None)
    inspection = inspected(cells)
    assert inspection.schema["cell"].modality == "image"
    assert len(inspection.problems) == 8
    assert "pip install 'plait[heif]'" in inspection.problems[0].reason


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_orientation_behind_a_long_profile_is_followed(kind: str) -> None:
    left_is_red = np.zeros((64, 64, 3), np.uint8)
    left_is_red[:, :32, 0] = 255
    exif = Image.Exif()
    exif[274] = 3
    options: dict[str, Any] = {"save_all": True, "append_images": [photo()]} if kind == "MPO" else {}
    file = saved(Image.fromarray(left_is_red), kind, exif=exif, quality=95, **options)

    # a colour profile of 200 kB, in segments of at most 65,533 bytes, right behind the start of the file
    segments = b""
    for number in range(4):
        content = b"ICC_PROFILE\0" + bytes([number + 1, 4]) + bytes(50_000)
        segments += b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content
    pixels = decode(file[:2] + segments + file[2:], FRAMING).pixels
    assert pixels[16, 4, 0] < 60
    assert pixels[16, 27, 0] > 200


@pytest.mark.parametrize(("bits", "is_noted"), [(8, True), (12, True), (16, False)])
def test_few_bits_of_sixteen_are_noted(bits: int, is_noted: bool) -> None:
    levels = np.linspace(0, 2**bits - 1, 64 * 64).astype(np.uint16).reshape(64, 64)
    file = saved(Image.fromarray(levels), "PNG")
    assert (f"of 16 bits, at most {bits} are in use" in notes_of(file)) == is_noted


def test_few_bits_that_the_file_states_are_scaled() -> None:
    levels = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    file = with_png_chunk(saved(Image.fromarray(levels), "PNG"), b"sBIT", b"\x0c")
    still = decode(file, FRAMING)
    assert not still.notes
    assert still.pixels.max() > 240


def test_dark_and_cut_off_images_are_noted() -> None:
    dark = np.random.default_rng(0).integers(0, 9, (32, 32, 3), dtype=np.uint8)
    assert notes_of(saved(Image.fromarray(dark), "PNG")) == "nearly black"
    heights = np.linspace(0, 3000, 32 * 32, dtype=np.float32).reshape(32, 32)
    assert "out of range: values outside 0 to 255" in notes_of(saved(Image.fromarray(heights), "TIFF"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(value: float) -> None:
    pixels = np.full((32, 32), 0.5, np.float32)
    pixels[3, 4] = value
    with pytest.raises(BadCell, match="pixels that are no numbers"):
        decode(saved(Image.fromarray(pixels), "TIFF"), FRAMING)


def big_endian_wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", endian="BIG")
    return buffer.getvalue()


UNMARKED = {
    "vorbis": unmarked_ogg(wav(WAVE, kind="OGG", subtype="VORBIS")),
    "opus": unmarked_ogg(encoded(WAVE, "ogg", "libopus", 48_000)),
}


@pytest.mark.parametrize("name", UNMARKED)
def test_ogg_without_a_marked_end_is_read_with_a_note(name: str) -> None:
    recording = read_audio(UNMARKED[name], RATE, 30.0)
    assert recording.seconds == pytest.approx(2.0, abs=0.05)
    assert recording.notes == ("without a mark of the end, and may be cut short",)
    with pytest.raises(BadCell, match="cut short"):
        read_audio(UNMARKED[name][:-40], RATE, 30.0)


@pytest.mark.parametrize("size", [0, 0x7FFF_FFFF, 0x7FFF_FFFF - 36, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFDB])
@pytest.mark.parametrize("kind", ["PCM_16", "FLOAT", "IMA_ADPCM"])
def test_wav_written_into_a_pipe_is_read(size: int, kind: str, tmp_path: Path) -> None:
    file = piped_wav(size, WAVE, kind)
    recording = read_audio(file, RATE, 30.0)
    assert recording.seconds == pytest.approx(2.0, abs=0.1)
    assert recording.notes == ("without a mark of the end, and may be cut short",)
    (tmp_path / "large.wav").write_bytes(file)
    by_path = read_audio(str(tmp_path / "large.wav"), RATE, 30.0)
    assert np.array_equal(by_path.wave, recording.wave)
    assert (tmp_path / "large.wav").read_bytes() == file


def test_wav_files_that_are_cut_short_are_still_refused() -> None:
    with pytest.raises(BadCell, match="cut short"):
        read_audio(piped_wav(3_000_000, WAVE), RATE, 30.0)
    with pytest.raises(BadCell, match="without samples"):
        read_audio(wav(np.zeros(0, np.float32)), RATE, 30.0)


def test_a_few_samples_are_too_short() -> None:
    with pytest.raises(BadCell, match=r"less than a millisecond|without samples"):
        read_audio(wav(WAVE[:3], 8000), RATE, 30.0)


@pytest.mark.parametrize("kind", ["RIFX", "RF64", "W64", "AIFF", "CAF", "AU"])
def test_other_containers_of_samples_are_complete_or_refused(kind: str) -> None:
    file = big_endian_wav(WAVE) if kind == "RIFX" else wav(WAVE, kind=kind)
    assert read_audio(file, RATE, 30.0).seconds == pytest.approx(2.0, abs=0.01)
    for missing in (2, 30, 600, 2000, len(file) // 2):
        with pytest.raises(BadCell, match=r"cut short|without samples"):
            read_audio(file[:-missing], RATE, 30.0)


def test_mp3_of_variable_bit_rate_without_a_header_is_read() -> None:
    file = plain_mp3(speech_then_noise(8.0))
    assert read_audio(file, RATE, 30.0).seconds == pytest.approx(8.0, abs=0.15)
    kept = read_audio(file, RATE, 2.0)
    assert kept.seconds == pytest.approx(8.0, abs=0.15)
    assert len(kept.wave) == 2 * RATE


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_joined_mp3_files_are_read_to_the_end(rate: int) -> None:
    first, second = encoded(WAVE, "mp3", "libmp3lame"), encoded(WAVE, "mp3", "libmp3lame", rate)
    assert read_audio(first + second, RATE, 30.0).seconds == pytest.approx(4.0, abs=0.3)


@pytest.mark.parametrize("rate", [0, 1, 7, 4_294_967_295])
def test_absurd_rates_are_refused(rate: int) -> None:
    file = bytearray(wav(WAVE))
    file[24:28] = struct.pack("<I", rate)
    with pytest.raises(BadCell, match=r"absurd rate|can be read"):
        read_audio(bytes(file), RATE, 30.0)


def surround(kind: str) -> bytes:
    """Return six channels, of which only the third has a tone."""
    samples = np.zeros((RATE, 6), np.float32)
    samples[:, 2] = wave(1.0)
    buffer = io.BytesIO()
    subtype = {"WAV": "FLOAT", "FLAC": "PCM_24", "OGG": "VORBIS"}.get(kind, "PCM_16")
    soundfile.write(buffer, samples, RATE, format=kind, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "CAF"])
def test_channels_are_mixed_in_one_way_whatever_the_format(kind: str) -> None:
    peak = np.abs(read_audio(surround(kind), RATE, 30.0).wave).max()
    assert peak == pytest.approx(np.abs(wave(1.0)).max() / 6, rel=0.01)


def test_whole_numbers_stored_as_floats_are_noted() -> None:
    cells = [wav(wave(0.3, seed=row) * 32_768, subtype="FLOAT") for row in range(8)]
    inspection = inspected(cells)
    assert inspection.schema["cell"].modality == "audio"
    assert any("far above full scale" in text for text in inspection.warnings)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("form", ["spectrogram", "wave"])
def test_one_sample_that_is_no_number_makes_a_bad_cell(value: float, form: str, tmp_path: Path) -> None:
    rows = []
    for row in range(24):
        samples = wave(0.2, 300 + 300 * (row % 2), seed=row)
        if row == 5:
            samples[1000] = value
        (tmp_path / f"{row}.wav").write_bytes(wav(samples, subtype="FLOAT"))
        rows.append({"sound": f"{row}.wav", "label": "ab"[row % 2]})
    options = ["training.epochs=1", f"modalities.audio.form={form}", "modalities.audio.bands=16"]
    inspection = plait.inspect(rows, "label", root=tmp_path)
    assert [problem.row for problem in inspection.problems] == [5]
    if form == "wave":
        return
    model = plait.fit(rows, "label", root=tmp_path, out=tmp_path / "run", overrides=options, quiet=True)
    answers = model.predict(rows, root=tmp_path)
    assert "no numbers" in answers["problem"][5].as_py()
    assert np.isfinite(answers["label_probability_a"].to_numpy()).all()


def test_vectors_beyond_32_bits_are_bad_cells(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for row in range(40):
        rows.append({"vector": rng.normal(size=3).tolist(), "label": "ab"[row % 2]})
    rows[7]["vector"] = [1e300] * 3
    options = ["training.epochs=1"]
    model = plait.fit(rows, "label", out=tmp_path / "run", overrides=options, quiet=True)
    answers = model.predict([{"vector": [value] * 3} for value in (1e300, 1e30, -1e38, 0.5)])
    assert np.isfinite(answers["label_probability_a"].to_numpy()).all()
    assert [problem is None for problem in answers["problem"].to_pylist()] == [False, False, False, True]


def test_videos_with_odd_sizes_and_sound_are_still_read() -> None:
    inspection = inspected([clip(6, sound=wave(0.3, seed=row)) for row in range(8)])
    assert inspection.schema["cell"].modality == "video"
    assert not inspection.problems
