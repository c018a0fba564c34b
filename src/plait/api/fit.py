"""What a user calls: fit, load, inspect, and the model's evaluate, predict, embed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from plait.api.messages import describe, finish
from plait.api.model import Model
from plait.console import Screen
from plait.data import frozen as embedding
from plait.data import plan
from plait.data.dataset import Dataset
from plait.data.infer import infer, infer_tasks
from plait.data.inspect import Inspection, check_cells, check_labels, prepare, store
from plait.data.plan import aligning, load_recipe, target_names
from plait.data.preprocessing import Prepared, Preprocessing
from plait.data.split import Split
from plait.ensemble import fit as ensembling
from plait.ensemble.fit import Fitting, Trained
from plait.errors import RecipeError
from plait.evaluation import alignment, report
from plait.evaluation.scores import Evaluation
from plait.model import network
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.prediction import artifact
from plait.prediction.artifact import Artifact
from plait.prediction.predictor import Rows
from plait.recipe.recipe import Recipe
from plait.runs import folder as runs
from plait.table.read import read
from plait.table.table import Table
from plait.tasks.alignment import Alignment
from plait.training import single_targets, start
from plait.training.checkpoint import Checkpoint, Progress
from plait.training.loop import Training, Watch, train


def fit(
    data: Any,
    target: str | Sequence[str] = (),
    *,
    align: bool | Sequence[str] = (),
    valid: Any = None,
    test: Any = None,
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    columns: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    root: str | Path | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    quality: str | None = None,
    strict: bool = False,
    resume: bool = False,
    quiet: bool = False,
    watch: Watch | None = None,
    evaluate: bool = True,
) -> Model:
    """Trains a model on a table and leaves it, with all that explains it, in a folder.

    `data` is a path (CSV, TSV, JSON Lines, Parquet, Arrow, Feather, a folder of class folders), a
    pandas or polars frame, an Arrow table, a Hugging Face dataset or a list of dicts; `valid` and
    `test` likewise, if kept apart. `target` is one column's name or several. `align` names two or more
    columns that are put into one space (see `tasks/alignment.py`), True all pictures, texts, sounds and
    clips; with it no target is needed. `recipe` is a built-in name, a YAML file or a dict; `columns`
    ({name: modality or role}) and `overrides` ("training.epochs=5") are applied to it. `root` is where
    relative paths of media begin; `out` the folder of the run, `runs/<time>` if left out. `quality` is
    `fast` (one network), `good` or `best` (ensembles, see `EnsembleRecipe`). `strict` makes any
    unreadable cell an error. `resume` goes on with the training in `out` that was stopped. `watch` is
    called after each epoch with its number, how many there are and its score on validation rows (larger
    is better); what it raises ends the training. Without `evaluate` no score with intervals is worked
    out.

    Raises `TableError`, `RecipeError`, `BadCellsError` or `TrainingError` with what to do;
    `Interrupted` after Ctrl-C.
    """
    if quality:
        overrides = [*overrides, f"quality={quality}"]
    chosen = load_recipe(recipe, columns, [*aligning(align), *overrides], seed)
    sources = {"train": data, "valid": valid, "test": test}
    targets = target_names(target)
    others = [
        t
        for t, choice in chosen.tasks.items()
        if t not in chosen.aligned() and (not targets or choice.options.get("column"))
    ]
    targets = list(dict.fromkeys([*targets, *others]))
    return _fit(sources, targets, chosen, root, out, strict, resume, quiet, watch, evaluate)


def resume(folder: str | Path, quiet: bool = False) -> Model:
    """Goes on with the stopped training in a folder, if its table was a file. Runs no code from the
    folder.

    Raises `RecipeError` when there is none, when it was given a table in memory, or when the table has
    changed since.
    """
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise RecipeError(f"'{folder}' holds no training to go on with")
    run = json.loads(path.read_text(encoding="utf-8"))
    if run["sources"]["train"] is None:
        raise RecipeError(
            f"'{folder}' was trained on a table in memory; call plait.fit again with the same arguments, "
            f"out={str(folder)!r} and resume=True"
        )
    return _fit(
        run["sources"],
        run["targets"],
        Recipe(**run["recipe"]),
        run["root"],
        folder,
        run["strict"],
        True,
        quiet,
    )


def _fit(
    sources: dict[str, Any],
    targets: list[str],
    chosen: Recipe,
    root: Any,
    out: Any,
    strict: bool,
    resumed: bool,
    quiet: bool,
    watch: Watch | None = None,
    evaluate: bool = True,
) -> Model:
    screen = Screen(quiet)
    begun = time.time()
    table, chosen = plan.with_sides(
        read(sources["train"], root), sources["valid"], sources["test"], root, chosen
    )
    if not targets and not chosen.aligned():
        names = ", ".join(table.data.column_names)
        raise RecipeError(
            f"which column is to be predicted? Give target=, or align= for what goes with what; {table.name} "
            f"has {names}"
        )
    if "problem" in targets:
        raise RecipeError(
            "a target cannot be named 'problem': predictions have a column of that name; rename yours"
        )
    labels = {t: chosen.label(t) for t in targets}
    schema = infer(table, [c for t, c in labels.items() if c == t or not chosen.read_too(c)], chosen)
    schema = schema if targets else plan.only_aligned(schema, chosen)
    tasks = infer_tasks(table, labels)
    asked = plan.with_split_column(chosen, schema)
    chosen = asked.resolve(schema, {t: task for t, (task, _) in tasks.items()})
    why = {
        t: (chosen.tasks[t].name, match.reason if chosen.tasks[t].name == task else "said by the recipe")
        for t, (task, match) in tasks.items()
    }
    Inspection(table.name, schema, {labels[t]: reason for t, reason in why.items()}).show(screen)

    rows, unlabelled = plan.choose_rows(table, chosen, targets, screen)
    chosen = chosen.for_rows(len(rows.train))
    folder = runs.folder_for(out, resumed)
    runs.begin(folder, table, chosen.model_dump(mode="json"), sources, root, targets, strict, resumed)
    if not resumed:
        Checkpoint(folder, 1).remove()
    preprocessing = Preprocessing.fit(table, chosen, rows.train)
    prepared = prepare(table, preprocessing, screen)
    check_cells(prepared, rows, table, folder, strict, screen)
    check_labels(prepared, rows.train)
    torch.manual_seed(chosen.seed)
    model = MultimodalModel.build(chosen, preprocessing)
    settings = device.settings(chosen.training, preprocessing.convolves(chosen))
    describe(model, chosen, settings, screen)
    data = {
        side: Dataset(prepared, preprocessing, numbers)
        for side, numbers in (("train", rows.train), ("valid", rows.valid), ("test", rows.test))
    }
    _embed(prepared, preprocessing, model, chosen, settings, screen, table)
    start.begin(model, data["train"])
    run = Training(
        model,
        chosen,
        settings,
        data["train"],
        data["valid"],
        folder,
        screen,
        Dataset(prepared, preprocessing, unlabelled),
        watch,
    )
    progress = train(run, resumed)

    record = _record(run, rows, prepared, progress, begun)
    trained = Model(Artifact(chosen, schema, preprocessing, model.cpu(), record), folder, quiet)
    members = ensembling.fit(
        Fitting(asked, chosen, schema, table, rows, trained._network, data["train"], folder, screen)
    )
    if members:
        trained._answering = members.ensemble
        members.ensemble.save(folder)
        members.show(screen)
        record["members"] = members.record()
    if evaluate:
        _evaluate_all(trained, data, members, table)
    if chosen.singles and len(chosen.tasks) > 1:
        record["singles"] = single_targets.fit(chosen, asked, data, settings, folder, screen)
        single_targets.show(record["singles"], record, screen)
    record["seconds"] = round(time.time() - begun, 1)
    artifact.save(trained._artifact, folder)
    report.write(folder, trained._artifact)
    Checkpoint(folder, 1).remove()
    finish(trained, screen)
    return trained


def _record(
    run: Training, rows: Split, prepared: Prepared, progress: Progress, begun: float
) -> dict[str, Any]:
    """What is known of a training at its end."""
    answered = {t: task for t, task in run.train_data.preprocessing.tasks.items() if not task.compares}
    return {
        "environment": device.describe(run.settings),
        "rows": {side: len(numbers) for side, numbers in rows.sides().items()},
        "split": rows.how,
        "priors": {
            t: task.prior(_labelled(prepared, t, rows.train)).tolist() for t, task in answered.items()
        },
        "best_epoch": progress.best_epoch if run.recipe.training.keep == "best" else progress.epoch,
        "epochs": progress.epoch,
        "seconds": round(time.time() - begun, 1),
        "history": progress.history,
        "evaluation": {},
    }


def _evaluate_all(trained: Model, data: dict[str, Dataset], members: Trained | None, table: Table) -> None:
    """The scores that stand in a run's record: of rows that validate, and of test rows."""
    found = trained.record["evaluation"]
    if members:
        found["validation"] = trained._evaluate(
            members.out_of_fold, members.out_of_fold.rows(), "out-of-fold predictions"
        ).to_dict()
    elif _any_labelled(data["valid"]):
        found["validation"] = _compared(
            trained, trained._evaluate(trained._network, data["valid"], "validation rows"), data, "valid"
        ).to_dict()
    if _any_labelled(data["test"]):
        rows: Rows = data["test"]
        if members:
            some = Table(table.data.take(pa.array(data["test"].rows.numpy())), table.root, table.name)
            with store(trained._screen, table) as cells:
                rows = trained._answering.prepare(some, store=cells)
        found["test"] = _compared(
            trained, trained._evaluate(trained._answering, rows, "test rows"), data, "test"
        ).to_dict()


