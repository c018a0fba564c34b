"""Several targets in one model against a model for each, and text as an answer: transcripts, captions,
names: benchmarks/tasks.md

(a) Stamps: category from the picture, category from the sentence, drawing style, and the language of a
spoken description, in one model and in a model for each. (b) Recordings of telephone prompts, English
and Italian, in one model: character error rate on prompts never heard, beside the transcript of the
nearest recording; and numbers spoken, made of recordings of single words put one after the other, some
of which never stand side by side in training. (c) Captions of moving stamps, from the clip alone:
whether the word for the motion is right, and, on objects that were seen in training in another clip,
that for the object. (d) Emoji, picture to name, on a vendor never seen. (e) Ways of balancing: two
losses that pull apart, and (a). Intervals are over rows (bootstrap) and ranges over seeds. `--kept` is
a file of scores, for a run that goes on later.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import torch
from torch import nn

import plait
from measure import machine, page, remembered
from plait.balancing.base import Share
from plait.evaluation.bootstrap import bootstrap
from plait.modalities.audio import Config as AudioConfig
from plait.modalities.audio import log_mel
from plait.recipe.registry import configure, find
from plait.samples import clips, emoji, prompts, stamps
from plait.samples.base import side
from plait.table.read import read
from plait.table.table import Table
from plait.tasks.transcription import Transcription
from plait.tasks.writing.metrics import EditedRows
from plait.tasks.writing.spelling import plain
from tasks_page import part_a, part_b, part_cd, part_e

CACHE = Path.home() / ".cache" / "plait" / "samples"
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
SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = {
    str(n): word
    for n, word in (*enumerate(SMALL.split()), *zip(range(20, 100, 10), TENS.split(), strict=True))
}


def rows_of(sample: Any) -> tuple[list[dict[str, Any]], Path]:
    whole = read(sample.fetch(CACHE / sample.__name__.rsplit(".", 1)[-1]))
    return whole.data.to_pylist(), whole.root


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
            overrides=["split.column=split", *overrides],
            quiet=True,
        )
        return model.record, model


def spoken_stamps() -> tuple[list[dict[str, Any]], Path]:
    """The stamps with one spoken description each, in a language by lot among those of at least 300
    descriptions.
    """
    rows, root = rows_of(stamps)
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((root / "usr/share/tuxpaint/stamps").rglob("*_desc_*")):
        stem, language = re.sub(
            r"\.\w+$", "", str(path.relative_to(root / "usr/share/tuxpaint/stamps"))
        ).rsplit("_desc_", 1)
        found.setdefault(stem, []).append((language, str(path.relative_to(root))))
    counts: dict[str, int] = {}
    for language in (lang for some in found.values() for lang, _ in some):
        counts[language] = counts.get(language, 0) + 1
    done = []
    for row in rows:
        some = [one for one in found.get(row["stamp"], []) if counts[one[0]] >= 300]
        lot = int(hashlib.sha1(row["stamp"].encode()).hexdigest(), 16)
        language, speech = some[lot % len(some)] if some else (None, None)
        kept = {c: row[c] for c in ("stamp", "picture", "sentence", "style", "category", "family", "split")}
        done.append({**kept, "speech": speech, "language": language})
    return done, root


def together(seed: int, balancing: str = "equal", names: tuple[str, ...] = tuple(TASKS)) -> dict[str, float]:
    """The accuracy of each of these tasks on test rows, of one model."""
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
    own = [f"tasks.{name}={TASKS[name]}" for name in names]
    given = (
        "split.group=family",
        f"balancing={balancing}",
        "columns.stamp.role=id",
        *ignored,
        *frozen,
        *speech,
        *own,
    )
    begun = time.perf_counter()
    record, _ = fitted(rows, root, given, seed)
    found = record["evaluation"]["test"]["targets"]
    return {
        **{name: found[name]["metrics"]["accuracy"]["value"] for name in names},
        "seconds": time.perf_counter() - begun,
    }


def apart(seed: int) -> dict[str, float]:
    found: dict[str, float] = {"seconds": 0.0}
    for name in TASKS:
        one = together(seed, names=(name,))
        found |= {name: one[name], "seconds": found["seconds"] + one["seconds"]}
    return found


def transcripts(seed: int) -> dict[str, Any]:
    """Prompts in two languages by three readers, in one model; the language model's part as well."""
    rows, root = rows_of(prompts)
    ignored = tuple(f"columns.{c}.role=ignored" for c in ("reader", "reader_split", "language"))
    given = (*ignored, "columns.key.role=id", "tasks.transcript=transcription", *SPEECH)
    begun = time.perf_counter()
    record, model = fitted(rows, root, given, seed)
    seconds = time.perf_counter() - begun
    found: dict[str, Any] = {"seconds": seconds, "epochs": record["epochs"], "rows": record["rows"]}
    found["hours"] = (
        sum(soundfile.info(root / row["speech"]).duration for row in rows if row["split"] == "train") / 3600
    )
    for language in ("en", "it"):
        held = [row for row in rows if row["split"] == "test" and row["language"] == language]
        known = [row for row in rows if row["split"] == "train" and row["language"] == language]
        wanted = [plain(row["transcript"], "spoken") for row in held]
        answered = model.predict(Table(pa.Table.from_pylist(held), root, "test"))["transcript"].to_pylist()
        found[language] = rates(answered, wanted)
        found[f"{language}, nearest"] = rates(nearest(known, held, root), wanted)
        found[f"{language}, heard"] = list(zip(wanted, answered, strict=True))[:6]
    return found


