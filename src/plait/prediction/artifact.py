"""The folder of a trained model: recipe and schema, fitted state, weights, metrics. JSON, YAML and
safetensors only: loading runs no code from the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from plait.data.preprocessing import Preprocessing
from plait.encoders.pretrained import Pretrained
from plait.errors import ArtifactError, PlaitError
from plait.model.network import MultimodalModel
from plait.pretrained.network import Network
from plait.recipe.recipe import Recipe
from plait.runs.files import write_json, write_tensors, write_text
from plait.table.schema import Schema

FORMAT = 8


FILES = ("recipe.yaml", "schema.json", "state.json", "weights.safetensors")


@dataclass
class Artifact:
    """A trained model with all that it needs to read new rows. `record` holds metrics, environment and
    history.
    """

    recipe: Recipe
    schema: Schema
    preprocessing: Preprocessing
    model: MultimodalModel
    record: dict[str, Any]


def save(artifact: Artifact, folder: Path) -> None:
    """Writes the folder. Weights come last: a folder that has them is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.yaml", artifact.recipe.to_yaml())
    write_text(folder / "schema.json", artifact.schema.model_dump_json(indent=1))
    write_json(folder / "state.json", {"format": FORMAT, **artifact.preprocessing.state()})
    write_json(folder / "metrics.json", artifact.record)
    for network in networks(artifact.model):
        copy(network.files, folder / "pretrained" / network.identity)
    write_tensors(folder / "weights.safetensors", artifact.model.state_dict())


def load(folder: str | Path) -> Artifact:
    """The trained model in a folder, ready to predict. Raises `ArtifactError` when it is none,
    unfinished or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtifactError(f"no folder '{folder}' (looked in {Path.cwd()})")
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        if (folder / "checkpoint.safetensors").is_file():
            raise ArtifactError(
                f"'{folder}' holds a training that has not ended; go on with: plait fit --resume {folder}"
            )
        raise ArtifactError(f"'{folder}' is no trained model of plait: it lacks {', '.join(absent)}")
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if state.get("format") != FORMAT:
            raise ArtifactError(
                f"'{folder}' has format {state.get('format')}; this plait reads {FORMAT}. Install the plait "
                f"that wrote it"
            )
        recipe = Recipe(**yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")))
        schema = Schema.model_validate_json((folder / "schema.json").read_text(encoding="utf-8"))
        preprocessing = Preprocessing.from_state(recipe, state)
        model = MultimodalModel.build(recipe, preprocessing, training=False)
        model.load_state_dict(load_file(folder / "weights.safetensors"))
        for network in networks(model):
            network.folder = folder / "pretrained" / network.identity
        metrics = folder / "metrics.json"
        record = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
    except PlaitError:
        raise
    except (
        ValueError,
        ValidationError,
        KeyError,
        TypeError,
        RuntimeError,
        OSError,
        SafetensorError,
        yaml.YAMLError,
    ) as error:
        raise ArtifactError(f"'{folder}' is damaged: {type(error).__name__}: {error}") from error
    model.eval()
    return Artifact(recipe, schema, preprocessing, model, record)


def identity(folder: Path) -> str:
    """A hash of a trained model: what its vectors are compared by."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("recipe.yaml", "weights.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def networks(*modules: nn.Module) -> list[Network]:
    """The pretrained networks that frozen encoders among these modules use."""
    return [part.network for module in modules for part in module.modules() if isinstance(part, Pretrained)]


def copy(files: Path, folder: Path) -> None:
    """The files of a pretrained network, so that the folder of a model is all that it needs; links
    where the disk allows it.
    """
    for path in (p for p in files.rglob("*") if p.suffix in (".json", ".safetensors") and p.is_file()):
        into = folder / path.relative_to(files)
        into.parent.mkdir(parents=True, exist_ok=True)
        if into.exists():
            continue
        try:
            os.link(path.resolve(), into)
        except OSError:
            shutil.copyfile(path, into)
