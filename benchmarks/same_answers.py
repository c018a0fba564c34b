"""Check that this checkout answers as an older one does.

    python benchmarks/same_answers.py --before ../old [--mode train|load|both] [--only CASE ...]
    python benchmarks/same_answers.py --quick: compare a case of this checkout with itself

The cases are in `same_answers_cases.py`. The older checkout trains each of them once. Its runs and answers
stay in `<work>/before`; remove a case's folder there after changing the case.

Mode `train` trains the case with this checkout. Mode `load` brings the older run to the present layout and
loads it. Both must give the older answers. With one thread, training is deterministic on one machine: a
change that only moves code gives a difference of exactly 0.

When a change renames tensors or options, add pairs to `RENAMED` or `RENAMED_OPTIONS`. When it changes a file
of the run's folder, change the `convert_` function of that file.
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
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
import torch
import yaml
from safetensors.torch import load_file, save_file

from measure import cache_folder, read_arguments
from same_answers_cases import CASES, LABELS, SMALL, Case, make_inputs

TOLERANCE = 1e-5
WAVE_TOLERANCE = 1e-3  # samples have 16 bits, and Griffin-Lim enlarges what differs in the last digit
SHOWN = 6  # lines about what differs, for each case and mode
CHECKOUT = Path(__file__).resolve().parents[1]
WORK = Path(tempfile.gettempdir()) / "same-answers"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "PLAIT_CACHE": "off",  # cells that the older checkout prepared would hide how this one prepares them
}

# ---------------------------------------------------------------- from the older layout to the present one

FORMAT = 8  # what the present code expects in state.json
RENAMED: list[tuple[str, str]] = [  # names of tensors: (pattern, replacement), applied in order
    (r"^cells\.(missing|empty)$", r"table_columns.stand_in.\1"),
    (r"^cells\.taught_M$", "table_columns.stand_in.has_empty_M"),
    (r"^cells\.", "table_columns."),
    (r"^(encoders\..*)\.missing_D$", r"\1.stand_in.missing"),
    (r"^fused\.(.*?)\.solo\.", r"fusers.\1.unimodal."),
    (r"^fused\.", "fusers."),
    ("\0table", "table"),
    (r"^votes\.(.*)\.trust_P$", r"tasks.\1.late_fusion.inverse_temperature_P"),
    (r"^(tasks\..*)\.head\.1\.", r"\1.writer.head.1."),  # of a transcription
    (r"^votes\.(.*)\.share$", r"tasks.\1.late_fusion.mixture_weight"),
]
RENAMED_OPTIONS: list[tuple[str, str]] = []  # the same for the overrides of the cases


def convert_weights(tensors: dict[str, Any]) -> dict[str, Any]:
    """Rename the tensors of a network. If a tensor's meaning changes, change it here."""
    tensors = {renamed(name, RENAMED): tensor for name, tensor in tensors.items()}
    converted_tensors = {}
    for name, tensor in tensors.items():
        if re.fullmatch(r"fusers\..*\.empty\.weight|tasks\..*\.guesses", name):
            continue
        # Only predictions have a temperature now, and they have a head of one linear layer.
        if name.endswith(".temperature") and name.replace("temperature", "head.weight") not in tensors:
            continue
        converted_tensors[name] = tensor

    # A column that is encoded alone has an empty token now, which these runs never trained.
    matches = (re.match(r"encoders\.[^.]+", name) for name in tensors)
    for encoder in {match[0] for match in matches if match}:
        converted_tensors[f"{encoder}.stand_in.has_empty_M"] = torch.zeros(1, dtype=torch.bool)
        missing = converted_tensors.get(f"{encoder}.stand_in.missing")
        if missing is not None:
            converted_tensors[f"{encoder}.stand_in.empty"] = torch.zeros_like(missing)
    return converted_tensors


