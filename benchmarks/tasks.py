"""Several targets in one model, and text as an answer: benchmarks/tasks.py

(a) Stamps: category from the picture, category from the sentence, drawing style, and the language of a
spoken description, in one model and in a model for each. (b) Recordings of telephone prompts, English
and Italian, in one model: character error rate on prompts never heard, beside the transcript of the
nearest recording; and numbers spoken, made of recordings of single words put one after the other, some
of which never stand side by side in training. (c) Captions of moving stamps, from the video alone:
whether the word for the motion is right, and, on objects that were seen in training in another video,
that for the object. (d) Emoji, picture to name, on a vendor never seen. (e) Ways of balancing: two
losses that conflict, and (a). Intervals are over rows (bootstrap) and ranges over seeds. `--scores` is
a file of scores, for a run that goes on later.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import torch
from torch import nn

import plait
import standins
from measure import cache_folder, machine, page, read_arguments, remembered, sample_table
from plait.balancing.base import Share, balancings
from plait.evaluation.bootstrap import bootstrap
from plait.modalities.audio import Config as AudioConfig
from plait.modalities.audio import log_mel
from plait.samples import clips, emoji, prompts, stamps
from plait.samples.base import side
from plait.table.read import read
from plait.table.table import Table
from plait.tasks.transcription import Transcription
from plait.tasks.writing.metrics import EditedRows
from plait.tasks.writing.spelling import plain
from tasks_page import part_a, part_b, part_cd, part_e

FROZEN = ("encoders.image=pretrained", "columns.sentence.encoder=pretrained")
SPEECH = ("modalities.audio.rate=8000", "modalities.audio.highest=4000")
TASKS = {
    "category by picture": "{name: classification, column: category, inputs: [picture]}",
    "category by sentence": "{name: classification, column: category, inputs: [sentence]}",
    "style": "{name: classification, inputs: [picture]}",
    "language": "{name: classification, inputs: [speech]}",
}
BALANCING = (
    "equal",
    "uncertainty",
    "famo",
    *(f"{{name: gradient, method: {m}}}" for m in ("upgrad", "pcgrad", "cagrad", "mgda")),
)
HELD = 5  # one ordered pair of number words in so many is never heard in training
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = {
    str(n): word
    for n, word in (*enumerate(SMALL.split()), *zip(range(20, 100, 10), TENS.split(), strict=True))
}


@dataclass
class Sizes:
    """How large the tables and trainings are."""

    spoken: int = 300  # descriptions that a language needs
    numbers: tuple[int, int, int] = (1200, 150, 300)  # rows to train, validate, test
    epochs: tuple[int, int, int] = (22, 16, 40)  # of the transcriber, of speech, of names
    steps: int = 2000  # with two losses that conflict
    overrides: tuple[str, ...] = ()  # added to those of every fit
    balancing: tuple[str, ...] = BALANCING[1:]  # ways that are compared on the stamps


SIZES = Sizes()  # a quick run replaces its fields
QUICK = Sizes(
    1, (24, 6, 6), (1, 1, 1), 20, ("training.epochs=1", "modalities.image.size=32"), BALANCING[1:4:2]
)


def rows_of(sample: Any) -> tuple[list[dict[str, Any]], Path]:
    """Read a sample. Return its rows, and the folder that paths begin in."""
    table = read(sample_table(sample))
    return table.data.to_pylist(), table.root


def fitted(
    rows: list[dict[str, Any]], root: Path, overrides: tuple[str, ...], seed: int, target: Any = ()
) -> tuple[dict[str, Any], plait.Model]:
    with tempfile.TemporaryDirectory() as folder:
        data = Table(pa.Table.from_pylist(rows), root, "rows")
        model = plait.fit(
            data,
            target,
            out=Path(folder) / "run",
            seed=seed,
            overrides=["quality=network", "split.column=split", *overrides, *SIZES.overrides],
            quiet=True,
        )
        return model.record, model


def spoken_stamps() -> tuple[list[dict[str, Any]], Path]:
    """Read the stamps with one spoken description each, in a random language of many descriptions."""
    rows, root = rows_of(stamps)
    spoken: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((root / "usr/share/tuxpaint/stamps").rglob("*_desc_*")):
        stem, language = re.sub(
            r"\.\w+$", "", str(path.relative_to(root / "usr/share/tuxpaint/stamps"))
        ).rsplit("_desc_", 1)
        spoken.setdefault(stem, []).append((language, str(path.relative_to(root))))
    counts: dict[str, int] = {}
    for language in (lang for descriptions in spoken.values() for lang, _ in descriptions):
        counts[language] = counts.get(language, 0) + 1
    table = []
    for row in rows:
        descriptions = [pair for pair in spoken.get(row["stamp"], []) if counts[pair[0]] >= SIZES.spoken]
        lot = int(hashlib.sha1(row["stamp"].encode()).hexdigest(), 16)
        language, speech = descriptions[lot % len(descriptions)] if descriptions else (None, None)
        cells = {c: row[c] for c in ("stamp", "picture", "sentence", "style", "category", "family", "split")}
        table.append({**cells, "speech": speech, "language": language})
    return table, root


def together(seed: int, balancing: str = "equal", names: tuple[str, ...] = tuple(TASKS)) -> dict[str, float]:
    """Train one model of these tasks. Return the accuracy of each on test rows."""
    rows, root = spoken_stamps()
    read_by = {c for c in ("picture", "sentence", "speech") if any(f"[{c}]" in TASKS[name] for name in names)}
    labels = {"category", "style", "language"} - {
        c for name in names for c in ("category", "style", "language") if c in (name, *name.split())
    }
    ignored = [f"columns.{c}.role=ignored" for c in ({"picture", "sentence", "speech"} - read_by) | labels]
    frozen = [f for f, c in zip(FROZEN, ("picture", "sentence"), strict=True) if c in read_by]
    speech = (
        ["modalities.audio.hop=0.02", "modalities.audio.seconds=4", *SPEECH] if "speech" in read_by else []
    )
    tasks = [f"tasks.{name}={TASKS[name]}" for name in names]
    overrides = (
        "split.group=family",
        f"balancing={balancing}",
        "columns.stamp.role=id",
        *ignored,
        *frozen,
        *speech,
        *tasks,
    )
    begun = time.perf_counter()
    record, _ = fitted(rows, root, overrides, seed)
    targets = record["evaluation"]["test"]["targets"]
    return {
        **{name: targets[name]["metrics"]["accuracy"]["value"] for name in names},
        "seconds": time.perf_counter() - begun,
    }


def apart(seed: int) -> dict[str, float]:
    scores: dict[str, float] = {"seconds": 0.0}
    for name in TASKS:
        run = together(seed, names=(name,))
        scores |= {name: run[name], "seconds": scores["seconds"] + run["seconds"]}
    return scores


def transcripts(seed: int) -> dict[str, Any]:
    """Transcribe prompts in two languages by three readers, with one model."""
    rows, root = rows_of(prompts)
    rows = [row for row in rows if row["language"] in ("en", "it")]
    ignored = tuple(f"columns.{c}.role=ignored" for c in ("reader", "reader_split", "language"))
    overrides = (*ignored, "columns.key.role=id", "tasks.transcript=transcription", *SPEECH)
    begun = time.perf_counter()
    record, model = fitted(rows, root, overrides, seed)
    seconds = time.perf_counter() - begun
    scores: dict[str, Any] = {"seconds": seconds, "epochs": record["epochs"], "rows": record["rows"]}
    scores["hours"] = (
        sum(soundfile.info(root / row["speech"]).duration for row in rows if row["split"] == "train") / 3600
    )
    for language in ("en", "it"):
        held = [row for row in rows if row["split"] == "test" and row["language"] == language]
        training = [row for row in rows if row["split"] == "train" and row["language"] == language]
        expected = [plain(row["transcript"], "spoken") for row in held]
        answered = model.predict(Table(pa.Table.from_pylist(held), root, "test"))["transcript"].to_pylist()
        scores[language] = rates(answered, expected)
        scores[f"{language}, nearest"] = rates(nearest(training, held, root), expected)
        scores[f"{language}, heard"] = list(zip(expected, answered, strict=True))[:6]
    return scores


def rates(answered: list[str | None], expected: list[str]) -> dict[str, list[float]]:
    """Compute error rates with intervals over rows."""
    rows = EditedRows.of([text or "" for text in answered], expected)
    scores = bootstrap(rows, Transcription.metrics, 1000)
    return {name: [score.value, score.low, score.high] for name, score in scores.items()}


def nearest(training: list[dict[str, Any]], held: list[dict[str, Any]], root: Path) -> list[str]:
    """Return the transcript of the training recording with the nearest spectrum.

    A spectrum is its mean in eight stretches of time, and its length.
    """
    config = AudioConfig(rate=8000, highest=4000)

    def seen(row: dict[str, Any]) -> np.ndarray:
        wave, _ = soundfile.read(root / row["speech"], dtype="float32")
        spectra = log_mel(torch.from_numpy(wave), config).numpy()
        stretches = [
            spectra[
                int(i * len(spectra) / 8) : max(
                    int((i + 1) * len(spectra) / 8), int(i * len(spectra) / 8) + 1
                )
            ]
            for i in range(8)
        ]
        means = np.stack([part.mean(0) for part in stretches])
        return np.append((means - means.mean()).ravel(), 20 * np.log(len(spectra)))

    x, y = (np.stack([seen(row) for row in side_rows]) for side_rows in (training, held))
    at = ((y[:, None] - x[None]) ** 2).sum(-1).argmin(1)
    return [plain(training[i]["transcript"], "spoken") for i in at]


def numbers() -> tuple[list[dict[str, Any]], Path]:
    """Put number words of the English reader one after the other, at other speeds and loudnesses.

    Of all ordered pairs of words one in five is in no training row, and at least one of these is in every
    test row.
    """
    rows, root = rows_of(prompts)
    files = {
        row["key"].split("/")[1]: root / row["speech"]
        for row in rows
        if row["language"] == "en" and row["key"].startswith("digits/")
    }
    waves = {n: soundfile.read(files[n], dtype="float32")[0] for n in WORDS if n in files}
    folder, rng, names = (
        cache_folder() / "samples" / "numbers",
        np.random.default_rng(0),
        sorted(waves, key=int),
    )
    folder.mkdir(parents=True, exist_ok=True)

    def is_held(a: str, b: str) -> bool:
        return int(hashlib.sha1(f"{a} {b}".encode()).hexdigest(), 16) % HELD == 0

    table: list[dict[str, Any]] = []
    missing = dict(zip(("train", "valid", "test"), SIZES.numbers, strict=True))
    while any(missing.values()):
        words = [str(w) for w in rng.choice(names, int(rng.integers(2, 6)))]
        held = [is_held(a, b) for a, b in itertools.pairwise(words)]
        side_name = "test" if any(held) else "valid" if side(" ".join(words)) == "valid" else "train"
        if not missing[side_name]:
            continue
        missing[side_name] -= 1
        speed, pieces = rng.uniform(0.9, 1.1), []
        for word in words:
            wave = waves[word] * rng.uniform(0.5, 1.0)
            at = np.arange(0, len(wave) - 1, speed)
            pieces += [np.interp(at, np.arange(len(wave)), wave), np.zeros(int(8000 * rng.uniform(0, 0.15)))]
        name = f"{len(table):05d}.wav"
        noisy = np.concatenate(pieces) + rng.normal(0, 0.003, sum(map(len, pieces)))
        soundfile.write(folder / name, noisy.clip(-1, 1).astype(np.float32), 8000)
        table.append({"speech": name, "said": " ".join(WORDS[w] for w in words), "split": side_name})
    return table, folder


def spoken_numbers(seed: int) -> dict[str, Any]:
    rows, root = numbers()
    begun = time.perf_counter()
    record, _ = fitted(rows, root, ("tasks.said=transcription", *SPEECH), seed, "said")
    metrics = record["evaluation"]["test"]["targets"]["said"]["metrics"]
    return {
        "seconds": time.perf_counter() - begun,
        "epochs": record["epochs"],
        "rows": record["rows"],
        **{m: [s["value"], s["low"], s["high"]] for m, s in metrics.items()},
    }


def aloud(seed: int) -> dict[str, Any]:
    """Read numbers aloud, and read them back with a transcriber that has learned from recordings.

    Return its error rates, and those on recordings of the same texts.
    """
    rows, root = numbers()
    training, held = (
        [row for row in rows if row["split"] != "test"],
        [row for row in rows if row["split"] == "test"],
    )
    reading, speaking, _ = SIZES.epochs
    overrides = ("tasks.said=transcription", f"training.epochs={reading}", *SPEECH)
    _, heard = fitted(training, root, overrides, seed, "said")
    begun = time.perf_counter()
    overrides = (
        "tasks.speech={name: speak, rate: 8000}",
        "columns.said.modality=text",
        f"training.epochs={speaking}",
        "training.precision=bf16",
    )
    _, speaks = fitted(training, root, overrides, seed, "speech")
    seconds = time.perf_counter() - begun
    spoken = speaks.predict([{"said": row["said"]} for row in held])["speech"].to_pylist()
    expected = [row["said"] for row in held]
    recorded = heard.predict(
        Table(pa.Table.from_pylist([{"speech": row["speech"]} for row in held]), root, "test")
    )["said"].to_pylist()
    again = heard.predict([{"speech": content} for content in spoken])["said"].to_pylist()
    return {
        "seconds": seconds,
        "rows": len(held),
        "made": rates(again, expected),
        "recorded": rates(recorded, expected),
        "heard": list(zip(expected, again, strict=True))[:8],
    }


def captions(seed: int) -> dict[str, Any]:
    """Write captions of videos, of new objects and of objects that were seen in another video.

    Of new objects, from the captioned videos alone, and with the motion of all videos as a second target.
    """
    rows, root = rows_of(clips)
    rows = [row for row in rows if row["clip"]]
    caption, motion = (
        "tasks.caption={name: generation, inputs: [clip]}",
        "tasks.motion={name: classification, inputs: [clip]}",
    )
    return {
        "unseen objects": captioned(
            [row for row in rows if row["caption"]], root, (caption, "columns.motion.role=ignored"), seed
        ),
        "unseen objects, motion too": captioned(rows, root, (caption, motion), seed),
        "seen objects, motion too": captioned(
            by_rows([dict(row) for row in rows]), root, (caption, motion), seed
        ),
    }


def motion(seed: int) -> dict[str, Any]:
    """Tell how a stamp moves, from the video alone, on objects never seen."""
    rows, root = rows_of(clips)
    cells = [{k: row[k] for k in ("clip", "motion", "split")} for row in rows if row["clip"]]
    record, _ = fitted(cells, root, (), seed, "motion")
    accuracy = record["evaluation"]["test"]["targets"]["motion"]["metrics"]["accuracy"]
    return {
        "seconds": record["seconds"],
        "rows": record["rows"],
        "accuracy": [accuracy["value"], accuracy["low"], accuracy["high"]],
    }


def captioned(
    rows: list[dict[str, Any]], root: Path, overrides: tuple[str, ...], seed: int
) -> dict[str, Any]:
    begun = time.perf_counter()
    record, model = fitted(rows, root, ("columns.category.role=ignored", *overrides), seed)
    held = [row for row in rows if row["split"] == "test" and row["caption"]]
    answered = model.predict(
        Table(pa.Table.from_pylist([{"clip": row["clip"]} for row in held]), root, "test")
    )["caption"].to_pylist()
    pairs = [(parted(a), parted(row["caption"])) for a, row in zip(answered, held, strict=True)]
    scores = record["evaluation"]["test"]["targets"]["caption"]["metrics"]
    return {
        "seconds": time.perf_counter() - begun,
        "rows": record["rows"],
        "tested": len(held),
        "motion": float(np.mean([a[1] == b[1] for a, b in pairs])),
        "object": float(np.mean([a[0] == b[0] for a, b in pairs])),
        "chrf": scores["chrf"]["value"],
        "exact": scores["exact_match"]["value"],
        "examples": [(row["caption"], a) for a, row in zip(answered, held, strict=True)][:8],
    }


def by_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split anew: of each object that has two captioned videos or more the last is tested.

    One in ten of the others validates.
    """
    objects: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        row["split"] = "valid" if i % 10 == 0 else "train"
        if row["caption"]:
            objects.setdefault(parted(row["caption"])[0], []).append(i)
    for places in objects.values():
        if len(places) > 1:
            rows[places[0]]["split"], rows[places[-1]]["split"] = "train", "test"
    return rows


