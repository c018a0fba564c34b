"""Tune a recipe's options with Optuna: each trial is a fit, and trials that lag behind stop early."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.api import fit, messages
from plait.api.model import Model
from plait.console import Screen
from plait.data.arguments import recipe_from, target_names
from plait.data.digests import file_digests, media_columns
from plait.data.plan import Plan
from plait.data.prepare import store
from plait.data.targets import find_targets
from plait.disk.whole import make_inner_folder
from plait.errors import ArtifactError, Interrupted, PlaitError, RecipeError, TrainingError, count
from plait.recipe.parse import quote
from plait.recipe.recipe import Recipe
from plait.recipe.sections import Between, Choices
from plait.runs import content, files, interrupts
from plait.runs import folder as runs
from plait.runs.deadline import SHORTEST, Deadline
from plait.runs.lock import locked
from plait.table.json import JSON
from plait.table.read import read
from plait.table.table import Table
from plait.tasks.base import Task
from plait.tasks.base import tasks as task_registry
from plait.training.loop import Watch

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

FIRST = 5  # trials before any is stopped early
WARM = 1 / 3  # the share of a trial's epochs before it may be stopped
TRIALS = 0.6  # of a time limit, at most: the last fit has the rest
ONE_NETWORK = ("quality=network", "ensemble=null", "training.refit=off")  # what a trial trains, and once

COMPLETE, STOPPED = "complete", "stopped early"  # how a trial ended, if not with an error


def tune(
    data: object,
    target: str | Iterable[str] = (),
    *,
    align: bool | Sequence[str] = (),
    out: str | Path,
    trials: int = 20,
    recipe: str | Path | Mapping[str, object] | Recipe | None = None,
    columns: Mapping[str, object] | None = None,
    overrides: Iterable[str] = (),
    seed: int = 0,
    quality: str | None = None,
    quiet: bool = False,
    time_limit: str | float | None = None,
    **options: Any,
) -> Model:
    """Try recipes on the validation rows, then fit the best one into the folder `out`, and return it.

    The first trial is the recipe as it is, so the best one is never behind it on validation rows. On test
    rows it may be. The others are drawn from the recipe's `tuning.space` (see `suiting` if it has none) by
    the tree-structured Parzen estimator (Bergstra et al. 2011). A trial stops if it is behind the median of
    the earlier ones at the same epoch. Trials train one network, whatever the `quality` of the last fit.

    `<out>/tuning` has all trials. The same call goes on after Ctrl-C or a kill, and more `trials` add some.
    The other arguments are those of `plait.fit`. Only the last fit sees its `test` rows. Of a `time_limit`,
    trials may take up to 60 %.

    Raises what `plait.fit` raises, and `RecipeError` if `out` holds trials of another recipe or table, or
    Optuna is missing.
    """
    screen = Screen(quiet)
    deadline = Deadline.after(time_limit)
    full_recipe = recipe_from(recipe, columns=columns, align=align, overrides=overrides)
    targets = target_names(target)
    table = read(data, options.get("root"))
    messages.show_notes(table, screen)
    folder = runs.fresh_folder(out)
    runs.check_untrained(folder)
    identity = _identity(full_recipe, table, targets, seed, screen)
    space = _space(full_recipe, table, targets)
    options |= {"target": targets, "recipe": full_recipe, "seed": seed}

    # Trials train in other folders, so without this lock a fit could take the folder before the last one.
    with locked(folder):
        runs.check_untrained(folder)
        study = _Study(make_inner_folder(folder, "tuning"), identity, space, seed)
        attempt = _Attempt(partial(fit.fit, data, **options), folder, deadline.part(TRIALS))
        _try(study, trials, attempt, screen)
        study.show(screen)
        options["time_limit"] = _seconds(deadline)
        return fit.fit(data, **options, overrides=study.best, out=out, quality=quality, quiet=quiet)


@dataclass(frozen=True)
class _Attempt:
    """Fits a recipe with drawn overrides, in a folder that is deleted."""

    fit: Callable[..., Model]
    folder: Path
    deadline: Deadline

    def __call__(self, drawn: list[str], watch: Watch) -> None:
        """Fit the recipe with these overrides: the network alone, and without test rows."""
        with tempfile.TemporaryDirectory(dir=self.folder / "tuning") as trial_folder:
            self.fit(
                test=None,  # a choice by test rows would make their scores too good
                overrides=[*drawn, *ONE_NETWORK],
                time_limit=_seconds(self.deadline),
                out=Path(trial_folder) / "run",
                quiet=True,
                watch=watch,
                evaluate=False,
            )


def _seconds(deadline: Deadline) -> float | None:
    """Return the seconds that are left, as a limit of a fit, which takes no shorter ones."""
    return max(deadline.left, SHORTEST) if deadline.is_set else None


def _try(study: _Study, trials: int, attempt: _Attempt, screen: Screen) -> None:
    """Run trials until there are so many, or until their time is over. One is run in any case."""
    with screen.bar("trials", trials) as bar:
        bar.advance(study.done)
        while study.done < trials:
            study.run(attempt)
            bar.advance()
            bar.draw(study.words())
            if attempt.deadline.is_over:
                screen.say(f"time limit: {study.done} of {count(trials, 'trial')}")
                return


def _space(recipe: Recipe, table: Table, targets: list[str]) -> dict[str, Between | Choices]:
    """Return the search space: that of the recipe, else the defaults that suit its tasks."""
    is_asked = "space" in recipe.tuning.model_fields_set
    return recipe.tuning.space if is_asked else suiting(recipe, table, targets)


def suiting(recipe: Recipe, table: Table, targets: list[str]) -> dict[str, Between | Choices]:
    """Return the search space of a recipe that names none.

    It has the default options that suit all of its tasks, and the options that its tasks name. Rows that are
    compared, transcribed or written cannot be mixed, and without a fused target there is no fusion.
    """
    tasks = _tasks(recipe, table, targets)
    fuses = [task.fuses for task in tasks.values()]
    unsuitable: tuple[str, ...] = ()
    if not all(fuses):
        unsuitable += ("training.mixup",)
    if not any(fuses):
        unsuitable += ("model.", "fusion")

    space = {}
    for name, values in recipe.tuning.space.items():
        if not name.startswith(unsuitable):
            space[name] = values
    return space | _task_space(recipe, tasks)


def _tasks(recipe: Recipe, table: Table, targets: list[str]) -> dict[str, type[Task]]:
    """Return the task of each target and of each alignment."""
    planned = find_targets(table, recipe, targets)
    names = dict(planned.tasks)
    for alignment in planned.alignments:
        names[alignment] = recipe.tasks[alignment].name
    return {target: task_registry.find(name) for target, name in names.items()}


def _task_space(recipe: Recipe, tasks: Mapping[str, type[Task]]) -> dict[str, Between | Choices]:
    """Return the options that the recipe's tasks name."""
    space = {}
    for target, task in tasks.items():
        if target in recipe.tasks:
            for option, values in task.tunes.items():
                space[f"tasks.{quote(target)}.{option}"] = values
    return space


