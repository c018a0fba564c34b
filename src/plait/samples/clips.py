"""Moving stamps: 800 short videos of Tux Paint's stamps that move, grow or spin, with captions.

The license is GPL-2, as that of the stamps. This file renders the videos from the stamps with a fixed seed:
H.264 at 48 x 48 pixels, 16 frames, two seconds, with the stamp's sound as audio if it has one. One frame does
not tell the motion (eight motions, chance 0.125), and no stamp of the test rows is in other rows. Cells are
missing on purpose: two captions in five, and one video in twenty.
"""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
from av import AudioStream
from av.container import OutputContainer
from PIL import Image

from plait.media.audio import read_audio
from plait.samples.base import find_sample
from plait.table.write import write

TARGET = "motion"


ABOUT = "short videos of stamps that move, with captions"


INPUTS = {"clip": ["clip"], "caption": ["caption"], "sound": ["clip.sound"]}


OVERRIDES: tuple[str, ...] = ("columns.category.role=ignored",)


COUNT = 800  # videos


FRAMES, FPS, SIDE = 16, 8, 48  # frames of a video, frames a second, pixels a side


RATE = 16_000  # samples a second


AAC_FRAME = 1024  # samples that AAC encodes at once


WORDS = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "grow": "gets bigger",
    "shrink": "gets smaller",
    "spin": "turns round",
    "still": "stays still",
}


def fetch(cache: Path) -> Path:
    """Return the table `clips.csv` in the cache folder, rendered from the stamps on the first call.

    Raises `TableError` if the stamps cannot be fetched.
    """
    table = cache / "clips.csv"
    if table.is_file():
        return table
    source = find_sample("stamps").fetch(cache.parent / "stamps")
    with source.open(encoding="utf-8") as file:
        stamps = [row for row in csv.DictReader(file) if row["picture"] and row["sentence"]]
    (cache / "clips").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    shuffled = [stamps[i] for i in rng.permutation(len(stamps))]
    shuffled.sort(key=lambda row: not row["sound"])  # so that every stamp with a sound is used
    rows = []
    for number in range(COUNT):
        stamp = shuffled[number % len(shuffled)]
        rows.append(_render(stamp, number, source.parent, cache, rng))
    write(pa.Table.from_pylist(rows), table)
    return table


def _render(
    stamp: dict[str, str], number: int, source: Path, cache: Path, rng: np.random.Generator
) -> dict[str, str]:
    """Write the video of one stamp, and return its row of the table."""
    motion = list(WORDS)[int(rng.integers(len(WORDS)))]
    fast = bool(rng.integers(2))
    image = Image.open(source / stamp["picture"]).convert("RGBA")
    frames = _frames(image, motion, fast, rng)
    wave = None
    if stamp["sound"]:
        content = (source / stamp["sound"]).read_bytes()
        wave = read_audio(content, RATE, 10.0).wave
    name = f"clips/{number:04d}.mp4"
    _write(cache / name, frames, wave)

    lacks_clip, lacks_caption = rng.random(2) < (0.05, 0.4)
    return {
        "clip": "" if lacks_clip else name,
        "caption": "" if lacks_caption else _caption(stamp["sentence"], motion, fast),
        "motion": motion,
        "category": stamp["category"],
        "split": stamp["split"],
    }


def _caption(stamp_text: str, motion: str, fast: bool) -> str:
    """Describe a moving stamp, as in "a red bird moves left, slowly"."""
    text = stamp_text.strip().rstrip(".!")
    caption = f"{text[:1].lower()}{text[1:]} {WORDS[motion]}"
    if motion == "still":
        return caption
    return f"{caption}, fast" if fast else f"{caption}, slowly"


def _frames(image: Image.Image, motion: str, fast: bool, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the stamp, 22 pixels long, on a background of two blended colours with a little noise."""
    scale = 22 / max(image.size)
    size = (max(4, int(image.width * scale)), max(4, int(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)

    top_colour, bottom_colour = rng.integers(60, 250, (2, 3))
    slope = np.linspace(0, 1, SIDE)[:, None, None]
    noise = rng.normal(0, 6, (SIDE, SIDE, 1))
    ground = top_colour * (1 - slope) + bottom_colour * slope + noise
    ground = np.broadcast_to(ground, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)

    start = rng.uniform(14, 34, 2)
    frames = []
    for step in range(FRAMES):
        stamp, (x, y) = _moved(image, start, motion, step, fast)
        corner = (int(x - stamp.width / 2), int(y - stamp.height / 2))
        frame = Image.fromarray(ground)
        frame.paste(stamp, corner, stamp)
        noisy = np.asarray(frame) + rng.normal(0, 3, (SIDE, SIDE, 1))
        frames.append(noisy.clip(0, 255).astype(np.uint8))
    return frames


def _moved(
    image: Image.Image, start: np.ndarray, motion: str, step: int, fast: bool
) -> tuple[Image.Image, np.ndarray]:
    """Return the image and the position of its middle after so many steps."""
    middle = step - FRAMES / 2
    directions = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    if motion in directions:
        speed = 1.9 if fast else 0.9
        return image, start + np.array(directions[motion]) * middle * speed
    if motion in ("grow", "shrink"):
        rate = 0.07 if fast else 0.035
        sign = 1 if motion == "grow" else -1
        zoom = 1 + rate * middle * sign
        size = (max(3, int(image.width * zoom)), max(3, int(image.height * zoom)))
        return image.resize(size), start
    if motion == "spin":
        degrees = 14 if fast else 6
        return image.rotate(degrees * step, expand=True), start
    return image, start


def _write(path: Path, frames: list[np.ndarray], wave: np.ndarray | None) -> None:
    """Write frames, and audio if there is any, as an MP4 file of H.264 and AAC."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=FPS, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        audio = file.add_stream("aac", rate=RATE, layout="mono") if wave is not None else None
        for pixels in frames:
            file.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(video.encode())
        if audio is not None and wave is not None:
            _write_audio(file, audio, wave)


def _write_audio(file: OutputContainer, audio: AudioStream, wave: np.ndarray) -> None:
    """Write samples, cut or padded with silence to the length of the video."""
    fitted = np.zeros(RATE * FRAMES // FPS, np.float32)
    fitted[: len(wave)] = wave[: len(fitted)]
    for first in range(0, len(fitted) - AAC_FRAME + 1, AAC_FRAME):
        samples = fitted[None, first : first + AAC_FRAME]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = RATE
        frame.pts = first
        file.mux(audio.encode(frame))
    file.mux(audio.encode())