def parted(caption: str | None) -> tuple[str, str]:
    """Split a caption into its words up to the motion, and the motion without its speed."""
    for motion in clips.WORDS.values():
        if caption and f" {motion}" in caption:
            return caption.split(f" {motion}")[0], motion
    return caption or "", ""


def names(seed: int, how: str = "free") -> dict[str, Any]:
    rows, root = rows_of(emoji)
    rows = [
        {"picture": row["picture"], "name": row["name"], "emoji": row["emoji"], "split": row["vendor_split"]}
        for row in rows
    ]
    begun = time.perf_counter()
    overrides = (
        "split.group=emoji",
        "modalities.image.size=64",
        "modalities.image.flip=false",
        "encoders.image={name: pretrained, pool: none}",
        f"tasks.name={{name: generation, inputs: [picture], answers: {how}}}",
        f"training.epochs={SIZES.epochs[-1]}",
        "training.batch_size=64",
    )
    record, _ = fitted(rows, root, overrides, seed)
    scores = record["evaluation"]["test"]["targets"]["name"]
    return {
        "seconds": time.perf_counter() - begun,
        "rows": record["rows"],
        "guess": scores["baseline"],
        **{m: [s["value"], s["low"], s["high"]] for m, s in scores["metrics"].items()},
    }


class Conflict(nn.Module):
    """Two losses of two shared numbers whose slopes differ in scale, and whose gradients conflict
    (after Liu et al. 2021, app. B, in short).
    """

    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start))

    def losses(self) -> dict[str, torch.Tensor]:
        a = 20 * (((self.x - torch.tensor([-2.0, 0.0])) ** 2 * torch.tensor([1.0, 0.1])).sum() + 1e-3).sqrt()
        b = (((self.x - torch.tensor([2.0, 0.0])) ** 2 * torch.tensor([1.0, 4.0])).sum() + 1e-3).sqrt()
        return {"a": a, "b": b}


