"""Decoding on one core: benchmarks/decoding.py

JPEG against Pillow, frames of a video against decoding all of them, spectrograms against librosa, and
rows of the cache.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from measure import machine, median, page, read_arguments, seconds, table
from plait.media.cache import Cache
from plait.media.cell import Cell
from plait.media.image import Framing
from plait.media.still import decode
from plait.media.video import OpenVideo
from plait.modalities import audio
from plait.modalities.image import Config
from plait.nn.batch import Values
from plait.nn.device import keep_memory

CONFIG = Config(size=224, fit="stretch")
FRAMING = Framing(size=224, fit="stretch")


class Sizes(NamedTuple):
    images: tuple[tuple[int, int, int], ...]  # width, height, how many
    frames: int  # of a video, 30 a second
    keyframes: tuple[int, ...]
    cells: int  # in the cache
    times: int


FULL = Sizes(((640, 480, 60), (1920, 1080, 20)), 300, (250, 30), 2000, 5)
QUICK = Sizes(((320, 240, 2),), 24, (10,), 40, 1)


def photographs(width: int, height: int, count: int) -> list[bytes]:
    """Cut out, enlarge and add noise to scikit-learn's two photographs. Return JPEG of quality 85."""
    rng = np.random.default_rng(0)
    images = []
    for i in range(count):
        image = Image.fromarray(load_sample_images().images[i % 2])
        left, top = rng.integers(0, 200), rng.integers(0, 100)
        image = image.crop((left, top, left + 400, top + 300)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(image).astype(np.int16) + rng.normal(0, 4, (height, width, 1)).astype(np.int16)
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        images.append(buffer.getvalue())
    return images


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(
        Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    )


def film(group: int, frames: int) -> bytes:
    """Film a slow zoom into a photograph: H.264, 640 x 360, 30 frames a second.

    One in `group` frames is a keyframe.
    """
    source = Image.fromarray(load_sample_images().images[0])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream(
            "libx264", rate=30, options={"crf": "23", "preset": "medium", "g": str(group)}
        )
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for i in range(frames):
            zoom = 1 - 0.3 * i / frames
            width, height = int(640 * zoom), int(640 * zoom * 9 / 16)
            left, top = (
                int((640 - width) * (0.5 + 0.5 * np.sin(i / 40))),
                int((427 - height) * (0.5 + 0.3 * np.cos(i / 50))),
            )
            shown = source.crop((left, top, left + width, top + height)).resize(
                (640, 360), Image.Resampling.BILINEAR
            )
            file.mux(stream.encode(av.VideoFrame.from_image(shown)))
        file.mux(stream.encode())
    return buffer.getvalue()


def decode_all(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data)) as file:
        file.streams.video[0].codec_context.thread_count = 1
        return [
            f.to_ndarray(width=224, height=224, format="rgb24", interpolation="BILINEAR")
            for f in file.decode(video=0)
        ]


def against(
    theirs: Callable[[], object], ours: Callable[[], object], count: int, times: int
) -> tuple[float, float]:
    """Time both in turns, each on `count` cells. Return the milliseconds that each takes for a cell."""
    their_seconds: list[float] = []
    our_seconds: list[float] = []
    for _ in range(times):
        their_seconds.extend(seconds(theirs, 1))
        our_seconds.extend(seconds(ours, 1))
    return median(their_seconds) / count * 1e3, median(our_seconds) / count * 1e3


def sound() -> torch.Tensor:
    rng, time = np.random.default_rng(0), np.arange(160_000) / 16_000
    tones = sum(
        np.sin(2 * np.pi * f * time * (1 + 0.02 * np.sin(3 * time))) / k
        for k, f in enumerate((140, 280, 430, 900, 1700, 3100), 1)
    )
    return torch.from_numpy((tones * 0.07 + rng.normal(0, 0.01, time.size)).astype(np.float32))


