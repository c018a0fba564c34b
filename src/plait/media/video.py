"""Frames out of clips: spread evenly over the time that a clip is shown, exact, and by one pass over
the file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av import AudioStream, Packet, VideoCodecContext, VideoFrame, VideoStream
from av.stream import Stream
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from plait.errors import BadCell
from plait.media.audio import File, Sound, decode_sound, opened
from plait.media.image import MAX_PIXELS, Framing, centre, fitted, rgb, square

ANIMATED = (b"GIF8", b"RIFF", b"\x89PNG")  # what Pillow composes better than FFmpeg does, or alone


MAX_DECODED = 4_000_000_000  # pixels of an animated picture, all frames together


SLACK = 0.05  # seconds that a header's duration may exceed the last packet's end


@dataclass(frozen=True)
class Frames:
    """`pixels` is bytes of shape (T, size, size, 3), RGB; `shown` says how many frames the whole clip has."""

    pixels: np.ndarray
    shown: int


class Clip:
    """A clip, opened. `frames` and `sound` may both be asked for; the file is read once for both.

    Raises `BadCell` when it cannot be read at all.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._animation = _animation(file)
        if self._animation is None:
            self._container = opened(file)
            self._packets: dict[int, list[Packet[Stream]]] | None = None

    @property
    def moves(self) -> bool:
        """Whether it is a video, or a picture of several frames."""
        if self._animation is not None:
            return frame_count(self._animation) > 1
        return self._video() is not None and not self._container.format.name.endswith(
            ("_pipe", "image2", "tty")
        )

    @property
    def has_sound(self) -> bool:
        return self._animation is None and bool(self._container.streams.audio)

    def sound(self, rate: int, longest: float) -> Sound | None:
        """Its sound as `streams.read_sound` gives it; None where it has none. Raises `BadCell`."""
        if not self.has_sound:
            return None
        self._demux()
        assert self._packets is not None
        index = self._container.streams.audio[0].index
        packets = cast("list[Packet[AudioStream]]", self._packets[index])
        return decode_sound(self._container, rate, longest, packets)

    def frames(self, count: int, framing: Framing) -> Frames:
        """`count` frames, those shown in the middle of as many equal parts of its time; all, when it
        has no more.

        Raises `BadCell` when there are none, or one of them cannot be decoded.
        """
        if self._animation is not None:
            return _animated_frames(self._animation, count, framing)
        stream = self._video()
        if stream is None:
            raise BadCell("a clip without a video stream" if self.has_sound else "no video in it")
        context = stream.codec_context
        if context is None:
            raise BadCell("a video in a format that cannot be decoded")
        if context.width * context.height > MAX_PIXELS:
            raise BadCell(
                f"absurd size: {context.width} x {context.height} pixels, more than {MAX_PIXELS:,} in all"
            )
        self._demux()
        assert self._packets is not None
        packets = cast("list[Packet[VideoStream]]", self._packets[stream.index])
        if not context.is_open:
            context.thread_count, context.thread_type = 1, "NONE"  # cells are what is done in parallel
        try:
            plan = Plan.of(packets, count)
            found = plan.decode(context, stream) if plan else None
            if found is None:  # timestamps that do not tell the frames: decode it all
                found, shown = _decode_all(self._file, stream.index, count)
            else:
                shown = plan.shown if plan else 0
        except (av.FFmpegError, ValueError) as error:
            raise BadCell(f"broken or cut short: {getattr(error, 'strerror', None) or error}") from None
        if not found:
            raise BadCell("no frame of it can be decoded")
        draw = _Drawer(framing, float(stream.sample_aspect_ratio or 1))
        return Frames(np.stack([draw(frame) for frame in found]), shown)

    def _video(self) -> VideoStream | None:
        """The first video that is not a cover's picture."""
        covers = av.stream.Disposition.attached_pic
        return next((s for s in self._container.streams.video if not s.disposition & covers), None)

    def _demux(self) -> None:
        """Reads the packets of its video and its sound in one pass, and sees whether all that its
        header states are there.
        """
        if self._packets is not None:
            return
        streams = [s for s in (self._video(), *self._container.streams.audio[:1]) if s is not None]
        self._packets = {s.index: [] for s in streams}
        try:
            for packet in self._container.demux(streams):
                if packet.size:
                    self._packets[packet.stream_index].append(packet)
        except (av.FFmpegError, ValueError) as error:
            raise BadCell(f"broken or cut short: {getattr(error, 'strerror', None) or error}") from None
        self._check_whole(streams, max((_end(packets) for packets in self._packets.values()), default=0.0))

    def _check_whole(self, streams: Sequence[Stream], end: float) -> None:
        assert self._packets is not None
        start = max((self._container.start_time or 0) / av.time_base, 0.0)
        stated = (self._container.duration or 0) / av.time_base
        names = set(self._container.format.name.split(","))
        # subtitles may end later than what is seen and heard
        slack = SLACK if len(streams) == len(self._container.streams) else 0.5 + 0.1 * stated
        if end and names & {"mov", "matroska", "avi", "flv", "asf"} and end - start < 0.995 * stated - slack:
            raise BadCell(f"cut short: {max(end - start, 0):.1f} of {stated:.1f} s are there")
        for stream in streams:
            have = len(self._packets[stream.index])
            if "mov" in names and stream.frames and have < stream.frames:
                raise BadCell(
                    f"cut short: {have:,} of {stream.frames:,} packets of its {stream.type} are there"
                )


