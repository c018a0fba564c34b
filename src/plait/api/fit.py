"""What a user calls to train: fit, and resume."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plait.api import messages
from plait.api.model import Model
from plait.api.model import load as load_model
from plait.console import Screen
from plait.data.arguments import recipe_from, target_names
from plait.data.dataset import Dataset
from plait.data.digests import file_digests, target_columns
from plait.data.image_texts import with_image_texts
from plait.data.plan import Plan
from plait.data.prepare import Sides, embed_sides, prepare_sides, store
from plait.disk.whole import check_space
from plait.ensemble import fit as ensembling
from plait.ensemble.fit import Trained
from plait.ensemble.lessons import Fitting
from plait.errors import RecipeError
from plait.evaluation import report
from plait.members.base import check_member_tasks, check_members
from plait.model import network
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.nn.layers import parameter_count
from plait.nn.randomness import isolated
from plait.prediction import answers, artifact, examples
from plait.prediction.artifact import Artifact
from plait.prediction.predictor import Rows
from plait.recipe.recipe import Recipe, load
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.runs.folder import Record, Run, check_out
from plait.runs.request import Request
from plait.table.sides import Sources, read_sides
from plait.table.table import Table
from plait.tasks.base_prediction import predictions
from plait.training import memory, single_targets, start
from plait.training.baselines import labelled
from plait.training.checkpoint import Progress
from plait.training.loop import Callback, Training, Watch, train
from plait.training.refit import refit

# The seconds that are kept for a refit, in units of those of the epochs up to the best one: it has more rows,
# and other programs may slow it down.
REFIT = 1.5


def fit(
    data: object,
    target: str | Sequence[str] = (),
    *,
    align: bool | Sequence[str] = (),
    valid: object = None,
    test: object = None,
    recipe: str | Path | Mapping[str, object] | Recipe | None = None,
    columns: Mapping[str, object] | None = None,
    overrides: Iterable[str] = (),
    root: str | Path | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    quality: str | None = None,
    strict: bool = False,
    resume: bool = False,
    quiet: bool = False,
    time_limit: str | float | None = None,
    watch: Watch | None = None,
    callbacks: Sequence[Callback] = (),
    evaluate: bool = True,
) -> Model:
    """Train a model on a table and leave it, with all that explains it, in a folder.

    `data` is a path (any file that `plait.table.read.read` lists, or a folder of class folders), a pandas or
    polars frame, an Arrow table, a Hugging Face dataset or a list of dicts. `valid` and `test` likewise, if
    kept apart. `target` is one column's name or several. `align` names two or more columns that are put into
    one space (see `tasks/alignment.py`), True all images, texts, audio and video. With it no target is
    needed.

    `recipe` is a built-in name, a YAML file or a dict. `columns` ({name: modality or role}) and `overrides`
    ("training.epochs=5") are applied to it. `quality` is `network` (one network), `fast` (also members that
    end within seconds), `good` or `best` (larger ensembles, see `EnsembleRecipe`). `root` is where
    relative paths of media begin. `out` is the folder of the run, `runs/<time>` if left out. `strict` makes
    any unreadable cell an error.

    `time_limit` is how long all of it may take, in seconds or as "90s", "10m" or "2h". plait then trains
    fewer epochs and members, and keeps to the limit within a tenth.

    The same call goes on with a training in `out` that was stopped. With `resume` there must be one, and one
    that is finished is loaded. `watch` is called after each epoch with its number, how many there are and
    its score on validation rows (larger is better). What it raises ends the training. Without `evaluate`,
    scores with intervals are left out.

    Raises `TableError`, `RecipeError`, `BadCellsError` or `TrainingError` with what to do, and `Interrupted`
    after Ctrl-C, SIGTERM or SIGHUP. `OutputError` says why `out` cannot be written to. The caller's random
    numbers stay as they are; trainings in several threads take turns.
    """
    deadline = Deadline.of_training(time_limit)
    full_recipe = recipe_from(
        recipe, columns=columns, align=align, overrides=overrides, quality=quality, seed=seed
    )
    sources = Sources(data, valid, test, root)
    options = _Options(out, strict, resume, quiet, deadline, watch, tuple(callbacks), evaluate)
    return _fit(sources, target_names(target), full_recipe, options)


def resume(folder: str | Path, quiet: bool = False, time_limit: str | float | None = None) -> Model:
    """Go on with the stopped training in a folder, if its table was a file. Runs no code from the folder.

    A training that is finished is loaded, and nothing is trained. `time_limit` is that of `fit`, for what is
    left to do.

    Raises `RecipeError` if there is none, if it was given a table in memory, or if the table has changed.
    """
    deadline = Deadline.of_training(time_limit)
    request = Request.read(Path(folder))
    if not request.is_of_files:
        raise RecipeError(
            f"'{folder}' was trained on a table in memory; call plait.fit again with the same arguments and "
            f"out={str(folder)!r}"
        )
    sources = Sources(**request.sources.model_dump(), root=request.root)
    options = _Options(out=folder, strict=request.strict, resume=True, quiet=quiet, deadline=deadline)
    return _fit(sources, request.targets, load(request.recipe), options)


@dataclass(frozen=True)
class _Options:
    """How a training goes on, apart from what is trained. See `fit`."""

    out: str | Path | None = None
    strict: bool = False
    resume: bool = False
    quiet: bool = False
    deadline: Deadline = NO_LIMIT
    watch: Watch | None = None
    callbacks: tuple[Callback, ...] = ()
    evaluate: bool = True


def _fit(sources: Sources, targets: list[str], recipe: Recipe, options: _Options) -> Model:
    begun = time.time()
    screen = Screen(options.quiet)

    if not options.resume:
        check_out(options.out)

    # A resume makes the plan anew from the recipe, so that it decides as the first call did.
    table = read_sides(sources)
    check_members(recipe.ensemble)
    plan = Plan.make(table, recipe, targets)
    messages.show_plan(plan, table, screen)
    encoders = {name: column.label for name, column in plan.columns.items()}
    request = Request.make(recipe.to_dict(), targets, sources, options.strict, table, encoders)
    table = with_image_texts(plan.read(table), plan.columns, screen, options.deadline)

    begun_run = Run.begin(options.out, request, options.resume, screen.say)
    with begun_run as run, isolated(lambda: _wait(screen)), memory.explained(plan):
        if run.is_finished:
            screen.say(f"the training in '{run.folder}' is finished: nothing to train, its model is loaded")
            return load_model(run.folder, options.quiet)

        deadline = options.deadline
        sides = prepare_sides(plan, table, run.folder, options.strict, screen, deadline)
        run.check_media({**sides.prepared.digests, **file_digests(table, target_columns(plan))})
        _check_answers(plan, sides)
        training = _begin_training(plan, sides, table, run.folder, screen, options)
        run.doing = "training the network"
        training_began = time.monotonic()
        progress = train(training, run.resumed)
        training_seconds = time.monotonic() - training_began
        record = _record(training, progress)
        messages.show_lowered(training, screen)
        model = training.model.cpu()
        trained = Model(Artifact(plan, sides.preprocessing, model, record), run.folder, options.quiet)
        run.doing = "training members, which begin anew"
        refit_seconds = REFIT * training_seconds * record["best_epoch"] / max(record["epochs"], 1)
        keeps_time = _may_refit(plan, sides) and deadline.left > _shares(plan) * refit_seconds
        members_end = deadline.before(refit_seconds) if keeps_time else deadline
        members = _fit_members(trained, sides, table, screen, members_end)
        run.doing = "evaluating"
        if options.evaluate:
            _evaluate_validation(trained, sides, members)
        if _may_refit(plan, sides) and deadline.left > refit_seconds / (REFIT if keeps_time else 1):
            run.doing = "training the network on all rows"
            record["refit"] = refit(training, record["best_epoch"])
        run.doing = "evaluating"
        if options.evaluate:
            _evaluate_test(trained, sides, members, table, screen)

        run.doing = "training single-target models, which begin anew"
        _fit_singles(trained, sides, training, screen, deadline)

        # The weights are written at the very end: a crash before leaves a run that can be resumed.
        run.doing = "writing the model"
        record["seconds"] = round(time.time() - begun, 1)
        _save(trained, table)
    messages.finish(trained, screen)
    return trained


def _wait(screen: Screen) -> None:
    screen.say("another training is running in this process; this one waits for its turn")


def _check_answers(plan: Plan, sides: Sides) -> None:
    """Raise `RecipeError` if a trained model could not answer.

    Two of its columns may have one name, and a member may lack what it needs for a target.
    """
    tasks = sides.preprocessing.tasks
    labels = {target: _labels(sides.train, target) for target in tasks}
    answers.check_names(tasks, labels, plan.schema.of("id"))
    check_member_tasks(plan.ensemble.members, predictions(tasks), labels)


def _begin_training(
    plan: Plan, sides: Sides, table: Table, folder: Path, screen: Screen, options: _Options
) -> Training:
    """Build the model, compute frozen embeddings, and set the start values that come from the data."""
    torch.manual_seed(plan.seed)
    model = MultimodalModel.build(plan, sides.preprocessing)
    has_convolutions = sides.preprocessing.convolves(plan)
    settings = device.settings(plan.recipe.training, has_convolutions)
    check_space(folder, _space(model))

    # Start values are fitted to embeddings, so these come first.
    frozen_encoders = network.frozen(model, plan)
    embed_sides(sides, frozen_encoders, plan, settings, table, screen, options.deadline)
    start.begin(model, sides.train)
    options.deadline.check("the model was built")

    training = Training(
        model,
        plan,
        settings,
        sides.train,
        sides.valid,
        folder,
        screen,
        unlabelled=sides.unlabelled,
        watch=options.watch,
        callbacks=options.callbacks,
        deadline=options.deadline.part(1 / _stages(plan)),
    )

    # Only now it is known which parameters are trained: empty tokens need columns with empty cells.
    messages.show_model(model, plan, settings, screen)
    return training


def _stages(plan: Plan) -> int:
    """Return how many stages share the time of a limit.

    These are the network, members, the network on all rows, and a network of each target alone.
    """
    singles = len(plan.targets) if _trains_singles(plan) else 0
    return 1 + bool(plan.ensemble.members) + plan.training.refit + singles


def _trains_singles(plan: Plan) -> bool:
    """Return whether a model of each target is trained too, to compare with."""
    return plan.recipe.singles and len(plan.tasks) > 1


def _may_refit(plan: Plan, sides: Sides) -> bool:
    """Return whether the network learns from validation rows in the end, if time is left."""
    return plan.training.refit and len(sides.valid) > 0


def _shares(plan: Plan) -> int:
    """Return for how many times its seconds a refit is kept: members must have twice as many themselves.

    Else there is a refit only if they end early.
    """
    return 3 if plan.ensemble.members else 1


def _space(model: MultimodalModel) -> int:
    """Return the bytes that a run takes on disk at most: two checkpoints, one beside the other, and weights.

    A checkpoint has the weights of the last epoch and of the best, and two moments of what is trained.
    """
    weights, trained = 0, 0
    for parameter in model.parameters():
        weights += parameter.nbytes
        if parameter.requires_grad:
            trained += parameter.nbytes
    checkpoint = 2 * weights + 2 * trained
    return 2 * checkpoint + weights


def _record(training: Training, progress: Progress) -> Record:
    """Describe a training at its end: what `metrics.json` holds, but for scores and seconds."""
    plan = training.plan
    keeps_best = plan.training.keep == "best"
    return {
        "environment": device.describe(training.settings),
        "rows": {side: len(rows) for side, rows in plan.split.sides().items()},
        "split": plan.split.how,
        "priors": {target: baseline.tolist() for target, baseline in training.baselines.items()},
        "parameters": parameter_count(training.model),
        "best_epoch": progress.best_epoch if keeps_best else progress.epoch,
        "epochs": progress.epoch,
        "history": progress.history,
        "evaluation": {},
    }


def _fit_members(
    trained: Model, sides: Sides, table: Table, screen: Screen, deadline: Deadline
) -> Trained | None:
    """Train the members beside the network, and let all of them answer. Return None without members."""
    plan = trained.plan
    fitting = Fitting(plan, table, trained.network, sides.train, trained.folder, screen, deadline)
    members = ensembling.fit(fitting)
    if members is None:
        return None

    trained.answer_with(members.ensemble)
    members.ensemble.save(trained.folder)
    members.show(screen)
    trained.record["members"] = members.record()
    return members


def _fit_singles(
    trained: Model, sides: Sides, training: Training, screen: Screen, deadline: Deadline
) -> None:
    """Train a model of each target, if the recipe asks for them, and write their scores into the record."""
    plan, record = trained.plan, trained.record
    if _trains_singles(plan):
        record["singles"] = single_targets.fit(
            plan, sides, training.settings, trained.folder, screen, deadline
        )
        single_targets.show(record["singles"], record, screen)


def _evaluate_validation(trained: Model, sides: Sides, members: Trained | None) -> None:
    """Write the scores on validation rows into the record, where there are any.

    They are those of the network before it learns from these rows too.
    """
    scores = trained.record["evaluation"]
    if members:
        # Members are trained on validation rows too, so only out-of-fold predictions are fair here.
        rows = members.out_of_fold.rows()
        if len(rows):
            evaluation = trained.score(members.out_of_fold, rows, "out-of-fold predictions")
            scores["validation"] = evaluation.to_dict()
    elif _has_labels(sides.valid):
        evaluation = trained.score(trained.network, sides.valid, "validation rows")
        scores["validation"] = evaluation.to_dict()


def _evaluate_test(
    trained: Model, sides: Sides, members: Trained | None, table: Table, screen: Screen
) -> None:
    """Write the scores on test rows into the record, where there are any."""
    if _has_labels(sides.test):
        rows = _test_rows(trained, sides, members, table, screen)
        evaluation = trained.score(trained.answering, rows, "test rows")
        trained.record["evaluation"]["test"] = evaluation.to_dict()


def _test_rows(trained: Model, sides: Sides, members: Trained | None, table: Table, screen: Screen) -> Rows:
    """Return the test rows as what answers reads them: members may prepare cells in other ways."""
    if members is None:
        return sides.test
    test_table = table.take(sides.test.rows.numpy())
    with store(screen, table) as cache:
        return trained.answering.prepare(test_table, store=cache)


def _has_labels(data: Dataset) -> bool:
    """Return whether any of these rows has a label of any target."""
    by_target = data.prepared.batch.labelled
    return any(bool(is_labelled[data.rows].any()) for is_labelled in by_target.values())


def _save(trained: Model, table: Table) -> None:
    """Write the report, the examples and the model into the run's folder."""
    report.write(trained.folder, trained.artifact)
    _keep_examples(trained.folder, trained.plan, table)
    artifact.save(trained.artifact, trained.folder)


def _keep_examples(folder: Path, plan: Plan, table: Table) -> None:
    """Keep a few test rows beside the model, or validation rows where there are no others."""
    rows = plan.split.test if len(plan.split.test) else plan.split.valid
    places = np.linspace(0, len(rows), plan.recipe.examples, endpoint=False, dtype=int)
    roles = ("id", "input", "target")
    columns = [column.name for column in plan.schema if column.role in roles]
    # The sound of a video is a column of its own, but its file is that of the video.
    names = [name for name in columns if name in table.data.column_names]
    kept = rows[np.unique(places)] if len(rows) else rows
    examples.save(folder, table, kept.tolist(), names, plan.columns_of_files())


def _labels(data: Dataset, target: str) -> Tensor:
    """Return the target of the rows that have a label."""
    _, labels = labelled(data, target, data.rows)
    return labels
