"""Imports run downward. Reads the code, runs none of it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "plait"
LAYERS = [
    {"errors", "layers"},
    {
        "schema",
        "batch",
        "recipe",
        "recipe_parts",
        "components",
        "contrast",
        "ranking",
        "projections",
        "statistics",
        "machine",
        "screen",
        "pixels",
        "streams",
        "clips",
        "convnets",
        "weights",
        "networks",
        "spelling",
        "text_metrics",
        "ctc",
        "decoder",
        "pretrained_decoder",
        "pretrained_ctc",
        "pretrained_speech",
    },
    {"table", "modalities", "cells", "fusion", "tasks", "texts", "acoustics", "balancing"},
    {"encoders", "preprocessing", "schedule", "selection", "votes"},
    {"cache", "dataset", "model"},
    {"artifact", "embedding", "prediction", "checkpoint", "features", "views", "objective"},
    {"as_is", "evaluation", "crossmodal", "retrieval", "space", "speaker", "trackers", "transcriber", "validation"},
    {"training", "report", "runs", "documentation", "inspection", "members", "ensemble", "ensembling", "singles", "trained"},
    {"api", "samples"},
    {"tuning"},
    {"cli", "serving", "demonstration", "__main__"},
]
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
FOLDERS = {"table", "modalities", "fusion", "tasks", "balancing", "encoders", "members", "samples"}
LAZY = {"__init__", "components", "cli"}  # the lazy faces: what they import inside functions is off the path of start-up


def modules() -> dict[str, ast.Module]:
    return {str(p.relative_to(SOURCE).with_suffix("")).replace("/", "."): ast.parse(p.read_text()) for p in SOURCE.rglob("*.py")}


def own_imports(tree: ast.AST) -> set[str]:
    """The project's modules that are imported anywhere below, as dotted names without `plait.`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "plait":
            base = node.module.removeprefix("plait").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".strip(".")
                is_module = (SOURCE / f"{full.replace('.', '/')}.py").is_file() or (SOURCE / full.replace(".", "/")).is_dir()
                found.add(full if is_module else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("plait.") for alias in node.names if alias.name.startswith("plait.")}
    return found - {""}


MODULES = modules()


def top(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("name", sorted(m for m in MODULES if m != "__init__"))
def test_imports_only_from_its_own_layer_or_below(name: str) -> None:
    assert top(name) in LAYER, f"{name}: give it a layer here and in the design"
    for imported in own_imports(MODULES[name]):
        assert LAYER[top(imported)] <= LAYER[top(name)], f"{name} imports {imported}, which lies above it"


@pytest.mark.parametrize("name", sorted(m for m in MODULES if top(m) in FOLDERS - {"table"} and "." in m))
def test_components_import_no_sibling_but_base(name: str) -> None:
    siblings = {i for i in own_imports(MODULES[name]) if top(i) == top(name) and i not in (f"{top(name)}.base", top(name))}
    assert not siblings, f"{name} imports its siblings {siblings}"


def test_no_cycles() -> None:
    graph = {name: own_imports(tree) & set(MODULES) for name, tree in MODULES.items() if name not in LAZY}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a cycle: {' -> '.join([*path, name])}"
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(set(MODULES) - LAZY))
def test_no_imports_of_our_own_inside_functions(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert not own_imports(node), f"{name}.{node.name} imports {own_imports(node)} locally"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_sizes_and_names(name: str) -> None:
    path = SOURCE / f"{name.replace('.', '/')}.py"
    assert len(path.read_text().splitlines()) <= 400, f"{path.name} has more than 400 lines"
    for node in ast.walk(MODULES[name]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{name}.{node.name} has {length} lines"
        if isinstance(node, ast.ClassDef):
            assert not re.search(r"Processor|Manager|Helper|Utils|Learner|Combiner|Wrapper|Engine", node.name), node.name


@pytest.mark.parametrize("statement", ["import plait", "import plait.cli"])
def test_nothing_heavy_on_the_way_to_help(statement: str) -> None:
    heavy = "'torch', 'transformers', 'sklearn', 'pyarrow', 'numpy', 'rich', 'matplotlib', 'pydantic', 'PIL', 'scipy', 'av', 'soundfile'"
    code = f"import sys; {statement}; print([m for m in ({heavy}) if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"


def test_public_names() -> None:
    import plait

    assert plait.__all__ == ["Model", "PlaitError", "Recipe", "__version__", "fit", "inspect", "load", "speak", "transcribe", "tune"]
    assert all(hasattr(plait, name) for name in plait.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        plait.fitt  # noqa: B018