def toy(way: str) -> dict[str, list[float]]:
    """Train with two losses that conflict, from three starts. Return the losses at the end."""
    name, method = (
        ("gradient", {"method": way.split("method: ")[1].rstrip("}")}) if "method" in way else (way, {})
    )
    losses: dict[str, list[float]] = {"a": [], "b": []}
    for start in ((-3.0, 2.0), (0.0, 3.0), (3.0, -2.0)):
        model = Conflict(start)
        before = {t: float(v.detach()) for t, v in model.losses().items()}
        way_made = balancings.find(name).build(
            balancings.configure(name, method), {t: Share(1.0, v) for t, v in before.items()}
        )
        optimizer = torch.optim.Adam([*model.parameters(), *way_made.parameters()], lr=0.02)
        for _ in range(SIZES.steps):
            optimizer.zero_grad()
            way_made.backward(model.losses(), [model.x])
            way_made.finish([model.x])
            optimizer.step()
            if way_made.again:
                way_made.after({t: v.detach() for t, v in model.losses().items()})
        for t, v in model.losses().items():
            losses[t].append(float(v.detach()) / before[t])
    return losses


JOBS: dict[str, Callable[[int], Any]] = {
    "together": together,
    "apart": apart,
    "prompts": transcripts,
    "numbers": spoken_numbers,
    "aloud": aloud,
    "captions": captions,
    "motion": motion,
    "names": names,
    "chosen": lambda seed: names(seed, "training"),
}


