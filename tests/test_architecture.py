"""Imports run downward, from each package to lower ones. Reads the code, runs none of it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TypeGuard

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "plait"

# A module imports from its own package and from packages of a lower layer. Give a new package a layer here.
LAYERS = {
    "errors": 0,
    "console": 0,
    "disk": 1,
    "table": 2,
    "recipe": 3,
    "runs": 3,
    "nn": 4,
    "media": 5,
    "pretrained": 5,
    "fusion": 5,
    "balancing": 5,
    "modalities": 6,
    "encoders": 6,
    "samples": 6,
    "tasks": 7,
    "data": 8,
    "model": 9,
    "prediction": 10,
    "evaluation": 11,
    "retrieval": 11,
    "training": 12,
    "members": 13,
    "ensemble": 14,
    "export": 15,
    "api": 16,
    "serving": 17,
    "cli": 18,
    "__init__": 19,
    "__main__": 19,
}
ROOT_FILES = {"__init__", "__main__", "console", "errors"}
COMPONENT_PACKAGES = {"modalities", "encoders", "fusion", "tasks", "balancing", "members", "samples"}

# Packages that know components by their bases only.
CORE = {
    "recipe",
    "data",
    "model",
    "prediction",
    "evaluation",
    "retrieval",
    "training",
    "ensemble",
    "api",
}

# Words in the core that happen to be names of components, with what they name there.
NAMES_IN_CORE = {
    "data.features": {"bag": "a form of numbers: counts of n-grams"},
    "recipe.recipe": {"network": "a quality: one network, and no members"},
}

# Bases of tasks and modalities, whose classes the core does not ask for.
ASKED_FOR_ATTRIBUTES = {
    "Task",
    "TokenTask",
    "Prediction",
    "Writing",
    "Comparison",
    "Modality",
    "ValueModality",
    "MediaModality",
}

# Modules that import plait's own modules inside functions, so that `plait --help` stays fast.
LAZY = {"__init__", "recipe.registry", "cli.answer", "cli.learn", "cli.search", "cli.serve", "cli.tools"}

HEAVY = [
    "torch",
    "transformers",
    "sklearn",
    "pyarrow",
    "numpy",
    "rich",
    "matplotlib",
    "pydantic",
    "PIL",
    "scipy",
    "av",
    "soundfile",
]
EMPTY_NAMES = r"Processor|Manager|Helper|Utils|Learner|Combiner|Wrapper|Engine"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


MODULES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")}


COMPONENTS = {
    name.split(".")[1]
    for name in MODULES
    if name.split(".")[0] in COMPONENT_PACKAGES - {"samples"} and name.count(".") == 1
}
COMPONENTS = {name for name in COMPONENTS if not name.startswith(("base", "__"))}


def package(name: str) -> str:
    """The package that a module lies in, or the name of a file in the root."""
    return name.split(".")[0]


def is_module(name: str) -> bool:
    return name in MODULES or f"{name}.__init__" in MODULES


def imports(tree: ast.AST) -> set[str]:
    """plait's own modules that are imported anywhere below, as dotted names without `plait.`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "plait":
            module = node.module.removeprefix("plait").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".strip(".")
                names.add(inner if is_module(inner) else module)
        elif isinstance(node, ast.Import):
            names |= {
                alias.name.removeprefix("plait.") for alias in node.names if alias.name.startswith("plait.")
            }
    return names - {""}


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(tree: ast.AST) -> set[str]:
    """What a module defines for itself: functions, methods, classes, constants, fields and attributes."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def is_lookup(node: ast.AST) -> TypeGuard[ast.Call]:
    """A call such as `options.get("name")` or `encoders.find("name")`."""
    methods = ("get", "pop", "find", "configure", "startswith")
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods


def decided_by(tree: ast.AST) -> list[ast.Constant]:
    """The literal texts that code compares with, looks up or matches."""
    looked_up: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            looked_up += [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            looked_up.append(node.slice)
        elif isinstance(node, ast.MatchValue):
            looked_up.append(node.value)
        elif is_lookup(node):
            looked_up += node.args[:1]
    literals = [literal for node in looked_up for literal in ast.walk(node)]
    return [node for node in literals if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_downward(name: str) -> None:
    own = package(name)
    assert own in LAYERS, f"{name}: give its package a layer in this file and in docs/architecture.md"
    for imported in imports(MODULES[name]):
        other = package(imported)
        assert other == own or LAYERS[other] < LAYERS[own], (
            f"{name} imports {imported}, which does not lie below it"
        )


def test_only_four_files_lie_in_the_root() -> None:
    assert {path.stem for path in SOURCE.glob("*.py")} == ROOT_FILES


@pytest.mark.parametrize("name", sorted(name for name in MODULES if package(name) in COMPONENT_PACKAGES))
def test_components_import_no_sibling(name: str) -> None:
    """A component file imports the `base*.py` of its package and sub-folders, so that it can be read
    alone.
    """
    parts = name.split(".")
    if len(parts) != 2 or parts[1].startswith(("base", "__")):
        return
    siblings = {i for i in imports(MODULES[name]) if package(i) == parts[0] and i.count(".") == 1}
    siblings = {i for i in siblings if not i.split(".")[1].startswith("base")}
    folders = {i for i in siblings if f"{i}.__init__" in MODULES}
    assert siblings == folders, f"{name} imports its siblings {sorted(siblings - folders)}"


def test_there_are_no_import_cycles() -> None:
    graph = {name: imports(tree) & set(MODULES) for name, tree in MODULES.items() if name not in LAZY}
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
def test_functions_import_nothing_of_plait(name: str) -> None:
    for function in functions(MODULES[name]):
        assert not imports(function), (
            f"{name}.{function.name} imports {imports(function)}: move it to the top"
        )


@pytest.mark.parametrize("name", sorted(MODULES))
def test_files_and_functions_can_be_read_at_once(name: str) -> None:
    path = SOURCE / f"{name.replace('.', '/')}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600, f"{name} has more than 600 lines"
    for function in functions(MODULES[name]):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= 60, f"{name}.{function.name} has {length} lines"


def test_names_of_tests_have_at_most_60_characters() -> None:
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for name in re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert len(name) <= 60, f"{path.name}: {name}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_class_names_say_what_a_thing_is(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ClassDef):
            assert not re.search(EMPTY_NAMES, node.name), f"{name}.{node.name}"


def test_few_values_have_any_type() -> None:
    """mypy sees through nearly everything: what remains is options of components and other libraries."""
    nodes = [node for tree in MODULES.values() for node in ast.walk(tree)]
    uses = sum(isinstance(node, ast.Name) and node.id == "Any" for node in nodes)
    imported = sum(isinstance(node, ast.alias) and node.name == "Any" for node in nodes)
    assert uses + imported < 60


@pytest.mark.parametrize("name", sorted(MODULES))
def test_private_attributes_stay_in_their_module(name: str) -> None:
    """Nobody reads what another module's class, or another library, keeps to itself."""
    own = private_names(MODULES[name])
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            assert node.attr in own, f"{name}:{node.lineno} reads {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom):
            private = [alias.name for alias in node.names if is_private(alias.name)]
            assert not private, f"{name}:{node.lineno} imports {private}"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if package(name) in CORE))
