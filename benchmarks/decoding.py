"""JPEG files to prepared pictures of 224 x 224, one core, against Pillow: benchmarks/decoding.py"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from measure import machine, median, page, seconds, table
from plait.modalities.image import Config, decode

CONFIG = Config(size=224, fit="stretch")
SIZES = {"640 x 480": (640, 480, 60), "1920 x 1080": (1920, 1080, 20)}


def photographs(width: int, height: int, count: int) -> list[bytes]:
    """Crops of scikit-learn's two photographs, enlarged, with noise, as JPEG of quality 85."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        image = Image.fromarray(load_sample_images().images[i % 2])
        left, top = rng.integers(0, 200), rng.integers(0, 100)
        image = image.crop((left, top, left + 400, top + 300)).resize((width, height), Image.Resampling.BICUBIC)
        noisy = np.asarray(image).astype(np.int16) + rng.normal(0, 4, (height, width, 1)).astype(np.int16)
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        found.append(buffer.getvalue())
    return found


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))


def main() -> None:
    rows = []
    for name, (width, height, count) in SIZES.items():
        data = photographs(width, height, count)
        times: dict[str, list[float]] = {"Pillow": [], "plait": []}
        for _ in range(5):
            times["Pillow"] += seconds(lambda data=data: [pillow(d) for d in data], 1)
            times["plait"] += seconds(lambda data=data: [decode(d, CONFIG) for d in data], 1)
        apart = np.mean([np.abs(pillow(d).astype(int) - decode(d, CONFIG)).mean() for d in data])
        theirs, ours = (median(times[k]) / count * 1e3 for k in ("Pillow", "plait"))
        rows.append([name, f"{theirs:.2f}", f"{ours:.2f}", f"{theirs / ours:.2f}x", f"{apart:.2f}"])
    headers = ["JPEG", "Pillow, ms", "plait, ms", "against Pillow", "mean difference, of 255"]
    page("decoding.md", f"# JPEG to 224 x 224\n\nMade by `benchmarks/decoding.py`, one thread, medians of 5; {machine()}.\n\n{table(headers, rows)}")


if __name__ == "__main__":
    main()
