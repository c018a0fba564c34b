"""What finds what, on real tables, beside chance, ridge regression and canonical correlation; and a
search among a million vectors: benchmarks/retrieval.md

Emoji picture ~ name (English, French, Chinese) on a vendor and on emoji never seen; stamps picture ~
sentence ~ French spoken description on families never seen (dealt into five parts, each seed tests on
another); spoken prompts ~ transcripts, on prompts never seen (English) and on a reader never seen
(Italian); moving stamps ~ captions on objects never seen; and a category beside an alignment, against a
model for each alone. Pictures and English texts have frozen pretrained encoders (README, "Pretrained
encoders"); sounds and clips, and texts in other languages, are learned from the table. Intervals are
over queries (bootstrap); over seeds, where there are several, of how far the model is above ridge
regression. `--kept` is a file of scores, for a run that goes on later.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import plait
from accuracy import dealt
from measure import interval, machine, page, remembered, table
from plait.retrieval.index import About, Index
from plait.samples import clips, emoji, prompts, stamps
from plait.table.read import read
from plait.table.table import Table

CACHE = Path.home() / ".cache" / "plait" / "samples"
FROZEN = ("encoders.image=pretrained", "columns.name.encoder=pretrained")
NAMES = (
    "columns.name_fr={role: input, modality: text}",
    "columns.name_zh={role: input, modality: text}",
    "columns.name.modality=text",
)
EMOJI = (
    "modalities.image.size=64",
    "modalities.image.flip=false",
    "tasks.alignment.group=emoji",
    "tasks.alignment.anchor=picture",
    *NAMES,
    *FROZEN,
)
READ = "columns.transcript.modality=text"
AUDIO = (
    "modalities.audio.rate=8000",
    "modalities.audio.highest=4000",
    "modalities.audio.hop=0.02",
)  # a quarter of the time
SHOWN = ("r@1", "r@10", "mrr")


@dataclass(frozen=True)
class Job:
    """One table, the columns that are aligned, how; and which rows are kept. `probe` is what SOURCES.md
    has, where it has something. With `parts` each seed tests on another fifth of the table, rows of one
    of these groups together.
    """

    name: str
    sample: Any
    columns: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    keep: Callable[[dict[str, Any]], bool] = lambda row: True
    probe: str = ""
    parts: str = ""

    def table(self, seed: int = 0) -> Table:
        whole = read(self.sample.fetch(CACHE / self.sample.__name__.rsplit(".", 1)[-1]))
        rows = [row for row in whole.data.to_pylist() if self.keep(row)]
        if self.parts:
            sides = dealt([row[self.parts] for row in rows], seed)
            rows = [{**row, "split": side} for row, side in zip(rows, sides, strict=True)]
        return Table(pa.Table.from_pylist(rows), whole.root, self.name)


def italian(row: dict[str, Any]) -> bool:
    return row["language"] == "it"


JOBS = {
    "vendor": Job(
        "emoji, unseen vendor",
        emoji,
        ("picture", "name", "name_fr", "name_zh"),
        ("split.column=vendor_split", "columns.split.role=ignored", *EMOJI),
        probe="pixels, google -> openmoji: r@1 0.08",
    ),
    "emoji": Job(
        "emoji, unseen emoji",
        emoji,
        ("picture", "name", "name_fr", "name_zh"),
        ("split.column=split", "split.group=emoji", "columns.vendor_split.role=ignored", *EMOJI),
    ),
    "stamps": Job(
        "stamps, unseen families",
        stamps,
        ("picture", "sentence", "speech"),
        (
            "split.column=split",
            "split.group=family",
            "encoders.image=pretrained",
            "encoders.text=pretrained",
            *AUDIO,
        ),
        parts="family",
    ),
    "prompts": Job(
        "prompts, English, unseen prompts",
        prompts,
        ("speech", "transcript"),
        ("split.column=split", *AUDIO, READ),
        lambda row: row["language"] == "en",
        "speech -> text: r@1 0.21, r@10 0.57",
    ),
    "reader": Job(
        "prompts, Italian, unseen reader",
        prompts,
        ("speech", "transcript"),
        ("split.column=reader_split", "columns.split.role=ignored", *AUDIO, READ),
        italian,
    ),
    "clips": Job("moving stamps, unseen objects", clips, ("clip", "caption"), ("split.column=split",)),
}


THROUGH = Job(
    "prompts, English, unseen prompts, by way of a transcript",
    prompts,
    ("heard", "transcript"),
    probe=JOBS["prompts"].probe,
)


def align(job: Job, seed: int) -> dict[str, Any]:
    """The scores on test rows of one model."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = plait.fit(
            job.table(seed),
            align=job.columns,
            out=Path(folder) / "run",
            seed=seed,
            overrides=job.overrides,
            quiet=True,
        )
        found = model.record["evaluation"]["test"]["alignments"]["alignment"]
        return {**found, "seconds": time.perf_counter() - begun, "rows": model.record["rows"]}


