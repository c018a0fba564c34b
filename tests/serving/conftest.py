"""A small model that the tests of the service share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import plait
from support.serving import served
from support.tables import FAST, make_rows, write_csv


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> plait.Model:
    """A model of a colour by a photo, a text, a price and a shop."""
    folder: Path = tmp_path_factory.mktemp("model")
    table = write_csv(folder / "train.csv", make_rows(folder))
    overrides = [*FAST, "training.epochs=25"]
    return plait.fit(table, "label", out=folder / "run", overrides=overrides, quiet=True)


@pytest.fixture(scope="module")
def service(model: plait.Model) -> Iterator[httpx.Client]:
    """A client of a service of that model."""
    with served(model.folder) as client:
        yield client