def work(jobs: list[str], seeds: int, ways: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of each measurement, and the call that makes it."""
    for seed in range(seeds):
        for job in (j for j in jobs if j in JOBS):
            yield f"{job} {seed}", lambda job=job, seed=seed: JOBS[job](seed)
    if "balancing" in jobs:
        for way in BALANCING:
            yield f"toy {way}", lambda way=way: toy(way)
        for seed in range(ways):
            for way in SIZES.balancing:
                yield f"way {seed} {way}", lambda way=way, seed=seed: together(seed, way)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", nargs="*", default=[*JOBS, "balancing"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", type=int, default=1, help="seeds for each way of balancing")
    arguments = read_arguments(parser, scores="tasks.jsonl")
    seeds, ways = arguments.seeds, arguments.ways
    if arguments.quick:
        seeds, ways = 1, 1
        vars(SIZES).update(vars(QUICK))
        standins.write_samples("stamps", "emoji", "prompts", "clips")
        standins.pretrained_networks()
    scores = remembered(arguments.scores, work(arguments.jobs, seeds, ways))
    about = textwrap.fill(" ".join((__doc__ or "").split("\n\n", 1)[1].split()), 110)
    sections = ["# Several targets, and text as an answer", about, machine()]
    sections += [*part_a(scores), *part_b(scores), *part_cd(scores), *part_e(scores)]
    page("tasks.md", "\n\n".join(sections), arguments)


if __name__ == "__main__":
    main()
