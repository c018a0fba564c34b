"""A pretrained network: frozen, its vectors computed once for each cell, or trained further, whole or
by small additions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.encoders.base import Encoder
from plait.errors import RecipeError
from plait.nn.batch import Kind, Layout, Tokens, Values
from plait.nn.layers import Dropout
from plait.pretrained import files as weights
from plait.pretrained import network as networks
from plait.pretrained.network import Network
from plait.recipe.registry import Options

DEFAULT = {"text": "minilm", "image": "efficientnet_lite0", "video": "efficientnet_lite0", "audio": ""}


MANY = 2000  # rows from which, on a GPU, adapting a network is worth its time


class Config(Options):
    """`model` is a folder, a name on the Hugging Face hub, or one that comes in a package (`minilm` for
    text, `efficientnet_lite0` and `mobilenet_v2` for pictures and the frames of clips). Sounds take
    networks that read waves, as wav2vec 2.0 does, or Whisper's encoder.

    `pool` makes one vector of a cell, of clips one of each frame: the `mean` of the model's, its first
    one (`cls`), its own `pooler`; `none` keeps all of them, for fusions that attend to them. `auto`
    does as the model's files say. `unit` scales vectors to length 1; `norm` scales them to mean 0 and
    variance 1, each by itself, as most of what comes next likes best.

    `mode`: `frozen` computes vectors once and trains only what comes after them. `lora` adds small
    matrices of `rank` to the products in the last `layers` blocks and trains these (Hu et al. 2022, eq.
    3). `full` trains all of it, with a learning rate of `rate` times the recipe's in the last block and
    `decay` times less in each before (Howard & Ruder 2018, sec. 3.2). `auto` is `lora` on a GPU from
    2,000 rows on, else `frozen`. `architecture`, `identity` and `why` are filled in.
    """

    model: str = "auto"
    mode: Literal["auto", "frozen", "lora", "full"] = "auto"
    pool: Literal["auto", "mean", "cls", "pooler", "none"] = "auto"
    unit: bool | None = None
    norm: bool = True
    dropout: float = Field(0.1, ge=0, lt=1)
    layers: int = Field(4, ge=1)
    rank: int = Field(8, ge=1)
    rate: float = Field(0.05, gt=0, description="of lora and full, times the recipe's learning rate")
    decay: float = Field(0.8, gt=0, le=1)
    architecture: dict[str, Any] = Field({}, description="filled in: what the model's files say")
    identity: str = Field("", description="filled in: which files these are")
    why: str = Field("", description="filled in: the reason of the mode")


class Pretrained(Encoder):
    """The network's vectors for each cell, normalised (Ba et al. 2016, eq. 4; without its scale, which
    what comes next can learn) unless `norm` is off. Vectors that stand in for cells (`Values.encoded`)
    are normalised already.

    Frozen, the network is no part of the module: it is not trained, not saved with the weights, and not
    even loaded while every vector that is asked for has been computed before. Otherwise see `Tuned`.
    """

    options = Config
    takes = frozenset({"tokens", "grid", "frames", "wave", "spectrogram"})
    pretrained = True

    def __init__(self, network: Network, kind: Kind, width: int, config: Config) -> None:
        super().__init__()
        self.network, self.kind, self.pool, self.unit = network, kind, config.pool, bool(config.unit)
        self.norm, self.dropout = _norm(config, width), Dropout(config.dropout)
        self.width = width

    @classmethod
    def settled(cls, config: Config, modality: str, rows: int = 0) -> Config:
        if config.architecture:
            return config
        if modality not in DEFAULT:
            raise RecipeError(
                f"encoder 'pretrained' takes columns of {', '.join(DEFAULT)}, not of {modality}"
            )
        name = DEFAULT[modality] if config.model == "auto" else config.model
        if not name:
            raise RecipeError(
                f"no network for {modality} comes in a package: name one, as in {{name: pretrained, model: "
                f"FOLDER}}"
            )
        folder = weights.find(name)
        architecture = weights.read_json(folder, "config.json")
        files = {
            m.get("path"): m.get("type", "")
            for m in weights.read_json(folder, "modules.json").get("list", [])
        }
        pool = networks.pooling(folder, architecture, modality) if config.pool == "auto" else config.pool
        if pool == "none" and modality == "video":
            raise RecipeError(
                "encoder 'pretrained': clips have one vector for each frame; expected pool mean, cls or "
                "pooler"
            )
        unit = any(t.endswith(".Normalize") for t in files.values()) if config.unit is None else config.unit
        found = {
            "model": name,
            "pool": pool,
            "unit": unit,
            "architecture": architecture,
            "identity": weights.identity(folder),
        }
        return config.model_copy(update=found | _mode(config.mode, rows))

    @classmethod
    def asks(cls, config: Config, modality: str) -> dict[str, Any]:
        return networks.asked(config.model, config.architecture, modality)

    @classmethod
    def frozen(cls, config: Config) -> bool:
        return config.mode == "frozen"

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Encoder:
        tower = "text_config" if layout.kind == "tokens" else "vision_config"
        network, size = (
            Network(config.model, config.identity, config.architecture, tower),
            networks.width(config.architecture, tower),
        )
        if config.mode == "frozen":
            return cls(network, layout.kind, size, config)
        return Tuned(network, layout.kind, size, config)

    def forward(self, values: Values) -> Tokens:
        if values.encoded:
            return Tokens(self.dropout(values.x), values.mask_BL())
        values = self.embed(values)
        return Tokens(self.dropout(self.norm(values.x)), values.mask_BL())

    @torch.no_grad()
    def embed(self, values: Values) -> Values:
        """The network's vectors, floats of shape (B, L, D): all that is computed once."""
        return self.network.vectors(self.network.on(values.x.device), values, self.kind, self.pool, self.unit)


