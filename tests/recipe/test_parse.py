"""The text of a recipe: YAML within bounds, and names in quotes."""

from __future__ import annotations

from pathlib import Path

import pytest

from plait.errors import RecipeError
from plait.recipe.parse import MAX_LEVELS, MAX_VALUES, parse, parse_value, quote, split_column, split_override
from plait.recipe.recipe import load

NINE = ", ".join(["*{0}"] * 9)


def bomb(separator: str = "&{1} [{0}]") -> str:
    """Nine lines of aliases, which stand for hundreds of millions of values."""
    lines = ["a0: &a0 {k: x}"]
    for level in range(1, 9):
        lines.append(f"a{level}: " + separator.format(NINE.format(f"a{level - 1}"), f"a{level}"))
    return "\n".join(lines)


def test_aliases_are_written_out_within_bounds() -> None:
    assert parse("a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    assert parse("a: &a {x: 1}\nb: {<<: *a, y: 2}") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}
    assert parse("") is None


@pytest.mark.parametrize("text", ["%d/%m/%Y", "%d. %m", ",", "@home"])
def test_an_override_may_begin_with_marks_of_yaml(text: str) -> None:
    assert parse_value(text) == text
    assert parse_value(f"'{text}'") == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(), f"expected at most {MAX_VALUES:,} values, with all aliases written out"),
        (bomb("&{1} {{<<: [{0}]}}"), "values, with all aliases written out"),
        ("[" * 60 + "]" * 60, f"expected at most {MAX_LEVELS} levels"),
        ("[" * 20_000, f"expected at most {MAX_LEVELS} levels"),
        ("a: &a [*a]", "a value lies within itself"),
        ("x:\n  a: 1\n  a: 2", "'a' is given twice, in line 2 and in line 3"),
        ("a: [", "expected the node content"),
        ("a: *gone", "undefined alias"),
        ("a: 2024-99-99", "month must be in 1..12"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("\0", "special characters are not allowed"),
    ],
    ids=[
        "bomb",
        "merged",
        "deep",
        "deeper",
        "cycle",
        "twice",
        "open",
        "undefined",
        "date",
        "code",
        "zero byte",
    ],
)
def test_yaml_that_is_wrong_or_too_large_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe", "is not text in UTF-8"),
        (b"- training\n", "expected names and values, as in .*, came a list"),
        (b"x" * 1_000_001, "expected a file of at most 1,000,000 bytes"),
        (bomb().encode(), "is not valid YAML: expected at most"),
    ],
    ids=["bytes", "list", "long", "bomb"],
)
def test_a_recipe_file_that_cannot_be_read_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=reason):
        load(path)


@pytest.mark.parametrize(
    ("text", "names", "value"),
    [
        ("training.epochs=5", ["training", "epochs"], "5"),
        ('columns."a.b".role=id', ["columns", "a.b", "role"], "id"),
        ("columns.'a=b'.role=id", ["columns", "a=b", "role"], "id"),
        ("columns.it's.role=id", ["columns", "it's", "role"], "id"),
        ("fusion={name: gated}", ["fusion"], "{name: gated}"),
        ("tasks.y.separator==", ["tasks", "y", "separator"], "="),
        ("training", ["training"], None),
    ],
)
def test_names_of_an_override_may_stand_in_quotes(text: str, names: list[str], value: str | None) -> None:
    assert split_override(text) == (names, value)


@pytest.mark.parametrize(
    ("text", "name", "word"),
    [
        ("price=number", "price", "number"),
        ("a.b=number", "a.b", "number"),
        ('"a=b"=text', "a=b", "text"),
        ('"a.b"=text', "a.b", "text"),
        ("'say \"no\"'=text", 'say "no"', "text"),
        ("price", "price", None),
    ],
)
def test_a_column_may_stand_in_quotes(text: str, name: str, word: str | None) -> None:
    assert split_column(text) == (name, word)


@pytest.mark.parametrize("name", ["price", "a.b", "a=b", 'say "no".', "it's"])
def test_a_quoted_name_is_read_as_it_was(name: str) -> None:
    assert split_override(f"columns.{quote(name)}.role=id") == (["columns", name, "role"], "id")
    assert load(None, [f"columns.{quote(name)}.role=id"]).columns[name].role == "id"
