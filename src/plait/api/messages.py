"""Print the plan and the model before training, and the scores after it."""

from __future__ import annotations

from plait.api.model import Model
from plait.console import Screen
from plait.data.inspect import Inspection
from plait.data.plan import Plan
from plait.evaluation import alignment, scores
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.runs.folder import Record
from plait.table.table import Table
from plait.tasks.base import tasks


def show_plan(plan: Plan, table: Table, screen: Screen) -> None:
    """Show what was decided before anything is trained: columns, rows, and members that are left out."""
    Inspection.of(plan, table.name).show(screen)
    if plan.split.without_label:
        screen.say(_unlabelled_line(plan))

    counts = [f"{len(rows):,} {side}" for side, rows in plan.split.sides().items()]
    screen.say(f"rows: {', '.join(counts)} ({plan.split.how})")
    for message in plan.ensemble.left_out:
        screen.say(message)


def _unlabelled_line(plan: Plan) -> str:
    """Say what becomes of rows without a label, and how to learn from them."""
    without = f"{plan.split.without_label:,}"
    if not plan.targets:
        return f"{without} rows have nothing that is aligned and are left out"
    learned = len(plan.split.unlabelled)
    if learned:
        return f"{without} rows have no label, of which {learned:,} are learned from"

    message = f"{without} rows have no label and are left out"
    for target in plan.targets:
        # Only predictions can learn from rows without a label.
        if tasks.find(plan.tasks[target].name).fuses:
            return f"{message}; --set training.unlabelled=1 learns from them too"
    return message


def show_model(model: MultimodalModel, plan: Plan, settings: device.Settings, screen: Screen) -> None:
    """Show the model that is about to be trained."""
    columns_of: dict[str, list[str]] = {}
    for name, column in plan.columns.items():
        encoder = column.encoder
        columns_of.setdefault(encoder.name, []).append(name)
        if why := encoder.options.get("why"):
            screen.say(f"{name}: {encoder.options['model']} {encoder.options['mode']}, because {why}")
    for name, columns in plan.alignments.items():
        screen.say(f"{name}: {' ~ '.join(columns)}, {plan.tasks[name].options['objective']}")

    facts = [f"{scores.listed(names, ', ')}: {encoder}" for encoder, names in columns_of.items()]
    if model.fuser_of:
        facts.append(f"fusion: {plan.fusion.name}")
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts.append(f"{count:,} parameters")
    facts.append(_machine(settings))
    screen.say(f"model: {'; '.join(facts)}")


def _machine(settings: device.Settings) -> str:
    """Return the device, the precision, and the switches that are on."""
    names = [settings.device, settings.precision]
    if settings.channels_last:
        names.append("channels_last")
    if settings.compile:
        names.append("compile")
    return ", ".join(names)


def finish(trained: Model, screen: Screen) -> None:
    """Show the scores of a model that has been trained, warnings, and where the report lies."""
    record = trained.record
    seconds = f"{record['seconds']:.0f} s"
    screen.say(f"trained {record['epochs']} epochs in {seconds}; kept epoch {record['best_epoch']}")
    for side, evaluation in record["evaluation"].items():
        for target, target_scores in evaluation["targets"].items():
            screen.say(f"{side}: {target} {_score_line(target_scores)}")
        for target, aligned in evaluation["alignments"].items():
            for direction in aligned["directions"]:
                screen.say(f"{side}: {_direction_line(direction)}")
            warning = alignment.verdict(target, aligned)
            if warning:
                screen.warn(f"{warning} ({side} rows)")

    validation = record["evaluation"].get("validation")
    if validation:
        _warn_of_imbalance(trained, validation, screen)
    screen.say(f"run: {trained.folder}   report: {trained.folder / 'report.html'}")


def _score_line(target_scores: Record) -> str:
    """Return a target's main metric, its interval, and the baseline's."""
    name = target_scores["score"]
    score = target_scores["metrics"][name]
    interval = f"[{score['low']:.3f}, {score['high']:.3f}]"
    baseline = f"baseline {target_scores['baseline'][name]:.3f}"
    return f"{name} {score['value']:.3f} {interval} on {target_scores['rows']:,} rows, {baseline}"


def _direction_line(direction: Record) -> str:
    """Return recall@1 of one direction of an alignment, and that of a random ranking."""
    value, low, high = direction["metrics"]["r@1"]
    columns = f"{direction['query']} -> {direction['gallery']}"
    score = f"recall@1 {value:.3f} [{low:.3f}, {high:.3f}]"
    rows = f"{direction['queries']:,} queries among {direction['size']:,} rows"
    chance = f"chance {direction['chance']['r@1']:.3f}"
    return f"{columns}: {score} ({rows}, {chance})"


def _warn_of_imbalance(trained: Model, validation: Record, screen: Screen) -> None:
    """Warn of targets that one input answers better than all together, and name options that may help."""
    for target, task in trained.artifact.preprocessing.tasks.items():
        warning = scores.imbalance(target, validation["targets"].get(target), task.higher)
        if not warning:
            continue

        # Recommend only what this training did not do already.
        options = []
        if trained.plan.model.balance != "blend":
            options.append("--set model.balance=blend")
        if trained.recipe.quality == "fast" and task.fuses:
            options.append("--quality good")
        if options:
            warning = f"{warning}; try {' or '.join(options)}"
        screen.warn(warning)
