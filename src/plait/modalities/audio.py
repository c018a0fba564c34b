"""Audio: any file that PyAV reads, and the audio of videos, as mel spectrograms on a logarithmic scale.

Shape letters: B rows, T steps of time, M mel bands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import av
import numpy as np
import pyarrow as pa
import soundfile
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from plait.media.audio import NoAudio, Recording, opened, read_audio
from plait.media.cell import Cell, Media
from plait.modalities.base import Match
from plait.modalities.base_media import MediaModality, recognise
from plait.nn.batch import Layout, Values, place_within
from plait.nn.measures import SOUND_NUMBERS, measure_bands, measure_sounds
from plait.nn.mel import Scale, mel_triangles
from plait.nn.traits import TraitsLayout
from plait.recipe.bounds import MAX_SECONDS, MIN_HOP, MIN_WINDOW
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


FLOOR = 1e-10  # lower powers are raised to this: the logarithm of zero is not finite


SILENCE = -10.0  # the logarithm of `FLOOR` to base 10


LOUD = 8.0  # a recording of floats with a larger sample; full scale is 1


SILENT = 1e-4  # a recording without a larger sample is silent: 80 dB below full scale


class Config(Options):
    """How a recording becomes a spectrogram, how much of it is read, and how training augments it.

    Training reads a stretch of `seconds`, drawn at random. Prediction reads the middle (`view: centre`), or
    all of the recording in windows of `seconds` (`view: windows`). With `view: whole` both read all of it, in
    windows that do not overlap: tasks that transcribe need this.

    `gain`, `noise`, `shift` and the masks are the augmentation. The masks are those of SpecAugment (Park et
    al. 2019).

    `form: wave` gives the samples themselves to encoders that take them. Windows, bands and augmentation then
    have no effect.
    """

    form: Literal["spectrogram", "wave"] = Field(
        "spectrogram", description="what the encoder reads: a log-mel spectrogram, or the samples themselves"
    )
    rate: int = Field(16_000, ge=1000, le=192_000, description="samples a second")
    window: float = Field(0.025, ge=MIN_WINDOW, le=10, description="seconds of one spectrum")
    hop: float = Field(0.01, ge=MIN_HOP, le=10, description="seconds from one spectrum to the next")
    bands: int = Field(64, ge=4, le=512, description="mel bands")
    lowest: float = Field(0.0, ge=0, le=96000, description="lower edge of the bands in Hz")
    highest: float = Field(
        8000.0, gt=0, le=96000, description="upper edge of the bands in Hz; half the rate at most"
    )
    scale: Scale = Field("slaney", description="mel scale and form of the bands: Slaney's or HTK's")
    seconds: float = Field(10.0, gt=0, le=MAX_SECONDS, description="length of what an encoder reads at once")
    longest: float = Field(
        30.0, gt=0, le=MAX_SECONDS, description="seconds; of a longer recording only the middle is kept"
    )
    view: Literal["centre", "windows", "whole"] = Field(
        "centre", description="what prediction reads: the middle, or all of it (see above)"
    )
    gain: float = Field(6.0, ge=0, le=120, description="largest change of the loudness in dB")
    noise: float = Field(
        0.0, ge=0, le=1, description="share of recordings that get white noise, 10 to 40 dB below them"
    )
    shift: float = Field(0.1, ge=0, le=MAX_SECONDS, description="largest move in time, in seconds")
    time_masks: int = Field(1, ge=0, le=1000, description="masks of up to a tenth of the time")
    band_masks: int = Field(1, ge=0, le=512, description="masks of up to an eighth of the bands")
    unit: bool = Field(False, description="waves only: scale each recording to mean 0 and variance 1")

    @property
    def steps(self) -> int:
        """The largest number of spectra, or of samples, that an encoder reads at once."""
        if self.form == "wave":
            return max(int(self.seconds * self.rate), 1)
        return max(int(self.seconds / self.hop), 1)


class Audio(MediaModality):
    """A column of audio files."""

    options = Config
    content = "audio/*"
    suffixes = SUFFIXES
    encoder = "audio_cnn"
    pretrained = "pretrained"
    is_sound = True
    ragged = True
    nothing = "no audio in it"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.dtype = torch.float16
        if config.form == "wave":
            self.shape = (0,)
            self.layout = Layout("wave", (config.steps,))
        else:
            self.shape = (0, config.bands)
            self.layout = Layout("spectrogram", (config.steps, config.bands))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise files and bytes that have audio, but no video."""
        return recognise(cells, source, "audio files", SUFFIXES, _kind_of, lambda kinds: kinds["audio"])

    def prepares(self) -> JSON:
        """Return the options and versions that a prepared recording depends on."""
        # augmentation acts on batches, so its options leave the cache valid
        names: tuple[str, ...] = ("rate", "window", "hop", "bands", "lowest", "highest", "scale", "longest")
        if self.config.form == "wave":
            names = ("form", "rate", "longest")
        options: JSON = {name: getattr(self.config, name) for name in names}

        # 2: raise it after a change to `log_mel`
        versions: JSON = {"version": 2, "av": av.__version__, "soundfile": soundfile.__version__}
        return {**options, **versions}

    def prepare(self, media: Media) -> Cell | None:
        """Return the log mel spectrogram (T, bands) of a recording, or its samples (T,), in float16.

        Returns None for a video without audio. Raises `BadCell` for a file that cannot be read.
        """
        config = self.config
        recording = self._read(media)
        if recording is None:
            return None

        notes = list(recording.notes)
        if recording.seconds > config.longest + config.hop:
            notes.append(f"longer than {config.longest:g} s, of which the middle is kept")
        peak = np.abs(recording.wave).max()
        if peak < SILENT:
            notes.append("silent")
        elif peak > LOUD:
            notes.append("far above full scale, as if whole numbers had been stored as floats")

        if config.form == "wave":
            return Cell(recording.wave.astype(np.float16), tuple(notes))
        spectrogram_TM = log_mel(torch.from_numpy(recording.wave), config)
        return Cell(spectrogram_TM.to(torch.float16).numpy(), tuple(notes))

    def _read(self, media: Media) -> Recording | None:
        """Read the audio of a file, or return None for a video without audio."""
        rate, longest = self.config.rate, self.config.longest
        if "video" in vars(media):  # its frames have been read: the file is open, its packets are there
            return media.video.audio(rate, longest)
        try:
            return read_audio(media.content, rate, longest)
        except NoAudio:
            return None

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        """Cut recordings to the steps that an encoder reads, augment them in training, and scale them.

        Spectrograms are scaled to (level + 4) / 4, levels being powers of ten, with zeros behind their ends.
        """
        is_windowed = generator is None and self.config.view == "windows"
        if is_windowed or self.config.view == "whole":
            values = windows(values, self.config.steps, overlap=is_windowed)
        assert values.length_B is not None
        if self.config.form == "wave":
            return self._waves(values, generator)
        x_BTM, length_B = view(values.x.float(), values.length_B, self.config.steps, generator)
        if generator is not None and len(x_BTM):
            x_BTM = augment(x_BTM, length_B, self.config, generator)

        # levels reach from -10 (`FLOOR`) to about 2, so -4 is their middle
        mask_BT = torch.arange(x_BTM.shape[1]) < length_B[:, None]
        x_BTM = (x_BTM + 4) * 0.25 * mask_BT[:, :, None]
        return Values(x_BTM, length_B, values.count_B)

    def traits_layout(self) -> TraitsLayout:
        """Return the form of the traits: durations and syllables, then spectra."""
        return TraitsLayout((SOUND_NUMBERS, 3 * self.config.bands))

    def _measured(self, values: Values) -> Tensor:
        """Measure complete recordings: their durations, peaks of loudness, and spectra, (N, width)."""
        assert values.length_B is not None
        level_BTM, length_B = values.x.float(), values.length_B
        if self.config.form == "wave":
            spectrograms = []
            for wave_T, length in zip(level_BTM, length_B.tolist(), strict=True):
                spectrograms.append(log_mel(wave_T[:length], self.config))
            length_B = torch.tensor([len(x_TM) for x_TM in spectrograms])
            level_BTM = pad_sequence(spectrograms, batch_first=True)
        sounds_BD = measure_sounds(level_BTM, length_B, self.config.hop)
        return torch.cat([sounds_BD, measure_bands(level_BTM, length_B)], 1)

    def _waves(self, values: Values, generator: torch.Generator | None) -> Values:
        """Cut samples to the steps that an encoder reads, and scale them if `unit` is set."""
        assert values.length_B is not None
        wave_BT1 = values.x.float()[:, :, None]
        x_BT1, length_B = view(wave_BT1, values.length_B, self.config.steps, generator)
        x_BT = x_BT1[:, :, 0]
        mask_BT = torch.arange(x_BT.shape[1]) < length_B[:, None]
        if self.config.unit:
            count_B1 = length_B.clamp(min=1)[:, None]
            mean_B1 = (x_BT * mask_BT).sum(1, keepdim=True) / count_B1
            x_BT = x_BT - mean_B1
            variance_B1 = (x_BT.square() * mask_BT).sum(1, keepdim=True) / count_B1
            x_BT = x_BT / (variance_B1 + 1e-7).sqrt()
        return Values(x_BT * mask_BT, length_B, values.count_B)


