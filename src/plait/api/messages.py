"""Print the plan and the model before training, and the scores after it."""

from __future__ import annotations

from plait.api.model import Model
from plait.console import Screen
from plait.data.inspect import Inspection
from plait.data.plan import Plan
from plait.data.plan_columns import ColumnPlan
from plait.data.plan_ensemble import asks_for_members
from plait.errors import count
from plait.evaluation import alignment, scores
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.nn.layers import parameter_count
from plait.runs.folder import Record
from plait.table.table import Table
from plait.tasks.base import tasks
from plait.training.loop import Training

FEW_EPOCHS = 5  # a training of fewer has hardly begun: nothing is said of which input it learned
LONGER = 40  # epochs to suggest then, as many as plait takes by itself

# What pretrained weights bring (benchmarks/accuracy.md, stamps, picture + sentence).
GAIN = "on 640 images with texts, accuracy 0.86 instead of 0.65, in a seventh of the time"


def show_notes(table: Table, screen: Screen) -> None:
    """Warn of what a table's readers had to guess or to leave out."""
    for note in table.notes:
        screen.warn(note)


def show_plan(plan: Plan, table: Table, screen: Screen) -> None:
    """Show what was decided before anything is trained: columns, rows, and members that are left out."""
    show_notes(table, screen)
    Inspection.of(plan, table.title()).show(screen)
    for warning in plan.warnings:
        screen.warn(warning)
    if plan.split.without_label:
        screen.say(_unlabelled_line(plan))
    screen.say(f"rows: {plan.split.described()}")
    _show_encoders(plan, screen)
    for message in (*plan.ensemble.left_out, *plan.ensemble.added):
        screen.say(message)


def _show_encoders(plan: Plan, screen: Screen) -> None:
    """Show the encoder of each column that plait chose one for, and why, a line for each choice."""
    columns_of: dict[str, list[str]] = {}
    remedies: dict[str, list[str]] = {}
    for name, column in plan.columns.items():
        if not column.reason:
            continue
        line = f"{_encoder_name(column)}, because {column.reason}"
        columns_of.setdefault(line, []).append(name)
        if column.remedy:
            remedies.setdefault(column.remedy, []).append(name)

    for line, columns in columns_of.items():
        screen.say(f"{scores.listed(columns, ', ')}: {line}")
    for remedy, columns in remedies.items():
        screen.say(
            f"pretrained weights would most likely make {scores.listed(columns, ', ')} more useful, and "
            f"training faster ({GAIN}): {remedy}"
        )


def _encoder_name(column: ColumnPlan) -> str:
    """Name an encoder, with its model and mode where it has them."""
    options = column.encoder.options
    if not options.get("model"):
        return f"{column.encoder.name}, trained from scratch"
    why = f" ({options['why']})" if options.get("why") else ""
    return f"{options['model']}, {options['mode']}{why}"


def _unlabelled_line(plan: Plan) -> str:
    """Say what becomes of rows without a label, and how to learn from them."""
    rows = count(plan.split.without_label, "row")
    if not plan.targets:
        return f"left out: {rows} with nothing that is aligned"
    learned = len(plan.split.unlabelled)
    if learned:
        return f"{rows} without a label, of which {learned:,} are learned from"

    message = f"left out: {rows} without a label"
    for target in plan.targets:
        # Only predictions can learn from rows without a label.
        if tasks.find(plan.tasks[target].name).fuses:
            return f"{message}; --set training.unlabelled=1 learns from them too"
    return message


def show_model(model: MultimodalModel, plan: Plan, settings: device.Settings, screen: Screen) -> None:
    """Show the model that is about to be trained."""
    columns_of: dict[str, list[str]] = {}
    for name, column in plan.columns.items():
        columns_of.setdefault(column.encoder.name, []).append(name)
    for name, columns in plan.alignments.items():
        screen.say(f"{name}: {' ~ '.join(columns)}, {plan.tasks[name].options['objective']}")

    facts = []
    for encoder_name, columns in columns_of.items():
        facts.append(f"{scores.listed(columns, ', ')}: {encoder_name}")
    if model.fuser_of:
        facts.append(f"fusion: {plan.fusion.name}")
    facts.append(count(parameter_count(model), "trained parameter"))
    facts.append(_machine(settings))
    screen.say(f"model: {'; '.join(facts)}")


