"""Pretrained networks: loaded from their files, or built as those describe them; how wide they are, and
what they want to be given.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import RecipeError
from plait.nn.batch import Values
from plait.nn.device import to_channels_last
from plait.nn.layers import masked_mean
from plait.pretrained import files as weights
from plait.pretrained.convnets import PLANS, ConvNet
from plait.pretrained.files import Architecture
from plait.table.json import JSON

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput


NOT_FORM = (
    "auto_map",
    "transformers_version",
    "dtype",
    "torch_dtype",
)  # entries of a config that do not describe the network


COMMON = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "vit", "deit", "dinov2")


OF_CLIPS = ("videomae", "timesformer", "vivit")  # types that take all frames at once


OF_WAVES = (
    "wav2vec2",
    "hubert",
    "wavlm",
    "unispeech",
    "unispeech-sat",
    "data2vec-audio",
    "sew",
    "sew-d",
    "wav2vec2-conformer",
)


LONGEST = 512  # tokens of a text, where the model does not say


OF_SPECTRA = ("whisper",)  # types that take mel spectrograms as `audio` makes them


SHORTEST = 400  # samples that the convolutions of wav2vec 2.0 need to give one vector


class Network:
    """A pretrained network. Its own module is loaded when it is first used; copies of a model share it."""

    def __init__(self, model: str, identity: str, architecture: Architecture, tower: str) -> None:
        self.model, self.identity, self.architecture, self.tower = model, identity, architecture, tower
        self.folder: Path | None = None  # where a saved model keeps its files
        self.pools = True
        self._loaded: nn.Module | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Network:
        return self

    @property
    def files(self) -> Path:
        """The folder of its files. Raises `RecipeError` when they are gone, or are others than those it
        was trained with.
        """
        folder = self.folder or weights.find(self.model)
        if weights.identity(folder) != self.identity:
            raise RecipeError(
                f"the files of '{self.model}' in {folder} are not those that this was trained with"
            )
        return folder

    def on(self, device: torch.device) -> nn.Module:
        """The network with its weights, not to be trained."""
        if self._loaded is None:
            found = self.trained()
            self._loaded = (
                (found.folded() if isinstance(found, ConvNet) else found).requires_grad_(False).eval()
            )
        return self._loaded.to(device)

    def trained(self) -> nn.Module:
        """The network with its weights, of the caller's own."""
        return self._convolutions() if "network" in self.architecture else self._of_hugging_face()

    def untrained(self) -> nn.Module:
        """A network of the same form with weights at random, of the caller's own."""
        if "network" in self.architecture:
            return ConvNet(PLANS[self.architecture["network"]])
        from transformers import AutoConfig, AutoModel

        settings = AutoConfig.for_model(**{k: v for k, v in self.architecture.items() if k not in NOT_FORM})
        return self._of_tower(AutoModel.from_config(settings, dtype=torch.float32, trust_remote_code=False))

    def _convolutions(self) -> nn.Module:
        network = ConvNet(PLANS[self.architecture["network"]])
        found = load_file(self.files / "model.safetensors")
        network.load_state_dict({k: v for k, v in found.items() if not k.startswith("classifier.")})
        to_channels_last(network)
        return network

    def _of_hugging_face(self) -> nn.Module:
        from transformers import AutoModel

        safely = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
        with quiet():
            whole, info = AutoModel.from_pretrained(
                self.files, dtype=torch.float32, output_loading_info=True, **safely
            )
        absent = [
            key for key in info["missing_keys"] if "pooler" not in key and "masked_spec_embed" not in key
        ]
        if absent:
            raise RecipeError(
                f"the files of '{self.model}' lack {len(absent)} of the network's tensors, {min(absent)} "
                f"among them"
            )
        self.pools = not any(
            "pooler" in key for key in info["missing_keys"]
        )  # transformers would fill what is missing with random numbers
        return self._of_tower(whole)

    def _of_tower(self, whole: PreTrainedModel) -> nn.Module:
        if whole.config.is_encoder_decoder:
            return cast(nn.Module, whole.get_encoder())
        if getattr(whole.config, self.tower, None) is None:
            return cast(nn.Module, whole)
        tower: nn.Module = getattr(whole, self.tower.replace("config", "model"))
        return tower

    def vectors(self, module: nn.Module, values: Values, kind: str, pool: str, unit: bool) -> Values:
        """What a module of this form makes of cells of a layout: floats (B, L, D), with lengths."""
        if kind == "frames" and self.architecture.get("model_type") not in OF_CLIPS:
            return self._of_frames(module, values, pool, unit)
        try:
            found, length_B = self._run(module, values, kind)
        except ValueError as error:
            raise RecipeError(
                f"'{self.model}' does not take what the column's options make of cells: {error}"
            ) from error
        length_B = (
            None if pool == "none" and kind == "spectrogram" else length_B
        )  # its decoder knows the silence behind the end, too
        x_BLD = found if isinstance(found, Tensor) else found.last_hidden_state
        x_BLD = x_BLD.flatten(2).transpose(1, 2) if x_BLD.ndim == 4 else x_BLD
        if pool == "pooler":
            pooled_BD = getattr(found, "pooler_output", None)
            if not self.pools or pooled_BD is None:
                raise RecipeError(f"'{self.model}' has no pooling of its own; use pool: mean")
            x_BLD, length_B = pooled_BD[:, None], None
        elif pool == "cls":
            x_BLD, length_B = x_BLD[:, :1], None
        elif pool == "mean":
            full = (
                torch.full((len(x_BLD),), x_BLD.shape[1], device=x_BLD.device)
                if length_B is None
                else length_B
            )
            x_BLD, length_B = masked_mean(x_BLD, Values(x_BLD, full).mask_BL())[:, None], None
        x_BLD = F.normalize(x_BLD.float(), dim=-1) if unit else x_BLD.float()
        length_B = (
            torch.full((len(x_BLD),), x_BLD.shape[1], device=x_BLD.device) if length_B is None else length_B
        )
        return Values(x_BLD, length_B, encoded=True)

    def _run(
        self, module: nn.Module, values: Values, kind: str
    ) -> tuple[Tensor | BaseModelOutput, Tensor | None]:
        """The module's own output, and how many of its tokens are valid where that differs between rows."""
        if kind == "tokens":
            return module(input_ids=values.x.long(), attention_mask=values.mask_BL().long()), values.length_B
        if kind == "wave":
            return self._of_waves(module, values)
        if kind == "spectrogram":
            return self._of_spectra(module, values)
        if kind == "frames":
            assert values.length_B is not None
            count = int(self.architecture.get("num_frames", values.x.shape[1]))
            last_B = (values.length_B - 1).clamp(min=0)[:, None]
            at = (
                (torch.linspace(0, 1, count, device=last_B.device) * last_B).round().long()
            )  # of a shorter clip some twice
            return module(values.x[torch.arange(len(at), device=at.device)[:, None], at]), None
        return module(values.x), None

    @staticmethod
    def _of_waves(module: nn.Module, values: Values) -> tuple[Tensor, Tensor]:
        """One sound after the other: where networks normalise over time, what is padded would not be
        the same.
        """
        assert values.length_B is not None
        waves = [values.x[i : i + 1, : int(n)] for i, n in enumerate(values.length_B)]
        states = []
        for wave in waves:
            with _hiding(module, wave.shape[1]):
                states.append(module(F.pad(wave, (0, max(SHORTEST - wave.shape[1], 0)))).last_hidden_state[0])
        length_B = torch.tensor([len(s) for s in states], device=values.x.device)
        return nn.utils.rnn.pad_sequence(states, batch_first=True), length_B

    @staticmethod
    def _of_spectra(module: PreTrainedModel, values: Values) -> tuple[Tensor, Tensor]:
        """Spectra as Whisper knows them: what is 80 dB below a recording's loudest band, or more, is
        raised to that, and all are as long as the longest that it reads, with silence behind them.
        """
        assert values.length_B is not None
        bands, asked = values.x.shape[2], int(module.config.num_mel_bins)
        if bands != asked:
            raise RecipeError(
                f"the network takes {asked} mel bands, the recordings have {bands}: leave the modality's "
                f"bands to it"
            )
        steps, mask_BT1 = 2 * int(module.config.max_source_positions), values.mask_BL()[..., None]
        x_BTM = values.x.float().masked_fill(~mask_BT1, -math.inf)
        floor_B = (x_BTM.amax((1, 2), keepdim=True) - 8 / 4).clamp(
            min=(-10 + 4) / 4
        )  # in powers of ten, as `Audio.transform` scales them
        x_BTM = torch.maximum(F.pad(x_BTM, (0, 0, 0, steps - x_BTM.shape[1]), value=-math.inf), floor_B)
        return module(x_BTM.transpose(1, 2)).last_hidden_state, (values.length_B + 1) // 2

    def _of_frames(self, module: nn.Module, values: Values, pool: str, unit: bool) -> Values:
        """One vector for each frame within a clip's length."""
        mask_BT = values.mask_BL()
        pictures = Values(values.x[mask_BT].contiguous(memory_format=torch.channels_last))
        vectors = self.vectors(module, pictures, "grid", pool, unit).x[:, 0]
        x_BTD = vectors.new_zeros(*mask_BT.shape, vectors.shape[1])
        return Values(
            x_BTD.index_put((mask_BT.nonzero(as_tuple=True)), vectors), values.length_B, encoded=True
        )


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no reports of transformers: tensors that are not used are none of a user's business,
    those that lack are told here.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _steps(config: PretrainedConfig, samples: int) -> int:
    """Return how many vectors such a network makes of so many samples: of its convolutions and adapters."""
    layers = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    if getattr(config, "add_adapter", False):
        layers += [(1, config.adapter_stride)] * config.num_adapter_layers
    for kernel, stride in layers:
        samples = (samples - kernel) // stride + 1
    return samples


