"""Read the audio of audio and video files, by PyAV (FFmpeg) and soundfile.

A file is read completely, or `BadCell` says what is wrong with it. Times are in seconds. Nothing is fetched
from a network, whatever a file refers to.
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


MAX_SECONDS = 4 * 3600.0  # a longer recording is most likely a mistake


# a header's duration may differ from the decoded one by so many seconds, and by 0.5 % besides
SLACK = 0.05


LOCAL = {"protocol_whitelist": "file,pipe"}  # a playlist must not make FFmpeg open a URL


# containers whose header states the duration; for others FFmpeg guesses it from the bit rate
STATED = frozenset(
    {"mov", "mp4", "matroska", "webm", "flac", "wav", "aiff", "caf", "mp3", "avi", "asf", "ogg"}
)


# programs that stream a RIFF file do not know its length: they write a size from here on
UNKNOWN_SIZE = 0xFFFF_F000


# an Ogg page (RFC 3533): 27 bytes of header, the lengths of its segments, the segments
OGG_HEADER, OGG_FLAGS, OGG_SEGMENT_COUNT, OGG_LAST_PAGE = 27, 5, 26, 4


File = str | bytes


class NoAudio(BadCell):
    """A video that has no audio. That is normal, so it is not a problem."""


@dataclass(frozen=True)
class Recording:
    """A recording: `wave` is mono, float32 in -1..1, shape (T,).

    `seconds` is the length of the complete recording; `wave` may be only its middle.
    """

    wave: np.ndarray
    seconds: float


def read_audio(file: File, rate: int, longest: float) -> Recording:
    """Read a recording as mono at `rate` Hz, or the middle `longest` seconds of a longer one.

    What lies before the middle is not decoded if decoding can begin there. Raises `BadCell` if the file
    cannot be read, is cut short, has no samples, or is longer than `MAX_SECONDS`.
    """
    check_end(file)
    if _starts(file, b"RIFF", b"WAVE"):
        # FFmpeg reads the codecs that libsndfile lacks
        with contextlib.suppress(soundfile.LibsndfileError):
            return _read_wave(file, rate, longest)

    with opened(file) as container:
        if not container.streams.audio:
            error = NoAudio if container.streams.video else BadCell
            raise error("no audio in it")
        return decode_audio(container, rate, longest, None)


def opened(file: File) -> InputContainer:
    """Open a file as a PyAV container. Raises `BadCell`."""
    check_end(file)
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        return av.open(source, mode="r", options=LOCAL, metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadCell(f"neither audio nor video that can be read: {_words(error)}") from None


def decode_audio(
    container: InputContainer, rate: int, longest: float, packets: Iterable[Packet[AudioStream]] | None = None
) -> Recording:
    """Decode and resample the first audio stream of a container, in one pass.

    `packets` are those of the stream, if they have been read already. Raises `BadCell` as `read_audio` does.
    """
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise BadCell("audio in a format that cannot be decoded")
    stated = _stated(container, stream)
    _check_length(stated)

    # without a stated duration the middle is known only after the complete file has been decoded
    first = max((stated or 0.0) - longest, 0.0) / 2
    if packets is None:
        packets = _packets(container, stream, first)
    if not stated or not first:
        wave, _ = _decode_until(stream, packets, rate, MAX_SECONDS)
        seconds = len(wave) / rate
        _check_complete(seconds, stated)
        return _middle(Recording(wave, seconds), rate, longest)

    # decoding began at the packet before the middle, or at the start of the file
    wave, begun = _decode_until(stream, packets, rate, first + longest)
    skip = max(int((first - begun) * rate), 0)
    wave = wave[skip : skip + int(longest * rate)]
    _check_complete(len(wave) / rate, longest)
    return Recording(wave, stated)


def _decode_until(
    stream: AudioStream, packets: Iterable[Packet[AudioStream]], rate: int, last: float
) -> tuple[np.ndarray, float]:
    """Decode packets up to the time `last`. Return the samples, and the time of the first one."""
    pieces: list[np.ndarray] = []
    count = 0
    begun = None
    try:
        for wave, time in _resampled(stream, packets, rate):
            if begun is None:
                begun = time
            pieces.append(wave)
            count += len(wave)
            if count >= (last - begun) * rate:
                break
    except (av.FFmpegError, ValueError) as error:
        raise BadCell(f"audio broken or cut short: {_words(error)}") from None
    if not count:
        raise BadCell("audio without samples")
    return np.concatenate(pieces), begun or 0.0


def _resampled(
    stream: AudioStream, packets: Iterable[Packet[AudioStream]], rate: int
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield pieces of mono audio, each with the time of the frame that it came from, in seconds.

    Time begins with the stream. Raises `ValueError` for a damaged frame.
    """
    resampler = av.AudioResampler("flt", "mono", rate)
    begun = float((stream.start_time or 0) * (stream.time_base or 0))
    time = 0.0
    for packet in packets:
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError("a damaged frame")
            if frame.time is not None:
                time = float(frame.time) - begun
            for piece in resampler.resample(frame):
                yield piece.to_ndarray()[0], time

    # the resampler holds the last samples back until it is told that there are no more
    for piece in resampler.resample(None):
        yield piece.to_ndarray()[0], time