def rates(answered: list[str | None], wanted: list[str]) -> dict[str, list[float]]:
    """Error rates with intervals over rows."""
    rows = EditedRows.of([text or "" for text in answered], wanted)
    scores = bootstrap(rows, Transcription.metrics, 1000)
    return {name: [score.value, score.low, score.high] for name, score in scores.items()}


def nearest(known: list[dict[str, Any]], held: list[dict[str, Any]], root: Path) -> list[str]:
    """The transcript of the training recording with the nearest spectrum: its mean in eight stretches
    of time, and its length.
    """
    config = AudioConfig(rate=8000, highest=4000)

    def seen(row: dict[str, Any]) -> np.ndarray:
        wave, _ = soundfile.read(root / row["speech"], dtype="float32")
        spectra = log_mel(torch.from_numpy(wave), config).numpy()
        parts = [
            spectra[
                int(i * len(spectra) / 8) : max(
                    int((i + 1) * len(spectra) / 8), int(i * len(spectra) / 8) + 1
                )
            ]
            for i in range(8)
        ]
        means = np.stack([part.mean(0) for part in parts])
        return np.append((means - means.mean()).ravel(), 20 * np.log(len(spectra)))

    x, y = (np.stack([seen(row) for row in some]) for some in (known, held))
    at = ((y[:, None] - x[None]) ** 2).sum(-1).argmin(1)
    return [plain(known[i]["transcript"], "spoken") for i in at]


def numbers() -> tuple[list[dict[str, Any]], Path]:
    """Number words of the English reader put one after the other, at other speeds and loudnesses. Of
    all ordered pairs of words one in five is in no training row, and at least one of these is in every
    test row.
    """
    rows, root = rows_of(prompts)
    files = {
        row["key"].split("/")[1]: root / row["speech"]
        for row in rows
        if row["language"] == "en" and row["key"].startswith("digits/")
    }
    waves = {n: soundfile.read(files[n], dtype="float32")[0] for n in WORDS if n in files}
    folder, rng, names = CACHE / "numbers", np.random.default_rng(0), sorted(waves, key=int)
    folder.mkdir(parents=True, exist_ok=True)

    def is_held(a: str, b: str) -> bool:
        return int(hashlib.sha1(f"{a} {b}".encode()).hexdigest(), 16) % HELD == 0

    done: list[dict[str, Any]] = []
    wanted = {"train": 1200, "valid": 150, "test": 300}
    while any(wanted.values()):
        said = [str(w) for w in rng.choice(names, int(rng.integers(2, 6)))]
        held = [is_held(a, b) for a, b in itertools.pairwise(said)]
        to = "test" if any(held) else "valid" if side(" ".join(said)) == "valid" else "train"
        if not wanted[to]:
            continue
        wanted[to] -= 1
        speed, parts = rng.uniform(0.9, 1.1), []
        for word in said:
            wave = waves[word] * rng.uniform(0.5, 1.0)
            at = np.arange(0, len(wave) - 1, speed)
            parts += [np.interp(at, np.arange(len(wave)), wave), np.zeros(int(8000 * rng.uniform(0, 0.15)))]
        name = f"{len(done):05d}.wav"
        noisy = np.concatenate(parts) + rng.normal(0, 0.003, sum(map(len, parts)))
        soundfile.write(folder / name, noisy.clip(-1, 1).astype(np.float32), 8000)
        done.append({"speech": name, "said": " ".join(WORDS[w] for w in said), "split": to})
    return done, folder


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
    """Numbers read aloud by a model, and what a transcriber, which has learned from recordings, reads
    back; beside what it reads of recordings of the same texts.
    """
    rows, root = numbers()
    known, held = (
        [row for row in rows if row["split"] != "test"],
        [row for row in rows if row["split"] == "test"],
    )
    _, heard = fitted(known, root, ("tasks.said=transcription", "training.epochs=22", *SPEECH), seed, "said")
    begun = time.perf_counter()
    given = (
        "tasks.speech={name: speak, rate: 8000}",
        "columns.said.modality=text",
        "training.epochs=16",
        "training.precision=bf16",
    )
    _, speaks = fitted(known, root, given, seed, "speech")
    seconds = time.perf_counter() - begun
    spoken = speaks.predict([{"said": row["said"]} for row in held])["speech"].to_pylist()
    wanted = [row["said"] for row in held]
    recorded = heard.predict(
        Table(pa.Table.from_pylist([{"speech": row["speech"]} for row in held]), root, "test")
    )["said"].to_pylist()
    again = heard.predict([{"speech": content} for content in spoken])["said"].to_pylist()
    return {
        "seconds": seconds,
        "rows": len(held),
        "made": rates(again, wanted),
        "recorded": rates(recorded, wanted),
        "heard": list(zip(wanted, again, strict=True))[:8],
    }