def _compared(trained: Model, found: Evaluation, data: dict[str, Dataset], side: str) -> Evaluation:
    """The same with linear maps beside each alignment."""
    for name, aligned in found.alignments.items():
        task = trained._network.tasks[name]
        assert isinstance(task, Alignment)
        alignment.compare(
            aligned, task, data["train"], data[side], data[side].prepared.batch.targets[name][data[side].rows]
        )
    return found


def _any_labelled(data: Dataset) -> bool:
    return any(bool(known[data.rows].any()) for known in data.prepared.batch.labelled.values())


def _embed(
    prepared: Prepared,
    preprocessing: Preprocessing,
    model: MultimodalModel,
    chosen: Recipe,
    settings: device.Settings,
    screen: Screen,
    table: Table,
) -> None:
    """Runs the frozen encoders once over all cells."""
    frozen = network.frozen(model)
    cells = sum(int(prepared.batch.present[c].sum()) for c in frozen)
    if cells:
        with screen.bar("computing embeddings", cells) as bar, store(screen, table) as kept:
            embedding.embed(prepared, preprocessing, frozen, chosen, settings, kept, bar.advance)


def _labelled(prepared: Prepared, target: str, rows: np.ndarray) -> torch.Tensor:
    """The target of the labelled ones among these rows."""
    index = torch.from_numpy(np.asarray(rows, dtype=np.int64))
    return prepared.batch.targets[target][index][prepared.batch.labelled[target][index]]
