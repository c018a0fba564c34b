"""Google's speech embedding: a small convolutional network that turns 0.8 s of sound into 96 numbers.

Lin et al. 2020, "Training keyword spotters with limited and synthesized speech data". Its weights and its mel
bands come inside the package openwakeword, as two ONNX files. They are read once, and never run.

Shape letters: B rows, S samples, T spectra, F frequencies, M mel bands, C channels, L windows, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import RecipeError
from plait.nn.layers import masked_mean, steps_mask
from plait.nn.mel import mel_triangles

RATE = 16_000  # samples a second
SPECTRUM = 512  # samples of one spectrum
WINDOW = 400  # samples in its middle that Hann's window lets through
HOP = 160  # samples from one spectrum to the next
BANDS = 32  # that the network reads, up to 3,800 Hz
FULL_SCALE = 32_768  # the network was trained on samples of 16 bits
FLOOR = 1e-10  # lower powers are raised to this: the logarithm of zero is not finite
RANGE = 8.0  # powers of ten below a recording's loudest band, to which quieter ones are raised
OFFSET = 2.0  # that is added to the powers of ten

SPECTRA = 76  # that one window of the network covers
STRIDE = 8  # spectra from one window to the next: 80 ms
SHORTEST = SPECTRUM + (SPECTRA - 1) * HOP  # samples of one window; shorter recordings are padded
WIDTH = 96  # numbers of one window
TOGETHER = 640_000  # samples that are encoded at once: spectra take a hundred times their memory

FINE_BANDS = 64  # of the summary, up to half the rate
QUANTILES = (0.1, 0.5, 0.9)  # of the levels over time
SUMMARY = 2 * WIDTH + (len(QUANTILES) + 1) * FINE_BANDS + 1  # numbers of the summary

# What brings the parts of a summary to about the same scale: numbers of windows, levels in powers of ten with
# their middle, and changes of levels.
VECTOR_SCALE = 0.1
LEVEL_SCALE, LEVEL_MIDDLE = 0.5, -4.0
CHANGE_SCALE = 10.0


class Stage(NamedTuple):
    """Pairs of convolutions of the same number of channels, and the pooling at their end (time, bands)."""

    channels: int
    pairs: int
    pool: tuple[int, int]


STAGES = (
    Stage(24, 1, (2, 2)),
    Stage(48, 2, (1, 2)),
    Stage(72, 2, (2, 2)),
    Stage(96, 2, (1, 2)),
    Stage(96, 2, (2, 2)),
)


@dataclass
class Output:
    """What the network makes of recordings, under the names of transformers.

    `last_hidden_state` has the vectors of their windows, (B, L, 96), of which `length_B` are valid.
    `pooler_output` has one vector of each recording, see `SpeechEmbedding.summary`.
    """

    last_hidden_state: Tensor
    length_B: Tensor
    pooler_output: Tensor


class SpeechEmbedding(nn.Module):
    """Turn samples into a vector for each window of 0.8 s, and into one vector of the recording.

    Convolutions do not pad time. So all windows of a recording are computed at once, and each is what the
    network makes of its 76 spectra alone.
    """

    bands_FM: Tensor
    fine_bands_FM: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands_FM", torch.zeros(SPECTRUM // 2 + 1, BANDS))
        fine_bands_FM = mel_triangles(RATE, SPECTRUM, FINE_BANDS, 0.0, RATE / 2)
        self.register_buffer("fine_bands_FM", fine_bands_FM, persistent=False)
        margin = (SPECTRUM - WINDOW) // 2
        window = F.pad(torch.hann_window(WINDOW), (margin, margin))
        self.register_buffer("window", window, persistent=False)

        channels = STAGES[0].channels
        self.stem = nn.Conv2d(1, channels, 3, padding=(0, 1), bias=False)
        self.stem_norm = nn.BatchNorm2d(channels, eps=1e-3)
        self.stages = nn.ModuleList()
        for stage in STAGES:
            self.stages.append(_Pairs(channels, stage))
            channels = stage.channels
        self.last = nn.Conv2d(channels, WIDTH, (3, 1), bias=False)

    def forward(self, wave_BS: Tensor, length_B: Tensor) -> Output:
        """Encode recordings of `length_B` samples between -1 and 1, at 16 kHz.

        One that is shorter than a window is repeated until it fills one: the network was trained on windows
        that speech fills.
        """
        # Powers reach over more digits than bf16 has.
        outputs = []
        with torch.autocast(wave_BS.device.type, enabled=False):
            for rows in torch.arange(len(wave_BS)).split(max(TOGETHER // wave_BS.shape[1], 1)):
                longest = int(length_B[rows].max())
                outputs.append(self._encode(wave_BS[rows, :longest].float(), length_B[rows]))

        vectors_BLD = [x_LD for output in outputs for x_LD in output.last_hidden_state]
        return Output(
            nn.utils.rnn.pad_sequence(vectors_BLD, batch_first=True),
            torch.cat([output.length_B for output in outputs]),
            torch.cat([output.pooler_output for output in outputs]),
        )

    def _encode(self, wave_BS: Tensor, length_B: Tensor) -> Output:
        """Encode some recordings at once."""
        power_BTF = self._power(wave_BS, length_B)
        x_BLD = self.windows(self._mel(power_BTF, length_B))
        count_B = (_spectrum_count(length_B, SPECTRA) - SPECTRA) // STRIDE + 1
        x_BLD = x_BLD * steps_mask(x_BLD.shape[1], count_B)[..., None]
        return Output(x_BLD, count_B, self.summary(x_BLD, count_B, power_BTF, length_B))

    def windows(self, mel_BTM: Tensor) -> Tensor:
        """Return a vector of each window, (B, L, 96), from levels (B, T, 32)."""
        x_BCTM = self.stem(mel_BTM[:, None])
        x_BCTM = _active(self.stem_norm(F.relu(x_BCTM)))
        for stage in self.stages:
            x_BCTM = stage(x_BCTM)
        x_BCT = self.last(x_BCTM)[..., 0]
        return x_BCT.transpose(1, 2)

    def summary(self, x_BLD: Tensor, count_B: Tensor, power_BTF: Tensor, length_B: Tensor) -> Tensor:
        """Return one vector of each recording, (B, 449).

        It has mean and standard deviation over time of the windows' numbers, then quantiles and mean change
        of the levels in 64 mel bands, and the logarithm of the seconds. The windows tell what is said. The
        levels also tell voices, places and noises, which the network was trained to overlook.
        """
        window_mask_BL = steps_mask(x_BLD.shape[1], count_B)
        power_BTM = power_BTF @ self.fine_bands_FM / FULL_SCALE**2
        level_BTM = (power_BTM.clamp_min(FLOOR).log10() - LEVEL_MIDDLE) * LEVEL_SCALE
        level_mask_BT = steps_mask(level_BTM.shape[1], _spectrum_count(length_B, 1))
        seconds_B1 = (length_B[:, None] / RATE).clamp_min(HOP / RATE)
        parts = (
            *_moments(x_BLD * VECTOR_SCALE, window_mask_BL),
            *_quantiles(level_BTM, level_mask_BT),
            _mean_change(level_BTM, level_mask_BT) * CHANGE_SCALE,
            seconds_B1.log(),
        )
        return torch.cat(parts, 1)

    def _power(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        """Return the power of each frequency over time, (B, T, 257), in units of 16-bit samples."""
        repeated_BS = _repeated(wave_BS, length_B) * FULL_SCALE
        windows_BTS = repeated_BS.unfold(1, SPECTRUM, HOP) * self.window
        spectrum_BTF2 = torch.view_as_real(torch.fft.rfft(windows_BTS))
        return spectrum_BTF2.square().sum(-1)

    def _mel(self, power_BTF: Tensor, length_B: Tensor) -> Tensor:
        """Return the levels that the network reads, (B, T, 32): powers of ten, raised to their least."""
        level_BTM = (power_BTF @ self.bands_FM).clamp_min(FLOOR).log10()

        # The loudest is looked for in the recording's own spectra: it does not depend on other rows.
        inside_BT1 = steps_mask(level_BTM.shape[1], _spectrum_count(length_B, SPECTRA))[..., None]
        loudest_B11 = level_BTM.masked_fill(~inside_BT1, -torch.inf).amax((1, 2), keepdim=True)
        return torch.maximum(level_BTM, loudest_B11 - RANGE) + OFFSET


class _Pairs(nn.Module):
    """Pairs of a convolution over three bands and one over three steps of time, then pooling."""

    def __init__(self, before: int, stage: Stage) -> None:
        super().__init__()
        self.pool = stage.pool
        self.convolutions = nn.ModuleList()
        for _ in range(stage.pairs):
            over_bands = nn.Conv2d(before, stage.channels, (1, 3), padding=(0, 1))
            over_time = nn.Conv2d(stage.channels, stage.channels, (3, 1))
            self.convolutions.extend((over_bands, over_time))
            before = stage.channels

    def forward(self, x_BCTM: Tensor) -> Tensor:
        """(B, before, T, M) -> (B, channels, T', M'): each pair takes two steps of time."""
        for convolution in self.convolutions:
            x_BCTM = _active(convolution(x_BCTM))
        return F.max_pool2d(x_BCTM, self.pool)


def _active(x: Tensor) -> Tensor:
    """Return the numbers, those below zero at a fifth of their size, and none below -0.4."""
    return F.leaky_relu(x, 0.2).clamp_min_(-0.4)


def _repeated(wave_BS: Tensor, length_B: Tensor) -> Tensor:
    """Return recordings that fill a window at least, by repeating those that do not, with zeros behind."""
    steps = wave_BS.shape[1]
    if steps < SHORTEST or int(length_B.min()) < SHORTEST:
        sample_S = torch.arange(max(steps, SHORTEST), device=wave_BS.device)
        wave_BS = wave_BS.gather(1, sample_S % length_B.clamp(min=1)[:, None])
    return wave_BS * steps_mask(wave_BS.shape[1], length_B.clamp(min=SHORTEST))


def _spectrum_count(length_B: Tensor, least: int) -> Tensor:
    """Return how many spectra recordings have that are repeated to `least` of them."""
    return ((length_B - SPECTRUM) // HOP + 1).clamp(min=least)


def _moments(x_BLD: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over time, (B, D) each."""
    mean_BD = masked_mean(x_BLD, mask_BL)
    variance_BD = masked_mean((x_BLD - mean_BD[:, None]).square(), mask_BL)
    return mean_BD, (variance_BD + 1e-8).sqrt()


