"""A pretrained network, frozen: its vectors are computed once for each cell, and only what comes after them is trained."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from plait import weights
from plait.batch import Layout, Tokens, Values
from plait.components import Options
from plait.convnets import PLANS, ConvNet
from plait.encoders.base import Encoder
from plait.errors import RecipeError
from plait.layers import masked_mean
from plait.machine import to_channels_last

DEFAULT = {"text": "minilm", "image": "efficientnet_lite0"}
NOT_FORM = ("auto_map", "transformers_version", "dtype", "torch_dtype")  # entries of a config that do not describe the network
COMMON = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "vit", "deit", "dinov2")
LONGEST = 512  # tokens of a text, where the model does not say


class Config(Options):
    """`model` is a folder, a name on the Hugging Face hub, or one that comes in a package (`minilm` for text, `efficientnet_lite0` and
    `mobilenet_v2` for pictures).

    `pool` makes one vector of a cell: the `mean` of the model's, its first one (`cls`), its own `pooler`; `none` keeps all
    of them, for fusions that attend to them. `auto` does as the model's files say. `unit` scales vectors to length 1.
    `architecture` and `identity` are filled in from the model's files.
    """

    model: str = "auto"
    pool: Literal["auto", "mean", "cls", "pooler", "none"] = "auto"
    unit: bool | None = None
    dropout: float = Field(0.1, ge=0, lt=1)
    architecture: dict[str, Any] = {}
    identity: str = ""


class Pretrained(Encoder):
    """The network's vectors for each cell, normalised (Ba et al. 2016, eq. 4; without its scale, which what comes next can learn).

    The network is no part of the module: it is not trained, not saved with the weights, and not even loaded while every
    vector that is asked for has been computed before.
    """

    options = Config
    takes = frozenset({"tokens", "grid"})

    def __init__(self, network: Network, width: int, pool: str, unit: bool, dropout: float) -> None:
        super().__init__()
        self.network, self.pool, self.unit = network, pool, unit
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        self.width = width

    @classmethod
    def settled(cls, config: Config, modality: str) -> Config:
        if config.architecture:
            return config
        if modality not in DEFAULT:
            raise RecipeError(f"encoder 'pretrained' takes columns of {' and '.join(DEFAULT)}, not of {modality}")
        name = DEFAULT[modality] if config.model == "auto" else config.model
        folder = weights.find(name)
        architecture = weights.read_json(folder, "config.json")
        files = {m.get("path"): m.get("type", "") for m in weights.read_json(folder, "modules.json").get("list", [])}
        pool: str = config.pool
        if pool == "auto" and modality == "text":
            pool = "cls" if weights.read_json(folder, "1_Pooling/config.json").get("pooling_mode_cls_token") else "mean"
        elif pool == "auto":
            pool = _pool_of_pictures(architecture.get("vision_config", architecture))
        unit = any(t.endswith(".Normalize") for t in files.values()) if config.unit is None else config.unit
        found = {"model": name, "pool": pool, "unit": unit, "architecture": architecture, "identity": weights.identity(folder)}
        return config.model_copy(update=found)

    @classmethod
    def asks(cls, config: Config, modality: str) -> dict[str, Any]:
        return _of_text(config) if modality == "text" else _of_pictures(weights.read_json(weights.find(config.model), "preprocessor_config.json"))

    @classmethod
    def frozen(cls, config: Config) -> bool:
        return True

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Pretrained:
        tower = "vision_config" if layout.kind == "grid" else "text_config"
        network = Network(config.model, config.identity, config.architecture, tower)
        return cls(network, _width(config.architecture, tower), config.pool, bool(config.unit), config.dropout)

    def forward(self, values: Values) -> Tokens:
        values = values if values.encoded else self.embed(values)
        x_BLD = self.dropout(self.norm(values.x))
        return Tokens(x_BLD, values.mask_BL())

    @torch.no_grad()
    def embed(self, values: Values) -> Values:
        """The network's vectors, floats of shape (B, L, D): all that is computed once."""
        if values.length_B is None:
            found = self.network.on(values.x.device)(values.x)
        else:
            found = self.network.on(values.x.device)(input_ids=values.x.long(), attention_mask=values.mask_BL().long())
        x_BLD, length_B = found if isinstance(found, Tensor) else found.last_hidden_state, values.length_B
        x_BLD = x_BLD.flatten(2).transpose(1, 2) if x_BLD.ndim == 4 else x_BLD
        if self.pool == "pooler":
            if not self.network.pools or getattr(found, "pooler_output", None) is None:
                raise RecipeError(f"'{self.network.model}' has no pooling of its own; use pool: mean")
            x_BLD, length_B = found.pooler_output[:, None], None
        elif self.pool == "cls":
            x_BLD, length_B = x_BLD[:, :1], None
        elif self.pool == "mean":
            x_BLD, length_B = masked_mean(x_BLD, Values(x_BLD, length_B).mask_BL() if length_B is not None else _all(x_BLD))[:, None], None
        x_BLD = F.normalize(x_BLD.float(), dim=-1) if self.unit else x_BLD.float()
        length_B = torch.full((len(x_BLD),), x_BLD.shape[1], device=x_BLD.device) if length_B is None else length_B
        return Values(x_BLD, length_B, encoded=True)


