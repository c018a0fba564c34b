"""The contract of all modalities."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pytest
import torch

from plait.modalities.base import Modality
from plait.nn.batch import Loaded
from plait.nn.traits import Traits
from support.cells import (
    Example,
    example_of,
    examples,
    fit_modality,
    load,
    modality_of,
    small_config,
)
from support.components import component, component_names

NAMES = component_names("modalities")


@dataclass(frozen=True)
class Fitted:
    """A modality, the cells that it was fitted on, and what it loads of them."""

    name: str
    modality: Modality
    example: Example
    loaded: Loaded


@pytest.fixture(scope="module", params=NAMES)
def fitted(request: pytest.FixtureRequest) -> Fitted:
    modality, example = fit_modality(request.param), example_of(request.param)
    return Fitted(request.param, modality, example, load(modality, example.column))


def test_missing_and_bad_cells_are_absent(fitted: Fitted) -> None:
    unreadable = {*fitted.example.bad, *fitted.example.absent}
    expected = [row not in unreadable for row in range(len(fitted.example.cells))]
    assert fitted.loaded.present.tolist() == expected
    assert len(fitted.loaded.values.x) == len(expected)


def test_a_column_without_cells_has_the_form_of_others(fitted: Fitted) -> None:
    absent = fitted.modality.absent(3)
    assert not absent.present.any()
    assert len(absent.present) == len(absent.values) == 3
    expected, values = (fitted.modality.transform(v, None) for v in (fitted.loaded.values, absent.values))
    assert values.x.dtype == expected.x.dtype
    assert (values.length_B is None) == (expected.length_B is None)
    first_dimension = 1 if values.length_B is None else 2  # without the steps of rows that have lengths
    assert values.x.shape[first_dimension:] == expected.x.shape[first_dimension:]


def test_bad_cells_are_named_as_problems(fitted: Fitted) -> None:
    problems = fitted.loaded.problems
    rows = [*fitted.example.reading.bad, *(problem.row for problem in problems)]
    assert rows == list(fitted.example.bad)
    assert all(problem.column == "column" and problem.reason for problem in problems)


def test_traits_have_their_form_and_depend_on_their_row_alone(fitted: Fitted) -> None:
    layout = fitted.modality.traits_layout()
    if layout is None:
        assert fitted.modality.layout.kind == "index", "all other kinds are measured"
        return
    traits = fitted.modality.traits(fitted.example.column, fitted.loaded.values)
    assert traits.numbers_BM.shape == (len(fitted.loaded.present), layout.width)
    assert torch.isfinite(traits.numbers_BM).all()
    assert (traits.ids_T is None) == (layout.ngrams == 0)
    if traits.ids_T is not None:
        assert traits.ids_T.max() < layout.ngrams

    absent = Traits.absent(2, layout)
    assert absent.numbers_BM.shape == (2, layout.width)
    row = fitted.example.column.slice(4, 1)
    of_row = fitted.modality.traits(row, load(fitted.modality, row).values)
    taken = traits.take(torch.tensor([4]))
    torch.testing.assert_close(of_row.numbers_BM, taken.numbers_BM, atol=1e-4, rtol=1e-3)
    assert of_row.ids_T is None or torch.equal(of_row.ids_T, taken.ids_T)


def test_state_is_json_and_restores_equal_values(fitted: Fitted) -> None:
    modality = fitted.modality
    state = json.loads(json.dumps(modality.state(), allow_nan=False))
    restored = type(modality).from_state(small_config(fitted.name), state)
    assert torch.equal(load(restored, fitted.example.column).values.x, fitted.loaded.values.x)
    assert restored.layout == modality.layout


def test_a_single_row_has_the_values_it_has_among_others(fitted: Fitted) -> None:
    among = fitted.modality.transform(fitted.loaded.values, None).x[4]
    row = load(fitted.modality, fitted.example.column.slice(4, 1))
    single = fitted.modality.transform(row.values, None).x[0]

    # Among longer rows, a row is padded.
    if fitted.loaded.values.length_B is not None:
        among = among[: len(single)]
    torch.testing.assert_close(among, single)


def test_a_column_without_any_cell_is_all_missing(fitted: Fitted) -> None:
    nothing = pa.chunked_array([pa.array([None] * 3, fitted.example.column.type)])
    assert not load(fitted.modality, nothing).present.any()
    fitted_on_nothing = type(fitted.modality).fit(small_config(fitted.name), nothing)
    assert not load(fitted_on_nothing, nothing).present.any()


def test_the_layout_is_what_transform_gives(fitted: Fitted) -> None:
    layout, x = fitted.modality.layout, fitted.modality.transform(fitted.loaded.values, None).x
    assert torch.isfinite(x.float()).all()
    if layout.vocabulary:
        assert x.max() < layout.vocabulary
    elif fitted.loaded.values.length_B is None:
        assert tuple(x.shape[1:]) == layout.size
    else:
        assert x.shape[1] <= layout.size[0], "no row is longer than the layout"
        assert tuple(x.shape[2:]) == layout.size[1:]


def test_its_default_encoder_takes_it(fitted: Fitted) -> None:
    encoder = component("encoders", fitted.modality.encoder)
    modality = fit_modality(fitted.name, encoder.asks(encoder.options(), fitted.name))
    assert modality.layout.kind in encoder.takes


def test_no_two_forms_of_cells_have_the_same_modality() -> None:
    names = [modality_of(example) for example in examples()]
    assert len(set(names)) == len(names), f"two forms of cells are taken for the same modality: {names}"
