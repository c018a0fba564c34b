"""Tune a recipe's options with Optuna: each trial is a fit, and trials that lag behind stop early."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.api import fit
from plait.api.model import Model
from plait.console import Screen
from plait.data.arguments import recipe_from, target_names
from plait.data.plan_tasks import find_targets
from plait.errors import Interrupted, PlaitError, RecipeError, TrainingError
from plait.recipe.parse import quote
from plait.recipe.recipe import Recipe
from plait.recipe.sections import Between, Choices
from plait.runs import files
from plait.runs import folder as runs
from plait.table.json import JSON
from plait.table.read import read
from plait.table.table import Table
from plait.tasks.base import Task
from plait.tasks.base import tasks as task_registry
from plait.tasks.base_prediction import Prediction

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

FIRST = 5  # trials before any is stopped early
WARM = 1 / 3  # the share of a trial's epochs before it may be stopped


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
    **options: Any,
) -> Model:
    """Try recipes on the validation rows, then fit the best one into the folder `out`, and return it.

    The first trial is the recipe as it is, so the best one is never behind it on validation rows; on test
    rows it may be. The others are drawn from the recipe's `tuning.space` (see `suiting` if it has none) by
    the tree-structured Parzen estimator (Bergstra et al. 2011). A trial stops if it is behind the median of
    the earlier ones at the same epoch. Trials train one network, whatever the `quality` of the last fit.
    `<out>/tuning` has all trials: the same call goes on after Ctrl-C or a kill, and more `trials` add some.
    The other arguments are those of `plait.fit`; only the last fit sees its `test` rows.

    Raises what `plait.fit` raises, and `RecipeError` if `out` holds trials of another recipe or table, or
    Optuna is missing.
    """
    screen, folder = Screen(quiet), Path(out)
    if (folder / "weights.safetensors").is_file():
        raise RecipeError(
            f"'{folder}' already holds a trained model; choose another out=, or remove it first"
        )
    full_recipe = recipe_from(recipe, columns=columns, align=align, overrides=overrides)
    targets = target_names(target)
    table = read(data, options.get("root"))
    identity = _identity(full_recipe, table, targets, seed)
    study = _Study(folder / "tuning", identity, _space(full_recipe, table, targets), seed)
    options |= {"target": targets, "recipe": full_recipe, "seed": seed}

    def attempt(drawn: list[str], watch: Callable[[int, int, float], None]) -> None:
        """Fit one recipe with the drawn overrides, in a folder that is deleted."""
        # a choice by test rows would make their scores too good
        arguments = {**options, "test": None, "overrides": [*drawn, "quality=fast", "ensemble=null"]}
        with tempfile.TemporaryDirectory(dir=folder / "tuning") as trial_folder:
            fit.fit(
                data, **arguments, out=Path(trial_folder) / "run", quiet=True, watch=watch, evaluate=False
            )

    with screen.bar("trials", trials) as bar:
        bar.advance(study.done)
        while study.done < trials:
            study.run(attempt)
            bar.advance()
            bar.draw(study.words())
    study.show(screen)
    return fit.fit(data, **options, overrides=study.best, out=out, quality=quality, quiet=quiet)


def _space(recipe: Recipe, table: Table, targets: list[str]) -> dict[str, Between | Choices]:
    """Return the search space: that of the recipe, else the defaults that suit its tasks."""
    is_asked = "space" in recipe.tuning.model_fields_set
    return recipe.tuning.space if is_asked else suiting(recipe, table, targets)


def suiting(recipe: Recipe, table: Table, targets: list[str]) -> dict[str, Between | Choices]:
    """Return the search space of a recipe that names none.

    It has the default options that suit all of its tasks, and the options that its tasks name. Rows that are
    compared, transcribed or written cannot be mixed, and without a fused target there is no fusion.
    """
    planned = find_targets(table, recipe, targets)
    names = planned.tasks | {name: recipe.tasks[name].name for name in planned.alignments}
    tasks = {target: task_registry.find(name) for target, name in names.items()}
    fuses = [issubclass(task, Prediction) for task in tasks.values()]
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
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "about.json").is_file():
            before = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            now = json.loads(json.dumps(identity))  # as the file would have it: lists for tuples
            changed = [name for name in now if before.get(name) != now[name]]
            if changed:
                raise RecipeError(
                    f"'{folder}' holds trials of another {' and '.join(changed)}; choose another out=, or "
                    f"remove it first"
                )
        files.write_json(folder / "about.json", identity)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.jsonl"))
        storage = optuna.storages.JournalStorage(backend)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=FIRST)
        self.optuna, self.space, self.seed = optuna, space, seed
        self.study = optuna.create_study(
            storage=storage, study_name="plait", direction="maximize", pruner=pruner, load_if_exists=True
        )
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == optuna.trial.TrialState.RUNNING:  # the process was killed in it
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that have ended: complete, stopped early, or with an error."""
        return [t for t in self.study.get_trials(deepcopy=False) if "end" in t.user_attrs]

    @property
    def done(self) -> int:
        """The number of trials that have ended."""
        return len(self.trials)

    def run(self, attempt: Callable[[list[str], Callable[[int, int, float], None]], None]) -> None:
        """Run one more trial. Raises `Interrupted` after Ctrl-C."""
        number = self.done
        self.study.sampler = self.optuna.samplers.TPESampler(
            seed=self.seed * 100_003 + number, n_startup_trials=FIRST
        )
        trial = self.study.ask()
        overrides = self._draw(trial) if number else []
        trial.set_user_attr("overrides", overrides)
        best: list[float] = []

        def watch(epoch: int, epochs: int, score: float) -> None:
            """Record the score of an epoch. Raises `TrialPruned` if the trial lags behind."""
            best.append(score)
            trial.report(score, epoch)
            if epoch >= WARM * epochs and trial.should_prune():
                raise self.optuna.TrialPruned

        states, end = self.optuna.trial.TrialState, "whole"
        try:
            attempt(overrides, watch)
        except self.optuna.TrialPruned:
            end = "stopped early"
        except TrainingError as error:
            # a learning rate that is too large ends a trial, but the recipe as it is must be trainable
            if not number:
                raise
            end = str(error)
        except (KeyboardInterrupt, Interrupted):
            self.study.tell(trial, state=states.FAIL)
            raise Interrupted("stopped while trying; go on with the same command") from None
        except PlaitError:
            self.study.tell(trial, state=states.FAIL)
            raise
        trial.set_user_attr("end", end)
        self._tell(trial, end, best)

    def _tell(self, trial: Trial, end: str, scores: list[float]) -> None:
        """Record how a trial ended, and its best score if it is complete."""
        states = self.optuna.trial.TrialState
        if end == "whole" and not scores:
            raise RecipeError(
                "tuning chooses by validation rows, and there are none: give valid=, or split.valid above 0"
            )
        if end == "whole":
            self.study.tell(trial, max(scores))
        elif end == "stopped early" and scores:
            self.study.tell(trial, state=states.PRUNED)
        else:
            self.study.tell(trial, state=states.FAIL)

    def _draw(self, trial: Trial) -> list[str]:
        """Draw a value of each option, and return them as overrides."""
        overrides = []
        for name, values in self.space.items():
            if isinstance(values, Choices):
                value = trial.suggest_categorical(name, [json.dumps(choice) for choice in values.choices])
            elif values.whole:
                value = trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
            else:
                value = f"{trial.suggest_float(name, values.low, values.high, log=values.log):.4g}"
            overrides.append(f"{name}={value}")
        return overrides

    @property
    def best(self) -> list[str]:
        """The overrides of the best complete trial."""
        complete = [trial for trial in self.trials if trial.value is not None]
        best = max(complete, key=lambda trial: trial.value)
        return list(best.user_attrs["overrides"])

    def words(self) -> str:
        """Return the best score so far, and that of the recipe as it is; nothing before the first."""
        values = [t.value for t in self.trials if t.value is not None]
        return f"best {max(values):.4f}, untuned {values[0]:.4f}" if values else ""

    def show(self, screen: Screen) -> None:
        """Print all trials, the best first."""
        rows = []
        for number, trial in enumerate(self.trials):
            value = "" if trial.value is None else f"{trial.value:.4f}"
            overrides = ", ".join(trial.user_attrs["overrides"]) or "the recipe as it is"
            rows.append([f"{number}", value, trial.user_attrs["end"][:40], overrides])
        ranked = sorted(rows, key=lambda row: -float(row[1] or "-inf"))
        screen.table(
            "trials, the best first: score on validation rows (of several targets the mean normalised score)",
            ["trial ", "score ", "", "recipe"],
            ranked,
        )


def _identity(recipe: Recipe, table: Table, targets: list[str], seed: int) -> JSON:
    """Return what trials must share to be compared."""
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"quality", "ensemble"}),
        "table": [len(table), runs.content(table)],
        "targets": targets,
        "seed": seed,
    }
