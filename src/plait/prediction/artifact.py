"""The folder of a trained model: recipe, plan, fitted state, weights, metrics.

Files are JSON, YAML and safetensors only: loading runs no code from the folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from torch import nn

from plait.console import command
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.disk.whole import make_folder, make_inner_folder, write_text, writing
from plait.encoders.base import FrozenEncoder
from plait.errors import ArtifactError, PlaitError
from plait.model.network import MultimodalModel
from plait.nn.allocation import AllocationLimit, Undrawn
from plait.prediction import record
from plait.pretrained.network import Network
from plait.runs import files
from plait.runs.folder import CHECKPOINT, WEIGHTS, Record
from plait.runs.request import FORMAT

FILES = ("plan.json", "state.json", "metrics.json", WEIGHTS)

# What JSON, pydantic, torch and safetensors raise for files that were damaged or edited.
DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    OSError,
    MemoryError,
    SafetensorError,
)


@dataclass
class Artifact:
    """A trained model, and the state that it needs to read new rows.

    `record` holds metrics, environment and history.
    """

    plan: Plan
    preprocessing: Preprocessing
    model: MultimodalModel
    record: Record


def save(artifact: Artifact, folder: Path) -> None:
    """Write the folder. Weights come last: a folder that has them is complete.

    `recipe.yaml` is for people and for the next training; `load` reads what was decided from `plan.json`.
    """
    make_folder(folder)
    write_text(folder / "recipe.yaml", artifact.plan.recipe.to_yaml())
    files.write_checked(folder / "plan.json", artifact.plan.to_dict())
    files.write_checked(folder / "state.json", {"format": FORMAT, **artifact.preprocessing.state()})
    files.write_checked(folder / "metrics.json", artifact.record)
    for network in networks(artifact.model):
        copy(network.files, make_inner_folder(folder, "pretrained", network.identity))
    files.write_tensors(folder / WEIGHTS, artifact.model.state_dict())


def load(folder: str | Path) -> Artifact:
    """Load the trained model in a folder, ready to predict.

    Raises `ArtifactError` if the folder holds no trained model, or one that is unfinished, damaged or of
    another format.
    """
    folder = Path(folder)
    _check_files(folder)
    try:
        return _load(folder)
    except PlaitError:
        raise
    except DAMAGE as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> ArtifactError:
    """Return the error for a folder whose files make its readers fail. `error` is one of `DAMAGE`."""
    return ArtifactError(f"'{folder}' is damaged: {type(error).__name__}: {error}; {files.AGAIN}")


def _load(folder: Path) -> Artifact:
    """Load a trained model. Raise whatever the readers of its files raise."""
    plan = _read_plan(folder / "plan.json")
    preprocessing = Preprocessing.from_state(plan, files.read_checked(folder / "state.json"))
    metrics = record.read(folder / "metrics.json")

    # The file is read before the network is built, which must not take more memory than it accounts for.
    path = folder / WEIGHTS
    tensors, _ = files.read_tensors(path)
    with AllocationLimit.of_weights(tensors.values()), Undrawn():
        model = MultimodalModel.build(plan, preprocessing, training=False)
    files.check_shapes(path, tensors, model.state_dict())
    model.load_state_dict(tensors)

    # Frozen encoders load their weights when they first run, from the copies that `save` made.
    for network in networks(model):
        network.folder = folder / "pretrained" / network.identity
    return Artifact(plan, preprocessing, model.eval(), metrics)


def _read_plan(path: Path) -> Plan:
    """Read a plan. Raises `ArtifactError` that names the entry which is wrong."""
    fields = files.read_checked(path)
    try:
        return Plan.from_dict(fields)
    except ValidationError as error:
        raise files.wrong_entry(path, error) from error


def _check_files(folder: Path) -> None:
    """Raise `ArtifactError` unless a folder holds all files of a model, in the present format."""
    if not folder.is_dir():
        raise ArtifactError(f"no folder '{folder}' (looked in {Path.cwd()})")

    # The format comes first: a folder of an older one may lack files, and "unfinished" would be wrong.
    _check_format(folder)
    absent = [name for name in FILES if not (folder / name).is_file()]
    if not absent:
        return

    if (folder / CHECKPOINT).is_file():
        resume = command("fit", "--resume", folder)
        raise ArtifactError(f"'{folder}' holds a training that has not ended; go on with: {resume}")
    raise ArtifactError(f"'{folder}' is no trained model of plait: it lacks {', '.join(absent)}")


def _check_format(folder: Path) -> None:
    """Raise `ArtifactError` if a folder says that it has another format."""
    path = folder / "state.json"
    if not path.is_file():
        return
    saved_format = files.read_json(path).get("format")
    if saved_format != FORMAT:
        raise ArtifactError(
            f"'{folder}' has format {saved_format}; this plait reads {FORMAT}. Train the model again, or "
            f"load it with the plait that wrote it"
        )


def identity(folder: Path) -> str:
    """Return a digest of a trained model. An index keeps it: vectors of two models cannot be compared."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("plan.json", "weights.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def networks(*modules: nn.Module) -> list[Network]:
    """Return the pretrained networks that frozen encoders in these modules use."""
    pretrained = []
    for module in modules:
        for submodule in module.modules():
            if isinstance(submodule, FrozenEncoder):
                pretrained.append(submodule.network)
    return pretrained


def copy(files: Path, folder: Path) -> None:
    """Copy the files of a pretrained network, so that a model needs nothing outside its folder.

    Hard links save the space where the disk allows them.
    """
    for path in files.rglob("*"):
        if path.suffix not in (".json", ".safetensors") or not path.is_file():
            continue

        relative = path.relative_to(files)
        copied = make_inner_folder(folder, *relative.parts[:-1]) / relative.name
        if copied.is_file():
            continue
        try:
            os.link(path.resolve(), copied)  # the hub's cache holds symbolic links, which must not be copied
        except OSError:
            with path.open("rb") as original, writing(copied) as copy_of_it:
                shutil.copyfileobj(original, copy_of_it)
