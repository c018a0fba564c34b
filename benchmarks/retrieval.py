"""Retrieval on real tables, and a search among a million vectors: benchmarks/retrieval.py

Beside chance, the halves that embeddings are made of (linear map and network), and ridge regression by
scikit-learn with the same statistics of cells (benchmarks/ridge.py). Emoji picture ~ name (English, French,
Chinese) on a vendor and on emoji never seen; stamps picture ~ sentence ~ French spoken description on
families never seen (dealt into five folds, each seed tests on another); spoken prompts ~ transcripts in five
languages, on prompts never seen, and on a reader never seen (Italian); moving stamps ~ captions on objects
never seen; and a category beside an alignment, against a model for each alone. Images and English names have
frozen pretrained encoders (README, "Pretrained encoders"); encoders of audio, video and of texts in other
languages are learned from the table. Intervals are over queries (bootstrap); over seeds, where there are
several, of how far the model is above ridge regression. `--scores` is a file of scores, for a run that goes
on later.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import plait
import ridge
import standins
from accuracy import QUICK, dealt
from measure import interval, machine, page, read_arguments, remembered, sample_table, table
from plait.retrieval.index import About, Index
from plait.samples import clips, emoji, prompts, stamps
from plait.table.read import read
from plait.table.table import Table
from plait.tasks.aligning.cells import identify

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
SHOWN = ("r@1", "r@10", "mrr")
Work = Iterator[tuple[str, Callable[[], Any]]]


@dataclass(frozen=True)
class Job:
    """A table, the columns that are aligned, how, and which rows stay.

    `probe` is an earlier measurement with other tools, where there is one. With `group`, each seed tests on
    another fifth of the table, rows of one group together.
    """

    name: str
    sample: Any
    columns: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    keep: Callable[[dict[str, Any]], bool] = lambda row: True
    probe: str = ""
    group: str = ""

    def table(self, seed: int = 0) -> Table:
        sample = read(sample_table(self.sample))
        rows = [row for row in sample.data.to_pylist() if self.keep(row)]
        if self.group:
            sides = dealt([row[self.group] for row in rows], seed)
            rows = [{**row, "split": side} for row, side in zip(rows, sides, strict=True)]
        return Table(pa.Table.from_pylist(rows), sample.root, self.name)


LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}


def spoken(language: str) -> Job:
    """Return the job of the prompts of one language, by its first reader."""

    def keep(row: dict[str, Any]) -> bool:
        return row["language"] == language and row["reader"] != prompts.SECOND_READER

    name = f"prompts, {LANGUAGES[language]}, unseen prompts"
    return Job(name, prompts, ("speech", "transcript"), ("split.column=split", READ), keep)


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
        ),
        group="family",
    ),
    **{f"prompts_{language}": spoken(language) for language in LANGUAGES},
    "prompts_all": Job(
        "prompts, five languages together, unseen prompts",
        prompts,
        ("speech", "transcript"),
        ("split.column=split", READ),
        lambda row: row["reader"] != prompts.SECOND_READER,
    ),
    "reader": Job(
        "prompts, Italian, unseen reader",
        prompts,
        ("speech", "transcript"),
        ("split.column=reader_split", "columns.split.role=ignored", READ),
        lambda row: row["language"] == "it",
    ),
    "clips": Job("moving stamps, unseen objects", clips, ("clip", "caption"), ("split.column=split",)),
}


THROUGH = Job(
    "prompts, English, unseen prompts, by way of a transcript",
    prompts,
    ("heard", "transcript"),
)


def align(job: Job, seed: int) -> dict[str, Any]:
    """Align a table's columns. Return the scores on test rows, with those of ridge regression."""
    begun = time.perf_counter()
    table = job.table(seed)
    with tempfile.TemporaryDirectory() as folder:
        model = plait.fit(
            table,
            align=job.columns,
            out=Path(folder) / "run",
            seed=seed,
            overrides=job.overrides,
            quiet=True,
        )
        scores = model.record["evaluation"]["test"]["alignments"]["alignment"]
        seconds = time.perf_counter() - begun
        add_ridge(scores["directions"], table, model)
        return {
            **scores,
            "seconds": seconds,
            "rows": model.record["rows"],
            "epochs": model.record["epochs"],
        }


