"""Audio is read from files of every format: complete, at the right rate, or with a reason why not."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from plait.errors import BadCell
from plait.media.audio import read_audio
from support.media import RATE, clip, encoded, wav, wave

WAVE = wave(2.0)
FILES = {
    "wav": wav(WAVE),
    "wav float": wav(WAVE, subtype="FLOAT"),
    "wav 24 bits": wav(WAVE, subtype="PCM_24"),
    "flac": wav(WAVE, kind="FLAC"),
    "aiff": wav(WAVE, kind="AIFF"),
    "mp3": encoded(WAVE, "mp3", "libmp3lame"),
    "vorbis": wav(WAVE, kind="OGG", subtype="VORBIS"),
    "opus": encoded(WAVE, "ogg", "libopus", 48_000),
    "m4a": encoded(WAVE, "ipod", "aac"),
    "matroska": encoded(WAVE, "matroska", "libopus", 48_000),
    "mp4 with a video": clip(16, rate=8, sound=WAVE),
    "alac": encoded(WAVE, "ipod", "alac"),
    "wma": encoded(WAVE, "asf", "wmav2"),
    "gsm": wav(WAVE, subtype="GSM610"),
    "mu-law": wav(WAVE, subtype="ULAW"),
    "adpcm": wav(WAVE, subtype="IMA_ADPCM"),
}
ENDLESS = {"ac3": encoded(WAVE, "ac3", "ac3", 48_000)}  # they state no length
if "libopencore_amrnb" in av.codecs_available:  # not in every build of FFmpeg
    ENDLESS["amr"] = encoded(WAVE, "amr", "libopencore_amrnb", 8000)


def hertz(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


@pytest.mark.parametrize("name", FILES | ENDLESS)
@pytest.mark.parametrize("rate", [16_000, 11_025])
def test_every_format_gives_the_same_tone_and_length(name: str, rate: int) -> None:
    recording = read_audio((FILES | ENDLESS)[name], rate, 30.0)
    assert recording.wave.dtype == np.float32
    assert recording.seconds == pytest.approx(2.0, abs=0.13)  # AAC comes in blocks of 64 ms
    assert len(recording.wave) / rate == pytest.approx(2.0, abs=0.13)
    assert hertz(recording.wave, rate) == pytest.approx(440, abs=2)
    assert 0.25 < np.abs(recording.wave).max() < 0.45


@pytest.mark.parametrize("rate", [8000, 44_100, 96_000])
def test_every_rate_is_changed_to_the_one_asked_for(rate: int) -> None:
    recording = read_audio(wav(wave(1.0, rate=rate), rate), RATE, 30.0)
    assert len(recording.wave) == pytest.approx(RATE, abs=200)
    assert hertz(recording.wave, RATE) == pytest.approx(440, abs=2)


def test_channels_are_mixed_to_one() -> None:
    stereo = np.stack([WAVE, -WAVE], 1)
    assert np.abs(read_audio(wav(stereo), RATE, 30.0).wave).max() < 1e-4
    six_channels = encoded(WAVE, "flac", "flac", layout="5.1")
    assert hertz(read_audio(six_channels, RATE, 30.0).wave, RATE) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("kind", ["wav", "flac", "opus", "mp3"])
def test_only_the_middle_of_a_long_recording_is_kept(kind: str) -> None:
    long = np.concatenate([wave(4.0, 200), wave(2.0, 1000), wave(4.0, 3000)])
    codecs = {"opus": ("ogg", "libopus", 48_000), "mp3": ("mp3", "libmp3lame", RATE)}
    data = encoded(long, *codecs[kind]) if kind in codecs else wav(long, kind=kind.upper())
    recording = read_audio(data, RATE, 1.5)
    assert recording.seconds == pytest.approx(10.0, abs=0.1)
    assert len(recording.wave) / RATE == pytest.approx(1.5, abs=0.01)
    assert hertz(recording.wave, RATE) == pytest.approx(1000, abs=3)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
def test_a_cut_file_gives_the_reason(name: str, share: float) -> None:
    data = FILES[name]
    with pytest.raises(BadCell, match=r"cut short|broken|can be read|without samples"):
        read_audio(data[: int(len(data) * share)], RATE, 30.0)


@pytest.mark.parametrize("name", FILES)
def test_a_file_too_large_for_memory_is_read_by_its_path(name: str, tmp_path: Path) -> None:
    complete_file, cut_file = tmp_path / "complete", tmp_path / "cut"
    complete_file.write_bytes(FILES[name])
    cut_file.write_bytes(FILES[name][: int(len(FILES[name]) * 0.6)])
    by_path = read_audio(str(complete_file), RATE, 30.0)
    from_bytes = read_audio(FILES[name], RATE, 30.0)
    assert np.array_equal(by_path.wave, from_bytes.wave)
    with pytest.raises(BadCell, match=r"cut short|broken|can be read|without samples"):
        read_audio(str(cut_file), RATE, 30.0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello, I am a text", "neither audio nor video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither audio nor video|no audio"),
        (wav(np.zeros(0, np.float32)), "without samples"),
        (wav(WAVE)[:44], "cut short|without samples"),
        (clip(4), "no audio in it"),
    ],
)
def test_a_file_without_audio_gives_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadCell, match=reason):
        read_audio(data, RATE, 30.0)


def test_ten_hours_are_absurd_and_not_decoded() -> None:
    header = bytearray(wav(np.zeros(8, np.float32), 8000))
    size = 10 * 3600 * 8000 * 2
    header[4:8] = struct.pack("<I", size + 36)
    header[40:44] = struct.pack("<I", size)
    with pytest.raises(BadCell, match="cut short"):
        read_audio(bytes(header), RATE, 30.0)
    silence = wav(np.zeros(10 * 3600 * 1000, np.float32), 1000, "FLAC")
    with pytest.raises(BadCell, match=r"absurd length: 10\.0 hours"):
        read_audio(silence, RATE, 30.0)


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(wav(WAVE))
    for address in ("http://127.0.0.1:9/a.ts", str(tmp_path / "secret.wav")):
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}\n#EXT-X-ENDLIST\n"
        with pytest.raises(BadCell):
            read_audio(playlist.encode(), RATE, 30.0)
