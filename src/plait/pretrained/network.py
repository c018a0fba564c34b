"""Load and run pretrained networks, and find out how wide their vectors are.

Shape letters: B rows, N frames of all rows, L tokens, T steps, M mel bands, C channels, H and W the sides of
a grid, D width.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import RecipeError, nearest
from plait.nn.batch import Values
from plait.nn.device import to_channels_last
from plait.nn.layers import masked_mean, steps_mask
from plait.pretrained import files as weights
from plait.pretrained.architecture import config_of, load
from plait.pretrained.convnets import PLANS, ConvNet
from plait.pretrained.files import Architecture
from plait.pretrained.motion import COPIES, SCALE, motion
from plait.pretrained.speech_embedding import SUMMARY, WIDTH, Output, SpeechEmbedding

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput


# Types whose width is `hidden_size`: transformers need not be imported to know it.
COMMON = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "vit", "deit", "dinov2")

# Types that take all frames of a video at once.
OF_CLIPS = ("videomae", "timesformer", "vivit")

CLAP_SPECTRA = 1001  # of ten seconds: all that CLAP reads at once

SHORTEST = 400  # samples that the convolutions of wav2vec 2.0 need to give one vector


@dataclass(frozen=True)
class OwnNetwork:
    """A network that plait builds itself.

    `modalities` are those of the columns that it reads, `width` that of its vectors. It has a pooler if
    `pooled`, the width of the pooler's vectors, is not zero.
    """

    build: Callable[[], nn.Module]
    modalities: tuple[str, ...]
    width: int
    pooled: int = 0


def _own_networks() -> dict[str, OwnNetwork]:
    """Return plait's own networks, by the name in their `config.json`."""
    own = {"speech_embedding": OwnNetwork(SpeechEmbedding, ("audio",), WIDTH, SUMMARY)}
    for name, plan in PLANS.items():
        own[name] = OwnNetwork(partial(ConvNet, plan), ("image", "video"), plan.width)
    return own


OWN = _own_networks()