@contextmanager
def _hiding(module: PreTrainedModel, samples: int) -> Iterator[None]:
    """In training these networks hide stretches of time from themselves; not in a recording that is
    shorter than one, which is an error there.
    """
    asked = getattr(module.config, "apply_spec_augment", False)
    steps = _steps(module.config, max(samples, SHORTEST)) if module.training and asked else 0
    module.config.apply_spec_augment = asked and steps > module.config.mask_time_length
    try:
        yield
    finally:
        module.config.apply_spec_augment = asked


def width(architecture: Architecture, tower: str) -> int:
    """How wide the network's vectors are. Raises `RecipeError` when transformers is missing, or does
    not know it.
    """
    if "network" in architecture:
        return PLANS[architecture["network"]].width
    if importlib.util.find_spec("transformers") is None:
        raise RecipeError(
            "pretrained models of Hugging Face need transformers: pip install 'plait[pretrained]'"
        )
    if isinstance(size := architecture.get("hidden_size"), int) and architecture.get("model_type") in COMMON:
        return size  # saves the import
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = architecture.get("model_type", "")
    if kind not in CONFIG_MAPPING:
        raise RecipeError(
            f"transformers knows no model of type '{kind}'; one that brings its own code cannot be used: "
            f"plait never runs that"
        )
    settings = AutoConfig.for_model(**{k: v for k, v in architecture.items() if k not in NOT_FORM})
    settings = getattr(settings, tower, None) or settings
    found = (
        getattr(settings, "hidden_size", None)
        or getattr(settings, "d_model", None)
        or (getattr(settings, "hidden_sizes", None) or [0])[-1]
    )
    if not found:
        raise RecipeError(
            f"how wide the vectors of a '{kind}' are is not in its config.json (hidden_size, d_model, "
            f"hidden_sizes)"
        )
    return int(found)