def add_ridge(directions: list[dict[str, Any]], table: Table, model: plait.Model) -> None:
    """Add the scores of ridge regression on the same rows to each direction."""
    plan = model.plan
    sides = ridge.Sides(plan.split.train, plan.split.valid, plan.split.test)
    columns = {}
    for name in plan.columns:
        column = plan.columns[name]
        cells = table.data[name].to_pylist()
        modality = column.modality.name
        columns[name] = ridge.Column(name, modality, cells, table.root, column.frozen)
    for scored in directions:
        names = (scored["query"], scored["gallery"])
        ids = np.stack([identify(table.data[name]) for name in names], 1)
        scored["ridge"] = ridge.direction(columns[names[0]], columns[names[1]], ids, sides)


def through(seed: int, added: tuple[str, ...] = ()) -> dict[str, Any]:
    """Align English prompts by way of a transcript.

    A transcriber, which has learned from the training rows, reads all recordings. What it read is aligned
    with what was written, on prompts that neither model has seen.
    """
    job, begun = JOBS["prompts_en"], time.perf_counter()
    table = job.table()
    ignored = tuple(f"columns.{c}.role=ignored" for c in ("reader", "reader_split", "language"))
    with tempfile.TemporaryDirectory() as folder:
        common = ("split.column=split", "columns.key.role=id", *ignored, *added)
        reading = (*common, "tasks.transcript=transcription", "modalities.audio.rate=8000")
        reads = plait.fit(
            table, "transcript", out=Path(folder) / "reads", seed=seed, overrides=reading, quiet=True
        )
        read_back = reads.predict(table, keep=True)
        # A recording in which nothing is heard counts too: an empty text would be a missing one.
        heard = read_back["transcript_answer"]
        read_back = read_back.append_column("heard", pc.if_else(pc.equal(heard, ""), "(nothing)", heard))
        read_back = read_back.drop_columns("transcript_answer")
        aligning = (
            *common,
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
            overrides=aligning,
            quiet=True,
        )
        scores = model.record["evaluation"]["test"]["alignments"]["alignment"]
        add_ridge(scores["directions"], Table(read_back, table.root, table.name), model)
        errors = reads.record["evaluation"]["test"]["targets"]["transcript"]["metrics"]["cer"]["value"]
        return {
            **scores,
            "seconds": time.perf_counter() - begun,
            "rows": model.record["rows"],
            "cer": errors,
            "validation": model.record["evaluation"]["validation"]["alignments"]["alignment"],
        }


def beside(seed: int, added: tuple[str, ...] = ()) -> dict[str, float]:
    """Learn the group and the alignment of emoji (unseen emoji) in one model, and in a model for each."""
    job = Job("", emoji, ("picture", "name"))
    common = (
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
        *added,
    )
    scores = {}
    for name, target, columns in (
        ("both", "group", job.columns),
        ("group alone", "group", ()),
        ("alignment alone", (), job.columns),
    ):
        overrides = common if target else (*common, "split.group=emoji", "columns.group.role=ignored")
        overrides += ("tasks.alignment.group=emoji",) if columns and target else ()
        with tempfile.TemporaryDirectory() as folder:
            model = plait.fit(
                job.table(),
                target,
                align=columns,
                out=Path(folder) / "run",
                seed=seed,
                overrides=overrides,
                quiet=True,
            )
            evaluation = model.record["evaluation"]["test"]
        if target:
            scores[f"{name}: accuracy"] = evaluation["targets"]["group"]["metrics"]["accuracy"]["value"]
        for d in evaluation["alignments"].get("alignment", {"directions": ()})["directions"]:
            scores[f"{name}: {d['query']} -> {d['gallery']} r@10"] = d["metrics"]["r@10"][0]
    return scores


