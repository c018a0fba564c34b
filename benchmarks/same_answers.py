"""Check that this checkout answers as an older one does.

python benchmarks/same_answers.py --before ../old [--work FOLDER] [--only NAME ...] [--mode
train|load|both]
python benchmarks/same_answers.py --quick: compare one case of this checkout with itself

Each case is a tiny table, made from a seed, and the arguments of a fit. The older checkout trains every
case once and its answers stay in `<work>/before`; remove that folder to train them anew. Mode `train`
trains the case with this checkout, mode `load` loads the older checkout's run with it. Both must give
the same answers. Training is deterministic on one machine with one thread, so that a change that only
moves code changes no answer at all.

A renamed option, tensor or file needs an entry in one of the tables below, or a line in one of the
`convert_` functions.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from measure import cache_folder, read_arguments

TOLERANCE = 1e-5
WAVE_TOLERANCE = 1e-3  # samples have 16 bits, and Griffin-Lim enlarges what differs in the last digit
CHECKOUT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PLAIT_CACHE": "off",
}
ENVIRONMENT |= {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}

# ---------------------------------------------------------------- from the older layout to the present one

FORMAT = 7  # what the present code expects in state.json
RENAMED: list[tuple[str, str]] = []  # tensors: (pattern, replacement), applied in order
RENAMED_OPTIONS: list[
    tuple[str, str]
] = []  # overrides of the cases: (pattern, replacement), applied in order


def convert_weights(tensors: dict[str, Any]) -> dict[str, Any]:
    return {renamed(name, RENAMED): tensor for name, tensor in tensors.items()}


def convert_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe


def convert_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return schema


def convert_preprocessing(state: dict[str, Any]) -> dict[str, Any]:
    return state


def convert_state(state: dict[str, Any]) -> dict[str, Any]:
    return {**convert_preprocessing(state), "format": FORMAT}


def convert_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    return metrics


def convert_ensemble(ensemble: dict[str, Any]) -> dict[str, Any]:
    for view in ensemble["views"].values():
        if view:  # the view of the run's own network is empty: it has the run's recipe and state
            view["recipe"] = convert_recipe(view["recipe"])
            view["state"] = convert_preprocessing(view["state"])
    return ensemble


CONVERSIONS = {
    "recipe.yaml": convert_recipe,
    "schema.json": convert_schema,
    "state.json": convert_state,
    "metrics.json": convert_metrics,
    "ensemble.json": convert_ensemble,
}


def converted(old_folder: Path, new_folder: Path) -> Path:
    """Copy a run of the older checkout, and bring its files to the present layout."""
    shutil.copytree(old_folder, new_folder)
    for name, convert in CONVERSIONS.items():
        path = new_folder / name
        if not path.is_file():
            continue
        content = convert(yaml.safe_load(path.read_text(encoding="utf-8")))  # JSON is YAML
        as_yaml = path.suffix == ".yaml"
        path.write_text(
            yaml.safe_dump(content, sort_keys=False) if as_yaml else json.dumps(content), encoding="utf-8"
        )
    for path in [new_folder / "weights.safetensors", *new_folder.glob("members/*/*/weights.safetensors")]:
        save_file(convert_weights(load_file(path)), path)
    return new_folder


def renamed(text: str, pairs: list[tuple[str, str]]) -> str:
    for pattern, replacement in pairs:
        text = re.sub(pattern, replacement, text)
    return text


# ---------------------------------------------------------------- tables

ROWS = 160
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 40), "blue": (40, 40, 220)}
WORDS = {"red": "cherry", "green": "leaf", "blue": "sky"}
TONES = {"red": 300, "green": 900, "blue": 2500}
RATE = 16_000


def things(folder: Path, missing: float = 0.15) -> pa.Table:
    """Media and plain columns. A fifth of the labels are wrong, so that no model is too sure of them."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(ROWS):
        colour = list(COLOURS)[i % 3]
        seen, heard = (colour if rng.random() < 0.8 else str(rng.choice(list(COLOURS))) for _ in range(2))
        large = bool(rng.random() < 0.5)
        number = float(rng.normal(list(COLOURS).index(colour) + large, 0.5))
        inputs = {
            "photo": save_photo(folder / f"{i}.png", seen, rng),
            "sound": save_tones(folder / f"{i}.wav", [TONES[heard]], 0.2, rng),
            "text": f"there is a {WORDS[seen]} near house number {int(rng.integers(1000))}",
            "price": number if rng.random() < 0.9 else 0.0,
            "shop": str(rng.choice(["north", "south", "east"])),
            "day": f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d}",
        }
        for place, name in enumerate(inputs):
            alone = i % 20 == 13 and place != i // 20 % len(inputs)
            if missing and (rng.random() < missing or i % 20 == 7 or alone):
                inputs[name] = None
        label = colour if rng.random() < 0.8 else str(rng.choice(list(COLOURS)))
        targets = {
            "label": label,
            "half": label if rng.random() < 0.6 else None,
            "large": "yes" if large else "no",
            "value": number + float(rng.normal(0, 0.2)) if rng.random() < 0.9 else None,
            "tags": [tag for tag in (colour, "large" if large else "") if tag and rng.random() < 0.9],
            "caption": f"a {'large' if large else 'small'} {colour} thing",
        }
        rows.append(inputs | targets)
    (folder / "5.png").write_bytes(b"no image")  # one cell that cannot be read
    return pa.Table.from_pylist(rows)


