"""A run as one HTML page that needs nothing else, and a model card in Markdown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2

from plait.evaluation.scores import subset_name
from plait.prediction.artifact import Artifact
from plait.runs.files import write_text
from plait.runs.folder import Record
from plait.tasks.base_prediction import Prediction


def write(folder: Path, trained: Artifact) -> None:
    """`report.html` and `README.md` in the run's folder."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    pages = resources.files("plait") / "pages"
    facts = _facts(folder, trained)
    tasks = trained.preprocessing.tasks
    main = ["valid_skill", *(f"valid_{t}_{task.score}" for t, task in tasks.items())]
    html = environment.from_string((pages / "report.html").read_text(encoding="utf-8"))
    write_text(folder / "report.html", html.render(**facts, curves=_curves(trained.record["history"], main)))
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
    """Losses over epochs, and those of the metrics `main` that were measured, as SVG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    epochs = range(1, len(history) + 1)
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("loss", "valid_loss"):
        if name in history[0]:
            left.plot(
                epochs,
                [h[name] for h in history],
                label="training loss" if name == "loss" else "validation loss",
            )
    left.set_xlabel("epoch")
    left.legend(frameon=False)
    for name in (n for n in main if n in history[0]):
        right.plot(epochs, [h.get(name, float("nan")) for h in history], label=name.removeprefix("valid_"))
    right.set_xlabel("epoch")
    if right.lines:
        right.legend(frameon=False)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()[svg.getvalue().index("<svg") :]


def _late_fused(trained: Artifact) -> list[str]:
    """Return the targets whose answers are mixed with late fusion."""
    tasks = {target: trained.model.task(target) for target in trained.model.targets}
    return [t for t, task in tasks.items() if isinstance(task, Prediction) and task.late_fusion is not None]
