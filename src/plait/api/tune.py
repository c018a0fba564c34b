"""Choosing a recipe's numbers by trying (Optuna): each trial is a fit; those that lag behind are
stopped early; all is kept on disk.
"""

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
from plait.recipe.recipe import Recipe
from plait.recipe.sections import Between, Choices
from plait.runs import files
from plait.runs import folder as runs
from plait.table.json import JSON
from plait.table.read import read
from plait.table.table import Table
from plait.tasks.base import tasks as task_registry
from plait.tasks.base_prediction import Prediction

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

FIRST = 5  # trials before any is stopped early


WARM = 1 / 3  # of a trial's epochs, in which it is not


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
    **others: Any,
) -> Model:
    """Tries recipes on the validation rows, then fits the best one into the folder `out`, which it
    returns.

    The first trial is the recipe as it is, so the best one is never behind it on validation rows; on
    rows that nothing was chosen by it may be. The others are drawn from the recipe's `tuning.space`
    (see `suiting` where it has none) by the tree-structured Parzen estimator (Bergstra et al. 2011),
    and stopped where they are behind the median of the earlier ones at the same epoch. Trials train one
    network, whatever the `quality` of the last fit. `<out>/tuning` keeps what was tried: the same call
    goes on after Ctrl-C or a kill, and with more `trials` adds some. The other arguments are those of
    `plait.fit`, its `test` rows being looked at by the last fit alone.

    Raises what `plait.fit` raises, and `RecipeError` when `out` holds trials of another recipe or
    table, or Optuna is missing.
    """
    screen, folder = Screen(quiet), Path(out)
    if (folder / "weights.safetensors").is_file():
        raise RecipeError(
            f"'{folder}' already holds a trained model; choose another out=, or remove it first"
        )
    full_recipe = recipe_from(recipe, columns=columns, align=align, overrides=overrides)
    targets = target_names(target)
    table = read(data, others.get("root"))
    study = _Study(
        folder / "tuning",
        _about(full_recipe, table, targets, seed),
        _space(full_recipe, table, targets),
        seed,
    )
    others |= {"target": targets, "recipe": full_recipe, "seed": seed}

    def attempt(drawn: list[str], watch: Callable[[int, int, float], None]) -> None:
        # rows to test on have no part in choosing
        arguments = {**others, "test": None, "overrides": [*drawn, "quality=fast", "ensemble=null"]}
        with tempfile.TemporaryDirectory(dir=folder / "tuning") as place:
            fit.fit(data, **arguments, out=Path(place) / "run", quiet=True, watch=watch, evaluate=False)

    with screen.bar("trials", trials) as bar:
        bar.advance(study.done)
        while study.done < trials:
            study.run(attempt)
            bar.advance()
            bar.draw(study.words())
    study.show(screen)
    return fit.fit(data, **others, overrides=study.best, out=out, quality=quality, quiet=quiet)


def _space(recipe: Recipe, table: Table, targets: list[str]) -> dict[str, Between | Choices]:
    """Return what is tried: what the recipe says, else what suits its tasks."""
    is_asked = "space" in recipe.tuning.model_fields_set
    return recipe.tuning.space if is_asked else suiting(recipe, table, targets)


def suiting(recipe: Recipe, table: Table, targets: list[str]) -> dict[str, Between | Choices]:
    """What is tried where a recipe does not say it: of the defaults, what all of its tasks can do with
    (rows that are compared, transcribed or written cannot be mixed, and where nothing is fused there is
    no fusion), and options that its tasks name.
    """
    planned = find_targets(table, recipe, targets)
    names = planned.tasks | {name: recipe.tasks[name].name for name in planned.alignments}
    tasks = {t: task_registry.find(name) for t, name in names.items()}
    fuse = [issubclass(task, Prediction) for task in tasks.values()]
    unfit = () if all(fuse) else ("training.mixup",) if any(fuse) else ("training.mixup", "model.", "fusion")
    own = {
        f"tasks.{t}.{option}": of
        for t, task in tasks.items()
        if t in recipe.tasks
        for option, of in task.tunes.items()
    }
    return {name: of for name, of in recipe.tuning.space.items() if not name.startswith(unfit)} | own


