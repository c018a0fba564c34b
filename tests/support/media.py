"""Make small audio and video files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from plait.media import limits

RATE = 16_000


@contextmanager
def within(**changes: Any) -> Iterator[None]:
    """Set limits of files as a process that decodes the files of strangers does, for a while."""
    before = limits.current()
    limits.set_limits(replace(before, **changes))
    try:
        yield
    finally:
        limits.set_limits(before)


def wave(seconds: float, hertz: float = 440.0, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Return a tone in a little noise, float32."""
    time = np.arange(int(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * hertz * time)
    noise = 0.02 * np.random.default_rng(seed).normal(size=time.size)
    return (tone + noise).astype(np.float32)


def wav(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Return the file of some samples, by default a WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def encoded(
    samples: np.ndarray,
    container: str,
    codec: str,
    rate: int = RATE,
    layout: str = "mono",
    options: dict[str, str] | None = None,
    bit_rate: int | None = None,
) -> bytes:
    """Return mono samples at 16 kHz in any container and codec that PyAV writes.

    `options` are the container's. A `bit_rate` of 0 is a variable one, for codecs that have it.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options or {}) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        if bit_rate == 0:
            stream.codec_context.flags |= av.codec.context.Flags.qscale
            stream.codec_context.global_quality = 4 * 118  # quality 4 of libmp3lame, in FFmpeg's units
        elif bit_rate:
            stream.bit_rate = bit_rate
        if codec == "wmav2":
            stream.bit_rate = 64_000  # it has no default
        _add_audio(file, stream, samples)
    return buffer.getvalue()


def _add_audio(file: Any, stream: Any, samples: np.ndarray) -> None:
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = RATE
    resampler = av.AudioResampler(
        stream.format, stream.layout, stream.rate, frame_size=stream.codec_context.frame_size or 1024
    )
    for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
        file.mux(stream.encode(resampled))
    file.mux(stream.encode())


def picture(step: int, size: tuple[int, int] = (48, 32)) -> np.ndarray:
    """Draw a bright square on a dark ground, four pixels further to the right in each step."""
    width, height = size
    pixels = np.full((height, width, 3), 20 + 3 * (step % 60), np.uint8)
    first_column = (4 * step) % (width - 8)
    pixels[8:16, first_column : first_column + 8] = (230, 60, 60)
    return pixels


def clip(
    frames: int = 24,
    container: str = "mp4",
    codec: str = "libx264",
    rate: int = 24,
    sound: np.ndarray | None = None,
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (48, 32),
    draw: Any = picture,
) -> bytes:
    """Return a video whose frames are `draw(step)`; `times` are presentation times in units of 1/rate."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = options or {}
        if codec == "libx264":
            stream.options = {"g": "8", "bf": "2", **(options or {})}
        audio_stream = None
        if sound is not None:
            audio_codec = "aac" if container == "mp4" else "libopus"
            audio_stream = file.add_stream(audio_codec, rate=48_000, layout="mono")

        for step in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(step, size), format="rgb24")
            if times:
                frame.pts = times[step]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if audio_stream is not None and sound is not None:
            _add_audio(file, audio_stream, sound)
    return buffer.getvalue()


def tones(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write recordings of three lengths and pitches, one of them very short. Return rows with their texts."""
    texts = ["had", "a bed", "cafe"]
    rows = []
    for i in range(count):
        kind = i % 3
        seconds = 0.04 if i == 20 else 0.3 + kind / 10
        file = folder / f"t{i}.wav"
        file.write_bytes(wav(wave(seconds, 300 * (1 + kind))))
        rows.append({"call": file.name, "said": texts[kind]})
    return rows