def _packets(container: InputContainer, stream: AudioStream, first: float) -> Iterator[Packet[AudioStream]]:
    """Yield the packets from shortly before `first` on; all packets if the file cannot be entered there."""
    if first and stream.time_base:
        offset = int(first / stream.time_base) + (stream.start_time or 0)
        with contextlib.suppress(av.FFmpegError, OSError):
            container.seek(offset, stream=stream)
    yield from container.demux(stream)


def _stated(container: InputContainer, stream: AudioStream) -> float | None:
    """Return the duration that the header states, or None if it states none that can be trusted."""
    formats = set(container.format.name.split(","))
    if not STATED & formats:
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return container.duration / av.time_base
    return None


def _check_length(seconds: float | None) -> None:
    if seconds and seconds > MAX_SECONDS:
        raise BadCell(f"absurd length: {seconds / 3600:.1f} hours, more than {MAX_SECONDS / 3600:.0f}")


def _check_complete(seconds: float, stated: float | None) -> None:
    if stated and seconds < stated * 0.995 - SLACK:
        raise BadCell(f"cut short: {seconds:.1f} of {stated:.1f} s can be decoded")


def _middle(recording: Recording, rate: int, longest: float) -> Recording:
    """Keep the middle `longest` seconds of the samples."""
    samples = int(longest * rate)
    first = max((len(recording.wave) - samples) // 2, 0)
    return Recording(recording.wave[first : first + samples], recording.seconds)


def _read_wave(wave_file: File, rate: int, longest: float) -> Recording:
    """Read a WAV file by soundfile, which is seven times as fast as PyAV."""
    source = io.BytesIO(wave_file) if isinstance(wave_file, bytes) else wave_file
    with soundfile.SoundFile(source) as file:
        file_rate = file.samplerate
        seconds = file.frames / file_rate
        _check_length(seconds)
        if not file.frames:
            raise BadCell("audio without samples")
        if seconds > longest:
            file.seek(int((file.frames - longest * file_rate) / 2))
        count = int(min(longest, seconds) * file_rate) + 1
        wave = file.read(count, dtype="float32", always_2d=True)

    mono = wave[:, 0]
    if wave.shape[1] > 1:
        mono = np.ascontiguousarray(wave.mean(1))
    if not np.isfinite(mono).all():
        raise BadCell("audio with samples that are no numbers")
    return Recording(_change_rate(mono, file_rate, rate), seconds)


def _change_rate(wave: np.ndarray, source: int, rate: int) -> np.ndarray:
    """Resample mono samples from `source` to `rate` Hz."""
    if source == rate:
        return wave
    frame = av.AudioFrame.from_ndarray(wave[None], format="flt", layout="mono")
    frame.sample_rate = source
    resampler = av.AudioResampler("flt", "mono", rate)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces])


def check_end(file: File) -> None:
    """Check the end of files that FFmpeg and libsndfile read without complaint if they are cut short.

    The last page of an Ogg file is marked as the last. An AVI and the samples of a WAV are as long as their
    headers say. Raises `BadCell`.
    """
    if isinstance(file, bytes):
        _check_end_of(file)
        return
    if _starts(file, b"RIFF") or _starts(file, b"OggS"):
        # the file may be larger than the memory
        with (
            open(file, "rb") as opened_file,
            mmap.mmap(opened_file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            _check_end_of(mapped)


def _check_end_of(content: bytes | mmap.mmap) -> None:
    kind = content[:4]
    riff_kind = content[8:12]
    if kind == b"OggS":
        _check_ogg(content)
    elif kind == b"RIFF" and riff_kind == b"WAVE":
        _check_wave(content)
    elif kind == b"RIFF" and riff_kind == b"AVI ":
        # the header's size does not count itself and the name before it
        size = int.from_bytes(content[4:8], "little") + 8
        if len(content) < size < UNKNOWN_SIZE:
            raise BadCell(f"cut short: {len(content):,} of {size:,} bytes are there")


def _check_wave(content: bytes | mmap.mmap) -> None:
    """Raise `BadCell` if the chunk of samples is shorter than its header says, or empty, or not there."""
    position = 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        if name == b"data":
            missing = position + 8 + size - len(content)
            if missing > 1 and size < UNKNOWN_SIZE:
                raise BadCell(f"cut short: {missing:,} of {size:,} bytes of samples are missing")
            if not size:
                raise BadCell("audio without samples")
            return
        position += 8 + size + size % 2  # chunks begin at even bytes
    raise BadCell("audio without samples")


def _check_ogg(content: bytes | mmap.mmap) -> None:
    """Raise `BadCell` if the last page is not marked as the last, or is not complete."""
    page = content.rfind(b"OggS")
    body = page + OGG_HEADER
    segments = content[page + OGG_SEGMENT_COUNT] if body <= len(content) else 0
    segment_lengths = content[body : body + segments]
    end = body + segments + sum(segment_lengths)
    is_last = segments and content[page + OGG_FLAGS] & OGG_LAST_PAGE
    if not is_last or end > len(content):
        raise BadCell("cut short: its end is missing")


def _starts(file: File, first: bytes, kind: bytes = b"") -> bool:
    """Return whether a file begins with these four bytes, and has `kind` from the ninth byte on."""
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
    """Return the message of an error of FFmpeg, without the name of the file that it ends with."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).split(": '")[0][:120]
