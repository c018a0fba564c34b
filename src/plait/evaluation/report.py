"""Write a run's report, one HTML page that needs no other file, and its model card in Markdown."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import jinja2

from plait.console import escaped
from plait.data import split
from plait.disk.whole import write_text
from plait.errors import count
from plait.evaluation.curves import curves
from plait.evaluation.scores import subset_name, unseen_note
from plait.nn.layers import parameter_count
from plait.prediction.artifact import Artifact
from plait.runs.folder import Record

LOSSES = {"loss": "training loss", "valid_loss": "validation loss"}
MARKS = re.compile(r"[\\`*\[\]<>#|~$&!]")  # of Markdown, wherever they are in a line


def write(folder: Path, trained: Artifact) -> None:
    """Write `report.html` and `README.md` into the run's folder."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    facts = _facts(folder, trained)
    main_metrics = {"valid_normalised_score": "normalised_score"}
    for target, task in trained.preprocessing.tasks.items():
        metric = f"{target}_{task.score}"
        main_metrics[f"valid_{metric}"] = metric
    svg = curves(trained.record["history"], [LOSSES, main_metrics])
    page = environment.from_string(_template("report.html"))
    write_text(folder / "report.html", page.render(**facts, curves=svg))

    # The card is Markdown: HTML's escapes would show in it.
    plain_environment = environment.overlay(autoescape=False)
    plain_environment.filters["markdown"] = escape_markdown
    plain_environment.filters["quoted"] = lambda text: json.dumps(text, ensure_ascii=False)
    card = plain_environment.from_string(_template("card.md"))
    write_text(folder / "README.md", card.render(**facts))


def escape_markdown(text: object) -> str:
    """Return a text as Markdown shows it unchanged, in one line.

    Underscores within a word are no marks: escapes would only make names hard to read.
    """
    line = " ".join(escaped(str(text)).split())
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", MARKS.sub(r"\\\g<0>", line))
    return re.sub(r"^([-+=]|\d+(?=[.)]))", r"\\\1", line)


def _template(name: str) -> str:
    """Return the text of a template of `pages/`."""
    path = resources.files("plait") / "pages" / name
    return path.read_text(encoding="utf-8")


def _facts(folder: Path, trained: Artifact) -> Record:
    """Return what the templates of the report and of the card show."""
    # A model that is loaded does not know which of its parameters were trained.
    parameters = trained.record.get("parameters") or parameter_count(trained.model)
    return {
        "name": folder.name,
        "plan": trained.plan,
        "columns": list(trained.plan.schema),
        "rows": trained.record["rows"],
        "record": trained.record,
        "late_fusion": trained.model.late_fused,
        "parameters": parameters,
        "problems": _problem_count(folder),
        "asked": trained.plan.recipe.to_yaml(),
        "decided": trained.plan.to_yaml(),
        "subset_name": subset_name,
        "unseen_note": unseen_note,
        "share": split.share,
        "plural": count,
    }


def _problem_count(folder: Path) -> int:
    """Return the number of cells that could not be read, of which `problems.csv` has a line each."""
    problems = folder / "problems.csv"
    if not problems.is_file():
        return 0
    lines = problems.read_text(encoding="utf-8").splitlines()
    return max(len(lines) - 1, 0)  # without the header
