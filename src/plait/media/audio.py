"""Read the audio of audio and video files, by PyAV (FFmpeg) and soundfile.

A file is read completely, or `BadCell` says what is wrong with it. Times are in seconds. Nothing is fetched
from a network, whatever a file refers to.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import av
import numpy as np
import soundfile
from av import AudioFrame, AudioStream, Packet
from av.container import InputContainer

from plait.errors import BadCell
from plait.media import limits
from plait.media.allowed import OPTIONS, READ_MEDIA, check_codec, format_of, head_of
from plait.media.containers import File, checked, is_wave, source, states_mp3_length
from plait.media.guard import guarded

av.logging.set_level(av.logging.PANIC)


# a header's duration may differ from the decoded one by so many seconds, and by 0.5 % besides
SLACK = 0.05


# Samples a second that a recording may have. Slow sensors are written as WAV too, and bats need 500,000; a
# damaged header may state anything, and one sample a second would fill the memory at 16,000.
RATES = (50, 4_000_000)


MAX_SAMPLE = 1e10  # the power of larger samples cannot be computed in 32 bits; full scale is 1


# codecs with a checksum in every frame, and no encoder that gets it wrong
CHECKED_CODECS = frozenset({"flac"})


# containers whose header states the duration; for others FFmpeg guesses it from the bit rate
STATED = frozenset(
    {"mov", "mp4", "matroska", "webm", "flac", "wav", "aiff", "caf", "mp3", "avi", "asf", "ogg"}
)


# what stands between the frames of MP3 files that were joined; FFmpeg takes it for a damaged frame
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")


BATCH = 1 << 16  # samples that are resampled at once: FFmpeg's frames are short


NO_END = "without a mark of the end, and may be cut short"


class NoAudio(BadCell):
    """A video that has no audio. That is normal, so it is not a problem."""


@dataclass(frozen=True)
class Recording:
    """A recording: `wave` is mono, float32, shape (T,), with full scale at -1 and 1.

    `seconds` is the length of the complete recording; `wave` may be only its middle. `notes` are for the
    user.
    """

    wave: np.ndarray
    seconds: float
    notes: tuple[str, ...] = ()


def read_audio(file: File, rate: int, longest: float) -> Recording:
    """Read a recording as mono at `rate` Hz, or the middle `longest` seconds of a longer one.

    What lies before the middle is not decoded if decoding can begin there. Raises `BadCell` if the file
    cannot be read, is cut short, has no samples, or is longer than the limits allow.
    """
    with guarded("audio that cannot be read: broken or cut short"):
        file, states_end = checked(file)
        recording = _read(file, rate, longest, states_end)
    return recording if states_end else replace(recording, notes=(*recording.notes, NO_END))


def _read(file: File, rate: int, longest: float, states_end: bool) -> Recording:
    if is_wave(file):
        # FFmpeg reads the codecs that libsndfile lacks
        with contextlib.suppress(soundfile.LibsndfileError):
            return _read_wave(file, rate, longest)

    with _opened(file) as container:
        if not container.streams.audio:
            error = NoAudio if container.streams.video else BadCell
            raise error("no audio in it")
        formats = container.format.name.split(",")
        states_length = states_end and ("mp3" not in formats or states_mp3_length(file))
        return decode_audio(container, rate, longest, None, states_length)


def opened(file: File) -> InputContainer:
    """Open a file as a PyAV container. Raises `BadCell` if it is neither audio nor video, or cut short."""
    with guarded("neither audio nor video that can be read"):
        file, _ = checked(file)
        return _opened(file)


def _opened(file: File) -> InputContainer:
    with guarded("neither audio nor video that can be read"):
        # what is in the memory is opened by no protocol at all
        protocols = "file" if isinstance(file, str) else "none"
        options = {**OPTIONS, "protocol_whitelist": protocols}
        try:
            return av.open(source(file), mode="r", options=options)
        except av.FFmpegError:
            refused = format_of(head_of(file))
            if refused:
                reason = f"neither audio nor video that plait reads: {refused}; it reads {READ_MEDIA}"
                raise BadCell(reason) from None
            raise


def seconds_of(ticks: float | None, base: object) -> float:
    """Return a time that is counted in units of `base` seconds; 0 if one of them is not known.

    PyAV has fractions or its own rational numbers for `base`, and None or 0 for an unknown one.
    """
    return float(ticks or 0) * float(base or 0)  # type: ignore[arg-type]


def decode_audio(
    container: InputContainer,
    rate: int,
    longest: float,
    packets: Iterable[Packet[AudioStream]] | None = None,
    states_length: bool = True,
) -> Recording:
    """Decode and resample the first audio stream of a container, in one pass.

    `packets` are those of the stream, if they have been read already. Without `states_length`, what the
    container says of its length is a guess. Raises `BadCell` as `read_audio` does.
    """
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise BadCell("audio in a format that cannot be decoded")
    check_codec(stream.codec_context.name, "audio")
    _check_rate(stream.codec_context.sample_rate)
    if stream.codec_context.name in CHECKED_CODECS and not stream.codec_context.is_open:
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    stated = _stated(container, stream) if states_length else None
    _check_length(stated)

    # without a stated duration the middle is known only after the complete file has been decoded
    first = max((stated or 0.0) - longest, 0.0) / 2
    if packets is None:
        packets = _packets(container, stream, first)
    with guarded("audio broken or cut short"):
        if not stated or not first:
            return _decode_all(stream, packets, rate, longest, stated)
        return _decode_middle(stream, packets, rate, (first, first + longest), stated)


def _decode_all(
    stream: AudioStream,
    packets: Iterable[Packet[AudioStream]],
    rate: int,
    longest: float,
    stated: float | None,
) -> Recording:
    """Decode a complete recording, and keep its middle."""
    limit = int(longest * rate)
    pieces = _Pieces(lambda count: (count - limit) // 2)
    for wave, _ in _resampled(_frames(stream, packets, check_sum=True), rate):
        pieces.add(wave)
        _check_length(pieces.count / rate)
    seconds = pieces.count / rate
    _check_complete(seconds, stated)
    first = max((pieces.count - limit) // 2, 0)
    return _finished(pieces.wave(first, limit), seconds)


def _decode_middle(
    stream: AudioStream,
    packets: Iterable[Packet[AudioStream]],
    rate: int,
    middle: tuple[float, float],
    stated: float,
) -> Recording:
    """Decode up to the end of the middle: from the packet before it, or from the start of the file."""
    first, last = middle
    begun = 0.0
    pieces = _Pieces(lambda count: int((first - begun) * rate))
    start = seconds_of(stream.start_time, stream.time_base)
    for wave, time in _resampled(_frames(stream, packets), rate, start):
        if not pieces.count:
            begun = time
        pieces.add(wave)
        if pieces.count >= (last - begun) * rate:
            break
    wave = pieces.wave(max(int((first - begun) * rate), 0), int((last - first) * rate))
    _check_complete(len(wave) / rate, last - first)
    return _finished(wave, stated)


class _Pieces:
    """Pieces of a recording. Those that end before the sample `earliest(count)` are forgotten.

    `count` counts all samples. So hours of audio need not be in the memory for the seconds that are kept.
    """

    def __init__(self, earliest: Callable[[int], int]) -> None:
        self._earliest = earliest
        self._pieces: deque[np.ndarray] = deque()
        self._forgotten = 0
        self.count = 0

    def add(self, wave: np.ndarray) -> None:
        """Add a piece behind the others."""
        self._pieces.append(wave)
        self.count += len(wave)
        earliest = self._earliest(self.count)
        while self._forgotten + len(self._pieces[0]) < earliest:
            self._forgotten += len(self._pieces.popleft())

    def wave(self, first: int, count: int) -> np.ndarray:
        """Return `count` samples from the sample `first` on. Raises `BadCell` if there are none at all."""
        if not self.count:
            raise BadCell("audio without samples")
        skip = max(first - self._forgotten, 0)
        return np.concatenate(self._pieces)[skip : skip + count]


def _finished(wave: np.ndarray, seconds: float) -> Recording:
    """Return a recording. Raises `BadCell` if a sample is no number, or absurdly large."""
    # FFmpeg gives nothing for the few samples that its filter needs
    if not len(wave):
        raise BadCell("audio of less than a millisecond")

    # a damaged sample of 1e30 is finite, but its power is not
    if not np.abs(wave).max(initial=0.0) <= MAX_SAMPLE:
        raise BadCell("audio with samples that are no numbers, or absurdly large ones")
    return Recording(wave, seconds)


def _frames(
    stream: AudioStream, packets: Iterable[Packet[AudioStream]], check_sum: bool = False
) -> Iterator[AudioFrame]:
    """Decode packets. Raises `BadCell` for a damaged frame.

    With `check_sum`, the packets are those of the complete stream. If the file has a checksum of all samples,
    it is checked behind the last frame.
    """
    expected = _flac_sum(stream) if check_sum else b""
    digest = hashlib.md5(usedforsecurity=False)
    has_tags = stream.codec_context.name.startswith("mp3")
    for packet in packets:
        if has_tags and bytes(packet).startswith(TAGS):
            continue
        for frame in packet.decode():
            if frame.is_corrupt:
                raise BadCell("audio with a damaged frame")
            if expected:
                digest.update(_flac_samples(frame, stream.codec_context.extradata or b""))
            yield frame
    if expected and digest.digest() != expected:
        raise BadCell("audio broken: its samples do not have the checksum that the file states")


def _flac_sum(stream: AudioStream) -> bytes:
    """Return the MD5 of all samples that a FLAC stream states, or nothing if it states none.

    It stands at the end of STREAMINFO, 34 bytes (RFC 9639, section 8.2). Zeros mean that it is not known.
    """
    if stream.codec_context.name != "flac":
        return b""
    digest = bytes(stream.codec_context.extradata or b"")[18:34]
    return digest if any(digest) else b""


def _flac_samples(frame: AudioFrame, stream_info: bytes) -> bytes:
    """Return the samples of a FLAC frame as its encoder had them: little-endian, whole bytes, interleaved."""
    bits = ((stream_info[12] & 1) << 4 | stream_info[13] >> 4) + 1
    samples: np.ndarray = frame.to_ndarray()
    interleaved = samples.T if frame.format.is_planar else samples

    # FFmpeg fills its 16 or 32 bits from above
    width = samples.itemsize
    shifted = interleaved.reshape(-1) >> (8 * width - bits)
    size = -(-bits // 8)
    return shifted.astype(f"<i{width}").view(np.uint8).reshape(-1, width)[:, :size].tobytes()


def _resampled(
    frames: Iterable[AudioFrame], rate: int, start: float = 0.0
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield pieces of mono audio, each with the time of the frame that it begins with.

    Time begins at `start`. Files that were joined may change their rate on the way.
    """
    for source_rate, frames_of_rate in itertools.groupby(frames, lambda frame: frame.sample_rate):
        _check_rate(source_rate)
        change = _ChangeRate(source_rate, rate)
        for wave, time in _batches(frames_of_rate):
            yield change(wave), time - start
        yield change(None), 0.0


