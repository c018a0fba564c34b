"""Read the `config.json` of a stranger: only what describes a network, within bounds.

transformers reads much else from it: what kernels to fetch from the hub, how weights are quantised, which
code to run. None of that is passed on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from plait.errors import RecipeError
from plait.nn.allocation import AllocationLimit
from plait.pretrained.files import Architecture

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# Entries that every config of transformers knows, and that do not describe the network.
REFUSED = {
    "_attn_implementation",
    "_attn_implementation_internal",
    "_commit_hash",
    "_experts_implementation",
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "base_model_ep_plan",
    "base_model_pp_plan",
    "base_model_tp_plan",
    "compression_config",
    "custom_pipelines",
    "dtype",
    "experts_implementation",
    "kernel_config",
    "name_or_path",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_kernels",
}

# Entries that a config may have beside those of its type: which ids begin and end a text, and how towers go
# together.
ALSO = {
    "add_cross_attention",
    "bos_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "is_decoder",
    "is_encoder_decoder",
    "mask_token_id",
    "model_type",
    "pad_token_id",
    "prefix",
    "sep_token_id",
    "tie_word_embeddings",
}

DEEPEST = 4  # configs within configs, and lists within lists
LONGEST = 100_000  # entries of a list or a mapping, such as the names of classes
MOST_LAYERS = 512  # or anything else that is repeated
LARGEST = 10_000_000  # of any other whole number, such as the size of a vocabulary
REPEATED = ("layer", "depth", "block", "stage", "expert")

INNER = ("encoder", "decoder")  # of a config that joins two others


def config_of(architecture: Architecture) -> PretrainedConfig:
    """Return the config of a network as transformers takes it: entries that it does not know are left out.

    Raises `RecipeError` for a type that transformers does not know, and for numbers out of bounds.
    """
    from transformers import AutoConfig

    kind = architecture.get("model_type", "")
    _check_bounds(architecture, "config.json", 0)
    known = _known(architecture, str(kind))
    try:
        return AutoConfig.for_model(**known)
    except Exception as error:  # each config has checks of its own, which raise whatever they like
        raise RecipeError(f"the config.json of this '{kind}' cannot be used: {_first_line(error)}") from error


def knows(kind: object) -> bool:
    """Return whether transformers knows networks of a type."""
    from transformers import CONFIG_MAPPING

    return isinstance(kind, str) and kind in CONFIG_MAPPING


def load(
    loader: type[PreTrainedModel], folder: Path, architecture: Architecture
) -> tuple[PreTrainedModel, dict[str, list[str]]]:
    """Load a network and its weights from a folder, and return also what transformers says of its tensors.

    `loader` is a class of transformers. Only safetensors are read, nothing is fetched, and no code of the
    folder is run. Raises `RecipeError` if the weights are not those of the network.
    """
    if (folder / "adapter_config.json").is_file():
        raise RecipeError(
            f"{folder} holds an adapter, which names another model; merge them first "
            f"(model.merge_and_unload()), and save that"
        )
    safely = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
    config = config_of(architecture)
    size = _size(folder)
    try:
        with AllocationLimit.of_bytes(size):
            model, report = loader.from_pretrained(
                folder, config=config, dtype=torch.float32, output_loading_info=True, **safely
            )
    except Exception as error:  # as above
        raise RecipeError(f"the network in {folder} cannot be loaded: {_first_line(error)}") from error
    return model, report


def _first_line(error: Exception) -> str:
    """Return the first line of what another library says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _size(folder: Path) -> int:
    """Return the bytes of a folder's tensors in float32. Raises `RecipeError` if they are damaged."""
    numbers = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    count = 1
                    for side in opened.get_slice(name).get_shape():
                        count *= side
                    numbers += count
        except (SafetensorError, OSError) as error:
            raise RecipeError(f"'{path}' is damaged: {error}") from error
    return 4 * numbers


def _known(architecture: Architecture, kind: str) -> Architecture:
    """Return the entries that the config of this type has, the same for the configs within it."""
    if not knows(kind):
        raise RecipeError(
            f"transformers knows no model of type '{kind[:80]}'; one that brings its own code cannot be "
            f"used: plait never runs that"
        )
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[kind]
    inner_classes = dict(getattr(config_class, "sub_configs", {}) or {})
    names = _names(config_class) | set(inner_classes) | ALSO
    known: Architecture = {}
    for name, value in architecture.items():
        if name in REFUSED or (name not in names and name not in INNER):
            continue
        if isinstance(value, dict) and (name in inner_classes or "model_type" in value):
            value = _inner(value, inner_classes.get(name))
        known[name] = value
    return known


def _inner(architecture: Architecture, config_class: type[PretrainedConfig] | None) -> Architecture:
    """Return the known entries of a config within a config."""
    kind = architecture.get("model_type") or getattr(config_class, "model_type", "")
    if knows(kind):
        return _known(architecture, str(kind))
    names = _names(config_class) if config_class else set()
    return {name: value for name, value in architecture.items() if name in names and name not in REFUSED}


def _names(config_class: type[PretrainedConfig]) -> set[str]:
    """Return the names of a config's entries, the other names for them included."""
    names = set(getattr(config_class, "attribute_map", {}))
    try:
        return names | set(config_class().to_dict())
    except Exception:  # a config that joins others cannot be made without them
        return names


def _check_bounds(value: object, name: str, depth: int) -> None:
    """Raise `RecipeError` for what no network needs: numbers, lists or nesting without bounds."""
    if depth > DEEPEST:
        raise RecipeError(f"{name} is nested more than {DEEPEST} deep")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        is_count = isinstance(value, int) and any(part in name for part in REPEATED)
        largest = MOST_LAYERS if is_count and "size" not in name and "dim" not in name else LARGEST
        if not -1e30 < value < 1e30 or (isinstance(value, int) and abs(value) > largest):
            raise RecipeError(f"{name} is {str(value)[:40]}, expected at most {largest:,}")
    elif isinstance(value, (dict, list)):
        if len(value) > LONGEST:
            raise RecipeError(f"{name} has {len(value):,} entries, expected at most {LONGEST:,}")
        entries = value if isinstance(value, dict) else dict(enumerate(value))
        for key, entry in entries.items():
            inner = f"{name}.{key}" if isinstance(value, dict) else name
            _check_bounds(entry, inner, depth + 1)