component = Audio


def _kind_of(media: Media) -> str:
    """Return "audio" for a file that has audio, and no video besides a cover image; nothing for others."""
    with opened(media.content) as container:
        covers = av.stream.Disposition.attached_pic
        has_video = any(not stream.disposition & covers for stream in container.streams.video)
        return "audio" if container.streams.audio and not has_video else ""


def log_mel(wave: Tensor, config: Config) -> Tensor:
    """Return the logarithm (to base 10) of the power in each mel band, (T, bands).

    There is one spectrum every `hop` seconds. Frames are centred, the ends are mirrored, and the window is
    Hann's. With the mel scale of `mel_triangles` these are the defaults of librosa.
    """
    width = round(config.window * config.rate)
    hop = max(round(config.hop * config.rate), 1)
    highest = min(config.highest, config.rate / 2)
    window = torch.hann_window(width)
    triangles = mel_triangles(config.rate, width, config.bands, config.lowest, highest, config.scale)
    half = width // 2
    if len(wave) <= half:  # too short to be mirrored
        wave = F.pad(wave, (0, half + 1 - len(wave)))
    padded = F.pad(wave[None, None], (half, half), mode="reflect")[0, 0]
    if len(padded) < width:
        padded = F.pad(padded, (0, width - len(padded)))

    frames_TW = padded.unfold(0, width, hop)
    spectrum_TF2 = torch.view_as_real(torch.fft.rfft(frames_TW * window))

    # the square of the absolute value, without the square root that `abs` would take
    real_TF, imaginary_TF = spectrum_TF2[..., 0], spectrum_TF2[..., 1]
    power_TF = real_TF.square().addcmul_(imaginary_TF, imaginary_TF)
    power_TM = power_TF @ triangles
    return power_TM.clamp_min_(FLOOR).log10_()


