"""Only listed containers, codecs and image formats are opened, within the limits of the process."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from PIL import Image

from plait.errors import BadCell
from plait.media import allowed, limits, memory
from plait.media.audio import read_audio
from plait.media.image import Framing
from plait.media.still import decode
from plait.media.video import OpenVideo
from support.files import animation
from support.hostile_files import CRAFTED, black, crafted, gif, good_files, playlists
from support.media import clip, encoded, wav, wave, within

FRAMING = Framing(size=16)
SECRET = "secret.wav"


def read_sound(file: bytes | str) -> object:
    return read_audio(file, 16_000, 10)


def read_frames(file: bytes | str) -> object:
    return OpenVideo(file).frames(4, FRAMING)


def read_image(file: bytes | str) -> object:
    return decode(file, FRAMING)


READERS: list[Callable[[bytes | str], object]] = [read_sound, read_frames, read_image]


@pytest.mark.parametrize(
    "name", [name for name in playlists("x") if "behind a" not in name and "MP3" not in name]
)
def test_a_playlist_does_not_read_other_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / SECRET).write_bytes(wav(wave(1.0)))
    monkeypatch.chdir(tmp_path)
    for target in (SECRET, str(tmp_path / SECRET), (tmp_path / SECRET).as_uri()):
        content = playlists(target)[name]
        (tmp_path / "playlist").write_bytes(content)
        for reader in READERS:
            for file in (content, str(tmp_path / "playlist")):
                with pytest.raises(BadCell):
                    reader(file)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("EPS", "a program for printers (EPS)"),
        ("FITS", "a measurement (FITS)"),
        ("SVG", "a drawing (SVG), which may name other files"),
        ("ZIP", "an archive (ZIP)"),
        ("program", "a program"),
    ],
)
def test_a_refused_format_is_named_with_what_is_read(name: str, reason: str) -> None:
    for reader, what in zip(
        READERS, (allowed.READ_MEDIA, allowed.READ_MEDIA, allowed.READ_IMAGES), strict=True
    ):
        with pytest.raises(BadCell) as bad:
            reader(crafted(name))
        assert bad.value.reason.endswith(f"that plait reads: {reason}; it reads {what}")


def test_playlists_are_named_as_such() -> None:
    for name, kind in {
        "M3U": "M3U",
        "ffconcat": "ffconcat",
        "PLS": "PLS",
        "SMIL": "SMIL",
        "XSPF": "XSPF",
    }.items():
        with pytest.raises(BadCell, match=rf"a playlist \({kind}\), which may name other files"):
            read_sound(playlists("x")[name])


def test_codecs_that_are_not_listed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadCell, match="video of the codec 'snow', which plait does not decode"):
        read_frames(clip(6, "matroska", "snow"))
    monkeypatch.setattr(allowed, "CODECS", allowed.CODECS - {"flac"})
    with pytest.raises(BadCell, match="audio of the codec 'flac', which plait does not decode"):
        read_sound(good_files()["FLAC"])


def test_the_lists_have_names_that_ffmpeg_and_pillow_know() -> None:
    containers = set()
    for names in av.formats_available:
        containers.update(names.split(","))
    assert containers.issuperset(allowed.OPTIONS["format_whitelist"].split(","))
    assert av.codecs_available.issuperset(allowed.CODECS)
    Image.init()
    assert set(allowed.IMAGES) - {"HEIF"} <= set(Image.OPEN)


@pytest.mark.parametrize("name", good_files())
def test_usual_formats_are_read(name: str) -> None:
    successes = 0
    for reader in READERS:
        try:
            reader(good_files()[name])
        except BadCell:
            continue
        successes += 1
    assert successes


@pytest.mark.parametrize("name", CRAFTED)
def test_absurd_files_are_bad_cells_or_read(name: str) -> None:
    reasons = []
    for reader in READERS:
        try:
            with within(frames=100_000):
                reader(crafted(name))
        except BadCell as bad:
            reasons.append(bad.reason)
    assert all(len(reason) < 300 and "0x" not in reason for reason in reasons)


def test_limits_hold_for_each_kind_of_file() -> None:
    image, video = good_files()["PNG"], clip(24)
    with (
        within(pixels=700),
        pytest.raises(BadCell, match="absurd size: more than 700 pixels"),
    ):
        read_image(image)
    with within(frames=20), pytest.raises(BadCell, match="absurd length: more than 20 frames"):
        read_frames(video)
    with within(video_seconds=0.5), pytest.raises(BadCell, match=r"absurd length: 1 s, more than 0\.5 s"):
        read_frames(video)
    for kind in ("GIF", "WEBP", "PNG"):
        with within(frames=2), pytest.raises(BadCell, match="absurd length: more than 2 frames"):
            read_frames(animation(kind))
    for sound in (wav(wave(2.0)), encoded(wave(2.0), "adts", "aac"), encoded(wave(2.0), "mp3", "libmp3lame")):
        with within(seconds=1.0), pytest.raises(BadCell, match=r"absurd length: 2.* s, more than 1 s"):
            read_sound(sound)


def test_frames_are_counted_before_they_are_decoded() -> None:
    with within(frames=1_000), pytest.raises(BadCell, match="absurd length: more than 1,000 frames"):
        read_frames(gif(20_000))


def test_images_inside_of_icons_have_limits_too() -> None:
    with pytest.raises(BadCell):
        read_image(crafted("ICO with a PNG of 20000 x 20000 inside"))
    buffer = io.BytesIO()
    Image.new("RGB", (256, 256), (9, 99, 9)).save(buffer, "ICO", sizes=[(256, 256)])
    with within(pixels=30_000), pytest.raises(BadCell):
        read_image(buffer.getvalue())


def test_a_strip_of_pixels_is_not_cropped_to_a_square() -> None:
    for strip in (black(65_535, 1), black(1, 65_535)):
        with pytest.raises(BadCell, match=r"absurd shape: .* cannot be cropped to a square"):
            decode(strip, Framing(size=224, fit="crop"))
        assert decode(strip, Framing(size=224)).pixels.shape == (224, 224, 3)


def test_messages_name_no_variable_that_did_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    large = good_files()["PNG"]
    monkeypatch.setattr(memory, "_budgets", {})
    with within(memory=1_000), pytest.raises(BadCell, match=r"more than 0\.0$"):
        read_image(large)


def test_the_limits_are_those_that_were_set() -> None:
    before = limits.current()
    with within(pixels=5):
        assert limits.current().pixels == 5
    assert limits.current() == before