class Network:
    """A pretrained network. Its module is loaded when it is first used.

    `identity` is a hash of its files (see `files.identity`). `tower` names the entry of the config that
    describes the tower of a model of two towers, such as CLIP.
    """

    def __init__(self, model: str, identity: str, architecture: Architecture, tower: str) -> None:
        # It names a folder within that of a saved model, which a stranger may have written.
        if not re.fullmatch(r"[0-9a-f]{24}", identity):
            raise RecipeError(f"'{model}': identity '{identity[:80]}' is no hash of a network's files")
        self.model = model
        self.identity = identity
        self.architecture = architecture
        self.tower = tower
        self.folder: Path | None = None  # where a saved model keeps its files
        self.pools = True  # whether its pooler has trained weights
        self._loaded: nn.Module | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Network:
        """Return itself: copies of a model share the module, which is large and is not trained."""
        return self

    @property
    def files(self) -> Path:
        """The folder of the network's files.

        Raises `RecipeError` if they are gone, or differ from those that the model was trained with.
        """
        folder = self.folder or weights.find(self.model)
        if weights.identity(folder) != self.identity:
            raise RecipeError(
                f"the files of '{self.model}' in {folder} are not those that this was trained with"
            )
        return folder

    def on(self, device: torch.device) -> nn.Module:
        """Return the network with its pretrained weights on a device, loaded once and frozen."""
        if self._loaded is None:
            network = self.trained()
            if isinstance(network, ConvNet):
                network = network.folded()
            self._loaded = network.requires_grad_(False).eval()
        return self._loaded.to(device)

    def trained(self) -> nn.Module:
        """Return a new copy of the network with its pretrained weights."""
        if "network" in self.architecture:
            return self._own()
        return self._of_hugging_face()

    def untrained(self) -> nn.Module:
        """Return a new network of the same architecture with random weights."""
        if "network" in self.architecture:
            return own(self.architecture).build()
        from transformers import AutoModel

        settings = config_of(self.architecture)
        model = AutoModel.from_config(settings, dtype=torch.float32, trust_remote_code=False)
        return self._of_tower(model)

    def _own(self) -> nn.Module:
        """Return a new copy of one of `OWN`, without the classifier of ImageNet."""
        network = own(self.architecture).build()
        path = self.files / "model.safetensors"
        try:
            tensors = load_file(path)
            kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
            network.load_state_dict(kept)
        except (SafetensorError, OSError, RuntimeError) as error:
            name = self.architecture["network"]
            raise RecipeError(f"'{path}' does not hold the tensors of {name}; remove the folder") from error
        to_channels_last(network)
        return network

    def _of_hugging_face(self) -> nn.Module:
        """Return a new copy of a network of transformers. Raises `RecipeError` if its files lack tensors."""
        from transformers import AutoModel

        with quiet():
            model, report = load(AutoModel, self.files, self.architecture)

        # A pooler and a mask's vector may be missing: nothing here needs them.
        missing = report["missing_keys"]
        absent = [key for key in missing if "pooler" not in key and "masked_spec_embed" not in key]
        if absent:
            raise RecipeError(
                f"the files of '{self.model}' lack {len(absent)} of the network's tensors, {min(absent)} "
                f"among them"
            )

        # transformers fills a missing pooler with random numbers.
        self.pools = not any("pooler" in key for key in missing)
        return self._of_tower(model)

    def _of_tower(self, model: PreTrainedModel) -> nn.Module:
        """Return the module of a model that encodes: its encoder, its tower, or the model itself."""
        if model.config.is_encoder_decoder:
            return cast(nn.Module, model.get_encoder())

        has_towers = getattr(model.config, self.tower, None) is not None
        if not has_towers:
            return cast(nn.Module, model)
        attribute = self.tower.replace("config", "model")  # `vision_config` describes `vision_model`
        tower: nn.Module = getattr(model, attribute)
        return tower

    def vectors(self, module: nn.Module, values: Values, kind: str, pool: str, unit: bool) -> Values:
        """Return what a module of this architecture makes of cells: floats (B, L, D), with lengths.

        `kind` is that of the cells' layout. With `unit`, each vector has length 1. Networks of images give
        one vector of each frame of a video. Raises `RecipeError` if the network does not take such cells, or
        if `pool` is `pooler` and it has none.
        """
        if kind == "frames" and not takes_all_frames(self.architecture):
            return self._of_frames(module, values, pool, unit)

        try:
            output, length_B = self._run(module, values, kind)
        except IndexError as error:
            if kind != "tokens":
                raise
            raise RecipeError(
                f"'{self.model}' has no vector for a token of its tokenizer.json: its files are of different "
                f"models; save the network and the tokenizer of one model"
            ) from error
        except ValueError as error:
            raise RecipeError(
                f"'{self.model}' does not take what the column's options make of cells: {error}"
            ) from error

        if pool == "none" and kind == "spectrogram":
            length_B = None  # Whisper's decoder also reads the silence after the end
        x_BLD, length_B = self._pooled(output, length_B, pool)
        x_BLD = x_BLD.float()
        if unit:
            x_BLD = F.normalize(x_BLD, dim=-1)
        return Values(x_BLD, _lengths_or_all(x_BLD, length_B), encoded=True)

    def _pooled(
        self, output: Tensor | BaseModelOutput | Output, length_B: Tensor | None, pool: str
    ) -> tuple[Tensor, Tensor | None]:
        """Pool a module's output to one vector per cell, unless `pool` is `none`.

        Return the vectors (B, L, D), and their lengths where these differ between rows.
        """
        if pool == "pooler":
            pooled_BD = getattr(output, "pooler_output", None)
            if not self.pools or pooled_BD is None:
                raise RecipeError(f"'{self.model}' has no pooling of its own; use pool: mean")
            return pooled_BD[:, None], None

        x_BLD = output if isinstance(output, Tensor) else output.last_hidden_state
        if x_BLD.ndim == 4:  # a grid (B, D, H, W)
            x_BLD = x_BLD.flatten(2).transpose(1, 2)
        if pool == "cls":
            return x_BLD[:, :1], None
        if pool == "mean":
            mask_BL = steps_mask(x_BLD.shape[1], _lengths_or_all(x_BLD, length_B))
            mean_BD = masked_mean(x_BLD, mask_BL)
            return mean_BD[:, None], None
        return x_BLD, length_B

    def _run(
        self, module: nn.Module, values: Values, kind: str
    ) -> tuple[Tensor | BaseModelOutput | Output, Tensor | None]:
        """Run the module. Return its output, and the lengths of the rows where these differ."""
        if kind == "tokens":
            mask_BL = values.mask_BL().long()
            output = module(input_ids=values.x.long(), attention_mask=mask_BL)
            return output, values.length_B
        if isinstance(module, SpeechEmbedding):
            assert values.length_B is not None
            embedded = module(values.x, values.length_B)
            return embedded, embedded.length_B
        if kind == "wave":
            return self._of_waves(module, values)
        if kind == "spectrogram" and self.architecture.get("model_type") == "clap":
            return self._of_clap(module, values), None
        if kind == "spectrogram":
            return self._of_spectra(module, values)
        if kind == "frames":
            return module(self._spread_frames(values)), None
        return module(values.x), None

    def _spread_frames(self, values: Values) -> Tensor:
        """Return as many frames of each video as the network reads, some twice if the video has fewer."""
        assert values.length_B is not None
        count = int(self.architecture.get("num_frames", values.x.shape[1]))
        last_B1 = (values.length_B - 1).clamp(min=0)[:, None]
        share_T = torch.linspace(0, 1, count, device=last_B1.device)
        frame_BT = (share_T * last_B1).round().long()
        row_B1 = torch.arange(len(frame_BT), device=frame_BT.device)[:, None]
        return values.x[row_B1, frame_BT]

    @staticmethod
    def _of_waves(module: nn.Module, values: Values) -> tuple[Tensor, Tensor]:
        """Run the module on one recording after the other.

        Networks that normalise over time would give other vectors for a padded recording.
        """
        assert values.length_B is not None
        states = []
        for row, length in enumerate(values.length_B):
            wave_1T = values.x[row : row + 1, : int(length)]
            samples = wave_1T.shape[1]
            padding = max(SHORTEST - samples, 0)
            padded_1T = F.pad(wave_1T, (0, padding))
            with _hiding(module, samples):
                state_1LD = module(padded_1T).last_hidden_state
            states.append(state_1LD[0])

        length_B = torch.tensor([len(state_LD) for state_LD in states], device=values.x.device)
        x_BLD = nn.utils.rnn.pad_sequence(states, batch_first=True)
        return x_BLD, length_B

    @staticmethod
    def _of_spectra(module: PreTrainedModel, values: Values) -> tuple[Tensor, Tensor]:
        """Run the module on spectra in the form that Whisper was trained on.

        Levels more than 80 dB below a recording's loudest band are raised to 80 dB below it. All recordings
        are padded with silence to the longest that Whisper reads.
        """
        assert values.length_B is not None
        bands = values.x.shape[2]
        expected_bands = int(module.config.num_mel_bins)
        if bands != expected_bands:
            raise RecipeError(
                f"the network takes {expected_bands} mel bands, the recordings have {bands}: leave the "
                f"modality's bands to it"
            )

        mask_BT1 = values.mask_BL()[..., None]
        x_BTM = values.x.float().masked_fill(~mask_BT1, -math.inf)

        # Levels are powers of ten, which `Audio.transform` scales as (level + 4) / 4. So 80 dB are 8 / 4.
        loudest_B11 = x_BTM.amax((1, 2), keepdim=True)
        floor_B11 = (loudest_B11 - 8 / 4).clamp(min=(-10 + 4) / 4)

        # A convolution of stride 2 makes one vector of two spectra.
        steps = 2 * int(module.config.max_source_positions)
        padding = steps - x_BTM.shape[1]
        padded_BTM = F.pad(x_BTM, (0, 0, 0, padding), value=-math.inf)
        x_BTM = torch.maximum(padded_BTM, floor_B11)
        x_BLD = module(x_BTM.transpose(1, 2)).last_hidden_state
        return x_BLD, (values.length_B + 1) // 2

    @staticmethod
    def _of_clap(module: PreTrainedModel, values: Values) -> BaseModelOutput:
        """Run the module on spectra in the form that CLAP was trained on (Wu et al. 2023).

        A recording is repeated as often as it fits into ten seconds, and silence follows. Levels are in dB.
        Networks that join four views of long recordings see the same one four times.
        """
        assert values.length_B is not None
        step_T = torch.arange(CLAP_SPECTRA, device=values.x.device)
        length_B1 = values.length_B.clamp(1, CLAP_SPECTRA)[:, None]
        source_BT = (step_T % length_B1).clamp(max=values.x.shape[1] - 1)
        repeated_BTM = values.x.float().gather(1, source_BT[..., None].expand(-1, -1, values.x.shape[2]))

        # `Audio.transform` scales levels in powers of ten as (level + 4) / 4; silence has the level -10.
        is_filled_BT = step_T < CLAP_SPECTRA // length_B1 * length_B1
        level_BTM = (repeated_BTM * 4 - 4).masked_fill(~is_filled_BT[..., None], -10)
        decibel_B1TM = 10 * level_BTM[:, None]
        if not module.config.enable_fusion:
            return module(input_features=decibel_B1TM)
        is_longer_B1 = torch.zeros(len(level_BTM), 1, dtype=torch.bool, device=level_BTM.device)
        return module(input_features=decibel_B1TM.expand(-1, 4, -1, -1), is_longer=is_longer_B1)

    def _of_frames(self, module: nn.Module, values: Values, pool: str, unit: bool) -> Values:
        """Return one vector for each frame within a video's length."""
        mask_BT = values.mask_BL()
        images_NCHW = values.x[mask_BT].contiguous(memory_format=torch.channels_last)
        vectors_N1D = self.vectors(module, Values(images_NCHW), "grid", pool, unit).x
        vectors_ND = vectors_N1D[:, 0]
        x_BTD = vectors_ND.new_zeros(*mask_BT.shape, vectors_ND.shape[1])
        x_BTD = x_BTD.index_put(mask_BT.nonzero(as_tuple=True), vectors_ND)
        return Values(x_BTD, values.length_B, encoded=True)


