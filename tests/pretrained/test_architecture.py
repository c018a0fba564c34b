"""A stranger's config.json: what is no description of a network is left out, and numbers have bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from plait.errors import RecipeError
from plait.pretrained import files
from plait.pretrained.architecture import config_of, load
from support import tiny_models

transformers = pytest.importorskip("transformers")


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return tiny_models.bert(tmp_path / "bert")


def edited(folder: Path, **entries: Any) -> dict[str, Any]:
    """Change entries of a model's config, and return the config."""
    config = {**json.loads((folder / "config.json").read_text()), **entries}
    (folder / "config.json").write_text(json.dumps(config))
    return config


DANGEROUS: dict[str, Any] = {
    "attn_implementation": "somebody/kernels",
    "_attn_implementation": "somebody/kernels",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "auto_map": {"AutoModel": "somebody/code--modeling.Model"},
    "torch_dtype": "float16",
    "use_kernels": True,
    "unknown_entry": 5,
}


def test_only_what_describes_a_network_is_passed_on(bert: Path) -> None:
    before = config_of(files.read_json(bert, "config.json")).to_dict()
    config = config_of(edited(bert, **DANGEROUS))
    assert config.to_dict() == before
    assert not hasattr(config, "quantization_config")

    model, _ = load(transformers.AutoModel, bert, files.read_json(bert, "config.json"))
    assert model.config._attn_implementation in ("eager", "sdpa")
    assert all(parameter.dtype.itemsize == 4 for parameter in model.parameters())


def test_configs_within_configs_are_cleaned_too() -> None:
    clip = {"model_type": "clip", "vision_config": {"hidden_size": 48, **DANGEROUS}, "projection_dim": 16}
    vision = config_of(clip).vision_config
    assert vision.hidden_size == 48
    assert not hasattr(vision, "unknown_entry")
    assert not hasattr(vision, "quantization_config")


@pytest.mark.parametrize(
    "entries",
    [
        {"num_hidden_layers": 1_000_000},
        {"hidden_size": 10**12},
        {"vocab_size": 10**30},
        {"layer_norm_eps": 1e308},
        {"id2label": {str(i): "x" for i in range(200_000)}},
        {"vision_config": {"a": {"b": {"c": {"d": {"e": 1}}}}}},
    ],
)
def test_numbers_without_bounds_are_refused(entries: dict[str, Any], bert: Path) -> None:
    with pytest.raises(RecipeError, match=r"expected at most|nested more than"):
        config_of(edited(bert, **entries))


@pytest.mark.parametrize("kind", ["nothing", "", None, 5, "../x"])
def test_types_that_transformers_does_not_know_are_refused(kind: Any, bert: Path) -> None:
    with pytest.raises(RecipeError, match="transformers knows no model of type"):
        config_of(edited(bert, model_type=kind))


@pytest.mark.parametrize(
    "entries",
    [{"hidden_size": 64}, {"num_hidden_layers": 500, "hidden_size": 8192}, {"vocab_size": 9_000_000}],
)
def test_weights_must_fit_the_config(entries: dict[str, Any], bert: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be loaded"):
        load(transformers.AutoModel, bert, edited(bert, **entries))


def test_damaged_weights_and_adapters_are_refused(bert: Path) -> None:
    architecture = files.read_json(bert, "config.json")
    path = bert / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RecipeError, match="is damaged"):
        load(transformers.AutoModel, bert, architecture)
    save_file(tensors, path, {"format": "pt"})
    (bert / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/else"}))
    with pytest.raises(RecipeError, match="holds an adapter"):
        load(transformers.AutoModel, bert, architecture)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "\xff"])
def test_json_that_cannot_be_read_is_named(text: str, bert: Path) -> None:
    (bert / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(RecipeError, match=r"config.json' cannot be read as JSON"):
        files.read_json(bert, "config.json")