def captions(seed: int) -> dict[str, Any]:
    """On the test side, where objects are new, from the captioned clips alone, and with the motion of
    all clips as a second target; and on clips whose object was seen in another one, with the second
    target.
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
    """How a stamp moves, from the clip alone, on objects never seen."""
    rows, root = rows_of(clips)
    kept = [{k: row[k] for k in ("clip", "motion", "split")} for row in rows if row["clip"]]
    record, _ = fitted(kept, root, (), seed, "motion")
    found = record["evaluation"]["test"]["targets"]["motion"]["metrics"]["accuracy"]
    return {
        "seconds": record["seconds"],
        "rows": record["rows"],
        "accuracy": [found["value"], found["low"], found["high"]],
    }


def captioned(rows: list[dict[str, Any]], root: Path, given: tuple[str, ...], seed: int) -> dict[str, Any]:
    begun = time.perf_counter()
    record, model = fitted(rows, root, ("columns.category.role=ignored", *given), seed)
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
    """Split anew: of each object that has two captioned clips or more the last is tested, and one in
    ten of the others validates.
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
    """What moves, and how: the caption's words up to the motion, and the motion without its speed."""
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
    given = (
        "split.group=emoji",
        "modalities.image.size=64",
        "modalities.image.flip=false",
        "encoders.image={name: pretrained, pool: none}",
        f"tasks.name={{name: generation, inputs: [picture], answers: {how}}}",
        "training.epochs=40",
        "training.batch_size=64",
    )
    record, _ = fitted(rows, root, given, seed)
    found = record["evaluation"]["test"]["targets"]["name"]
    return {
        "seconds": time.perf_counter() - begun,
        "rows": record["rows"],
        "guess": found["baseline"],
        **{m: [s["value"], s["low"], s["high"]] for m, s in found["metrics"].items()},
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
    """The losses at the end, from three starts."""
    name, method = (
        ("gradient", {"method": way.split("method: ")[1].rstrip("}")}) if "method" in way else (way, {})
    )
    found: dict[str, list[float]] = {"a": [], "b": []}
    for start in ((-3.0, 2.0), (0.0, 3.0), (3.0, -2.0)):
        model = Conflict(start)
        before = {t: float(v.detach()) for t, v in model.losses().items()}
        way_made = find("balancing", name).build(
            configure("balancing", name, method), {t: Share(1.0, v) for t, v in before.items()}
        )
        optimizer = torch.optim.Adam([*model.parameters(), *way_made.parameters()], lr=0.02)
        for _ in range(2000):
            optimizer.zero_grad()
            way_made.backward(model.losses(), [model.x])
            way_made.finish([model.x])
            optimizer.step()
            if way_made.again:
                way_made.after({t: v.detach() for t, v in model.losses().items()})
        for t, v in model.losses().items():
            found[t].append(float(v.detach()) / before[t])
    return found


JOBS: dict[str, Callable[[int], Any]] = {
    "together": together,
    "apart": apart,
    "prompts": transcripts,
    "numbers": spoken_numbers,
    "aloud": aloud,
    "captions": captions,
    "motion": motion,
    "names": names,
    "chosen": lambda seed: names(seed, "seen"),
}


def work(jobs: list[str], seeds: int, ways: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is to be measured, each under a name of its own."""
    for seed in range(seeds):
        for job in (j for j in jobs if j in JOBS):
            yield f"{job} {seed}", lambda job=job, seed=seed: JOBS[job](seed)
    if "balancing" in jobs:
        for way in BALANCING:
            yield f"toy {way}", lambda way=way: toy(way)
        for seed in range(ways):
            for way in BALANCING[1:]:
                yield f"way {seed} {way}", lambda way=way, seed=seed: together(seed, way)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", nargs="*", default=[*JOBS, "balancing"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", type=int, default=1, help="seeds for each way of balancing")
    parser.add_argument("--kept", type=Path, default=Path("tasks.jsonl"))
    given = parser.parse_args()
    kept = remembered(given.kept, work(given.jobs, given.seeds, given.ways))
    parts = [
        "# Several targets, and text as an answer",
        " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
        machine(),
    ]
    page("tasks.md", "\n\n".join([*parts, *part_a(kept), *part_b(kept), *part_cd(kept), *part_e(kept)]))


if __name__ == "__main__":
    main()
