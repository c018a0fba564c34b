"""Frames are read from videos: the right ones, upright and complete, or with a reason why not."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from plait.errors import BadCell
from plait.media.image import Framing
from plait.media.video import OpenVideo, Plan, pick
from support.media import clip, picture, wave

FRAMING = Framing(size=48, fit="stretch", background=0)


def place(pixels: np.ndarray) -> float:
    """Return where the red square of `media.picture` is, from 0 to 1 of the width."""
    red = pixels[..., 0].astype(int) - pixels[..., 1]
    columns = np.flatnonzero((red > 60).any(0))
    return float(columns.mean() / pixels.shape[1])


def step_of(pixels: np.ndarray) -> int:
    """Return the step, from 0 to 9, that `media.picture` has drawn: the square moves by 4 of 48 pixels."""
    return round((place(pixels) * 48 - 4) / 4) % 10


VIDEOS: dict[str, dict[str, Any]] = {
    "h264, b-frames": {},
    "h264, one group": {"options": {"g": "250"}},
    "h264, open groups": {"options": {"x264-params": "open-gop=1:bframes=3:keyint=6"}},
    "vp8": {"container": "webm", "codec": "libvpx"},
    "vp9": {"container": "webm", "codec": "libvpx-vp9"},
    "mpeg4 in avi": {"container": "avi", "codec": "mpeg4"},
    "mpeg2": {"container": "mpeg", "codec": "mpeg2video"},
    "transport stream": {"container": "mpegts"},
    "no timestamps": {"container": "h264"},
    "with sound": {"sound": wave(1.0)},
    "matroska with sound": {"container": "matroska", "sound": wave(1.0)},
}


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize("count", [1, 5, 8])
def test_frames_are_those_of_the_decoded_video(name: str, count: int) -> None:
    data = clip(25, **VIDEOS[name])  # so many that no middle of a segment lies between two frames
    sampled = OpenVideo(data).frames(count, FRAMING)
    with av.open(io.BytesIO(data)) as file:
        all_frames = []
        for frame in file.decode(video=0):
            all_frames.append(frame.to_ndarray(width=48, height=48, format="rgb24", interpolation="BILINEAR"))
    expected_steps = [int((i + 0.5) * 25 / count) for i in range(count)]
    assert sampled.shown == len(all_frames) == 25
    for pixels, step in zip(sampled.pixels, expected_steps, strict=True):
        distances = [np.abs(pixels.astype(int) - frame).mean() for frame in all_frames]
        assert int(np.argmin(distances)) == step


def test_only_what_is_needed_is_decoded() -> None:
    with av.open(io.BytesIO(clip(60, options={"g": "10", "bf": "2"}))) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        plan = Plan.of(packets, 2)
        assert plan is not None
        assert sum(last - first + 1 for first, last in plan.runs) <= 20


def test_variable_frame_rate_is_spread_over_time() -> None:
    times = [*range(12), *range(12, 132, 10)]  # twelve quick frames, then twelve slow ones
    sampled = OpenVideo(clip(24, times=times, options={"bf": "0"})).frames(4, FRAMING)
    shown = [step_of(pixels) for pixels in sampled.pixels]
    middles = [(i + 0.5) * 123 / 4 for i in range(4)]  # the last frame, at 122, lasts for 1
    expected = []
    for middle in middles:
        step = max(i for i, time in enumerate(times) if time <= middle)
        expected.append(step % 10)
    assert shown == expected


def test_the_middles_of_equal_segments_are_picked() -> None:
    assert pick([0, 10, 20], 30, 5) == [0, 10, 20]
    assert pick(list(range(100)), 100, 4) == [12, 37, 62, 87]
    assert pick([0, 1, 2, 3, 100], 101, 2) == [3, 3]


def test_one_frame_is_enough_and_none_is_refused() -> None:
    assert OpenVideo(clip(1)).frames(8, FRAMING).pixels.shape == (1, 48, 48, 3)
    with pytest.raises(BadCell, match="audio without a video stream"):
        OpenVideo(_only_audio()).frames(8, FRAMING)


def _only_audio() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave(0.064)[None, :1024], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("turned", "matrix"), [(90, (0, 1, -1, 0)), (180, (-1, 0, 0, -1)), (270, (0, -1, 1, 0))]
)
def test_rotation_metadata_is_followed(turned: int, matrix: tuple[int, ...]) -> None:
    """A phone writes frames as its sensor has them, and a matrix that turns them into the track's header."""
    upright = np.zeros((48, 48, 3), np.uint8)
    upright[:24] = (230, 60, 60)  # red above
    data = bytearray(
        clip(
            4,
            size=(48, 48),
            draw=lambda step, size: np.ascontiguousarray(np.rot90(upright, turned // 90)),
            options={"bf": "0"},
        )
    )
    # 40 bytes of version, flags, times, track, duration, layer and volume come before the matrix
    offset = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (entry * 65_536 for entry in matrix)
    for entry in (a, b, 0, c, d, 0, 0, 0, 1 << 30):
        data[offset : offset + 4] = entry.to_bytes(4, "big", signed=True)
        offset += 4
    pixels = OpenVideo(bytes(data)).frames(1, FRAMING).pixels[0].astype(int)
    assert pixels[6, 24, 0] > 150
    assert pixels[42, 24, 0] < 80


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animated_images_are_videos(kind: str) -> None:
    frames = [Image.fromarray(picture(step)) for step in range(12)]
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(
        buffer, kind, save_all=True, append_images=frames[1:], duration=[40] * 6 + [400] * 6, **options
    )
    opened = OpenVideo(buffer.getvalue())
    assert opened.moves
    assert opened.audio(16_000, 10.0) is None
    sampled = opened.frames(4, FRAMING)
    assert sampled.shown == 12
    total = 6 * 40 + 6 * 400
    times = np.cumsum([0] + [40] * 6 + [400] * 5)
    middles = (np.arange(4) + 0.5) * total / 4
    expected = np.searchsorted(times, middles, side="right") - 1
    assert [step_of(pixels) for pixels in sampled.pixels] == [int(step) % 10 for step in expected]


@pytest.mark.parametrize(
    "name", [name for name in VIDEOS if name not in ("mpeg2", "transport stream", "no timestamps")]
)
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_cut_video_is_refused(name: str, share: float) -> None:
    """Streams made for broadcasting are left out: they state no end, so nobody can tell."""
    data = clip(24, **VIDEOS[name])
    with pytest.raises(BadCell):
        OpenVideo(data[: int(len(data) * share)]).frames(8, FRAMING)


def test_frames_and_audio_come_from_one_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip(24, sound=wave(1.0))
    openings = []
    av_open = av.open

    def count_and_open(file: Any, **options: Any) -> Any:
        openings.append(file)
        return av_open(file, **options)

    monkeypatch.setattr(av, "open", count_and_open)
    opened = OpenVideo(data)
    assert opened.frames(4, FRAMING).pixels.shape == (4, 48, 48, 3)
    recording = opened.audio(16_000, 10.0)
    assert recording is not None
    assert len(recording.wave) == pytest.approx(16_000, abs=1500)
    assert len(openings) == 1


@pytest.mark.parametrize("container", ["matroska", "flv"])
@pytest.mark.parametrize("calls", [("frames", "audio"), ("audio", "frames")], ids=" then ".join)
def test_a_cut_file_fails_for_frames_and_audio_alike(container: str, calls: tuple[str, str]) -> None:
    data = clip(24, container, sound=wave(1.0))
    opened = OpenVideo(data[: int(len(data) * 0.6)])
    read = {"frames": lambda: opened.frames(4, FRAMING), "audio": lambda: opened.audio(16_000, 10.0)}
    for call in calls:
        with pytest.raises(BadCell, match=r"cut short: .* s are there"):
            read[call]()