def show_lowered(training: Training, screen: Screen) -> None:
    """Say how many epochs the time limit has left, if they are fewer than planned."""
    planned = training.plan.training.epochs
    if training.epochs < planned:
        screen.say(f"time limit: {training.epochs} of {count(planned, 'epoch')}")


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
    epochs = count(record["epochs"], "epoch")
    trained_line = f"trained {epochs} in {record['seconds']:.0f} s; kept epoch {record['best_epoch']}"
    if "refit" in record:
        trained_line += f", then trained as long on all {record['refit']:,} rows"
    screen.say(trained_line)
    for side, evaluation in record["evaluation"].items():
        for target, target_scores in evaluation["targets"].items():
            screen.say(f"{side}: {target} {_score_line(target_scores)}")
        for target, aligned in evaluation["alignments"].items():
            for direction in aligned["directions"]:
                screen.say(f"{side}: {_direction_line(direction)}")
            warning = alignment.verdict(target, aligned)
            if warning:
                screen.warn(f"{warning} ({side} rows)")

    for name, task in trained.network.model.comparisons.items():
        for pair, share in task.shares().items():
            screen.say(f"{name}: {pair}: {share:.0%} linear map, {1 - share:.0%} network")

    validation = record["evaluation"].get("validation")
    if validation:
        _warn_of_low_scores(trained, validation, screen)
    _warn_of_scores_below_baseline(trained, screen)
    screen.say(f"run: {trained.folder}   report: {trained.folder / 'report.html'}")


def _score_line(target_scores: Record) -> str:
    """Return a target's main metric, its interval, and the baseline's."""
    name = target_scores["score"]
    score = target_scores["metrics"][name]
    interval = f"[{score['low']:.3f}, {score['high']:.3f}]"
    baseline = f"baseline {target_scores['baseline'][name]:.3f}"
    rows = count(target_scores["rows"], "row")
    return f"{name} {score['value']:.3f} {interval} on {rows}, {baseline}"


def _direction_line(direction: Record) -> str:
    """Return recall@1 of one direction of an alignment, of a random ranking, and of both halves alone."""
    value, low, high = direction["metrics"]["r@1"]
    queries = count(direction["queries"], "query", "queries")
    compared = [f"chance {direction['chance']['r@1']:.3f}"]
    for half, metrics in direction["baselines"].items():
        compared.append(f"{half} {metrics['r@1']:.3f}")
    return (
        f"{direction['query']} -> {direction['gallery']}: recall@1 {value:.3f} [{low:.3f}, {high:.3f}] "
        f"({queries} among {count(direction['size'], 'row')}, {', '.join(compared)})"
    )


def _warn_of_low_scores(trained: Model, validation: Record, screen: Screen) -> None:
    """Warn of targets that are no better than the baseline, or better by one input than by all."""
    epochs = trained.record["epochs"]
    for target, task in trained.artifact.preprocessing.tasks.items():
        target_scores = validation["targets"].get(target)
        if target_scores and epochs < FEW_EPOCHS:
            if not _beats_baseline(target_scores, task.higher):
                screen.warn(
                    f"{target}: no better than the baseline after {count(epochs, 'epoch')}; train longer, "
                    f"as with --set training.epochs={LONGER}"
                )
            continue

        warning = scores.imbalance(target, target_scores, task.higher)
        if warning:
            hints = ["more epochs (--set training.epochs=...)"]
            if task.fuses and not asks_for_members(trained.recipe):
                hints.append("--quality good")
            screen.warn(f"{warning}; try {' or '.join(hints)}")


def _warn_of_scores_below_baseline(trained: Model, screen: Screen) -> None:
    """Warn of targets that are answered worse than by a guess which reads no input, beyond chance."""
    for side, evaluation in trained.record["evaluation"].items():
        for target, task in trained.artifact.preprocessing.tasks.items():
            target_scores = evaluation["targets"].get(target)
            if target_scores and _is_below_baseline(target_scores, task.higher):
                name = target_scores["score"]
                baseline = target_scores["baseline"][name]
                screen.warn(
                    f"{target}: on {side} rows {name} {target_scores['metrics'][name]['value']:.3f} is worse "
                    f"than the baseline's {baseline:.3f}, which reads no input: do not rely on its answers. "
                    f"A few labels may be far from all others, or test rows unlike training rows"
                )


def _is_below_baseline(target_scores: Record, higher: bool) -> bool:
    """Return whether the interval of the main metric lies on the worse side of the baseline."""
    name = target_scores["score"]
    score, baseline = target_scores["metrics"][name], target_scores["baseline"][name]
    return bool(score["high"] < baseline if higher else score["low"] > baseline)


def _beats_baseline(target_scores: Record, higher: bool) -> bool:
    """Return whether the interval of the main metric lies on the better side of the baseline."""
    name = target_scores["score"]
    score, baseline = target_scores["metrics"][name], target_scores["baseline"][name]
    return bool(score["low"] > baseline if higher else score["high"] < baseline)
