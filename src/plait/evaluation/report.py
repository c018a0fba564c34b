"""Write a run's report, one HTML page that needs no other file, and its model card in Markdown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from plait.evaluation.scores import subset_name
from plait.prediction.artifact import Artifact
from plait.runs.files import write_text
from plait.runs.folder import Record
from plait.tasks.base_prediction import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write(folder: Path, trained: Artifact) -> None:
    """Write `report.html` and `README.md` into the run's folder."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    pages = resources.files("plait") / "pages"
    facts = _facts(folder, trained)
    tasks = trained.preprocessing.tasks
    main = ["valid_normalised_score", *(f"valid_{target}_{task.score}" for target, task in tasks.items())]
    curves = _curves(trained.record["history"], main)
    html = environment.from_string((pages / "report.html").read_text(encoding="utf-8"))
    write_text(folder / "report.html", html.render(**facts, curves=curves))
    plain = environment.overlay(autoescape=False).from_string((pages / "card.md").read_text(encoding="utf-8"))
    write_text(folder / "README.md", plain.render(**facts))


def _facts(folder: Path, trained: Artifact) -> Record:
    problems = folder / "problems.csv"
    count = max(len(problems.read_text(encoding="utf-8").splitlines()) - 1, 0) if problems.is_file() else 0
    return {
        "name": folder.name,
        "plan": trained.plan,
        "columns": list(trained.plan.schema),
        "rows": trained.record["rows"],
        "record": trained.record,
        "late_fusion": _late_fused(trained),
        "parameters": sum(p.numel() for p in trained.model.parameters() if p.requires_grad),
        "problems": count,
        "asked": trained.plan.recipe.to_yaml(),
        "decided": trained.plan.to_yaml(),
        "subset_name": subset_name,
    }


def _curves(history: list[dict[str, float]], main: Sequence[str]) -> str:
    """Draw the losses over epochs, and the metrics `main` beside them, as SVG.

    A metric that the first epoch lacks is left out.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    losses, metrics = figure.subplots(1, 2)
    _plot(losses, history, {"loss": "training loss", "valid_loss": "validation loss"})
    _plot(metrics, history, {name: name.removeprefix("valid_") for name in main})
    for axis in (losses, metrics):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()[svg.getvalue().index("<svg") :]


def _plot(axis: Axes, history: list[dict[str, float]], labels: dict[str, str]) -> None:
    """Plot the figures that `labels` names, which the first epoch has, over epochs."""
    epochs = range(1, len(history) + 1)
    for name, label in labels.items():
        if name in history[0]:
            axis.plot(epochs, [epoch.get(name, float("nan")) for epoch in history], label=label)
    axis.set_xlabel("epoch")
    if axis.lines:
        axis.legend(frameon=False)


def _late_fused(trained: Artifact) -> list[str]:
    """Return the targets whose answers are mixed with late fusion."""
    tasks = {target: trained.model.task(target) for target in trained.model.targets}
    return [t for t, task in tasks.items() if isinstance(task, Prediction) and task.late_fusion is not None]