WIDTH, QUERIES = 512, 300


def vectors(rows: int, seed: int) -> np.ndarray:
    """Draw unit vectors as encoders make them: 2,000 topics in 64 directions, and noise in all."""
    fixed = np.random.default_rng(0)
    topics, directions = fixed.normal(size=(2000, 64)), fixed.normal(size=(64, WIDTH))
    rng = np.random.default_rng(seed)
    x = (
        topics[rng.integers(2000, size=rows)] + 0.7 * rng.normal(size=(rows, 64))
    ) @ directions + 2 * rng.normal(size=(rows, WIDTH))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def search(rows: int) -> dict[str, float]:
    """Search an index of so many rows. Return times, the recall against all of them, and memory."""
    chunks = [vectors(min(50_000, rows - first), 1 + first) for first in range(0, rows, 50_000)]
    queries = vectors(QUERIES, 0)
    best = np.full((QUERIES, 0), -np.inf)
    places = np.zeros((QUERIES, 0), dtype=int)
    for number, chunk in enumerate(chunks):
        score = np.concatenate([best, queries @ chunk.T], 1)
        place = np.concatenate(
            [places, np.broadcast_to(np.arange(len(chunk)) + number * 50_000, (QUERIES, len(chunk)))], 1
        )
        order = np.argsort(-score, 1)[:, :10]
        best, places = np.take_along_axis(score, order, 1), np.take_along_axis(place, order, 1)
    nearest = [set(row.tolist()) for row in places]
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(folder, About("benchmark", ("x",), WIDTH), pa.schema([("number", pa.int64())]))
        begun, first = time.perf_counter(), 0
        for chunk in chunks:
            index.add(pa.table({"number": np.arange(first, first + len(chunk))}), chunk[:, None])
            first += len(chunk)
        written = time.perf_counter() - begun
        del chunks
        index.settle()
        built = time.perf_counter() - begun - written
        taken, hits = [], 0
        for query, neighbours in zip(queries, nearest, strict=True):
            begun = time.perf_counter()
            rows_found = index.search(query, "x", 10)
            taken.append(time.perf_counter() - begun)
            hits += len(neighbours & set(rows_found["number"].to_pylist()))
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


def work(jobs: dict[str, Job], names: list[str], seeds: int, rows: int, added: tuple[str, ...]) -> Work:
    """Yield the name of each measurement, and the call that makes it."""
    for name in names:
        if name == "search":
            yield f"search {rows}", partial(search, rows)
            continue
        for seed in range(seeds):
            if name == "beside":
                yield f"{name} {seed}", partial(beside, seed, added)
            elif name == "through":
                yield f"{name} {seed}", partial(through, seed, added)
            else:
                yield f"{name} {seed}", partial(align, jobs[name], seed)


def direction_lines(runs: list[dict[str, Any]], number: int) -> list[list[str]]:
    """Format a direction: means over seeds; the interval is the first seed's, over queries."""
    first, lines = runs[0]["directions"][number], []
    for metric in SHOWN:
        directions = [run["directions"][number] for run in runs]
        values = [direction["metrics"][metric][0] for direction in directions]
        _, low, high = first["metrics"][metric]
        halves = []
        for half in ("linear map", "network"):
            found = [d["baselines"][half][metric] for d in directions if d["baselines"]]
            halves.append(f"{np.mean(found):.3f}" if found else "")
        scores = [direction["ridge"][metric] for direction in directions]
        differences = [value - score for value, score in zip(values, scores, strict=True)]
        label = ""
        if metric == SHOWN[0]:
            queries, size = (round(np.mean([d[key] for d in directions])) for key in ("queries", "size"))
            label = f"{first['query']} -> {first['gallery']} ({queries:,} of {size:,})"
        spread = f"{min(values):.3f} to {max(values):.3f}" if len(values) > 1 else "one seed"
        line = [label, metric, f"{np.mean(values):.3f}", f"{low:.3f} to {high:.3f}", spread]
        chance = f"{first['chance'][metric]:.3f}"
        lines.append([*line, chance, *halves, f"{np.mean(scores):.3f}", interval(differences)])
    return lines