def pooling(folder: Path, architecture: Architecture, modality: str) -> str:
    """How the model's files say that its vectors become one."""
    if modality == "text":
        return (
            "cls"
            if weights.read_json(folder, "1_Pooling/config.json").get("pooling_mode_cls_token")
            else "mean"
        )
    if modality == "audio" or architecture.get("model_type") in OF_CLIPS:
        return "mean"
    vision = architecture.get("vision_config", architecture)
    # the mean of a grid of convolutions; the first token of a transformer over patches, unless it has
    # none and pools by itself
    if "window_size" in vision or str(vision.get("model_type", "")).startswith("siglip"):
        return "pooler"
    return "cls" if "patch_size" in vision and "num_attention_heads" in vision else "mean"


def asked(model: str, architecture: Architecture, modality: str) -> JSON:
    """Options of the modality that give the network what it was trained on, from its files."""
    folder = weights.find(model)
    if modality == "text":
        says = weights.read_json(folder, "sentence_bert_config.json")
        longest = says.get("max_seq_length") or min(
            int(architecture.get("max_position_embeddings", LONGEST)), LONGEST
        )
        return {"split": "pretrained", "tokenizer": model, "max_tokens": longest}
    says = weights.read_json(folder, "preprocessor_config.json")
    if modality == "audio":
        if (kind := architecture.get("model_type")) in OF_SPECTRA:
            return _of_sounds(says, architecture)
        if kind not in OF_WAVES:
            raise RecipeError(
                f"'{model}' is a '{kind}'; for sounds expected one of {', '.join((*OF_WAVES, *OF_SPECTRA))}"
            )
        return {
            "form": "wave",
            "rate": int(says.get("sampling_rate", 16_000)),
            "unit": bool(says.get("do_normalize", True)),
        }
    frames = (
        {"frames": int(architecture["num_frames"])}
        if modality == "video" and "num_frames" in architecture
        else {}
    )
    return {**_of_pictures(says), **frames}


def _of_sounds(says: Architecture, architecture: Architecture) -> JSON:
    """What a network of spectra asks for, as options of `audio`: all of a recording up to the longest
    that it reads.
    """
    rate = int(says.get("sampling_rate", 16_000))
    window, hop = (int(says.get(name, given)) / rate for name, given in (("n_fft", 400), ("hop_length", 160)))
    seconds = 2 * int(architecture.get("max_source_positions", 1500)) * hop
    shape = {
        "rate": rate,
        "window": window,
        "hop": hop,
        "bands": int(architecture.get("num_mel_bins", 80)),
        "lowest": 0.0,
        "highest": rate / 2,
    }
    return {**shape, "view": "centre", "seconds": seconds, "longest": seconds}


def _of_pictures(says: Architecture) -> JSON:
    """What a `preprocessor_config.json` says of size, form and colours, as options of `image`."""
    size = says.get("crop_size") if says.get("do_center_crop") else says.get("size")
    size = size if size is not None else 224
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge") or 224
    fit = (
        "pad"
        if says.get("do_pad")
        else "crop"
        if says.get("do_center_crop") or (isinstance(size, dict) and "shortest_edge" in size)
        else "stretch"
    )
    scaled = says.get("do_normalize", True)
    mean, std = (
        (says.get("image_mean", [0.5] * 3), says.get("image_std", [0.5] * 3)) if scaled else (0.0, 1.0)
    )
    return {"size": int(side), "fit": fit, "mean": mean, "std": std}