component = Pretrained


class Tuned(Encoder):
    """A pretrained network as a part of the model, trained with it. Statistics of batch normalisation
    stay as they are.
    """

    options = Config
    takes = Pretrained.takes
    pretrained = True

    def __init__(self, network: Network, kind: Kind, width: int, config: Config) -> None:
        super().__init__()
        self.network, self.kind, self.config, self.width = network, kind, config, width
        self.body = network.untrained()
        blocks = _blocks(self.body)[-config.layers :]
        if config.mode == "lora":
            _add_adapters(self.body, blocks, config.rank)
        self.norm, self.dropout = _norm(config, width), Dropout(config.dropout)

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Encoder:
        return Pretrained.build(config, layout)

    def begin(self) -> None:
        known = self.body.state_dict()
        given = self.network.trained().state_dict()
        renamed = {
            key if key in known else ".base_layer.".join(key.rsplit(".", 1)): value
            for key, value in given.items()
        }
        absent, _ = self.body.load_state_dict(renamed, strict=False)
        assert all("lora_" in key for key in absent), absent

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        """Each trained parameter of the network with its learning rate, as a share of the recipe's."""
        blocks = _blocks(self.body)
        depth = {id(p): len(blocks) - 1 - i for i, block in enumerate(blocks) for p in block.parameters()}
        inside = False
        for parameter in self.body.parameters():
            inside = inside or id(parameter) in depth
            below = depth.get(
                id(parameter), 0 if inside else len(blocks)
            )  # what comes before the blocks; after them
            if parameter.requires_grad:
                yield (
                    parameter,
                    self.config.rate * (self.config.decay**below if self.config.mode == "full" else 1.0),
                )

    def train(self, mode: bool = True) -> Tuned:
        super().train(mode)
        for part in self.body.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        return self

    def forward(self, values: Values) -> Tokens:
        found = self.network.vectors(self.body, values, self.kind, self.config.pool, bool(self.config.unit))
        return Tokens(self.dropout(self.norm(found.x)), found.mask_BL())


def _norm(config: Config, width: int) -> nn.Module:
    return nn.LayerNorm(width, elementwise_affine=False) if config.norm else nn.Identity()


def _mode(asked: str, rows: int) -> dict[str, str]:
    if asked != "auto":
        return {"mode": asked}
    if torch.cuda.is_available() and rows >= MANY:
        return {"mode": "lora", "why": f"{rows:,} rows and a GPU: worth adapting"}
    return {
        "mode": "frozen",
        "why": f"{rows:,} rows" if torch.cuda.is_available() else "no GPU: vectors are computed once",
    }


def _blocks(body: nn.Module) -> list[nn.Module]:
    """The network's blocks, in order: its longest list of modules."""
    lists = [m for m in body.modules() if isinstance(m, (nn.ModuleList, nn.Sequential))]
    return list(cast(nn.Sequential, max(lists, key=len))) if lists else [body]


def _add_adapters(body: nn.Module, blocks: list[nn.Module], rank: int) -> None:
    """LoRA by peft on every product (dense layers, convolutions of one pixel) in these blocks; all else
    is no longer trained.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError:
        raise RecipeError("mode 'lora' needs peft: pip install 'plait[pretrained]'") from None
    inside = {id(part) for block in blocks for part in block.modules()}

    def fits(part: nn.Module) -> bool:
        return isinstance(part, nn.Linear) or (
            isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1
        )

    names = [name for name, part in body.named_modules() if id(part) in inside and fits(part)]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), body)
    for name, parameter in body.named_parameters():
        parameter.requires_grad_("lora_" in name)