class _Study:
    """Trials in a folder: a journal of JSON lines.

    Each trial's draw depends only on the seed and the trials before it, so that a study which was stopped
    goes on as if it had not been.
    """

    def __init__(
        self, folder: Path, identity: JSON, space: Mapping[str, Between | Choices], seed: int
    ) -> None:
        try:
            import optuna
        except ModuleNotFoundError:
            raise RecipeError("tuning needs Optuna: pip install 'plait[tune]'") from None
        _check_identity(folder, identity)
        files.write_json(folder / "about.json", identity)

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=FIRST)
        self.optuna, self.space, self.seed = optuna, space, seed
        journal = folder / "journal.jsonl"
        if journal.is_symlink():
            raise ArtifactError(f"'{journal}' is a link, which is not followed; remove it")
        try:
            backend = optuna.storages.journal.JournalFileBackend(str(journal))
            self.study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name="plait",
                direction="maximize",
                pruner=pruner,
                load_if_exists=True,
            )
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise ArtifactError(
                f"'{journal}' is damaged: {error}; remove '{folder}' to begin anew"
            ) from error

        # A trial that is running still was in a process that was killed.
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == optuna.trial.TrialState.RUNNING:
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that have ended: complete, stopped early, or with an error."""
        ended = []
        for trial in self.study.get_trials(deepcopy=False):
            if "end" in trial.user_attrs:  # one that was stopped or killed has none
                ended.append(trial)
        return ended

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials that have a score, in the order in which they ran."""
        return [trial for trial in self.trials if trial.value is not None]

    @property
    def done(self) -> int:
        """The number of trials that have ended."""
        return len(self.trials)

    def run(self, attempt: Callable[[list[str], Watch], None]) -> None:
        """Run one more trial. Raises `Interrupted` after Ctrl-C."""
        # A sampler of its own for each trial, so that a study which was stopped draws the same.
        number = self.done
        seed = self.seed * 100_003 + number
        self.study.sampler = self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=FIRST)
        trial = self.study.ask()
        overrides = self._draw(trial) if number else []
        trial.set_user_attr("overrides", overrides)
        epoch_scores: list[float] = []

        def watch(epoch: int, epochs: int, score: float) -> None:
            """Record the score of an epoch. Raises `TrialPruned` if the trial lags behind."""
            epoch_scores.append(score)
            trial.report(score, epoch)
            if epoch >= WARM * epochs and trial.should_prune():
                raise self.optuna.TrialPruned

        failed = self.optuna.trial.TrialState.FAIL
        end = COMPLETE
        try:
            attempt(overrides, watch)
        except self.optuna.TrialPruned:
            end = STOPPED
        except TrainingError as error:
            # A learning rate that is too large ends a trial. The recipe as it is must be trainable.
            if not number:
                raise
            end = str(error)
        except (KeyboardInterrupt, Interrupted) as error:
            self.study.tell(trial, state=failed)
            raise Interrupted(
                f"stopped while trying recipes: {self.done} trials are saved; go on with the same command",
                interrupts.number_of(error),
            ) from None
        except PlaitError:
            self.study.tell(trial, state=failed)
            raise
        trial.set_user_attr("end", end)
        self._tell(trial, end, epoch_scores)

    def _tell(self, trial: Trial, end: str, scores: list[float]) -> None:
        """Record how a trial ended, and its best score if it is complete."""
        states = self.optuna.trial.TrialState
        if end == COMPLETE and not scores:
            raise RecipeError(
                "tuning chooses by validation rows, and there are none: give valid=, or split.valid above 0"
            )
        if end == COMPLETE:
            self.study.tell(trial, max(scores))
        elif end == STOPPED and scores:
            self.study.tell(trial, state=states.PRUNED)
        else:
            self.study.tell(trial, state=states.FAIL)

    def _draw(self, trial: Trial) -> list[str]:
        """Draw a value of each option, and return them as overrides."""
        overrides = []
        for name, values in self.space.items():
            if isinstance(values, Choices):
                # Optuna takes no lists or mappings, so choices are texts, as in overrides.
                choices = [json.dumps(choice) for choice in values.choices]
                drawn = trial.suggest_categorical(name, choices)
            elif values.whole:
                drawn = str(trial.suggest_int(name, int(values.low), int(values.high), log=values.log))
            else:
                number = trial.suggest_float(name, values.low, values.high, log=values.log)
                drawn = f"{number:.4g}"
            overrides.append(f"{name}={drawn}")
        return overrides

    @property
    def best(self) -> list[str]:
        """The overrides of the best complete trial."""
        best = max(self.complete, key=lambda trial: trial.value)
        overrides = list(best.user_attrs["overrides"])
        for override in overrides:
            self._check(str(override))
        return overrides

    def _check(self, override: str) -> None:
        """Raise `ArtifactError` for an override that no trial draws: the journal may be a stranger's."""
        name, _, drawn = override.partition("=")
        values = self.space.get(name)
        is_drawn = False
        if isinstance(values, Choices):
            is_drawn = drawn in [json.dumps(choice) for choice in values.choices]
        elif values is not None:
            spare = 1e-3 * max(abs(values.low), abs(values.high))  # draws are rounded to four digits
            with suppress(ValueError):
                is_drawn = values.low - spare <= float(drawn) <= values.high + spare
        if not is_drawn:
            raise ArtifactError(f"the journal of the trials is damaged: '{override}' is in no search space")

    def words(self) -> str:
        """Return the best score so far, and that of the recipe as it is; nothing before the first."""
        scores = [trial.value for trial in self.complete]
        if not scores:
            return ""
        return f"best {max(scores):.4f}, untuned {scores[0]:.4f}"

    def show(self, screen: Screen) -> None:
        """Print all trials, the best first."""
        rows = []
        for number, trial in enumerate(self.trials):
            score = "" if trial.value is None else f"{trial.value:.4f}"
            overrides = ", ".join(trial.user_attrs["overrides"]) or "the recipe as it is"
            rows.append([f"{number}", score, trial.user_attrs["end"][:40], overrides])

        # Trials without a score come last.
        ranked = sorted(rows, key=lambda row: -float(row[1] or "-inf"))
        screen.table(
            "trials, the best first: score on validation rows (of several targets the mean normalised score)",
            ["trial ", "score ", "", "recipe"],
            ranked,
        )


def _check_identity(folder: Path, identity: JSON) -> None:
    """Raise `RecipeError` if a folder holds trials that cannot be compared with these."""
    path = folder / "about.json"
    if not path.is_file():
        return
    before = files.read_json(path)
    now = json.loads(json.dumps(identity))  # as the file would have it: lists for tuples
    differing = [name for name in now if before.get(name) != now[name]]
    if differing:
        raise RecipeError(
            f"'{folder}' holds trials that were begun with other {' and '.join(differing)}; choose another "
            f"out=, or remove it first"
        )


def _identity(recipe: Recipe, table: Table, targets: list[str], seed: int, screen: Screen) -> JSON:
    """Return what trials must share to be compared: also what is in the table, and in the files it names."""
    plan = Plan.make(table, recipe, targets)
    with store(screen, table) as cache:
        digests = file_digests(table, media_columns(plan, table), cache)
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"quality", "ensemble"}),
        "rows": len(table),
        "cells": dict(content.content(table.data)),
        "files": {column: content.media_hash(of_rows) for column, of_rows in digests.items()},
        "targets": targets,
        "seed": seed,
    }
