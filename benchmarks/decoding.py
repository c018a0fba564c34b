"""Decoding, one core: JPEG against Pillow, frames of clips against decoding all of them, spectrograms
against librosa, and rows of the cache: benchmarks/decoding.py
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from measure import machine, median, page, seconds, table
from plait.media.cache import Cache
from plait.media.cell import Cell
from plait.media.image import Framing
from plait.media.video import Clip
from plait.modalities import audio
from plait.modalities.image import Config, decode
from plait.nn.batch import Values
from plait.nn.device import keep_memory

CONFIG = Config(size=224, fit="stretch")
SIZES = {"JPEG 640 x 480": (640, 480, 60), "JPEG 1920 x 1080": (1920, 1080, 20)}
FRAMING = Framing(size=224, fit="stretch")


def photographs(width: int, height: int, count: int) -> list[bytes]:
    """Crops of scikit-learn's two photographs, enlarged, with noise, as JPEG of quality 85."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        image = Image.fromarray(load_sample_images().images[i % 2])
        left, top = rng.integers(0, 200), rng.integers(0, 100)
        image = image.crop((left, top, left + 400, top + 300)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(image).astype(np.int16) + rng.normal(0, 4, (height, width, 1)).astype(np.int16)
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        found.append(buffer.getvalue())
    return found


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(
        Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    )


def film(group: int) -> bytes:
    """Ten seconds of H.264, 640 x 360, 30 frames a second: a slow zoom into a photograph; a keyframe
    every `group` frames.
    """
    source = Image.fromarray(load_sample_images().images[0])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream(
            "libx264", rate=30, options={"crf": "23", "preset": "medium", "g": str(group)}
        )
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for i in range(300):
            zoom = 1 - 0.3 * i / 300
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
    theirs: Callable[[], object], ours: Callable[[], object], count: int, times: int = 5
) -> tuple[float, float]:
    """Milliseconds of each for one, in turns."""
    found: tuple[list[float], list[float]] = [], []
    for _ in range(times):
        found[0].extend(seconds(theirs, 1))
        found[1].extend(seconds(ours, 1))
    return median(found[0]) / count * 1e3, median(found[1]) / count * 1e3


def sound() -> torch.Tensor:
    rng, time = np.random.default_rng(0), np.arange(160_000) / 16_000
    tones = sum(
        np.sin(2 * np.pi * f * time * (1 + 0.02 * np.sin(3 * time))) / k
        for k, f in enumerate((140, 280, 430, 900, 1700, 3100), 1)
    )
    return torch.from_numpy((tones * 0.07 + rng.normal(0, 0.01, time.size)).astype(np.float32))


def spectrograms() -> list[object]:
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
        lambda: [theirs() for _ in range(10)], lambda: [audio.log_mel(wave, config) for _ in range(10)], 10
    )
    return [
        f"log-mel of 10 s, {librosa.__version__}",
        f"librosa {them:.2f} ms",
        f"{us:.2f} ms",
        f"{them / us:.2f}x",
        f"largest difference {apart:.4f}",
    ]


def cached_rows() -> list[list[object]]:
    """Cells of 150 kB, as they are found and copied at the start of a run, and as batches of 32 are cut
    in each step.
    """
    rng, count = np.random.default_rng(0), 2000
    keep_memory()  # as training does: a fresh batch in each step would fault page after page
    with tempfile.TemporaryDirectory() as folder:
        with Cache(Path(folder), 1e9) as cells:
            for i in range(count):
                cells.put(
                    "x", i.to_bytes(4, "big"), Cell(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8))
                )
        cells = Cache(Path(folder), 1e9)
        into = np.empty((count, 224, 224, 3), np.uint8)

        def find() -> None:
            for i in range(count):
                into[i] = cells.get("x", i.to_bytes(4, "big")).array  # type: ignore[union-attr]

        find()
        found = median(seconds(find, 5)) / count * 1e6
        values, rows = Values(torch.from_numpy(into)), torch.randperm(count).split(32)
        cells.close()
        cut = median(seconds(lambda: [values.take(r) for r in rows], 5)) / count * 1e6
    return [
        ["row of 150 kB out of the cache", "", f"{found:.1f} us", "", "once a run"],
        ["the same, in a batch of 32", "", f"{cut:.1f} us", "", "every step"],
    ]


def main() -> None:
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    for name, (width, height, count) in SIZES.items():
        data = photographs(width, height, count)
        theirs, ours = against(
            lambda data=data: [pillow(d) for d in data],
            lambda data=data: [decode(d, CONFIG) for d in data],
            count,
        )
        apart = np.mean([np.abs(pillow(d).astype(int) - decode(d, CONFIG)).mean() for d in data])
        rows.append(
            [
                name,
                f"Pillow {theirs:.2f} ms",
                f"{ours:.2f} ms",
                f"{theirs / ours:.2f}x",
                f"mean difference {apart:.2f} of 255",
            ]
        )
    for group in (250, 30):
        data = film(group)
        theirs, ours = against(
            lambda data=data: decode_all(data), lambda data=data: Clip(data).frames(8, FRAMING), 1
        )
        every, picked = decode_all(data), Clip(data).frames(8, FRAMING).pixels
        exact = all(
            np.abs(every[int((i + 0.5) * 300 / 8)].astype(int) - picked[i]).mean() < 3 for i in range(8)
        )
        name = f"8 frames of 10 s, a keyframe every {group}"
        rows.append(
            [
                name,
                f"PyAV, all of it {theirs:.0f} ms",
                f"{ours:.0f} ms",
                f"{theirs / ours:.2f}x",
                f"the same frames: {exact}",
            ]
        )
    rows.append(spectrograms())
    rows += cached_rows()
    headers = ["what", "theirs", "plait", "against them", ""]
    page(
        "decoding.md",
        f"""# Decoding

Made by `benchmarks/decoding.py`, one thread, medians of 5, in turns; {machine()}. Pictures and frames become 224 x 224.

{table(headers, rows)}""",
    )


if __name__ == "__main__":
    main()
