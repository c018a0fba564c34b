"""What sample tables share."""

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

    `TARGET` is what is predicted, `INPUTS` has the columns that are compared by a label, `OVERRIDES` is
    what its recipe changes, and `ABOUT` says what the table is.
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
    """Fetches these packages with Debian's client, without installing them, and unpacks them in the
    cache folder.

    Raises `TableError` where the client is missing or its lists are too old to find a package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise TableError(
            f"{', '.join(names)} come through Debian's package client, which this machine does not have"
        )
    folder = cache / "download"
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["apt-get", "download", "-q", *names], cwd=folder, capture_output=True, text=True)
    packages = {name: sorted(folder.glob(f"{name}_*.deb")) for name in names}
    if done.returncode or not all(packages.values()):
        raise TableError(
            f"apt-get cannot download {', '.join(names)}: "
            f"{done.stderr.strip().splitlines()[-1:] or done.returncode}. "
            "If its lists are old, run: sudo apt-get update"
        )
    for found in packages.values():
        unpacked = subprocess.run(["dpkg", "-x", str(found[-1]), str(cache)], capture_output=True, text=True)
        if unpacked.returncode:
            raise TableError(f"dpkg cannot unpack {found[-1]}: {unpacked.stderr.strip()}")
    shutil.rmtree(folder)


def side(name: str) -> str:
    """Train, valid or test, in shares of 7, 1 and 2, by the hash of a name."""
    digit = int(hashlib.sha1(name.encode()).hexdigest(), 16) % 10
    return "test" if digit < 2 else "valid" if digit == 2 else "train"