def view(
    x_BTM: Tensor, length_B: Tensor, steps: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return at most `steps` of each row (B, T, M), and the new lengths.

    They are the middle, or with a generator a stretch drawn at random.
    """
    spare_B = (length_B - steps).clamp(min=0)
    if not len(x_BTM) or not spare_B.any():
        return x_BTM[:, :steps], length_B.clamp(max=steps)

    # a stretch may begin at any of the `spare + 1` first steps
    first_B = spare_B // 2
    if generator is not None:
        first_B = (torch.rand(len(spare_B), generator=generator) * (spare_B + 1)).long()
    step_BT = (first_B[:, None] + torch.arange(steps)).clamp(max=x_BTM.shape[1] - 1)
    x_BTM = x_BTM.gather(1, step_BT[:, :, None].expand(-1, -1, x_BTM.shape[2]))
    return x_BTM, length_B.clamp(max=steps)


def windows(values: Values, steps: int, overlap: bool) -> Values:
    """Cut each row into windows of `steps` that cover all of it, as several media in one cell.

    With `overlap` all windows have `steps` steps and may overlap. Otherwise the last one of a row is shorter.
    Shape letters: N windows, T steps.
    """
    assert values.length_B is not None
    length_B = values.length_B
    count_B = (-(-length_B // steps)).clamp(min=1)  # length / steps, rounded up
    owner_N = torch.arange(len(length_B)).repeat_interleave(count_B)
    number_N = place_within(count_B)
    if overlap:
        # the first window begins at 0, the last one ends with the row, the others are spread between
        spare_N = (length_B - steps).clamp(min=0)[owner_N]
        gap_count_N = (count_B[owner_N] - 1).clamp(min=1)
        first_N = (spare_N * number_N) // gap_count_N
        length_N = length_B[owner_N].clamp(max=steps)
    else:
        first_N = steps * number_N
        length_N = (length_B[owner_N] - first_N).clamp(max=steps)
    longest = values.x.shape[1]
    step_NT = (first_N[:, None] + torch.arange(min(steps, longest))).clamp(max=longest - 1)
    x = values.x[owner_N[:, None], step_NT]

    if values.count_B is not None:  # cells are lists: the windows of all media of a cell belong to it
        return Values(x, length_N, _sums(count_B, values.count_B))
    if len(owner_N) == len(length_B):  # one window in each row: no lists are needed
        return Values(x, length_B.clamp(max=steps))
    return Values(x, length_N, count_B)


def _sums(count_N: Tensor, media_B: Tensor) -> Tensor:
    """Add up the windows `count_N` of each row's media, of which there are `media_B`."""
    owner_N = torch.arange(len(media_B)).repeat_interleave(media_B)
    return torch.zeros(len(media_B), dtype=torch.long).index_add(0, owner_N, count_N)


def augment(x_BTM: Tensor, length_B: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """Change gain, add noise, shift in time, and mask; each row is drawn by itself.

    `x_BTM` is the logarithm of the power to base 10.
    """
    count, steps, bands = x_BTM.shape

    def draw(low: float, high: float) -> Tensor:
        """Draw a number for each row, uniformly between two bounds."""
        return torch.rand(count, 1, 1, generator=generator) * (high - low) + low

    time_1T1 = torch.arange(steps)[None, :, None]
    band_11M = torch.arange(bands)[None, None]
    length_B11 = length_B[:, None, None]
    mask_BT1 = time_1T1 < length_B11
    if config.shift:
        move_B11 = (draw(-1, 1) * config.shift / config.hop).round().long()
        x_BTM = _shift(x_BTM, length_B11, time_1T1 - move_B11)
    if config.noise:
        x_BTM = _add_noise(x_BTM, mask_BT1, config.noise, draw, generator)
    if config.gain:
        bels_B11 = draw(-config.gain, config.gain) / 10  # powers of ten, as the levels are
        x_BTM = (x_BTM + bels_B11).clamp(min=SILENCE)

    # masked cells get the row's mean, as in SpecAugment
    mean_B11 = (x_BTM * mask_BT1).sum((1, 2), keepdim=True) / (length_B11.clamp(min=1) * bands)
    time_mask = (time_1T1, length_B11, 0.1)
    band_mask = (band_11M, torch.tensor(bands), 0.125)
    masks = [time_mask] * config.time_masks + [band_mask] * config.band_masks
    for positions, size, share in masks:
        width = draw(0, 1) * share * size
        first = draw(0, 1) * (size - width)
        is_masked = (positions >= first) & (positions < first + width)
        x_BTM = torch.where(is_masked, mean_B11, x_BTM)
    return x_BTM


def _shift(x_BTM: Tensor, length_B11: Tensor, source_BT1: Tensor) -> Tensor:
    """Take each step from another step of its row, with silence for steps outside the row."""
    last_step = x_BTM.shape[1] - 1
    x_BTM = x_BTM.gather(1, source_BT1.clamp(0, last_step).expand_as(x_BTM))
    outside_BT1 = (source_BT1 < 0) | (source_BT1 >= length_B11)
    return x_BTM.masked_fill(outside_BT1, SILENCE)


def _add_noise(
    x_BTM: Tensor,
    mask_BT1: Tensor,
    share: float,
    draw: Callable[[float, float], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Add white noise to a `share` of the rows, 10 to 40 dB below the row's mean.

    Noise is added in power. It is distributed exponentially in each spectrum, as that of Gaussian samples is.
    What signal and noise have in common (the cross term) is left out.
    """
    power_BTM = 10.0**x_BTM
    count_B11 = mask_BT1.sum((1, 2), keepdim=True).clamp(min=1) * x_BTM.shape[2]
    mean_B11 = (power_BTM * mask_BT1).sum((1, 2), keepdim=True) / count_B11
    level_B11 = mean_B11 * 10 ** draw(-4, -1) * (draw(0, 1) < share)

    # minus the logarithm of a uniform number is distributed exponentially; 0 has no logarithm
    uniform_BTM = torch.rand(x_BTM.shape, generator=generator).clamp_min_(1e-9)
    noise_BTM = -uniform_BTM.log_() * level_B11
    return (power_BTM + noise_BTM).clamp_min_(FLOOR).log10_()
