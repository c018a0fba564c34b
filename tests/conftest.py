"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.recipes import quality
from support.tables import FAST, make_rows, write_csv

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prepared cells are not left in the user's own cache."""
    os.environ["PLAIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def no_weights() -> Iterator[None]:
    """What a machine has in its packages and caches must not decide what a test trains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plait.encoders.pretrained.present", lambda name: False)
        yield


@pytest.fixture(autouse=True, scope="session")
def network_alone() -> Iterator[None]:
    """Where a test names no quality, train the network alone: members would double the time of most tests.

    Tests with the mark `default_quality` have what users get. So do programs that a test starts.
    """
    with quality("network"):
        yield


@pytest.fixture(autouse=True)
def default_quality(request: pytest.FixtureRequest) -> Iterator[None]:
    if "default_quality" not in request.keywords:
        yield
        return
    with quality("fast"):
        yield


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return make_rows(tmp_path)


@pytest.fixture
def table(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    return write_csv(tmp_path / "train.csv", rows)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model trained on the tiny table, its folder, and the table's path; shared, so leave it as it is."""
    import plait

    folder = tmp_path_factory.mktemp("trained")
    path = write_csv(folder / "train.csv", make_rows(folder, 90))
    overrides = [o for o in FAST if "epochs" not in o] + ["training.learning_rate=0.002"]
    overrides.append("training.epochs=40")
    return plait.fit(path, "label", out=folder / "run", overrides=overrides, quiet=True), path
