"""Sounds: any file that PyAV reads, and the sound of clips, as mel spectrograms on a logarithmic scale.

Shape letters: B rows, T steps of time, M mel bands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import av
import numpy as np
import pyarrow as pa
import soundfile
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from plait.media.audio import NoSound, Sound, opened, read_sound
from plait.media.cell import Cell, Media
from plait.modalities.base import Match
from plait.modalities.base_media import MediaModality, recognise
from plait.nn.batch import Layout, Values, place_within
from plait.recipe.registry import Options
from plait.table.json import JSON
from plait.table.table import Source

SUFFIXES = (
    ".wav",
    ".mp3",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".m4a",
    ".aac",
    ".aiff",
    ".aif",
    ".wma",
    ".gsm",
    ".amr",
    ".au",
    ".caf",
    ".w64",
    ".ac3",
)


FLOOR = 1e-10  # power below which everything is silence


SILENT = 1e-4  # the largest sample of a recording that is called silent: 80 dB below full scale


class Config(Options):
    """How sound becomes a spectrogram, how much of it is looked at, and training's augmentation.

    Of a recording longer than `longest` the middle is kept, and that is said. Of what is kept, training
    sees a random `seconds`, prediction the middle (`view: centre`) or all of it, cut into windows of
    `seconds` (`view: windows`). With `view: whole` both see all of it, in windows that do not overlap,
    for those who write down what they hear. Augmentation: a change of loudness of up to so many dB;
    white `noise` in so large a share of the recordings, 10 to 40 dB below them; a `shift` in time of up
    to so many seconds; and SpecAugment's masks (Park et al. 2019), `time_masks` of up to a tenth of the
    time and `band_masks` of up to an eighth of the bands.

    `form: wave` gives encoders that take it the samples themselves; windows, bands and the augmentation
    that is about them play no part there. `unit` scales each recording to mean 0 and variance 1.
    """

    form: Literal["spectrogram", "wave"] = "spectrogram"
    rate: int = Field(16_000, ge=1000, le=192_000, description="samples a second")
    window: float = Field(0.025, gt=0, description="seconds of one spectrum")
    hop: float = Field(0.01, gt=0, description="seconds from one spectrum to the next")
    bands: int = Field(64, ge=4, le=512, description="mel bands")
    lowest: float = Field(0.0, ge=0, description="Hz")
    highest: float = Field(8000.0, gt=0, description="Hz; half the rate at most")
    seconds: float = Field(10.0, gt=0)
    longest: float = Field(30.0, gt=0)
    view: Literal["centre", "windows", "whole"] = "centre"
    gain: float = Field(6.0, ge=0)
    noise: float = Field(0.0, ge=0, le=1)
    shift: float = Field(0.1, ge=0)
    time_masks: int = Field(1, ge=0)
    band_masks: int = Field(1, ge=0)
    unit: bool = False

    @property
    def steps(self) -> int:
        """The most spectra, or samples, that an encoder sees at once."""
        if self.form == "wave":
            return max(int(self.seconds * self.rate), 1)
        return max(int(self.seconds / self.hop), 1)


class Audio(MediaModality):
    """A column of sounds."""

    options = Config
    encoder = "audio_cnn"
    is_sound = True
    ragged = True
    nothing = "no sound in it"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shape, self.dtype = (0,) if config.form == "wave" else (0, config.bands), torch.float16
        self.layout = (
            Layout("wave", (config.steps,))
            if config.form == "wave"
            else Layout("spectrogram", (config.steps, config.bands))
        )

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        return recognise(cells, source, "sounds", SUFFIXES, _is_sound)

    def prepares(self) -> JSON:
        chosen: tuple[str, ...] = ("rate", "window", "hop", "bands", "lowest", "highest", "longest")
        if self.config.form == "wave":
            chosen = ("form", "rate", "longest")
        return {
            **{name: getattr(self.config, name) for name in chosen},
            "version": 2,
            "av": av.__version__,
            "soundfile": soundfile.__version__,
        }

    def prepare(self, media: Media) -> Cell | None:
        config = self.config
        sound: Sound | None
        if "clip" in vars(media):  # its frames have been asked for: the file is open, its packets are read
            sound = media.clip.sound(config.rate, config.longest)
        else:
            try:
                sound = read_sound(media.content, config.rate, config.longest)
            except NoSound:
                return None
        if sound is None:
            return None
        notes = []
        if sound.seconds > config.longest + config.hop:
            notes.append(f"longer than {config.longest:g} s, of which the middle is kept")
        if np.abs(sound.wave).max() < SILENT:
            notes.append("silent")
        if config.form == "wave":
            return Cell(sound.wave.astype(np.float16), tuple(notes))
        return Cell(log_mel(torch.from_numpy(sound.wave), config).to(torch.float16).numpy(), tuple(notes))

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        if self.config.view == "whole" or (generator is None and self.config.view == "windows"):
            values = windows(values, self.config.steps, overlap=self.config.view == "windows")
        assert values.length_B is not None
        if self.config.form == "wave":
            return self._waves(values, generator)
        x_BTM = values.x.float()
        x_BTM, length_B = view(x_BTM, values.length_B, self.config.steps, generator)
        if generator is not None and len(x_BTM):
            x_BTM = augment(x_BTM, length_B, self.config, generator)
        mask_BT = torch.arange(x_BTM.shape[1]) < length_B[:, None]
        return Values(((x_BTM + 4) * 0.25 * mask_BT[:, :, None]), length_B, values.count_B)

    def _waves(self, values: Values, generator: torch.Generator | None) -> Values:
        assert values.length_B is not None
        x_BT1, length_B = view(values.x.float()[:, :, None], values.length_B, self.config.steps, generator)
        x_BT, mask_BT = x_BT1[:, :, 0], torch.arange(x_BT1.shape[1]) < length_B[:, None]
        if self.config.unit:
            count_B = length_B.clamp(min=1)[:, None]
            x_BT = x_BT - (x_BT * mask_BT).sum(1, keepdim=True) / count_B
            x_BT = x_BT / ((x_BT.square() * mask_BT).sum(1, keepdim=True) / count_B + 1e-7).sqrt()
        return Values(x_BT * mask_BT, length_B, values.count_B)


component = Audio


def _is_sound(media: Media) -> bool:
    """Whether it has sound, and no pictures other than a cover."""
    with opened(media.content) as container:
        covers = av.stream.Disposition.attached_pic
        return bool(container.streams.audio) and all(s.disposition & covers for s in container.streams.video)


def log_mel(wave: Tensor, config: Config) -> Tensor:
    """The logarithm (to base 10) of the power in each mel band, (T, bands), one spectrum every `hop`
    seconds.

    Frames are centred, the ends mirrored, the window is Hann's; mel scale and filters are Slaney's
    (Auditory Toolbox, 1998), each filter of area one. These are librosa's defaults.
    """
    width, hop = round(config.window * config.rate), max(round(config.hop * config.rate), 1)
    window, triangles = filters(
        config.rate, width, config.bands, config.lowest, min(config.highest, config.rate / 2)
    )
    half = width // 2
    if len(wave) <= half:  # too short to be mirrored
        wave = F.pad(wave, (0, half + 1 - len(wave)))
    padded = F.pad(wave[None, None], (half, half), mode="reflect")[0, 0]
    if len(padded) < width:
        padded = F.pad(padded, (0, width - len(padded)))
    spectrum = torch.view_as_real(torch.fft.rfft(padded.unfold(0, width, hop) * window))
    power = spectrum[..., 0].square().addcmul_(spectrum[..., 1], spectrum[..., 1])
    return (power @ triangles).clamp_min_(FLOOR).log10_()


@lru_cache(8)
def filters(rate: int, width: int, bands: int, lowest: float, highest: float) -> tuple[Tensor, Tensor]:
    """The window, and the triangles that weigh frequencies into bands, (width // 2 + 1, bands)."""
    edges = _hertz(np.linspace(_mel(lowest), _mel(highest), bands + 2))
    frequencies = np.arange(width // 2 + 1) * rate / width
    rising = (frequencies[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies[:, None]) / np.diff(edges)[1:]
    triangles = np.minimum(rising, falling).clip(0) * (2 / (edges[2:] - edges[:-2]))
    return torch.hann_window(width), torch.from_numpy(triangles.astype(np.float32))


def _mel(hertz: float) -> float:
    """Linear up to 1000 Hz, logarithmic above."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + float(np.log(hertz / 1000)) * 27 / float(np.log(6.4))


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def view(
    x_BTM: Tensor, length_B: Tensor, steps: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """At most `steps` of each row: the middle, or with a generator any stretch."""
    spare_B = (length_B - steps).clamp(min=0)
    if not len(x_BTM) or not spare_B.any():
        return x_BTM[:, :steps], length_B.clamp(max=steps)
    first_B = (
        spare_B // 2
        if generator is None
        else (torch.rand(len(spare_B), generator=generator) * (spare_B + 1)).long()
    )
    at_BT = (first_B[:, None] + torch.arange(steps)).clamp(max=x_BTM.shape[1] - 1)
    return x_BTM.gather(1, at_BT[:, :, None].expand(-1, -1, x_BTM.shape[2])), length_B.clamp(max=steps)


def windows(values: Values, steps: int, overlap: bool) -> Values:
    """Each row cut into windows of `steps` that cover all of it, as several media in one cell: they
    overlap, or the last one is shorter.
    """
    assert values.length_B is not None
    length_B = values.length_B
    count_B = (-(-length_B // steps)).clamp(min=1)
    owner = torch.arange(len(length_B)).repeat_interleave(count_B)
    spare = (length_B - steps).clamp(min=0)[owner]
    first = (
        (spare * place_within(count_B)) // (count_B[owner] - 1).clamp(min=1)
        if overlap
        else steps * place_within(count_B)
    )
    at = (first[:, None] + torch.arange(min(steps, values.x.shape[1]))).clamp(max=values.x.shape[1] - 1)
    x = values.x[owner[:, None], at]
    given = values.count_B
    if given is not None:  # a list of sounds: the windows of all of them
        count_B = torch.zeros(len(given), dtype=torch.long).index_add(
            0, torch.arange(len(given)).repeat_interleave(given), count_B
        )
    if given is None and len(owner) == len(length_B):  # a window each: no set
        return Values(x, length_B.clamp(max=steps))
    return Values(x, (length_B[owner] - (0 if overlap else first)).clamp(max=steps), count_B)


def augment(x_BTM: Tensor, length_B: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """Gain, noise, shift and masks, drawn for each row on its own; `x_BTM` is the logarithm of power to
    base 10.
    """
    count, steps, bands = x_BTM.shape

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, 1, generator=generator) * (high - low) + low

    time_T, band_M = torch.arange(steps)[None, :, None], torch.arange(bands)[None, None]
    length = length_B[:, None, None]
    if config.shift:
        move = (draw(-1, 1) * config.shift / config.hop).round().long()
        at_BT = (time_T - move)[:, :, 0]
        x_BTM = x_BTM.gather(1, at_BT.clamp(0, steps - 1)[:, :, None].expand_as(x_BTM))
        x_BTM = x_BTM.masked_fill(((at_BT < 0) | (at_BT >= length_B[:, None]))[:, :, None], -10.0)
    if config.noise:
        x_BTM = _add_noise(x_BTM, time_T < length, config.noise, draw, generator)
    if config.gain:
        x_BTM = (x_BTM + draw(-config.gain, config.gain) / 10).clamp(min=-10.0)
    mean_B = (x_BTM * (time_T < length)).sum((1, 2), keepdim=True) / (length.clamp(min=1) * bands)
    masks = [(time_T, length, 0.1)] * config.time_masks + [
        (band_M, torch.tensor(bands), 0.125)
    ] * config.band_masks
    for places, size, share in masks:
        wide = draw(0, 1) * share * size
        first = draw(0, 1) * (size - wide)
        x_BTM = torch.where((places >= first) & (places < first + wide), mean_B, x_BTM)
    return x_BTM


def _add_noise(
    x_BTM: Tensor,
    mask_BT1: Tensor,
    share: float,
    draw: Callable[[float, float], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """White noise, in power: exponentially distributed in each spectrum, as that of Gaussian samples
    is, its level 10 to 40 dB below the row's mean. What sound and noise have in common (the cross term)
    is left out.
    """
    power = 10.0**x_BTM
    mean = (power * mask_BT1).sum((1, 2), keepdim=True) / (
        mask_BT1.sum((1, 2), keepdim=True).clamp(min=1) * x_BTM.shape[2]
    )
    level = mean * 10 ** draw(-4, -1) * (draw(0, 1) < share)
    noise = -torch.rand(x_BTM.shape, generator=generator).clamp_min_(1e-9).log_() * level
    return (power + noise).clamp_min_(FLOOR).log10_()