component = Pretrained


def _all(x_BLD: Tensor) -> Tensor:
    return torch.ones(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device)


class Network:
    """The network itself, loaded when it is first used. Copies of a model share it."""

    def __init__(self, model: str, identity: str, architecture: dict[str, Any], tower: str) -> None:
        self.model, self.identity, self.architecture, self.tower = model, identity, architecture, tower
        self.folder: Path | None = None  # where a saved model keeps its files
        self.pools = True
        self._loaded: nn.Module | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        return self

    @property
    def files(self) -> Path:
        """The folder of its files. Raises `RecipeError` when they are gone, or are others than those it was trained with."""
        folder = self.folder or weights.find(self.model)
        if weights.identity(folder) != self.identity:
            raise RecipeError(f"the files of '{self.model}' in {folder} are not those that this was trained with")
        return folder

    def on(self, device: torch.device) -> nn.Module:
        if self._loaded is None:
            self._loaded = (self._convolutions() if "network" in self.architecture else self._of_hugging_face()).requires_grad_(False).eval()
        return self._loaded.to(device)

    def _convolutions(self) -> nn.Module:
        network = ConvNet(PLANS[self.architecture["network"]])
        found = load_file(self.files / "model.safetensors")
        network.load_state_dict({k: v for k, v in found.items() if not k.startswith("classifier.")})
        to_channels_last(network)
        return network

    def _of_hugging_face(self) -> nn.Module:
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        safely = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
        whole, info = AutoModel.from_pretrained(self.files, dtype=torch.float32, output_loading_info=True, **safely)
        absent = [key for key in info["missing_keys"] if "pooler" not in key]
        if absent:
            raise RecipeError(f"the files of '{self.model}' lack {len(absent)} of the network's tensors, {min(absent)} among them")
        self.pools = not info["missing_keys"]  # transformers would fill what is missing with random numbers
        if getattr(whole.config, self.tower, None) is None:
            return cast(nn.Module, whole)
        tower: nn.Module = getattr(whole, self.tower.replace("config", "model"))
        return tower


def _width(architecture: dict[str, Any], tower: str) -> int:
    """How wide the network's vectors are. Raises `RecipeError` when transformers is missing, or does not know it."""
    if "network" in architecture:
        return PLANS[architecture["network"]].width
    if importlib.util.find_spec("transformers") is None:
        raise RecipeError("pretrained models of Hugging Face need transformers: pip install 'plait[pretrained]'")
    if isinstance(width := architecture.get("hidden_size"), int) and architecture.get("model_type") in COMMON:
        return width  # saves the import
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = architecture.get("model_type", "")
    if kind not in CONFIG_MAPPING:
        raise RecipeError(f"transformers knows no model of type '{kind}'; one that brings its own code cannot be used: plait never runs that")
    settings = AutoConfig.for_model(**{k: v for k, v in architecture.items() if k not in NOT_FORM})
    settings = getattr(settings, tower, None) or settings
    found = getattr(settings, "hidden_size", None) or getattr(settings, "d_model", None) or (getattr(settings, "hidden_sizes", None) or [0])[-1]
    if not found:
        raise RecipeError(f"how wide the vectors of a '{kind}' are is not in its config.json (hidden_size, d_model, hidden_sizes)")
    return int(found)


def _pool_of_pictures(architecture: dict[str, Any]) -> str:
    """The mean of a grid of convolutions; the first token of a transformer over patches, unless it has none and pools by itself."""
    if "window_size" in architecture or str(architecture.get("model_type", "")).startswith("siglip"):
        return "pooler"
    return "cls" if "patch_size" in architecture and "num_attention_heads" in architecture else "mean"


def _of_text(config: Config) -> dict[str, Any]:
    says = weights.read_json(weights.find(config.model), "sentence_bert_config.json")
    longest = says.get("max_seq_length") or min(int(config.architecture.get("max_position_embeddings", LONGEST)), LONGEST)
    return {"split": "pretrained", "tokenizer": config.model, "max_tokens": longest}


def _of_pictures(says: dict[str, Any]) -> dict[str, Any]:
    """What a `preprocessor_config.json` says of size, form and colours, as options of `image`."""
    size = says.get("crop_size") if says.get("do_center_crop") else says.get("size")
    size = size if size is not None else 224
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge") or 224
    fit = "pad" if says.get("do_pad") else "crop" if says.get("do_center_crop") or (isinstance(size, dict) and "shortest_edge" in size) else "stretch"
    scaled = says.get("do_normalize", True)
    mean, std = (says.get("image_mean", [0.5] * 3), says.get("image_std", [0.5] * 3)) if scaled else (0.0, 1.0)
    return {"size": int(side), "fit": fit, "mean": mean, "std": std}
