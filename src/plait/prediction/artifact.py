"""The folder of a trained model: recipe, plan, fitted state, weights, metrics.

Files are JSON, YAML and safetensors only: loading runs no code from the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.encoders.base import FrozenEncoder
from plait.errors import ArtifactError, PlaitError
from plait.model.network import MultimodalModel
from plait.pretrained.network import Network
from plait.runs.files import write_json, write_tensors, write_text
from plait.runs.folder import CHECKPOINTS, FORMAT, Record
from plait.table.json import JSON

FILES = ("recipe.yaml", "plan.json", "state.json", "weights.safetensors")

# What JSON, pydantic, torch and safetensors raise for files that were damaged or edited.
DAMAGE = (ValueError, ValidationError, KeyError, TypeError, RuntimeError, OSError, SafetensorError)


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
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.yaml", artifact.plan.recipe.to_yaml())
    write_text(folder / "plan.json", artifact.plan.to_json())
    write_json(folder / "state.json", {"format": FORMAT, **artifact.preprocessing.state()})
    write_json(folder / "metrics.json", artifact.record)
    for network in networks(artifact.model):
        copy(network.files, folder / "pretrained" / network.identity)
    write_tensors(folder / "weights.safetensors", artifact.model.state_dict())


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
        raise ArtifactError(f"'{folder}' is damaged: {type(error).__name__}: {error}") from error


def _load(folder: Path) -> Artifact:
    """Load a trained model. Raise whatever the readers of its files raise."""
    plan = Plan.from_dict(_read_json(folder / "plan.json"))
    preprocessing = Preprocessing.from_state(plan, _read_json(folder / "state.json"))
    model = MultimodalModel.build(plan, preprocessing, training=False)
    model.load_state_dict(load_file(folder / "weights.safetensors"))

    # Frozen encoders load their weights when they first run, from the copies that `save` made.
    for network in networks(model):
        network.folder = folder / "pretrained" / network.identity

    metrics = folder / "metrics.json"
    record: Record = _read_json(metrics) if metrics.is_file() else {}
    return Artifact(plan, preprocessing, model.eval(), record)


def _check_files(folder: Path) -> None:
    """Raise `ArtifactError` unless a folder holds all files of a model, in the present format."""
    if not folder.is_dir():
        raise ArtifactError(f"no folder '{folder}' (looked in {Path.cwd()})")

    # The format comes first: a folder of an older one may lack files, and "unfinished" would be wrong.
    _check_format(folder)
    absent = [name for name in FILES if not (folder / name).is_file()]
    if not absent:
        return

    if (folder / CHECKPOINTS[0]).is_file():
        raise ArtifactError(
            f"'{folder}' holds a training that has not ended; go on with: plait fit --resume {folder}"
        )
    raise ArtifactError(f"'{folder}' is no trained model of plait: it lacks {', '.join(absent)}")


def _check_format(folder: Path) -> None:
    """Raise `ArtifactError` if a folder says that it has another format."""
    path = folder / "state.json"
    if not path.is_file():
        return
    try:
        saved_format = _read_json(path).get("format")
    except (ValueError, OSError, AttributeError) as error:
        raise ArtifactError(f"'{path}' is damaged: {error}") from error

    if saved_format != FORMAT:
        raise ArtifactError(
            f"'{folder}' has format {saved_format}; this plait reads {FORMAT}. Train the model again, or "
            f"load it with the plait that wrote it"
        )


def _read_json(path: Path) -> JSON:
    fields: JSON = json.loads(path.read_text(encoding="utf-8"))
    return fields


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

        copied = folder / path.relative_to(files)
        copied.parent.mkdir(parents=True, exist_ok=True)
        if copied.exists():
            continue
        try:
            os.link(path.resolve(), copied)  # the hub's cache holds symbolic links, which must not be copied
        except OSError:
            shutil.copyfile(path, copied)