def aligned_section(job: Job, runs: list[dict[str, Any]]) -> list[str]:
    """Format the scores of an alignment."""
    lines = []
    for number in range(len(runs[0]["directions"])):
        lines += direction_lines(runs, number)
    spaces = []
    for pair, space in runs[0]["geometry"].items():
        alignment, uniformity = f"alignment {space['alignment']:.2f}", f"uniformity {space['uniformity']:.2f}"
        spaces.append(f"{pair}: gap {space['gap']:.2f}, {alignment}, {uniformity}")
    headers = ["query -> gallery (queries of rows searched)", "metric", "mean", "first seed, over queries"]
    headers += ["over seeds", "chance", "linear map", "network", "ridge", "above ridge"]

    seconds = np.mean([run["seconds"] for run in runs])
    about = f"{len(runs)} seeds, {seconds:.0f} s a model, {runs[0]['rows']} rows."
    if job.probe:
        about += f" Probe: {job.probe}."
    if job.group:
        about += f" Each seed tests on another fifth, by {job.group};"
        about += " the numbers of queries, and of rows searched, are means."
    section = [f"## {job.name}"]
    if "cer" in runs[0]:
        errors = np.mean([run["cer"] for run in runs])
        section.append(f"The transcriber's character error rate on test rows: {errors:.3f}.")
    return [*section, about, table(headers, lines), f"Space: {'; '.join(spaces)}."]


def beside_section(runs: list[dict[str, float]]) -> list[str]:
    """Format the scores of one model for both, and of a model for each."""
    lines = []
    for score in runs[0]:
        values = [run[score] for run in runs]
        lines.append([score, f"{np.mean(values):.3f}", f"{min(values):.3f} to {max(values):.3f}"])
    title = "## One model for both, emoji, unseen emoji"
    return [title, f"{len(runs)} seeds.", table(["model: score", "mean", "over seeds"], lines)]


def search_section(runs: list[dict[str, float]]) -> list[str]:
    """Format the times of searches."""
    digits, lines = {"rows": ",.0f", "recall@10": ".3f"}, []
    for run in runs:
        lines.append([format(value, digits.get(key, ".1f")) for key, value in run.items()])
    title = f"## Search, {WIDTH} numbers a vector, {QUERIES} queries never indexed, ten found"
    return [title, table(list(runs[0]), lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", nargs="*", default=[*JOBS, "through", "beside", "search"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--only-scores", action="store_true", help="train nothing: the page of the file's scores"
    )
    arguments = read_arguments(parser, scores="retrieval.jsonl")
    jobs, seeds, rows, added = JOBS, arguments.seeds, arguments.rows, ()
    if arguments.quick:
        seeds, rows, added = 1, 2000, QUICK
        standins.write_samples("stamps", "emoji", "prompts", "clips")
        standins.pretrained_networks()
        jobs = {name: replace(job, overrides=(*job.overrides, *QUICK)) for name, job in JOBS.items()}
    calls = () if arguments.only_scores else work(jobs, arguments.jobs, seeds, rows, added)
    scores = remembered(arguments.scores, calls)
    page("retrieval.md", report(scores), arguments)


def report(scores: dict[str, Any]) -> str:
    runs: dict[str, list[Any]] = {}
    for name, run in scores.items():
        runs.setdefault(name.split()[0], []).append(run)
    about = textwrap.fill(" ".join((__doc__ or "").split("\n\n", 1)[1].split()), 110)
    sections = ["# Retrieval", about, machine()]
    for name, job in {**JOBS, "through": THROUGH}.items():
        sections += (
            aligned_section(job, runs[name]) if name in runs else [f"## {job.name}", "Not measured yet."]
        )
    if "beside" in runs:
        sections += beside_section(runs["beside"])
    if "search" in runs:
        sections += search_section(runs["search"])
    return "\n\n".join(sections)


if __name__ == "__main__":
    main()