class _Study:
    """Trials in a folder: a journal of JSON lines. Each trial's draw depends on the seed and the trials
    before it alone, so a study that was stopped goes on as if it had not been.
    """

    def __init__(self, folder: Path, about: JSON, space: Mapping[str, Between | Choices], seed: int) -> None:
        try:
            import optuna
        except ModuleNotFoundError:
            raise RecipeError("tuning needs Optuna: pip install 'plait[tune]'") from None
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "about.json").is_file():
            before = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            if changed := [k for k in about if before.get(k) != json.loads(json.dumps(about[k]))]:
                raise RecipeError(
                    f"'{folder}' holds trials of another {' and '.join(changed)}; choose another out=, or "
                    f"remove it first"
                )
        files.write_json(folder / "about.json", about)
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
        """Those that came to an end: whole, pruned, or with an error of their own."""
        return [t for t in self.study.get_trials(deepcopy=False) if "end" in t.user_attrs]

    @property
    def done(self) -> int:
        return len(self.trials)

    def run(self, attempt: Callable[[list[str], Callable[[int, int, float], None]], None]) -> None:
        """One trial more. Raises `Interrupted` after Ctrl-C."""
        number = self.done
        self.study.sampler = self.optuna.samplers.TPESampler(
            seed=self.seed * 100_003 + number, n_startup_trials=FIRST
        )
        trial = self.study.ask()
        found = self._draw(trial) if number else []
        trial.set_user_attr("overrides", found)
        best: list[float] = []

        def watch(epoch: int, epochs: int, score: float) -> None:
            best.append(score)
            trial.report(score, epoch)
            if epoch >= WARM * epochs and trial.should_prune():
                raise self.optuna.TrialPruned

        states, end = self.optuna.trial.TrialState, "whole"
        try:
            attempt(found, watch)
        except self.optuna.TrialPruned:
            end = "stopped early"
        except (
            TrainingError
        ) as error:  # a learning rate that explodes is a result like another, but not of the recipe as it is
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
        if end == "whole" and best:
            self.study.tell(trial, max(best))
        elif end == "whole":
            raise RecipeError(
                "tuning chooses by validation rows, and there are none: give valid=, or split.valid above 0"
            )
        else:
            self.study.tell(trial, state=states.PRUNED if end == "stopped early" and best else states.FAIL)

    def _draw(self, trial: Trial) -> list[str]:
        found = []
        for name, of in self.space.items():
            if isinstance(of, Choices):
                value = trial.suggest_categorical(name, [json.dumps(choice) for choice in of.choices])
            elif of.whole:
                value = trial.suggest_int(name, int(of.low), int(of.high), log=of.log)
            else:
                value = f"{trial.suggest_float(name, of.low, of.high, log=of.log):.4g}"
            found.append(f"{name}={value}")
        return found

    @property
    def best(self) -> list[str]:
        whole = [t for t in self.trials if t.value is not None]
        return list(max(whole, key=lambda t: t.value).user_attrs["overrides"])

    def words(self) -> str:
        values = [t.value for t in self.trials if t.value is not None]
        return f"best {max(values):.4f}, untuned {values[0]:.4f}" if values else ""

    def show(self, screen: Screen) -> None:
        rows = []
        for number, t in enumerate(self.trials):
            value = "" if t.value is None else f"{t.value:.4f}"
            rows.append(
                [
                    f"{number}",
                    value,
                    t.user_attrs["end"][:40],
                    ", ".join(t.user_attrs["overrides"]) or "the recipe as it is",
                ]
            )
        ranked = sorted(rows, key=lambda r: -float(r[1] or "-inf"))
        screen.table(
            "trials, the best first: score on validation rows (of several targets the mean skill)",
            ["trial ", "score ", "", "recipe"],
            ranked,
        )


def _about(recipe: Recipe, table: Table, targets: list[str], seed: int) -> JSON:
    """What trials must share to be compared."""
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"quality", "ensemble"}),
        "table": [len(table), runs.content(table)],
        "targets": targets,
        "seed": seed,
    }
