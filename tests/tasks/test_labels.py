"""Labels of any type of Arrow: they are used, listed as problems of their rows, or refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from plait.errors import TrainingError
from plait.table.table import Source
from plait.tasks.classification import UNSEEN, Classification
from plait.tasks.classification import Config as ClassificationConfig
from plait.tasks.generation import Config as GenerationConfig
from plait.tasks.generation import Generation
from plait.tasks.multilabel import Config as MultilabelConfig
from plait.tasks.multilabel import Multilabel
from plait.tasks.writing.spelling import Spelling

SOURCE = Source("label", Path())
BYTES = (
    pa.binary(),
    pa.large_binary(),
    pa.binary(1),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.binary()),
)


def column(cells: list[Any], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, kind)])


@pytest.mark.parametrize("kind", BYTES, ids=str)
def test_a_class_of_broken_bytes_is_a_problem_of_its_row(kind: pa.DataType) -> None:
    task = Classification(["a", "b"], [1, 1], "none", 0.0)
    target, labelled, problems = task.encode(column([b"b", b"\xff", None], kind), SOURCE)
    assert target.tolist() == [1, UNSEEN, 0]
    assert labelled.tolist() == [True, False, False]
    assert [(problem.row, problem.column) for problem in problems] == [(1, "label")]
    assert r"b'\xff' is not among the 2" in problems[0].reason


@pytest.mark.parametrize("kind", BYTES, ids=str)
def test_classes_of_broken_bytes_cannot_be_trained_on(kind: pa.DataType) -> None:
    cells = column([b"a", b"\xff"], kind)
    Classification.matches(cells)  # does not raise
    with pytest.raises(TrainingError, match="target 'label': expected words or numbers"):
        Classification.fit(ClassificationConfig(), cells, "label")


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (column([2**64 - 1, 3] * 9, pa.uint64()), ["18446744073709551615", "3"]),
        (column([1e300, 3.0] * 9, pa.float64()), ["1e+300", "3"]),
        (column([7.0, 3.0] * 9, pa.float64()), [3, 7]),
    ],
    ids=["uint64", "float64", "fits"],
)
def test_whole_numbers_beyond_64_bits_are_classes(cells: pa.ChunkedArray, classes: list[Any]) -> None:
    assert Classification.matches(cells)
    task = Classification.fit(ClassificationConfig(), cells, "label")
    assert task.classes == classes
    _, labelled, problems = task.encode(cells, SOURCE)
    assert labelled.all()
    assert not problems


@pytest.mark.parametrize("kind", BYTES, ids=str)
def test_texts_of_broken_bytes_are_refused(kind: pa.DataType) -> None:
    config = GenerationConfig()
    task = Generation(config, Spelling.fit(["a"], "characters", "written", 10))
    with pytest.raises(TrainingError, match="target 'label': expected texts"):
        task.encode(column([b"a", b"\xff"], kind), SOURCE)
    with pytest.raises(TrainingError, match="target 'label': expected texts"):
        Generation.fit(config, column([b"a", b"\xff"], kind), "label")


@pytest.mark.parametrize("cells", [[[b"a"], [b"\xff"]], [[["a"]], []]], ids=["bytes", "lists"])
def test_lists_of_other_cells_than_labels_are_refused(cells: list[Any]) -> None:
    config = MultilabelConfig()
    lists = pa.chunked_array([pa.array(cells)])
    with pytest.raises(TrainingError, match="target 'label': expected lists of labels"):
        Multilabel(config, ["a"], [0.5]).encode(lists, SOURCE)
    with pytest.raises(TrainingError, match="target 'label': expected lists of labels"):
        Multilabel.fit(config, lists, "label")