def takes_all_frames(architecture: Architecture) -> bool:
    """Return whether a network takes all frames of a video at once, not one image after the other."""
    return architecture.get("model_type") in OF_CLIPS


def with_motion(frames: Values, vectors: Values) -> Values:
    """Return one vector of each video, (B, 1, D + 224): the mean of its frames' vectors, and their motion."""
    mask_BT = frames.mask_BL()
    mean_BD = masked_mean(vectors.x, mask_BT)
    with torch.autocast(frames.x.device.type, enabled=False):
        motion_BD = motion(frames.x, mask_BT) * SCALE
    x_B1D = torch.cat([mean_BD, motion_BD.repeat(1, COPIES)], 1)[:, None]
    return Values(x_B1D, _lengths_or_all(x_B1D, None), encoded=True)


def _lengths_or_all(x_BLD: Tensor, length_B: Tensor | None) -> Tensor:
    """Return the lengths of the rows. Without lengths, all tokens are valid."""
    if length_B is not None:
        return length_B
    rows, length, _ = x_BLD.shape
    return torch.full((rows,), length, device=x_BLD.device)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and reports of transformers.

    Users need not know of tensors that are not used. plait itself reports those that are missing.
    """
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _steps(config: PretrainedConfig, samples: int) -> int:
    """Return how many vectors a network of waves makes of so many samples.

    Its convolutions make fewer steps of them, and its adapters fewer still.
    """
    layers = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    if getattr(config, "add_adapter", False):
        layers += [(1, config.adapter_stride)] * config.num_adapter_layers
    for kernel, stride in layers:
        samples = (samples - kernel) // stride + 1
    return samples


@contextmanager
def _hiding(module: PreTrainedModel, samples: int) -> Iterator[None]:
    """Let a network hide stretches of time in training, but not in a recording shorter than a stretch.

    transformers raises an error for such a recording.
    """
    config = module.config
    augments = getattr(config, "apply_spec_augment", False)
    is_long_enough = False
    if module.training and augments:
        steps = _steps(config, max(samples, SHORTEST))
        is_long_enough = steps > config.mask_time_length

    config.apply_spec_augment = is_long_enough
    try:
        yield
    finally:
        config.apply_spec_augment = augments


def own(architecture: Architecture) -> OwnNetwork:
    """Return which of plait's own networks a config names. Raises `RecipeError` if there is none."""
    name = str(architecture["network"])
    if name not in OWN:
        raise RecipeError(f"config.json: plait has no network '{name[:80]}': {nearest(name[:80], OWN)}")
    return OWN[name]


