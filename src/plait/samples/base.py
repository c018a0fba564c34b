"""The interface of sample tables, and what several of them need."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from plait.errors import TableError
from plait.recipe.registry import modules


class Sample(Protocol):
    """The module of a sample table.

    `TARGET` is the column to predict. `INPUTS` has the inputs that the demo compares: the columns of each, by
    a label. `OVERRIDES` are those of the recipe. `ABOUT` says what the table is.
    """

    __name__: str
    TARGET: str
    INPUTS: Mapping[str, Sequence[str]]
    OVERRIDES: Sequence[str]
    ABOUT: str

    def fetch(self, cache: Path) -> Path:
        """Fetch the table into a folder, and return its file."""


def sample_names() -> list[str]:
    """Return the names of the sample tables, sorted."""
    return list(modules("plait.samples"))


def find_sample(name: str) -> Sample:
    """Return the module of a sample table."""
    return cast(Sample, importlib.import_module(f"plait.samples.{name}"))


def unpack_debian(names: list[str], cache: Path) -> None:
    """Fetch packages with Debian's client, and unpack them in the cache folder without installing them.

    Raises `TableError` if the client is missing, or its lists are too old to find a package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise TableError(
            f"{', '.join(names)}: fetched with Debian's package client, which this machine does not have"
        )
    folder = cache / "download"
    folder.mkdir(parents=True, exist_ok=True)
    download = subprocess.run(
        ["apt-get", "download", "-q", *names], cwd=folder, capture_output=True, text=True
    )
    files = {name: sorted(folder.glob(f"{name}_*.deb")) for name in names}
    if download.returncode or not all(files.values()):
        messages = download.stderr.strip().splitlines() or [f"exit status {download.returncode}"]
        raise TableError(
            f"apt-get cannot download {', '.join(names)}: {messages[-1]}. "
            "If its lists are old, run: sudo apt-get update"
        )

    # an earlier call that was stopped may have left an older version: the last name is the newest
    for versions in files.values():
        package = str(versions[-1])
        unpacking = subprocess.run(["dpkg", "-x", package, str(cache)], capture_output=True, text=True)
        if unpacking.returncode:
            raise TableError(f"dpkg cannot unpack {package}: {unpacking.stderr.strip()}")
    shutil.rmtree(folder)


def side(name: str) -> str:
    """Return train, valid or test, in shares of 7, 1 and 2, by the hash of a name."""
    digit = int(hashlib.sha1(name.encode()).hexdigest(), 16) % 10
    if digit < 2:
        return "test"
    return "valid" if digit == 2 else "train"
