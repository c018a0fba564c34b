"""What a fit says on the screen: the model before training, the scores after it."""

from __future__ import annotations

from plait.api.model import Model
from plait.console import Screen
from plait.data.inspect import Inspection
from plait.data.plan import Plan
from plait.evaluation import alignment, scores
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.table.table import Table
from plait.tasks.base import tasks
from plait.tasks.base_prediction import Prediction


def show_plan(plan: Plan, table: Table, screen: Screen) -> None:
    """Show what was decided before anything is trained: columns, rows, and members that are left out."""
    Inspection.of(plan, table.name).show(screen)
    without, learned = plan.split.without_label, len(plan.split.unlabelled)
    predicts = any(issubclass(tasks.find(plan.tasks[target].name), Prediction) for target in plan.targets)
    if without and not plan.targets:
        screen.say(f"{without:,} rows have nothing that is aligned and are left out")
    elif without and learned:
        screen.say(f"{without:,} rows have no label, of which {learned:,} are learned from")
    elif without:
        hint = "; --set training.unlabelled=1 learns from them too" if predicts else ""
        screen.say(f"{without:,} rows have no label and are left out{hint}")
    sides = ", ".join(f"{len(rows):,} {side}" for side, rows in plan.split.sides().items())
    screen.say(f"rows: {sides} ({plan.split.how})")
    for message in plan.ensemble.left_out:
        screen.say(message)


def show_model(model: MultimodalModel, plan: Plan, settings: device.Settings, screen: Screen) -> None:
    """Show the model that is about to be trained."""
    by_encoder: dict[str, list[str]] = {}
    for name, column in plan.columns.items():
        by_encoder.setdefault(column.encoder.name, []).append(name)
        if why := column.encoder.options.get("why"):
            screen.say(
                f"{name}: {column.encoder.options['model']} {column.encoder.options['mode']}, because {why}"
            )
    for name, columns in plan.alignments.items():
        screen.say(f"{name}: {' ~ '.join(columns)}, {plan.tasks[name].options['objective']}")

    encoders = "; ".join(f"{scores.listed(names, ', ')}: {encoder}" for encoder, names in by_encoder.items())
    fusion = f"fusion: {plan.fusion.name}; " if model.fuser_of else ""
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    switches = [name for name in ("channels_last", "compile") if getattr(settings, name)]
    machine = ", ".join([settings.device, settings.precision, *switches])
    screen.say(f"model: {encoders}; {fusion}{count:,} parameters; {machine}")


def finish(trained: Model, screen: Screen) -> None:
    record = trained.record
    screen.say(
        f"trained {record['epochs']} epochs in {record['seconds']:.0f} s; kept epoch {record['best_epoch']}"
    )
    for name, found in record["evaluation"].items():
        for target, one in found["targets"].items():
            s = one["metrics"][one["score"]]
            screen.say(
                f"{name}: {target} {one['score']} {s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}] on "
                f"{one['rows']:,} rows, "
                f"guess without inputs {one['baseline'][one['score']]:.3f}"
            )
        for target, one in found["alignments"].items():
            for d in one["directions"]:
                value, low, high = d["metrics"]["r@1"]
                screen.say(
                    f"{name}: {d['query']} finds {d['gallery']} first {value:.3f} [{low:.3f}, {high:.3f}] of "
                    f"{d['queries']:,} times "
                    f"among {d['size']:,}, by chance {d['chance']['r@1']:.3f}"
                )
            if warning := alignment.verdict(target, one):
                screen.warn(f"{warning} ({name} rows)")
    found = record["evaluation"].get("validation")
    for target, task in trained.artifact.preprocessing.tasks.items() if found else ():
        if warning := scores.imbalance(target, found["targets"].get(target), task.higher):
            ways = {
                "--set model.balance=blend": trained.plan.model.balance != "blend",
                "--quality good": trained.recipe.quality == "fast" and isinstance(task, Prediction),
            }
            screen.warn(
                "; try ".join(
                    [warning, " or ".join(way for way, is_left in ways.items() if is_left)]
                ).removesuffix("; try ")
            )
    screen.say(f"run: {trained.folder}   report: {trained.folder / 'report.html'}")
