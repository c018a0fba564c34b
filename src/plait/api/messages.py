"""What a fit says on the screen: the model before training, the scores after it."""

from __future__ import annotations

from plait.api.model import Model
from plait.console import Screen
from plait.evaluation import alignment, scores
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.recipe.recipe import Recipe


def describe(model: MultimodalModel, chosen: Recipe, settings: device.Settings, screen: Screen) -> None:
    by_encoder: dict[str, list[str]] = {}
    for name, column in chosen.columns.items():
        if column.encoder:
            by_encoder.setdefault(column.encoder.name, []).append(name)
    encoders = "; ".join(f"{scores.listed(names, ', ')}: {encoder}" for encoder, names in by_encoder.items())
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    switches = [
        settings.device,
        settings.precision,
        *(n for n in ("channels_last", "compile") if getattr(settings, n)),
    ]
    for name, column in chosen.columns.items():
        if column.encoder and (why := column.encoder.options.get("why")):
            screen.say(
                f"{name}: {column.encoder.options['model']} {column.encoder.options['mode']}, because {why}"
            )
    for name, columns in chosen.aligned().items():
        screen.say(f"{name}: {' ~ '.join(columns)}, {chosen.tasks[name].options['objective']}")
    fusion = f"fusion: {chosen.fusion.name}; " if model.fuser_of else ""
    screen.say(f"model: {encoders}; {fusion}{count:,} parameters; {', '.join(switches)}")


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
    for target, task in trained._artifact.preprocessing.tasks.items() if found else ():
        if warning := scores.imbalance(target, found["targets"].get(target), task.higher):
            ways = {
                "--set model.balance=blend": trained.recipe.model.balance != "blend",
                "--quality good": trained.recipe.quality == "fast" and task.fuses,
            }
            screen.warn(
                "; try ".join(
                    [warning, " or ".join(way for way, is_left in ways.items() if is_left)]
                ).removesuffix("; try ")
            )
    screen.say(f"run: {trained.folder}   report: {trained.folder / 'report.html'}")