def spectrograms(times: int) -> list[object]:
    """Compare the log-mel spectrograms of ten seconds."""
    try:
        import librosa
    except ModuleNotFoundError:
        return ["log-mel of 10 s", "librosa is not installed here", "", "", ""]
    config, wave = audio.Config(bands=80), sound()
    samples = wave.numpy()

    def theirs() -> np.ndarray:
        return librosa.power_to_db(
            librosa.feature.melspectrogram(y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=80)
        )

    power = librosa.feature.melspectrogram(
        y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=80, pad_mode="reflect"
    )
    apart = np.abs(np.log10(np.maximum(power, 1e-10)).T - audio.log_mel(wave, config).numpy()).max()
    them, us = against(
        lambda: [theirs() for _ in range(10)],
        lambda: [audio.log_mel(wave, config) for _ in range(10)],
        10,
        times,
    )
    return [
        f"log-mel of 10 s, {librosa.__version__}",
        f"librosa {them:.2f} ms",
        f"{us:.2f} ms",
        f"{them / us:.2f}x",
        f"largest difference {apart:.4f}",
    ]


def cached_rows(sizes: Sizes) -> list[list[object]]:
    """Time cells of 150 kB: copied at the start of a run, and cut into batches of 32 in each step."""
    rng, count = np.random.default_rng(0), sizes.cells
    keep_memory()  # as training does: a fresh batch in each step would fault page after page
    with tempfile.TemporaryDirectory() as folder:
        with Cache(Path(folder), 1e9) as cells:
            for i in range(count):
                cells.put(
                    "x", i.to_bytes(4, "big"), Cell(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8))
                )
        cells = Cache(Path(folder), 1e9)
        images = np.empty((count, 224, 224, 3), np.uint8)

        def read() -> None:
            for i in range(count):
                images[i] = cells.get("x", i.to_bytes(4, "big")).array  # type: ignore[union-attr]

        read()
        reading = median(seconds(read, sizes.times)) / count * 1e6
        values, rows = Values(torch.from_numpy(images)), torch.randperm(count).split(32)
        cells.close()
        cut = median(seconds(lambda: [values.take(r) for r in rows], sizes.times)) / count * 1e6
    return [
        ["row of 150 kB out of the cache", "", f"{reading:.1f} us", "", "once a run"],
        ["the same, in a batch of 32", "", f"{cut:.1f} us", "", "every step"],
    ]


def images(width: int, height: int, count: int, times: int) -> list[object]:
    """Compare decoding of JPEG."""
    files = photographs(width, height, count)
    theirs, ours = against(
        lambda: [pillow(file) for file in files],
        lambda: [decode(file, CONFIG) for file in files],
        count,
        times,
    )
    differences = [np.abs(pillow(file).astype(int) - decode(file, CONFIG).pixels).mean() for file in files]
    return [
        f"JPEG {width} x {height}",
        f"Pillow {theirs:.2f} ms",
        f"{ours:.2f} ms",
        f"{theirs / ours:.2f}x",
        f"mean difference {np.mean(differences):.2f} of 255",
    ]


def frames(group: int, sizes: Sizes) -> list[object]:
    """Compare the decoding of eight frames with that of all frames."""
    file = film(group, sizes.frames)
    theirs, ours = against(
        lambda: decode_all(file), lambda: OpenVideo(file).frames(8, FRAMING), 1, sizes.times
    )
    every, picked = decode_all(file), OpenVideo(file).frames(8, FRAMING).pixels
    numbers = [int((i + 0.5) * sizes.frames / 8) for i in range(8)]
    same = all(np.abs(every[n].astype(int) - picked[i]).mean() < 3 for i, n in enumerate(numbers))
    return [
        f"8 frames of {sizes.frames / 30:.0f} s, a keyframe every {group}",
        f"PyAV, all of it {theirs:.0f} ms",
        f"{ours:.0f} ms",
        f"{theirs / ours:.2f}x",
        f"the same frames: {same}",
    ]


def main() -> None:
    arguments = read_arguments(argparse.ArgumentParser(description=__doc__))
    sizes = QUICK if arguments.quick else FULL
    torch.set_num_threads(1)
    lines = [images(*image, sizes.times) for image in sizes.images]
    lines += [frames(group, sizes) for group in sizes.keyframes]
    lines += [spectrograms(sizes.times), *cached_rows(sizes)]
    page(
        "decoding.md",
        f"""# Decoding

Made by `benchmarks/decoding.py`, one thread, medians of {sizes.times}, in turns; {machine()}.
Images and frames become 224 x 224.

{table(["what", "theirs", "plait", "against them", ""], lines)}""",
        arguments,
    )


if __name__ == "__main__":
    main()
