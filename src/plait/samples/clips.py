"""Moving stamps: 800 short clips of Tux Paint's stamps that move, grow or spin, with captions. GPL-2,
as the stamps.

Rendered from the stamps by this file, from a seed: H.264 at 48 x 48 pixels, 16 frames, two seconds,
with the stamp's own sound where it has one. One frame does not tell the motion (eight motions, chance
0.125), and no stamp of the test side is on another side. Holes are left on purpose: two captions in
five, and one clip in twenty, are missing.
"""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
from PIL import Image

from plait.media.audio import read_sound
from plait.samples.base import find_sample
from plait.table.write import write

TARGET = "motion"


ABOUT = "clips of stamps that move, and captions"


INPUTS = {"clip": ["clip"], "caption": ["caption"], "sound": ["clip.sound"]}


OVERRIDES: tuple[str, ...] = ("columns.category.role=ignored",)


COUNT, FRAMES, SIDE, RATE, FPS = 800, 16, 48, 16_000, 8


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
    """The table `clips.csv` in the cache folder, rendered on the first call from the stamps beside it.

    Raises `TableError` where the stamps cannot be fetched.
    """
    table = cache / "clips.csv"
    if table.is_file():
        return table
    source = find_sample("stamps").fetch(cache.parent / "stamps")
    with source.open(encoding="utf-8") as file:
        stamps = [row for row in csv.DictReader(file) if row["picture"] and row["sentence"]]
    (cache / "clips").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    order = [stamps[i] for i in rng.permutation(len(stamps))]
    order.sort(key=lambda row: not row["sound"])  # every stamp that has a sound is among them
    rows = [_render(order[number % len(order)], number, source.parent, cache, rng) for number in range(COUNT)]
    write(pa.Table.from_pylist(rows), table)
    return table


def _render(
    stamp: dict[str, str], number: int, source: Path, cache: Path, rng: np.random.Generator
) -> dict[str, str]:
    motion = list(WORDS)[int(rng.integers(len(WORDS)))]
    fast = bool(rng.integers(2))
    frames = _frames(Image.open(source / stamp["picture"]).convert("RGBA"), motion, fast, rng)
    sound = read_sound((source / stamp["sound"]).read_bytes(), RATE, 10.0).wave if stamp["sound"] else None
    name = f"clips/{number:04d}.mp4"
    _write(cache / name, frames, sound)
    sentence = stamp["sentence"].strip().rstrip(".!")
    caption = f"{sentence[:1].lower()}{sentence[1:]} {WORDS[motion]}" + (
        "" if motion == "still" else ", fast" if fast else ", slowly"
    )
    lacks = rng.random(2) < (0.05, 0.4)
    return {
        "clip": "" if lacks[0] else name,
        "caption": "" if lacks[1] else caption,
        "motion": motion,
        "category": stamp["category"],
        "split": stamp["split"],
    }


def _frames(picture: Image.Image, motion: str, fast: bool, rng: np.random.Generator) -> list[np.ndarray]:
    """The stamp, 22 pixels long, on a plain sloping ground with a little noise."""
    scale = 22 / max(picture.size)
    picture = picture.resize(
        (max(4, int(picture.width * scale)), max(4, int(picture.height * scale))), Image.Resampling.LANCZOS
    )
    above, below = rng.integers(60, 250, (2, 3))
    slope = np.linspace(0, 1, SIDE)[:, None, None]
    ground = above * (1 - slope) + below * slope + rng.normal(0, 6, (SIDE, SIDE, 1))
    start = rng.uniform(14, 34, 2)
    found = []
    for step in range(FRAMES):
        shown, (x, y) = _moved(picture, start, motion, step, fast)
        frame = Image.fromarray(np.broadcast_to(ground, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8))
        frame.paste(shown, (int(x - shown.width / 2), int(y - shown.height / 2)), shown)
        noisy = np.asarray(frame) + rng.normal(0, 3, (SIDE, SIDE, 1))
        found.append(noisy.clip(0, 255).astype(np.uint8))
    return found


def _moved(
    picture: Image.Image, start: np.ndarray, motion: str, step: int, fast: bool
) -> tuple[Image.Image, np.ndarray]:
    """The picture and its place after so many steps."""
    middle = step - FRAMES / 2
    directions = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    if motion in directions:
        return picture, start + np.array(directions[motion]) * middle * (1.9 if fast else 0.9)
    if motion in ("grow", "shrink"):
        zoom = 1 + (0.07 if fast else 0.035) * middle * (1 if motion == "grow" else -1)
        return picture.resize((max(3, int(picture.width * zoom)), max(3, int(picture.height * zoom)))), start
    if motion == "spin":
        return picture.rotate((14 if fast else 6) * step, expand=True), start
    return picture, start


def _write(path: Path, frames: list[np.ndarray], sound: np.ndarray | None) -> None:
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=FPS, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        audio = file.add_stream("aac", rate=RATE, layout="mono") if sound is not None else None
        for pixels in frames:
            file.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(video.encode())
        if audio is None or sound is None:
            return
        whole = np.zeros(RATE * FRAMES // FPS, np.float32)
        whole[: len(sound)] = sound[: len(whole)]
        for first in range(0, len(whole) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(
                whole[None, first : first + 1024], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, first
            file.mux(audio.encode(frame))
        file.mux(audio.encode())