def test_the_core_names_no_component(name: str) -> None:
    """The core asks a component's base for an attribute instead."""
    allowed = NAMES_IN_CORE.get(name, {})
    for literal in decided_by(MODULES[name]):
        assert literal.value not in COMPONENTS or literal.value in allowed, (
            f"{name}:{literal.lineno} decides by the name '{literal.value}': make it an attribute of the base"
        )


@pytest.mark.parametrize("name", sorted(name for name in MODULES if package(name) in CORE))
def test_the_core_asks_no_component_for_its_class(name: str) -> None:
    """What it must know of a task or a modality is an attribute of the base, or a method."""
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            classes = {inner.id for inner in ast.walk(node.args[1]) if isinstance(inner, ast.Name)}
            assert not classes & ASKED_FOR_ATTRIBUTES, f"{name}:{node.lineno} asks {ast.unparse(node)}"


def test_every_name_that_the_core_may_use_is_used() -> None:
    for name, allowed in NAMES_IN_CORE.items():
        unused = set(allowed) - {literal.value for literal in decided_by(MODULES[name])}
        assert not unused, f"{name} no longer decides by {sorted(unused)}"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if package(name) in CORE))
def test_the_core_imports_no_component(name: str) -> None:
    """It imports their bases and sub-folders."""
    for imported in imports(MODULES[name]):
        kind, _, module = imported.partition(".")
        is_component = kind in COMPONENT_PACKAGES - {"samples"} and module in COMPONENTS
        assert not is_component, f"{name} imports {imported}: use a class of its base"


@pytest.mark.parametrize("module", ["plait", "plait.cli.main"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    import plait

    expected = [
        "Model",
        "PlaitError",
        "Recipe",
        "__version__",
        "fit",
        "inspect",
        "load",
        "speak",
        "transcribe",
        "tune",
    ]
    assert plait.__all__ == expected
    assert all(hasattr(plait, name) for name in plait.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        plait.fitt  # noqa: B018


# What a stand-in token is made of. `model/stand_in.py` chooses the token, `training/hiding.py` trains it.
STAND_IN_PARTS = {"missing", "empty", "has_empty_M", "mark_empty"}
STAND_IN_FILES = {"model.stand_in", "training.hiding"}


@pytest.mark.parametrize("name", sorted(set(MODULES) - STAND_IN_FILES))
def test_two_files_handle_stand_in_tokens(name: str) -> None:
    """Other code only makes a `StandIn` and calls it."""
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Attribute) and node.attr in STAND_IN_PARTS:
            owner = ast.unparse(node.value).split(".")[-1]
            assert owner != "stand_in", f"{name}, line {node.lineno}: use the token through StandIn.forward"