def _end(packets: Sequence[Packet[Stream]]) -> float:
    """When the last of them ends; one that does not say how long it lasts does so as long as its like."""
    times = sorted(p.pts for p in packets if p.pts is not None)
    if not times:
        return 0.0
    usual = int(np.median(np.diff(times))) if len(times) > 1 else 0
    return max(float((p.pts + (p.duration or usual)) * p.time_base) for p in packets if p.pts is not None)


@dataclass(frozen=True)
class Plan:
    """Which packets to decode so that the wanted frames come out: from the last keyframe before each
    on, and of those between only the ones that others refer to.
    """

    packets: list[Packet[VideoStream]]
    wanted: list[int]  # presentation times, in order; one that is shown for long may be there twice
    runs: list[tuple[int, int]]  # first and last packet of each stretch to decode
    shown: int

    @classmethod
    def of(cls, packets: list[Packet[VideoStream]], count: int) -> Plan | None:
        """None where timestamps or keyframes are missing or do not tell frames apart."""
        shown = sorted(p.pts for p in packets if p.pts is not None and not p.is_discard)
        keys = [i for i, p in enumerate(packets) if p.is_keyframe and p.pts is not None]
        if not shown or not keys or any(p.pts is None for p in packets) or len(set(shown)) < len(shown):
            return None
        last = max(p.duration or 0 for p in packets if p.pts == shown[-1]) or int(
            np.median(np.diff(shown) if len(shown) > 1 else [1])
        )
        wanted = pick(shown, shown[-1] + max(last, 1), count)
        times = [p.pts for p in packets if p.pts is not None]
        place = {pts: i for i, pts in enumerate(times)}
        ends: dict[int, int] = {}
        for pts in wanted:
            before = [k for k in keys if times[k] <= pts and k <= place[pts]]
            if not before:
                return None
            ends[before[-1]] = max(ends.get(before[-1], 0), place[pts])
        return cls(packets, wanted, sorted(ends.items()), len(shown))

    def decode(self, context: VideoCodecContext, stream: VideoStream) -> list[VideoFrame] | None:
        """The wanted frames; None when one of them does not come out."""
        wanted, got = set(self.wanted), {}
        for first, last in self.runs:
            context.flush_buffers()
            for frame in self._run(context, first, last, wanted):
                if frame.pts in wanted:
                    if frame.is_corrupt:
                        raise ValueError(
                            f"the frame at {float(frame.pts * (stream.time_base or 0)):.2f} s is damaged"
                        )
                    got[frame.pts] = frame
        if set(got) != wanted:
            return None
        return [got[pts] for pts in self.wanted]

    def _run(
        self, context: VideoCodecContext, first: int, last: int, wanted: set[int]
    ) -> Iterator[VideoFrame]:
        for packet in self.packets[first : last + 1]:
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from context.decode(packet)
        context.skip_frame = "DEFAULT"
        yield from context.decode(None)