def complete(folder: Path) -> pa.Table:
    return things(folder, missing=0.0)


def wide(folder: Path) -> pa.Table:
    """Things with many plain columns."""
    table, rng = things(folder), np.random.default_rng(1)
    value = np.array([v or 0.0 for v in table["value"].to_pylist()])
    for i in range(40):
        cells = (
            value * rng.normal() / 2 + rng.normal(size=ROWS)
            if i % 4
            else rng.integers(0, 5, ROWS).astype(str)
        )
        table = table.append_column(f"x{i}", pa.array(cells.tolist(), mask=rng.random(ROWS) < 0.1))
    vectors = rng.normal(size=(ROWS, 4)).tolist()
    return table.append_column("vector", pa.array([None if i % 9 == 4 else v for i, v in enumerate(vectors)]))


def lists(folder: Path) -> pa.Table:
    """Things with none to three images in a cell."""
    table = things(folder)
    photos = [[f"{(i + 3 * k) % ROWS}.png" for k in range(i % 4)] for i in range(ROWS)]
    return table.append_column("photos", pa.array(photos))


def clips(folder: Path) -> pa.Table:
    """Clips as MP4, some of them with sound, and as GIF."""
    rng, rows = np.random.default_rng(2), []
    for i in range(80):
        colour = list(COLOURS)[i % 3]
        name = save_clip(folder, i, colour) if i % 10 < 8 else None
        rows.append({"film": name, "price": float(rng.normal(i % 3)) if i % 7 else None, "label": colour})
    return pa.Table.from_pylist(rows)


def speech(folder: Path) -> pa.Table:
    """Sounds of two to four tones, and a letter for each tone."""
    rng, rows = np.random.default_rng(3), []
    for i in range(60):
        letters = [str(x) for x in rng.choice(list("abc"), int(rng.integers(2, 5)))]
        name = save_tones(
            folder / f"{i}.wav", [{"a": 400, "b": 900, "c": 2000}[x] for x in letters], 0.16, rng
        )
        rows.append(
            {"sound": None if i % 15 == 4 else name, "said": None if i % 15 == 9 else "".join(letters)}
        )
    return pa.Table.from_pylist(rows)


