"""Small sounds and clips, made on the spot."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

RATE = 16_000


def wave(seconds: float, hertz: float = 440.0, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A tone in a little noise, float32."""
    time = np.arange(int(seconds * rate)) / rate
    return (
        0.3 * np.sin(2 * np.pi * hertz * time) + 0.02 * np.random.default_rng(seed).normal(size=time.size)
    ).astype(np.float32)


def wav(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def encoded(samples: np.ndarray, container: str, codec: str, rate: int = RATE, layout: str = "mono") -> bytes:
    """Mono samples at 16 kHz in any container and codec that PyAV writes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            stream.bit_rate = 64_000  # it has no default
        _add_sound(file, stream, samples)
    return buffer.getvalue()


def _add_sound(file: Any, stream: Any, samples: np.ndarray) -> None:
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = RATE
    resampler = av.AudioResampler(
        stream.format, stream.layout, stream.rate, frame_size=stream.codec_context.frame_size or 1024
    )
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        file.mux(stream.encode(part))
    file.mux(stream.encode())


def picture(step: int, size: tuple[int, int] = (48, 32)) -> np.ndarray:
    """A bright square on a dark ground, four pixels further to the right in each step."""
    pixels = np.full((size[1], size[0], 3), 20 + 3 * (step % 60), np.uint8)
    left = (4 * step) % (size[0] - 8)
    pixels[8:16, left : left + 8] = (230, 60, 60)
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
    """A clip of `draw(step)`; `times` are presentation times in units of 1/rate."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"g": "8", "bf": "2", **(options or {})} if codec == "libx264" else (options or {})
        heard = (
            file.add_stream("aac" if container == "mp4" else "libopus", rate=48_000, layout="mono")
            if sound is not None
            else None
        )
        for step in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(step, size), format="rgb24")
            if times:
                frame.pts = times[step]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if heard is not None and sound is not None:
            _add_sound(file, heard, sound)
    return buffer.getvalue()


def tones(folder: Path, count: int) -> list[dict[str, Any]]:
    """Recordings of three lengths and pitches, one of them very short, with what is said in each."""
    for i in range(count):
        (folder / f"t{i}.wav").write_bytes(
            wav(wave(0.04 if i == 20 else 0.3 + i % 3 / 10, 300 * (1 + i % 3)))
        )
    return [{"call": f"t{i}.wav", "said": ["had", "a bed", "cafe"][i % 3]} for i in range(count)]