def pick(shown: list[int], end: int, count: int) -> list[int]:
    """The times of the frames on display in the middle of `count` equal parts of the time from shown[0]
    to `end` (the segments of Wang et al. 2016, each by its centre); all times when there are no more
    than `count`.
    """
    if len(shown) <= count:
        return shown
    middles = shown[0] + (np.arange(count) + 0.5) * (end - shown[0]) / count
    return [shown[max(i, 0)] for i in np.searchsorted(shown, middles, side="right") - 1]


def _decode_all(file: File, stream: int, count: int) -> tuple[list[VideoFrame], int]:
    """The wanted frames by their number, from two passes over a fresh decoder each: the first only counts."""

    def every() -> Iterator[VideoFrame]:
        with opened(file) as container:
            video = container.streams[stream]
            assert isinstance(video, VideoStream)
            video.codec_context.thread_count = 1
            yield from container.decode(video)

    total = sum(1 for _ in every())
    wanted = set(pick(list(range(total)), total, count)) if total else set()
    found = [frame for i, frame in enumerate(every()) if i in wanted]
    if any(frame.is_corrupt for frame in found):
        raise ValueError("a frame is damaged")
    return found, total


class _Drawer:
    """Frames to upright squares: scaled by FFmpeg in the step that converts colours, then turned and
    padded.
    """

    def __init__(self, framing: Framing, aspect: float) -> None:
        self.framing = framing
        self.aspect = aspect if 0.1 < aspect < 10 else 1.0
        self.reformat = av.video.reformatter.VideoReformatter().reformat

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        width, height = fitted((max(round(frame.width * self.aspect), 1), frame.height), self.framing)
        shrinks = width < frame.width and height < frame.height
        drawn = self.reformat(frame, width, height, "rgb24", interpolation="AREA" if shrinks else "BILINEAR")
        turns = round(frame.rotation / 90) % 4
        return centre(np.rot90(drawn.to_ndarray(), turns), self.framing)


def _animation(file: File) -> Pillow.Image | None:
    """GIF, WebP or PNG, opened by Pillow; None for anything else."""
    if not isinstance(file, bytes):
        return None
    head = file[:16]
    if not head.startswith(ANIMATED) or (head.startswith(b"RIFF") and head[8:12] != b"WEBP"):
        return None
    try:
        image = Pillow.open(io.BytesIO(file))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise BadCell(f"broken or cut short: {error}") from None
    return image


def frame_count(image: Pillow.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _animated_frames(image: Pillow.Image, count: int, framing: Framing) -> Frames:
    """As `Clip.frames`. A frame without a duration lasts 0.1 s, as browsers have it."""
    try:
        total = frame_count(image)
        if total * math.prod(image.size) > MAX_DECODED:
            raise BadCell(f"absurd size: {total:,} frames of {image.width} x {image.height} pixels")
        starts, end = [], 0
        for i in range(total if total > count else 0):
            image.seek(i)
            image.load()  # WebP tells the duration only then
            starts.append(end)
            end += max(int(image.info.get("duration", 100)), 10)
        wanted = [starts.index(t) for t in pick(starts, end, count)] if starts else range(total)
        drawn = {i: _draw(image, i, framing) for i in sorted(set(wanted))}
        return Frames(np.stack([drawn[i] for i in wanted]), total)
    except (OSError, ValueError, SyntaxError, IndexError, EOFError) as error:
        raise BadCell(f"broken or cut short: {str(error) or type(error).__name__}") from None


def _draw(image: Pillow.Image, number: int, framing: Framing) -> np.ndarray:
    image.seek(number)
    return square(np.asarray(rgb(image, framing.background)), framing)