def save_photo(path: Path, colour: str, rng: np.random.Generator) -> str:
    pixels = np.array(COLOURS[colour]) + rng.normal(0, 60, (20, 20, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    return path.name


def save_tones(path: Path, hertz: list[int], seconds: float, rng: np.random.Generator) -> str:
    steps = np.arange(int(seconds * RATE)) / RATE
    wave = np.concatenate([np.append(0.3 * np.sin(2 * np.pi * h * steps), np.zeros(960)) for h in hertz])
    soundfile.write(path, wave + 0.02 * rng.normal(size=len(wave)), RATE)
    return path.name


def save_clip(folder: Path, number: int, colour: str) -> str:
    frames = [np.full((24, 32, 3), 20 + 3 * step, np.uint8) for step in range(5)]
    for step, pixels in enumerate(frames):
        pixels[6:14, 4 * step : 4 * step + 8] = COLOURS[colour]
    if number % 3 == 1:
        first, *others = [Image.fromarray(pixels) for pixels in frames]
        first.save(folder / f"{number}.gif", save_all=True, append_images=others, duration=40)
        return f"{number}.gif"
    with av.open(str(folder / f"{number}.mp4"), "w") as file:
        images, sounds = (
            file.add_stream("libx264", rate=24),
            file.add_stream("aac", rate=RATE) if number % 2 else None,
        )
        images.width, images.height, images.pix_fmt = 32, 24, "yuv420p"
        for pixels in frames:
            file.mux(images.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(images.encode())
        if sounds is not None:
            wave = np.sin(2 * np.pi * TONES[colour] * np.arange(4096) / RATE).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate = RATE
            file.mux(sounds.encode(frame))
            file.mux(sounds.encode())
    return f"{number}.mp4"


def save_bert(folder: Path) -> None:
    """A tiny text encoder with random weights, as Hugging Face saves one."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "there",
        "is",
        "a",
        "near",
        "house",
        "number",
        *WORDS.values(),
    ]
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    tokenizer.save(str(folder / "tokenizer.json"))


TABLES: dict[str, Callable[[Path], pa.Table]] = {
    f.__name__: f for f in (things, complete, wide, lists, clips, speech)
}


def make_inputs(work: Path, names: set[str]) -> None:
    """Write the tables that are not there yet, and the tiny text encoder."""
    for name in sorted(names):
        folder = work / "tables" / name
        if not (folder / "table.parquet").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(TABLES[name](folder), folder / "table.parquet")
    if not (work / "bert" / "tokenizer.json").is_file():
        save_bert(work / "bert")


# ---------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """A table, the columns that are used of it, and what `plait.fit` is called with. BERT stands for a
    folder.
    """

    table: str
    inputs: tuple[str, ...]
    target: tuple[str, ...] = ("label",)
    overrides: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()  # columns with labels that are no targets of their own name
    fused: bool = True  # whether rows have a fused vector


SMALL = (
    "training.precision=fp32",
    "training.epochs=5",
    "training.learning_rate=0.01",
    "split.valid=0.3",
    "modalities.image.size=16",
    "encoders.image={name: cnn, channels: [4, 8], pool: mean}",
    "modalities.audio.bands=16",
    "modalities.audio.hop=0.02",
    "modalities.video.size=16",
    "modalities.video.frames=4",
    "encoders.audio={name: audio_cnn, channels: [4, 8], width: 8}",
    "encoders.video={name: conv3d, channels: [4, 8]}",
)
MEDIA, PLAIN = ("photo", "sound", "text"), ("price", "shop", "day")
PAIR = ("photo", "text")
MANY = (*(f"x{i}" for i in range(40)), "vector", "day")
FROZEN = ("encoders.image=pretrained", "encoders.text={name: pretrained, model: BERT}")
LINE_AND_TREES = "line: linear, forest: {name: trees, rounds: 20}"
LIGHT = "light: {name: network, light: true, encoders: {text: {name: pretrained, model: BERT}}}"
SEEN = "tasks.seen={name: classification, column: label, inputs: [photo]}"
WRITTEN = "tasks.caption={name: generation, width: 32, layers: 1, dropout: 0}"
SPOKEN = "tasks.sound={name: speak, rate: 8000, bands: 24, hop: 0.02, width: 48, dropout: 0}"
LETTERS = "columns.said.encoder={name: lstm, embedding: 24, width: 24, bidirectional: true, tokens: all}"
HEARD = "encoders.audio={name: crnn, channels: [8, 8], width: 24, dropout: 0}"

CASES = {
    "classic": Case(
        "complete",
        (*PAIR, "price"),
        overrides=("modalities.image.size=32", "training.epochs=2"),
        arguments={"recipe": "classic"},
    ),
    "default": Case("things", (*MEDIA, *PLAIN)),
    "default encoders": Case(
        "things",
        (*MEDIA, "price"),
        ("large",),
        ("encoders={}", "modalities.image.size=32", "training.epochs=2"),
    ),
    "regression": Case("wide", (*MEDIA, *MANY), ("value",)),
    "multilabel": Case("things", (*MEDIA, *PLAIN), ("tags",)),
    "several targets": Case("things", (*PAIR, *PLAIN), ("half", "value", "tags"), ("training.best_by=half",)),
    "own inputs": Case("things", (*PAIR, "price"), ("value",), (SEEN,), others=("label",)),
    "plain": Case("wide", ("price", "shop", *MANY), ("large",)),
    "video": Case("clips", ("film", "price")),
    "frames": Case(
        "clips", ("film",), overrides=("encoders.video={name: per_frame, time: attention, width: 8}",)
    ),
    "lists": Case("lists", ("photos", "price")),
    "logit sum": Case("things", (*PAIR, *PLAIN), overrides=("fusion=logit_sum", "encoders.text=lstm")),
    "gated": Case("things", (*PAIR, *PLAIN), ("value",), ("fusion={name: gated, width: 16}",)),
    "low rank": Case("things", (*PAIR, *PLAIN), overrides=("fusion={name: low_rank, width: 16, rank: 4}",)),
    "cross attention": Case(
        "things",
        (*PAIR, *PLAIN),
        overrides=(
            "fusion={name: cross_attention, width: 16, layers: 1}",
            "encoders.text={name: transformer, width: 16}",
        ),
    ),
    "missing zero": Case("things", (*MEDIA, *PLAIN), overrides=("model.missing=zero",)),
    "no dropout": Case(
        "complete", (*PAIR, *PLAIN), overrides=("model.modality_dropout=0", "model.alone=0.3")
    ),
    "no unimodal": Case("things", (*PAIR, *PLAIN), overrides=("model.alone=0",)),
    "frozen": Case("things", (*PAIR, "price"), overrides=FROZEN),
    "good": Case("things", (*PAIR, "price"), ("label", "value"), arguments={"quality": "good"}),
    "best": Case("things", ("text", *PLAIN), ("large",), ("training.epochs=2",), {"quality": "best"}),
    "members": Case(
        "things",
        (*PAIR, *PLAIN),
        overrides=(
            f"ensemble.members={{{LINE_AND_TREES}, {LIGHT}}}",
            "ensemble.folds=2",
            "ensemble.stack=true",
        ),
    ),
    "alignment": Case("things", PAIR, (), arguments={"align": PAIR}),
    "alignment and target": Case("things", (*PAIR, "price"), arguments={"align": PAIR}),
    "transcription": Case("speech", ("sound",), ("said",), (HEARD, "tasks.said=transcription"), fused=False),
    "generation": Case("things", ("photo", "price"), ("caption",), (WRITTEN,), fused=False),
    "speak": Case(
        "speech", ("said",), ("sound",), (SPOKEN, "columns.said.modality=text", LETTERS), fused=False
    ),
    "unlabelled and mixup": Case(
        "things", (*PAIR, *PLAIN), ("half",), ("training.unlabelled=1", "training.mixup=0.4")
    ),
    "blend": Case("things", (*PAIR, *PLAIN), overrides=("model.balance=blend",)),
    "gradient balancing": Case(
        "things", (*PAIR, "price"), ("label", "value"), ("balancing={name: gradient, method: upgrad}",)
    ),
    "singles": Case("things", (*PAIR, "price"), ("label", "value"), ("singles=true",)),
}


# ---------------------------------------------------------------- the worker: one case in a process of
# its own


def answer_case(mode: str, name: str, work: Path, folder: Path) -> None:
    """Train (`before`, `train`) or load the run of a case in `folder`, and save its answers as Parquet
    beside it.
    """
    import torch

    import plait

    torch.set_num_threads(1)
    case = CASES[name]
    root = work / "tables" / case.table
    columns = dict.fromkeys([*case.inputs, *case.target, *case.others])
    table = pq.read_table(root / "table.parquet").select(list(columns))
    if mode == "load":
        model = plait.load(folder / "run", quiet=True)
    else:
        overrides = [option.replace("BERT", str(work / "bert")) for option in (*SMALL, *case.overrides)]
        if name == "classic":
            overrides = [option for option in overrides if not option.startswith("encoders.")]
        if mode == "train":
            overrides = [renamed(option, RENAMED_OPTIONS) for option in overrides]
        options = {"overrides": overrides, "seed": 0, "evaluate": name == "singles", "quiet": True}
        model = plait.fit(table, case.target, root=root, out=folder / "run", **options, **case.arguments)

    (folder / "unfinished").mkdir()
    for question, answers in ask(model, case, table, root, folder):
        pq.write_table(answers, folder / "unfinished" / f"{question}.parquet")
    (folder / "unfinished").rename(folder / "answers")


def ask(model: Any, case: Case, table: pa.Table, root: Path, folder: Path) -> Iterator[tuple[str, pa.Table]]:
    """Ask the model everything that is compared. Yield the name of each question and its answers."""
    for question, rows in subsets(table, case.inputs):
        yield f"predict {question}", without_reasons(model.predict(rows, root))
    if case.fused:
        yield "embed", vectors(model.embed(table, root))
        yield "embed first", vectors(model.embed(table.select(case.inputs[:1]), root))
    if "align" in case.arguments:
        for column in case.inputs[:2]:
            yield f"embed {column}", vectors(model.embed(table, root, column=column))
        labels = list(WORDS.values())
        yield (
            "classify",
            without_reasons(model.classify(table, labels, "photo", ["there is a {}"], root=root)),
        )
        index = model.index(table, folder / "index", root)
        yield "search", model.search("there is a leaf", 10, "photo", index=index).select(["score"])
    if "singles=true" in case.overrides:
        scores = {target: one["validation"]["value"] for target, one in model.record["singles"].items()}
        yield "singles", pa.Table.from_pylist([scores])


def subsets(table: pa.Table, inputs: tuple[str, ...]) -> Iterator[tuple[str, pa.Table]]:
    """All rows; some rows with columns left out; a row by itself; rows whose cells are all missing."""
    few = table.slice(0, 24)
    yield "all", table
    for column in inputs[:3] if len(inputs) > 1 else ():
        yield f"without {column}", few.drop_columns([column])
        yield f"only {column}", few.select([column])
    yield "first row", table.slice(0, 1)
    yield "lone row", table.slice(13, 1).select(list(inputs))
    yield "nothing", pa.table({column: pa.nulls(3, table[column].type) for column in inputs})


def without_reasons(answers: pa.Table) -> pa.Table:
    """Keep which rows have a problem, not how it is worded."""
    place = answers.column_names.index("problem")
    return answers.set_column(place, "problem", pc.is_valid(answers["problem"]))


def vectors(rows: np.ndarray) -> pa.Table:
    return pa.table({"vector": rows.tolist()})


# ---------------------------------------------------------------- comparison


def difference(before: Any, after: Any) -> float:
    """Return the largest absolute difference of two cells, infinity where they cannot be subtracted and
    differ.
    """
    if before is None or after is None:
        return 0.0 if before is after else math.inf
    if isinstance(before, bytes):
        before, after = (soundfile.read(io.BytesIO(sound))[0].tolist() for sound in (before, after))
    if isinstance(before, list):
        if len(before) != len(after):
            return math.inf
        return max(map(difference, before, after), default=0.0)
    if isinstance(before, float) and not math.isnan(before):
        return abs(before - after)
    return 0.0 if before == after or (before != before and after != after) else math.inf


@dataclass
class Comparison:
    rows: int = 0
    outputs: int = 0
    largest: float = 0.0
    differing: list[str] = field(default_factory=list)

    def add(self, question: str, before: pa.Table, after: pa.Table) -> None:
        """Compare the answers to one question, column by column."""
        self.rows += len(before)
        if before.column_names != after.column_names or len(before) != len(after):
            self.differing.append(f"{question}: {before.column_names} became {after.column_names}")
            return
        for name in before.column_names:
            cells = before[name].to_pylist(), after[name].to_pylist()
            largest = max(map(difference, *cells), default=0.0)
            self.outputs += 1
            self.largest = max(self.largest, largest)
            if not largest <= (WAVE_TOLERANCE if pa.types.is_binary(before[name].type) else TOLERANCE):
                self.differing.append(f"{question}, {name}: {largest:.2g}")


def compare(before: Path, after: Path) -> Comparison:
    found = Comparison()
    for path in sorted(before.glob("*.parquet")):
        found.add(path.stem, pq.read_table(path), pq.read_table(after / path.name))
    return found


# ---------------------------------------------------------------- the command


def run_worker(mode: str, name: str, work: Path, folder: Path, checkout: Path) -> None:
    """Answer a case in a process of its own, with the plait of a checkout."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, __file__, "--worker", mode, name, str(work), str(folder)]
    with (folder / "log.txt").open("w") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)


def check(mode: str, name: str, work: Path, old: Path) -> bool:
    """Compare a case, training it with the older checkout if need be, and print a line. Return whether
    it is the same.
    """
    before = work / "before" / name
    folder = work / f"{mode}-{CHECKOUT.name}" / name
    if not (before / "answers").is_dir():
        shutil.rmtree(before, ignore_errors=True)
        before.mkdir(parents=True)
        run_worker("before", name, work, before, old)
    begun = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if mode == "load":
        converted(before / "run", folder / "run")
    run_worker(mode, name, work, folder, CHECKOUT)
    found = compare(before / "answers", folder / "answers")
    seconds = time.perf_counter() - begun
    numbers = f"{found.rows:6,} {found.outputs:8} {found.largest:10.2g} {seconds:8.1f}"
    print(f"{name:22} {mode:6} {numbers}  {'DIFFERS' if found.differing else 'ok'}", flush=True)
    for line in found.differing:
        print(f"    {line}")
    return not found.differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="the older checkout; needed unless --quick is given")
    parser.add_argument(
        "--work", type=Path, default=Path("/tmp/same-answers"), help="where runs and answers lie"
    )
    parser.add_argument(
        "--only", nargs="+", default=list(CASES), choices=list(CASES), metavar="NAME", help="cases"
    )
    parser.add_argument("--mode", choices=["train", "load", "both"], default="both")
    options = read_arguments(parser, has_page=False)
    if options.quick:
        options.before, options.work, options.only, options.mode = (
            CHECKOUT,
            cache_folder(),
            ["plain"],
            "train",
        )
    elif not options.before:
        parser.error("--before is needed")
    work = options.work.resolve()
    make_inputs(work, {CASES[name].table for name in options.only})
    print(f"{'case':22} {'mode':6} {'rows':>6} {'outputs':>8} {'difference':>10} {'seconds':>8}")
    same = True
    for name in options.only:
        for mode in ["train", "load"] if options.mode == "both" else [options.mode]:
            try:
                same &= check(mode, name, work, options.before.resolve())
            except (subprocess.CalledProcessError, OSError, KeyError) as error:
                same = False
                print(f"{name:22} {mode:6} FAILED: {error}", flush=True)
    return 0 if same else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        mode, name, *folders = sys.argv[2:]
        answer_case(mode, name, *map(Path, folders))
    else:
        sys.exit(main())