def _quantiles(x_BLD: Tensor, mask_BL: Tensor) -> list[Tensor]:
    """Return the numbers at `QUANTILES` of those over time, (B, D) each, interpolated between neighbours."""
    # Steps that do not count come last.
    sorted_BLD = x_BLD.masked_fill(~mask_BL[..., None], torch.inf).sort(1).values
    last_B = mask_BL.sum(1) - 1
    quantiles = []
    for quantile in QUANTILES:
        place_B = quantile * last_B
        below_B = place_B.floor().long()
        above_B = torch.minimum(below_B + 1, last_B)
        row_B = torch.arange(len(x_BLD), device=x_BLD.device)
        share_B1 = (place_B - below_B)[:, None]
        quantiles.append(torch.lerp(sorted_BLD[row_B, below_B], sorted_BLD[row_B, above_B], share_B1))
    return quantiles


def _mean_change(x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """Return the mean size of the change from one step to the next, (B, D); zero if there is one step."""
    change_BLD = (x_BLD[:, 1:] - x_BLD[:, :-1]).abs()
    has_change_B1 = mask_BL[:, 1:].any(1, keepdim=True)
    return masked_mean(change_BLD, mask_BL[:, 1:]) * has_change_B1


# The names of the tensors in the ONNX files, by those of this module. TensorFlow numbers its convolutions
# in the order of the layers, from that after the stem to the last one.
STEM = "model/conv2d/StatefulPartitionedCall/StatefulPartitionedCall/Conv2D/ReadVariableOp:0"
NORM = "model/batch_normalization/"
NORM_NAMES = {
    "stem_norm.weight": f"{NORM}ReadVariableOp:0",
    "stem_norm.bias": f"{NORM}ReadVariableOp_1:0",
    "stem_norm.running_mean": f"{NORM}FusedBatchNormV3/ReadVariableOp:0",
    "stem_norm.running_var": f"{NORM}FusedBatchNormV3/ReadVariableOp_1:0",
}
LAST = "model/conv2d_19/Conv2D/ReadVariableOp:0"
BAND_WEIGHTS = "1.melW"
SPECTRUM_WEIGHTS = ("0.stft.conv_real.weight", "0.stft.conv_imag.weight")


def read_onnx(file: Path) -> dict[str, Tensor]:
    """Return the tensors of this module out of the package's ONNX file, and `melspectrogram.onnx` beside it.

    Raises `RecipeError` if the package `onnx` is missing, and `ValueError` unless there is exactly one tensor
    of the right shape for each tensor of the module, and the spectra are those of this module.
    """
    found = {**_initializers(file), **_initializers(file.with_name("melspectrogram.onnx"))}
    names = onnx_names()
    module = SpeechEmbedding()
    expected = module.state_dict()
    tensors = {"stem_norm.num_batches_tracked": expected["stem_norm.num_batches_tracked"]}
    for name, onnx_name in names.items():
        if onnx_name not in found:
            raise ValueError(f"these are not the weights of the speech embedding: {onnx_name} is missing")
        tensor = found[onnx_name]
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"these are not the weights of the speech embedding: {onnx_name} has the shape "
                f"{tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
        tensors[name] = tensor
    _check_spectra(module, found)
    return tensors


def onnx_names() -> dict[str, str]:
    """Return the name in the ONNX files of each of this module's tensors."""
    names = {"bands_FM": BAND_WEIGHTS, "stem.weight": STEM, **NORM_NAMES, "last.weight": LAST}
    number = 1
    for place, stage in enumerate(STAGES):
        for layer in range(2 * stage.pairs):
            convolution = f"stages.{place}.convolutions.{layer}"
            names[f"{convolution}.weight"] = f"model/conv2d_{number}/Conv2D_weights_fused_bn"
            names[f"{convolution}.bias"] = f"model/conv2d_{number}/Conv2D_bias_fused_bn"
            number += 1
    return names


def _initializers(file: Path) -> dict[str, Tensor]:
    """Return the float tensors that an ONNX file holds, by name."""
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"the weights of the speech embedding are read once with the package onnx, and '{error.name}' is "
            f"not installed: pip install onnx"
        ) from None

    try:
        graph = onnx.load(file, load_external_data=False).graph
    except Exception as error:  # protobuf raises its own, of which there are many
        raise ValueError(f"this is no ONNX file ({type(error).__name__})") from error

    tensors = {}
    for initializer in graph.initializer:
        if initializer.data_type == onnx.TensorProto.FLOAT:
            tensors[initializer.name] = torch.from_numpy(numpy_helper.to_array(initializer).copy())
    return tensors


def _check_spectra(module: SpeechEmbedding, found: dict[str, Tensor]) -> None:
    """Raise `ValueError` unless the file's convolutions are the Fourier transform of this module."""
    fourier_FS = torch.fft.rfft(torch.diag(module.window)).T
    for name, expected_FS in zip(SPECTRUM_WEIGHTS, (fourier_FS.real, fourier_FS.imag), strict=True):
        weights = found.get(name)
        if weights is None or weights.shape != (*expected_FS.shape[:1], 1, SPECTRUM):
            raise ValueError(f"{name} is missing, or has another shape")
        if not torch.allclose(weights[:, 0], expected_FS, atol=1e-4):
            raise ValueError(f"{name} has another window than the speech embedding")