def check_modality(model: str, architecture: Architecture, modality: str) -> None:
    """Raise `RecipeError` if a network is one of plait's own that does not read columns of a modality."""
    if "network" not in architecture:
        return
    readable = own(architecture).modalities
    if modality not in readable:
        raise RecipeError(f"the model '{model}' reads columns of {' or '.join(readable)}, not of {modality}")


def width(architecture: Architecture, tower: str, pool: str) -> int:
    """Return how wide a network's vectors are, pooled in this way.

    Raises `RecipeError` if transformers is not installed or does not know the network, or if the network's
    config does not state the width.
    """
    if "network" in architecture:
        network = own(architecture)
        return network.pooled if pool == "pooler" and network.pooled else network.width
    if importlib.util.find_spec("transformers") is None:
        raise RecipeError(
            "pretrained models of Hugging Face need transformers: pip install 'plait[pretrained]'"
        )

    kind = architecture.get("model_type", "")
    size = architecture.get("hidden_size")
    if isinstance(size, int) and kind in COMMON:
        return size
    settings = config_of(architecture)  # takes seconds
    tower_settings = getattr(settings, tower, None) or settings
    size = _stated_width(tower_settings)
    if not size:
        raise RecipeError(
            f"how wide the vectors of a '{kind}' are is not in its config.json (hidden_size, d_model, "
            f"hidden_sizes)"
        )
    return size


def _stated_width(settings: Architecture) -> int:
    """Return the width that a config states under one of its usual names; 0 if it states none."""
    for name in ("hidden_size", "d_model"):
        size = getattr(settings, name, None)
        if size:
            return int(size)
    sizes = getattr(settings, "hidden_sizes", None)
    if not sizes:
        return 0
    return int(sizes[-1])