def through(seed: int) -> dict[str, Any]:
    """English prompts by way of a transcript: a transcriber reads all recordings (it has learned from
    those of the training rows), and what it read is aligned with what was written, on prompts that
    neither model has seen.
    """
    job, begun = JOBS["prompts"], time.perf_counter()
    table = job.table()
    ignored = tuple(f"columns.{c}.role=ignored" for c in ("reader", "reader_split", "language"))
    with tempfile.TemporaryDirectory() as folder:
        given = (
            "split.column=split",
            "columns.key.role=id",
            *ignored,
            "tasks.transcript=transcription",
            *AUDIO[:2],
        )
        reads = plait.fit(
            table, "transcript", out=Path(folder) / "reads", seed=seed, overrides=given, quiet=True
        )
        read_back = reads.predict(table, keep=True).rename_columns({"transcript_answer": "heard"})
        own = (
            "split.column=split",
            "columns.key.role=id",
            *ignored,
            "columns.speech.role=ignored",
            "columns.problem.role=ignored",
            "columns.heard.modality=text",
            READ,
        )
        model = plait.fit(
            read_back,
            align=("heard", "transcript"),
            out=Path(folder) / "run",
            seed=seed,
            overrides=own,
            quiet=True,
        )
        found = model.record["evaluation"]["test"]["alignments"]["alignment"]
        errors = reads.record["evaluation"]["test"]["targets"]["transcript"]["metrics"]["cer"]["value"]
        return {
            **found,
            "seconds": time.perf_counter() - begun,
            "rows": model.record["rows"],
            "cer": errors,
            "validation": model.record["evaluation"]["validation"]["alignments"]["alignment"],
        }


def beside(seed: int) -> dict[str, float]:
    """Group and alignment of emoji (unseen emoji) in one model, and in a model for each."""
    job = Job("", emoji, ("picture", "name"))
    given = (
        "split.column=split",
        "columns.vendor_split.role=ignored",
        "modalities.image.size=64",
        "modalities.image.flip=false",
        "columns.name.modality=text",
        "columns.name_fr.role=ignored",
        "columns.name_zh.role=ignored",
        "columns.tags.role=ignored",
        "columns.vendor.role=ignored",
        *FROZEN,
    )
    scores = {}
    for name, target, columns in (
        ("both", "group", job.columns),
        ("group alone", "group", ()),
        ("alignment alone", (), job.columns),
    ):
        own = given if target else (*given, "split.group=emoji", "columns.group.role=ignored")
        own = (*own, "tasks.alignment.group=emoji") if columns and target else own
        with tempfile.TemporaryDirectory() as folder:
            model = plait.fit(
                job.table(),
                target,
                align=columns,
                out=Path(folder) / "run",
                seed=seed,
                overrides=own,
                quiet=True,
            )
            found = model.record["evaluation"]["test"]
        if target:
            scores[f"{name}: accuracy"] = found["targets"]["group"]["metrics"]["accuracy"]["value"]
        for d in found["alignments"].get("alignment", {"directions": ()})["directions"]:
            scores[f"{name}: {d['query']} -> {d['gallery']} r@10"] = d["metrics"]["r@10"][0]
    return scores


WIDTH, QUERIES = 512, 300


