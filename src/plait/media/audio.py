"""Sound and frames out of files, by PyAV (FFmpeg), soundfile and Pillow: complete, or a `BadCell` that
says what is wrong.

Times are in seconds. Nothing is fetched from a network, whatever a file refers to.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av
import numpy as np
import soundfile
from av import AudioStream, Packet
from av.container import InputContainer

from plait.errors import BadCell

av.logging.set_level(av.logging.PANIC)


MAX_SECONDS = 4 * 3600.0  # a longer recording is a mistake, most likely


SLACK = 0.05  # seconds, and as a share 0.5 %: what headers and decoders may differ by


LOCAL = {"protocol_whitelist": "file,pipe"}  # a playlist must not make FFmpeg open a URL


# containers whose header states the duration; elsewhere FFmpeg guesses it from the bit rate
STATED = frozenset(
    {"mov", "mp4", "matroska", "webm", "flac", "wav", "aiff", "caf", "mp3", "avi", "asf", "ogg"}
)


UNKNOWN_SIZE = 0xFFFF_F000  # sizes from here on are written where the length was not known


File = str | bytes


class NoSound(BadCell):
    """A clip without sound, as a clip may be."""


@dataclass(frozen=True)
class Sound:
    """`wave` is mono, float32 in -1..1; `seconds` the length of the whole recording, of which `wave`
    may be the middle.
    """

    wave: np.ndarray
    seconds: float


def read_sound(file: File, rate: int, longest: float) -> Sound:
    """The recording as mono at `rate` Hz; of one longer than `longest` seconds, its middle, the rest
    not decoded where the file can be entered there.

    Raises `BadCell` when it cannot be read, is cut short, holds no samples, or is absurdly long.
    """
    check_end(file)
    if _starts(file, b"RIFF", b"WAVE"):
        try:
            return _read_wave(file, rate, longest)
        except soundfile.LibsndfileError:
            pass  # a codec that libsndfile lacks
    with opened(file) as container:
        if not container.streams.audio:
            raise (NoSound if container.streams.video else BadCell)("no sound in it")
        return decode_sound(container, rate, longest, None)


def opened(file: File) -> InputContainer:
    """The file as a PyAV container. Raises `BadCell`."""
    check_end(file)
    try:
        return av.open(
            io.BytesIO(file) if isinstance(file, bytes) else file,
            mode="r",
            options=LOCAL,
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadCell(f"neither sound nor video that can be read: {_words(error)}") from None


def decode_sound(
    container: InputContainer, rate: int, longest: float, packets: list[Packet[AudioStream]] | None = None
) -> Sound:
    """The first sound of a container, decoded and resampled in one pass; from `packets` where they are
    read already.
    """
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise BadCell("a sound in a format that cannot be decoded")
    stated = _stated(container, stream)
    _check_length(stated)
    first = max((stated or 0.0) - longest, 0.0) / 2
    last = first + longest if stated and first else MAX_SECONDS
    pieces, have, begun = [], 0, None
    try:
        for wave, time in _resampled(
            stream, _packets(container, stream, first) if packets is None else packets, rate
        ):
            begun = time if begun is None else begun
            pieces.append(wave)
            have += len(wave)
            if have >= (last - begun) * rate:
                break
    except (av.FFmpegError, ValueError) as error:
        raise BadCell(f"sound broken or cut short: {_words(error)}") from None
    if not have:
        raise BadCell("sound without samples")
    wave = np.concatenate(pieces)
    if not (stated and first):
        _check_whole(have / rate, stated)
        return _middle(Sound(wave, have / rate), rate, longest)
    skip = max(int((first - (begun or 0.0)) * rate), 0)
    wave = wave[skip : skip + int(longest * rate)]
    _check_whole(len(wave) / rate, longest)
    return Sound(wave, stated)


def _resampled(
    stream: AudioStream, packets: Iterable[Packet[AudioStream]], rate: int
) -> Iterator[tuple[np.ndarray, float]]:
    """Pieces of mono sound, each with the time of the frame that it came from."""
    resampler = av.AudioResampler("flt", "mono", rate)
    begun, time = float((stream.start_time or 0) * (stream.time_base or 0)), 0.0
    for packet in packets:
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError("a damaged frame")
            time = float(frame.time) - begun if frame.time is not None else time
            yield from ((out.to_ndarray()[0], time) for out in resampler.resample(frame))
    yield from ((out.to_ndarray()[0], time) for out in resampler.resample(None))


def _packets(container: InputContainer, stream: AudioStream, first: float) -> Iterator[Packet[AudioStream]]:
    """The packets from shortly before `first` on; all of them where the file cannot be entered there."""
    if first and stream.time_base:
        with contextlib.suppress(av.FFmpegError, OSError):
            container.seek(int(first / stream.time_base) + (stream.start_time or 0), stream=stream)
    return container.demux(stream)


def _stated(container: InputContainer, stream: AudioStream) -> float | None:
    """The duration that the header states, None where there is none to trust."""
    if not STATED & set(container.format.name.split(",")):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _check_length(seconds: float | None) -> None:
    if seconds and seconds > MAX_SECONDS:
        raise BadCell(f"absurd length: {seconds / 3600:.1f} hours, more than {MAX_SECONDS / 3600:.0f}")


def _check_whole(seconds: float, stated: float | None) -> None:
    if stated and seconds < stated * 0.995 - SLACK:
        raise BadCell(f"cut short: {seconds:.1f} of {stated:.1f} s can be decoded")


def _middle(sound: Sound, rate: int, longest: float) -> Sound:
    most = int(longest * rate)
    first = max((len(sound.wave) - most) // 2, 0)
    return Sound(sound.wave[first : first + most], sound.seconds)


def _read_wave(wave_file: File, rate: int, longest: float) -> Sound:
    """soundfile reads WAV seven times as fast as PyAV does."""
    with soundfile.SoundFile(io.BytesIO(wave_file) if isinstance(wave_file, bytes) else wave_file) as file:
        seconds = file.frames / file.samplerate
        _check_length(seconds)
        if not file.frames:
            raise BadCell("sound without samples")
        if seconds > longest:
            file.seek(int((file.frames - longest * file.samplerate) / 2))
        wave = file.read(int(min(longest, seconds) * file.samplerate) + 1, dtype="float32", always_2d=True)
        source = file.samplerate
    mono = np.ascontiguousarray(wave.mean(1)) if wave.shape[1] > 1 else wave[:, 0]
    if not np.isfinite(mono).all():
        raise BadCell("sound with samples that are no numbers")
    return Sound(_change_rate(mono, source, rate), seconds)


def _change_rate(wave: np.ndarray, source: int, rate: int) -> np.ndarray:
    if source == rate:
        return wave
    frame = av.AudioFrame.from_ndarray(wave[None], format="flt", layout="mono")
    frame.sample_rate = source
    resampler = av.AudioResampler("flt", "mono", rate)
    return np.concatenate([part.to_ndarray()[0] for f in (frame, None) for part in resampler.resample(f)])


def check_end(file: File) -> None:
    """The ends of files that FFmpeg and libsndfile read without a word when they are cut short: the
    last page of an Ogg file is marked as the last, an AVI and the samples of a WAV are as long as they
    say. Raises `BadCell`.
    """
    with contextlib.ExitStack() as stack:
        data: bytes | mmap.mmap
        if isinstance(file, bytes):
            data = file
        elif _starts(file, b"RIFF") or _starts(file, b"OggS"):
            data = stack.enter_context(
                mmap.mmap(stack.enter_context(open(file, "rb")).fileno(), 0, access=mmap.ACCESS_READ)
            )
        else:
            return
        if data[:4] == b"OggS":
            _check_ogg(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            _check_wave(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"AVI ":
            size = int.from_bytes(data[4:8], "little") + 8
            if len(data) < size < UNKNOWN_SIZE:
                raise BadCell(f"cut short: {len(data):,} of {size:,} bytes are there")


def _check_wave(data: bytes | mmap.mmap) -> None:
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"data":
            missing = at + 8 + size - len(data)
            if missing > 1 and size < UNKNOWN_SIZE:
                raise BadCell(f"cut short: {missing:,} of {size:,} bytes of samples are missing")
            if not size:
                raise BadCell("sound without samples")
            return
        at += 8 + size + size % 2
    raise BadCell("sound without samples")


def _check_ogg(data: bytes | mmap.mmap) -> None:
    at = data.rfind(b"OggS")
    segments = data[at + 26] if at + 27 <= len(data) else 0
    body = sum(data[at + 27 : at + 27 + segments])
    if not segments or not data[at + 5] & 4 or at + 27 + segments + body > len(data):
        raise BadCell("cut short: its end is missing")


def _starts(file: File, first: bytes, kind: bytes = b"") -> bool:
    """Whether the file begins with these four bytes, and from the ninth on with `kind`."""
    if isinstance(file, bytes):
        head = file[:12]
    else:
        try:
            with open(file, "rb") as opened_file:
                head = opened_file.read(12)
        except OSError as error:
            raise BadCell(f"cannot be read: {error.strerror}", file) from None
    return head[:4] == first and head[8:].startswith(kind)


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).split(": '")[0][:120]
