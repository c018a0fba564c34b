"""Values out of JSON are of the type that is asked for, or an error says so."""

from __future__ import annotations

import json

import pytest

from plait.table.json import JSON, read_as, read_list, read_object

STATE: JSON = json.loads('{"mean": [1, 2.5], "inner": {"form": "day"}, "name": "price", "none": null}')


def test_values_are_read_as_their_type() -> None:
    assert read_as(list[float], STATE["mean"]) == [1.0, 2.5]
    assert read_object(STATE["inner"]) == {"form": "day"}
    assert read_list(STATE["mean"]) == [1, 2.5]


def test_a_value_of_another_type_is_an_error() -> None:
    with pytest.raises(ValueError, match="valid number"):
        read_as(float, STATE["name"])
    with pytest.raises(ValueError, match="expected names and values, came list"):
        read_object(STATE["mean"])
    with pytest.raises(ValueError, match="expected a list, came str"):
        read_list(STATE["name"])
    with pytest.raises(ValueError, match="expected a list, came NoneType"):
        read_list(STATE["none"])