def _batches(frames: Iterable[AudioFrame]) -> Iterator[tuple[np.ndarray, float]]:
    """Yield mono audio in pieces of at least `BATCH` samples, each with the time of its first frame."""
    pieces: list[np.ndarray] = []
    count = 0
    time = 0.0
    for frame in frames:
        if not pieces:
            time = float(frame.time or 0.0)
        pieces.append(_mono(frame))
        count += len(pieces[-1])
        if count >= BATCH:
            yield np.concatenate(pieces), time
            pieces, count = [], 0
    if pieces:
        yield np.concatenate(pieces), time


def _mono(frame: AudioFrame) -> np.ndarray:
    """Return the mean of a frame's channels, float32 in -1..1 for whole numbers.

    Every format is mixed in this one way. FFmpeg's mixing depends on the format of the samples, and refuses
    channels without a known layout.
    """
    samples: np.ndarray = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mono = samples.mean(0, dtype=np.float32) if len(samples) > 1 else samples[0].astype(np.float32)
    if samples.dtype == np.uint8:
        return (mono - 128) / 128
    if samples.dtype.kind == "i":
        return mono / -float(np.iinfo(samples.dtype).min)
    return mono


class _ChangeRate:
    """Resamples mono audio, piece by piece. `None` behind the last piece gives what was held back."""

    def __init__(self, source_rate: int, rate: int) -> None:
        self._source_rate = source_rate
        self._resampler = None if source_rate == rate else av.AudioResampler("flt", "mono", rate)

    def __call__(self, wave: np.ndarray | None) -> np.ndarray:
        if self._resampler is None:
            return np.zeros(0, np.float32) if wave is None else wave
        frame = None
        if wave is not None:
            frame = AudioFrame.from_ndarray(wave[None], format="flt", layout="mono")
            frame.sample_rate = self._source_rate
        pieces = [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _packets(container: InputContainer, stream: AudioStream, first: float) -> Iterator[Packet[AudioStream]]:
    """Yield the packets from shortly before `first` on; all packets if the file cannot be entered there."""
    if first and stream.time_base:
        offset = int(first / stream.time_base) + (stream.start_time or 0)
        with contextlib.suppress(av.FFmpegError, OSError):
            container.seek(offset, stream=stream)
    yield from container.demux(stream)


def _stated(container: InputContainer, stream: AudioStream) -> float | None:
    """Return the duration that the header states, or None if it states none that can be trusted."""
    if not STATED & set(container.format.name.split(",")):
        return None
    seconds = seconds_of(stream.duration, stream.time_base)
    return seconds or (container.duration or 0) / av.time_base or None


def _check_rate(rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise BadCell(f"absurd rate: {rate:,} samples a second")


def _check_length(seconds: float | None) -> None:
    check_length(seconds, limits.current().seconds)


def check_length(seconds: float | None, most: float) -> None:
    """Raise `BadCell` for a recording or a video that is longer than `most` seconds."""
    if seconds and seconds > most:
        raise BadCell(f"absurd length: {_shown_time(seconds)}, more than {_shown_time(most)}")


def _shown_time(seconds: float) -> str:
    """Return a time in words, of hours if it has one."""
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.3g} s"


def _check_complete(seconds: float, stated: float | None) -> None:
    if stated and seconds < stated * 0.995 - SLACK:
        raise BadCell(f"cut short: {seconds:.1f} of {stated:.1f} s can be decoded")


def _read_wave(file: File, rate: int, longest: float) -> Recording:
    """Read a WAV file by soundfile, which is seven times as fast as PyAV."""
    with soundfile.SoundFile(source(file)) as sound:
        file_rate = sound.samplerate
        _check_rate(file_rate)
        seconds = sound.frames / file_rate
        _check_length(seconds)
        if not sound.frames:
            raise BadCell("audio without samples")
        if seconds > longest:
            sound.seek(int((sound.frames - longest * file_rate) / 2))
        count = int(min(longest, seconds) * file_rate) + 1
        wave = sound.read(count, dtype="float32", always_2d=True)

    mono = wave[:, 0] if wave.shape[1] == 1 else wave.mean(1)
    change = _ChangeRate(file_rate, rate)
    resampled = np.concatenate([change(np.ascontiguousarray(mono)), change(None)])
    return _finished(resampled, seconds)