def vectors(rows: int, seed: int) -> np.ndarray:
    """Unit vectors as encoders make them: 2,000 topics in 64 directions of many, and noise in all."""
    fixed = np.random.default_rng(0)
    topics, directions = fixed.normal(size=(2000, 64)), fixed.normal(size=(64, WIDTH))
    rng = np.random.default_rng(seed)
    x = (
        topics[rng.integers(2000, size=rows)] + 0.7 * rng.normal(size=(rows, 64))
    ) @ directions + 2 * rng.normal(size=(rows, WIDTH))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def search(rows: int) -> dict[str, float]:
    """An index of so many rows: times, recall against all of them, memory."""
    parts = [vectors(min(50_000, rows - first), 1 + first) for first in range(0, rows, 50_000)]
    queries = vectors(QUERIES, 0)
    best = np.full((QUERIES, 0), -np.inf)
    places = np.zeros((QUERIES, 0), dtype=int)
    for number, part in enumerate(parts):
        score = np.concatenate([best, queries @ part.T], 1)
        place = np.concatenate(
            [places, np.broadcast_to(np.arange(len(part)) + number * 50_000, (QUERIES, len(part)))], 1
        )
        order = np.argsort(-score, 1)[:, :10]
        best, places = np.take_along_axis(score, order, 1), np.take_along_axis(place, order, 1)
    nearest = [set(row.tolist()) for row in places]
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(folder, About("benchmark", ("x",), WIDTH), pa.schema([("number", pa.int64())]))
        begun, first = time.perf_counter(), 0
        for part in parts:
            index.add(pa.table({"number": np.arange(first, first + len(part))}), part[:, None])
            first += len(part)
        written = time.perf_counter() - begun
        del parts
        index.settle()
        built = time.perf_counter() - begun - written
        taken, hits = [], 0
        for query, wanted in zip(queries, nearest, strict=True):
            begun = time.perf_counter()
            found = index.search(query, "x", 10)
            taken.append(time.perf_counter() - begun)
            hits += len(wanted & set(found["number"].to_pylist()))
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    return {
        "rows": rows,
        "write s": written,
        "build s": built,
        "p50 ms": 1e3 * float(np.quantile(taken, 0.5)),
        "p99 ms": 1e3 * float(np.quantile(taken, 0.99)),
        "recall@10": hits / (10 * QUERIES),
        "GB on disk": size / 1e9,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def work(jobs: list[str], seeds: int, rows: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is to be measured, each under a name of its own."""
    for job in jobs:
        if job == "search":
            yield f"search {rows}", lambda: search(rows)
            continue
        for seed in range(seeds):
            one = {"beside": beside, "through": through}.get(job) or (
                lambda seed, job=job: align(JOBS[job], seed)
            )
            yield f"{job} {seed}", lambda one=one, seed=seed: one(seed)


def aligned_page(name: str, runs: list[dict[str, Any]]) -> list[str]:
    """A table of one job's directions: means over seeds; the interval is the first seed's, over queries."""
    job, rows = JOBS.get(name) or THROUGH, []
    for i, d in enumerate(runs[0]["directions"]):
        for metric in SHOWN:
            values = [run["directions"][i]["metrics"][metric][0] for run in runs]
            _, low, high = d["metrics"][metric]
            linear = [
                np.mean([r["directions"][i]["baselines"][k][metric] for r in runs])
                for k in ("ridge", "CCA")
                if k in d["baselines"]
            ]
            above = interval(
                [
                    v - r["directions"][i]["baselines"]["ridge"][metric]
                    for v, r in zip(values, runs, strict=True)
                ]
            )
            spread = f"{min(values):.3f} to {max(values):.3f}" if len(values) > 1 else "one seed"
            queries, size = (
                round(np.mean([run["directions"][i][k] for run in runs])) for k in ("queries", "size")
            )
            rows.append(
                [
                    f"{d['query']} -> {d['gallery']} ({queries:,} of {size:,})" if metric == "r@1" else "",
                    metric,
                    f"{np.mean(values):.3f}",
                    f"{low:.3f} to {high:.3f}",
                    spread,
                    f"{d['chance'][metric]:.3f}",
                    *(f"{v:.3f}" for v in linear),
                    above,
                ]
            )
    geometry = ", ".join(
        f"{pair}: gap {g['gap']:.2f}, alignment {g['alignment']:.2f}, uniformity {g['uniformity']:.2f}"
        for pair, g in runs[0]["geometry"].items()
    )
    headers = [
        "query -> gallery (queries of rows searched)",
        "metric",
        "mean",
        "first seed, over queries",
        "over seeds",
        "chance",
    ]
    headers += ["ridge", "CCA", "above ridge"]
    probe = f" Probe: {job.probe}." if job.probe else ""
    probe += (
        f" Each seed tests on another fifth, by {job.parts}; the numbers of queries, and of rows searched, "
        f"are means."
        if job.parts
        else ""
    )
    seconds = np.mean([run["seconds"] for run in runs])
    said = (
        [f"The transcriber's character error rate on test rows: {np.mean([r['cer'] for r in runs]):.3f}."]
        if "cer" in runs[0]
        else []
    )
    return [
        f"## {job.name}",
        *said,
        f"{len(runs)} seeds, {seconds:.0f} s a model, {runs[0]['rows']} rows.{probe}",
        table(headers, rows),
        f"Space: {geometry}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", nargs="*", default=[*JOBS, "through", "beside", "search"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kept", type=Path, default=Path("retrieval.jsonl"))
    parser.add_argument("--only-kept", action="store_true")
    given = parser.parse_args()
    kept = remembered(given.kept, work(given.jobs, given.seeds, given.rows) if not given.only_kept else ())
    parts = ["# Retrieval", " ".join((__doc__ or "").split("\n\n", 1)[1].split()), machine()]
    for name in (*JOBS, "through"):
        runs = [v for k, v in kept.items() if k.split()[0] == name]
        parts += (
            aligned_page(name, runs)
            if runs
            else [f"## {(JOBS.get(name) or THROUGH).name}", "Not measured yet."]
        )
    both = [v for k, v in kept.items() if k.startswith("beside")]
    if both:
        rows = [
            [
                k,
                f"{np.mean([b[k] for b in both]):.3f}",
                f"{min(b[k] for b in both):.3f} to {max(b[k] for b in both):.3f}",
            ]
            for k in both[0]
        ]
        parts += [
            "## One model for both, emoji, unseen emoji",
            f"{len(both)} seeds.",
            table(["model: score", "mean", "over seeds"], rows),
        ]
    found = [v for k, v in kept.items() if k.startswith("search")]
    if found:
        rows = [
            [
                f"{v:,.0f}" if k == "rows" else f"{v:.3f}" if k == "recall@10" else f"{v:.1f}"
                for k, v in one.items()
            ]
            for one in found
        ]
        parts += [
            f"## Search, {WIDTH} numbers a vector, {QUERIES} queries never indexed, ten found",
            table(list(found[0]), rows),
        ]
    page("retrieval.md", "\n\n".join(parts))


if __name__ == "__main__":
    main()