def add_empty_offsets(tensors: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """Add what empty blocks say in rows without a cell, which these runs never counted: nothing."""
    added = {}
    for name, task in plan["tasks"].items():
        head = tensors.get(f"tasks.of_{name}.head.weight")
        if head is None or task["name"] not in ("classification", "regression", "multilabel"):
            continue
        read = [column for column in plan["columns"] if column in task["inputs"]]
        names = {column: plan["columns"][column]["modality"]["name"] for column in read}
        plain = [column for column in read if names[column] in ("number", "category", "datetime")]
        blocks = len(read) - len(plain) + bool(plain)
        shape = (blocks,) if task["name"] == "regression" else (blocks, len(head))
        added[f"tasks.of_{name}.empty_offset"] = torch.zeros(shape)
    return tensors | added


def convert_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """Give the options of the model their present names."""
    names = {"alone": "unimodal_weight", "votes": "late_fusion"}
    model = {names.get(name, name): option for name, option in recipe["model"].items()}
    return {**recipe, "model": model}


def make_plan(recipe: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Make the plan of a run from its recipe, in which the older checkout filled in every option."""
    inputs = [column["name"] for column in schema["columns"] if column["role"] == "input"]
    columns, tasks, labels, alignments = {}, {}, {}, {}
    for name, column in recipe["columns"].items():
        if column.get("encoder"):
            encoder = column["encoder"]
            columns[name] = {
                "modality": column["modality"],
                "encoder": encoder,
                "frozen": encoder.get("mode") == "frozen",
                "light": encoder["name"] == "tabular",
            }
    for name, task in recipe["tasks"].items():
        tasks[name] = {**task, "inputs": task["inputs"] or inputs}
        if task["name"] == "alignment":
            alignments[name] = task["inputs"]
        else:
            labels[name] = task["column"] or name
    machine = ("precision", "channels_last", "compile", "allocator")
    ensemble = recipe.get("ensemble") or {}
    if ensemble.get("repeats") == "auto":  # the view of a member, which has none
        ensemble = {}
    return {
        "recipe": recipe,
        "schema": schema,
        "split": {"train": "", "valid": "", "test": "", "how": "as the older checkout did"},
        "labels": labels,
        "reasons": {},
        "alignments": alignments,
        "tasks": tasks,
        "columns": columns,
        "fusion": recipe["fusion"],
        "balancing": recipe["balancing"],
        "model": recipe["model"],
        "training": make_training(recipe["training"], machine),
        "ensemble": ensemble,
        "seed": recipe["seed"],
    }


def make_training(training: dict[str, Any], machine: tuple[str, ...]) -> dict[str, Any]:
    """Leave out what each machine decides. A member's numbers are decided fold by fold: any will do."""
    usual = {"epochs": 1, "batch_size": 32, "unaugmented": 0.2}
    planned = {name: option for name, option in training.items() if name not in machine}
    return planned | {name: number for name, number in usual.items() if planned.get(name) == "auto"}


def convert_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return schema


def convert_preprocessing(state: dict[str, Any]) -> dict[str, Any]:
    """Convert the fitted state of modalities and tasks, without the number of the format."""
    return state


def convert_state(state: dict[str, Any]) -> dict[str, Any]:
    return {**convert_preprocessing(state), "format": FORMAT}


def convert_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    return metrics


def convert_ensemble(ensemble: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    for view in ensemble["views"].values():
        if view:  # the view of the run's own network is empty: it has the run's plan and state
            view["plan"] = make_plan(convert_recipe(view.pop("recipe")), schema)
            view["state"] = convert_preprocessing(view["state"])
    return ensemble


CONVERSIONS = {
    "recipe.yaml": convert_recipe,
    "schema.json": convert_schema,
    "state.json": convert_state,
    "metrics.json": convert_metrics,
}


def converted(old_folder: Path, new_folder: Path) -> Path:
    """Copy a run of the older checkout, and bring its files to the present layout."""
    shutil.copytree(old_folder, new_folder)
    for name, convert in CONVERSIONS.items():
        path = new_folder / name
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".yaml":
            text = yaml.safe_dump(convert(yaml.safe_load(text)), sort_keys=False)
        else:
            text = json.dumps(convert(json.loads(text)))
        path.write_text(text, encoding="utf-8")

    recipe = yaml.safe_load((new_folder / "recipe.yaml").read_text(encoding="utf-8"))
    schema = json.loads((new_folder / "schema.json").read_text(encoding="utf-8"))
    plan = make_plan(recipe, schema)
    (new_folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    plans = {new_folder / "weights.safetensors": plan}
    ensemble = new_folder / "ensemble.json"
    if ensemble.is_file():
        content = convert_ensemble(json.loads(ensemble.read_text(encoding="utf-8")), schema)
        ensemble.write_text(json.dumps(content), encoding="utf-8")
        for number, bag in enumerate(content["bags"]):
            view = content["views"].get(bag["view"])
            for path in new_folder.glob(f"members/{number}/*/weights.safetensors"):
                plans[path] = view["plan"] if view else plan

    for path, plan in plans.items():
        save_file(add_empty_offsets(convert_weights(load_file(path)), plan), path)
    return new_folder


def renamed(text: str, pairs: list[tuple[str, str]]) -> str:
    for pattern, replacement in pairs:
        text = re.sub(pattern, replacement, text)
    return text


# ---------------------------------------------------------------- the worker: one case, in a new process


def answer_case(mode: str, name: str, work: Path, folder: Path) -> None:
    """Load the run of a case from `folder`, or train it there. Save the answers as Parquet beside it."""
    import torch

    import plait

    checkout = os.environ["PYTHONPATH"]
    if not Path(plait.__file__).is_relative_to(checkout):
        raise RuntimeError(f"expected the plait in {checkout}, imported {plait.__file__}")
    torch.set_num_threads(1)
    case = CASES[name]
    root = work / "tables" / case.table
    columns = dict.fromkeys([*case.inputs, *case.target, *case.others])
    table = pq.read_table(root / "table.parquet").select(list(columns))
    if mode == "load":
        model = plait.load(folder / "run", quiet=True)
    else:
        pairs = [("BERT", str(work / "bert")), *(RENAMED_OPTIONS if mode == "train" else ())]
        options = [renamed(option, pairs) for option in (*SMALL, *case.encoders, *case.overrides)]
        options += alone() if "quality" not in case.arguments else []
        arguments = {"seed": 0, "evaluate": False, "quiet": True, **case.arguments}
        model = plait.fit(table, case.target, root=root, out=folder / "run", overrides=options, **arguments)

    (folder / "unfinished").mkdir()
    for question, answers in ask(model, case, table, root, folder):
        pq.write_table(answers, folder / "unfinished" / f"{question}.parquet")
    (folder / "unfinished").rename(folder / "answers")


def alone() -> list[str]:
    """Return the options that train the network alone, and once, as older checkouts do by themselves."""
    from plait.recipe.recipe import Recipe

    qualities = get_args(Recipe.model_fields["quality"].annotation)
    return ["quality=network", "training.refit=off"] if "network" in qualities else []


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
        answers = model.classify(table, LABELS, "photo", ["there is a {}"], root=root)
        yield "classify", without_reasons(answers)
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
    """Return the largest absolute difference of two cells; infinity if they are unequal and no numbers."""
    if before is None or after is None:
        return 0.0 if before is after else math.inf
    if isinstance(before, bytes):
        before, after = (soundfile.read(io.BytesIO(sound))[0].tolist() for sound in (before, after))
    if isinstance(before, list):
        if len(before) != len(after):
            return math.inf
        return max(map(difference, before, after), default=0.0)
    if before == after:
        return 0.0
    if isinstance(before, float) and isinstance(after, float):
        if math.isnan(before) or math.isnan(after):
            return 0.0 if math.isnan(before) and math.isnan(after) else math.inf
        return abs(before - after)
    return math.inf


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
        ended = subprocess.run(command, env=environment, stdout=log, stderr=log)
    if ended.returncode:
        last_line = (folder / "log.txt").read_text(encoding="utf-8").strip().rpartition("\n")[2]
        raise RuntimeError(f"{last_line} (the whole message is in {folder / 'log.txt'})")


def seconds_of_workers() -> float:
    """Return the processor time of all workers so far: other work on the machine hardly changes it."""
    times = os.times()
    return times.children_user + times.children_system


def check(mode: str, name: str, work: Path, old: Path) -> bool:
    """Compare a case and print a line. Train it with the older checkout first, unless that has been done."""
    before = work / "before" / name
    folder = work / f"{mode}-{CHECKOUT.name}" / name
    if not (before / "answers").is_dir():
        shutil.rmtree(before, ignore_errors=True)
        before.mkdir(parents=True)
        run_worker("before", name, work, before, old)

    begun = seconds_of_workers()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if mode == "load":
        converted(before / "run", folder / "run")
    run_worker(mode, name, work, folder, CHECKOUT)
    found = compare(before / "answers", folder / "answers")

    seconds = seconds_of_workers() - begun
    numbers = f"{found.rows:6,} {found.outputs:8} {found.largest:10.2g} {seconds:8.1f}"
    print(f"{name:22} {mode:6} {numbers}  {'DIFFERS' if found.differing else 'ok'}", flush=True)
    for line in found.differing[:SHOWN]:
        print(f"    {line}")
    if len(found.differing) > SHOWN:
        print(f"    and {len(found.differing) - SHOWN} more")
    return not found.differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="the older checkout; needed unless --quick is given")
    parser.add_argument("--work", type=Path, default=WORK, help="the folder of runs and answers")
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
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
    make_inputs(work)
    print(f"{'case':22} {'mode':6} {'rows':>6} {'outputs':>8} {'difference':>10} {'seconds':>8}")
    same = True
    for name in options.only:
        for mode in ["train", "load"] if options.mode == "both" else [options.mode]:
            try:
                same &= check(mode, name, work, options.before.resolve())
            except (RuntimeError, OSError, KeyError) as error:
                same = False
                print(f"{name:22} {mode:6} FAILED: {type(error).__name__}: {error}", flush=True)
    return 0 if same else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        mode, name, *folders = sys.argv[2:]
        answer_case(mode, name, *map(Path, folders))
    else:
        sys.exit(main())
