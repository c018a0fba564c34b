"""The worked examples of CONTRIBUTING.md: put in place, type-checked, held to the contract, trained with."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.tables import make_rows, write_csv

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"`src/plait/(\w+)/(\w+)\.py`:\s+```python\n(.*?)```", re.DOTALL)

SCRIPT = """
import importlib, sys
from plait import fit
from plait.api.describe import REGISTRIES
for kind in REGISTRIES:
    importlib.import_module(f"plait.{kind}").__path__.append(f"{sys.argv[1]}/{kind}")
options = [
    "fusion=maximum", "columns.text.encoder=average", "columns.text.modality={name: text, split: word}",
    "tasks.visits=count", "training.epochs=3", "columns.photo.role=ignored",
    "balancing=plain_sum", "ensemble.folds=2", "ensemble.members.ridge=ridge",
]
out = sys.argv[1] + "/run"
prefix = {"shop": "prefix"}
model = fit(sys.argv[2], ["label", "visits"], overrides=options, columns=prefix, out=out, quiet=True)
answers = model.predict(sys.argv[2])
assert min(answers["visits"].to_pylist()) > 0
registered = [name for kind in REGISTRIES for name in REGISTRIES[kind].names()]
assert model.plan.balancing.name == "plain_sum" and "ridge" in model.plan.ensemble.members
examples = {"maximum", "average", "count", "prefix", "plain_sum", "ridge"}
print(sorted(examples & set(registered)))
"""

CONTRACT = """
import importlib, sys, pytest
names = "maximum or average or count or prefix or plain_sum or ridge"
from plait.api.describe import REGISTRIES
for kind in REGISTRIES:
    importlib.import_module(f"plait.{kind}").__path__.append(f"{sys.argv[1]}/{kind}")
sys.exit(pytest.main([sys.argv[2], "-p", "no:cacheprovider", "-k", names]))
"""


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    kinds = ["balancing", "encoders", "fusion", "members", "modalities", "tasks"]
    assert sorted(kind for kind, _, _ in blocks) == kinds
    for kind, name, code in blocks:
        ast.parse(code)
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{name}.py").write_text(code, encoding="utf-8")
    return tmp_path


def run(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_the_examples_are_found_by_their_names_and_train(placed: Path) -> None:
    rows = [{**row, "visits": i % 5} for i, row in enumerate(make_rows(placed, 40))]
    table = write_csv(placed / "train.csv", rows)
    examples = ["average", "count", "maximum", "plain_sum", "prefix", "ridge"]
    assert run(SCRIPT, str(placed), str(table)) == str(examples)


def test_the_examples_keep_the_contract(placed: Path) -> None:
    summary = run(CONTRACT, str(placed), str(ROOT / "tests" / "contract"))
    number = re.search(r"(\d+) passed", summary)
    assert number, summary
    assert int(number[1]) > 40, "each example runs through the contract of its kind"


def test_the_examples_type_check(placed: Path) -> None:
    files = [str(path) for path in placed.glob("*/*.py")]
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *files]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout
