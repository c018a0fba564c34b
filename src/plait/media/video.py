"""Read frames of videos, spread evenly over their time.

The frames are those that a decoder of the complete video would give, and one pass over the file reads them.
A frame's time is its presentation time, in units of the stream's time base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av import AudioStream, Packet, VideoCodecContext, VideoFrame, VideoStream
from av.stream import Stream
from PIL import Image as Pillow

from plait.errors import BadCell
from plait.media import limits
from plait.media.allowed import check_codec
from plait.media.audio import Recording, check_length, decode_audio, opened, seconds_of
from plait.media.guard import guarded
from plait.media.image import Framing, centre, fitted, rgb, square
from plait.media.memory import OF_VIDEO, budget, check_bomb
from plait.media.still import check_size, check_sums, memory_of, open_image, size_of

# how files begin that Pillow reads in place of FFmpeg
ANIMATED = (b"GIF8", b"\x89PNG")


BROKEN = "broken or cut short"


SLACK = 0.05  # seconds that a header's duration may exceed the last packet's end


@dataclass(frozen=True)
class Frames:
    """Frames of one video: `pixels` is bytes of shape (T, size, size, 3), RGB.

    `shown` counts all frames of the video, of which `pixels` may hold only some.
    """

    pixels: np.ndarray
    shown: int


class OpenVideo:
    """An open video. The file is read once, even if both `frames` and `audio` are called.

    Raises `BadCell` if the file cannot be read at all.
    """

    def __init__(self, file: bytes | str) -> None:
        self._file = file
        self._animation = open_image(file) if _is_by_pillow(file) else None
        if self._animation is None:
            self._container = opened(file)
            self._packets: dict[int, list[Packet[Stream]]] | None = None
            self._unreadable = ""  # the reason, once the packets have proved incomplete

    @property
    def moves(self) -> bool:
        """Return whether this is a video, or an image with several frames."""
        with guarded(BROKEN):
            if self._animation is not None:
                return frame_count(self._animation) > 1

            # FFmpeg also opens still images, as videos of these formats
            is_still = self._container.format.name.endswith("_pipe")
            return self._video() is not None and not is_still

    @property
    def has_audio(self) -> bool:
        """Return whether the file has an audio stream."""
        return self._animation is None and bool(self._container.streams.audio)

    def audio(self, rate: int, longest: float) -> Recording | None:
        """Return the audio as `audio.read_audio` does, or None if the video has none. Raises `BadCell`."""
        if not self.has_audio:
            return None
        index = self._container.streams.audio[0].index
        packets = cast("list[Packet[AudioStream]]", self._demux()[index])
        return decode_audio(self._container, rate, longest, packets)

    def frames(self, count: int, framing: Framing) -> Frames:
        """Cut the video's time into `count` equal segments and return the frame in the middle of each.

        Returns all frames if there are no more than `count`. Raises `BadCell` if the file has no frames, or
        if one of these frames cannot be decoded.
        """
        with guarded(BROKEN):
            if self._animation is not None:
                check_sums(self._file)
                size = size_of(self._file)
                with budget().take(memory_of(self._animation, size)):
                    return _animated_frames(self._animation, size, count, framing)
            stream = self._decodable_video()
            with budget().take(self._memory(stream)):
                packets = cast("list[Packet[VideoStream]]", self._demux()[stream.index])
                draw = _Drawer(framing, float(stream.sample_aspect_ratio or 1))
                drawn, shown = self._decode(stream, packets, count, draw)
            if not drawn:
                raise BadCell("no frame of it can be decoded")
            return Frames(np.stack(drawn), shown)

    def _memory(self, stream: VideoStream) -> int:
        """Return how many bytes decoding takes. Raises `BadCell` for absurd sizes."""
        width, height = stream.codec_context.width, stream.codec_context.height
        memory = OF_VIDEO * width * height
        check_bomb(memory, size_of(self._file), f"frames of {width} x {height} pixels")
        return memory

    def _decodable_video(self) -> VideoStream:
        """Return the video stream, ready to be decoded. Raises `BadCell` if there is none that can be."""
        stream = self._video()
        if stream is None:
            raise BadCell("audio without a video stream" if self.has_audio else "no video in it")
        context = stream.codec_context
        if context is None:
            raise BadCell("a video in a format that cannot be decoded")
        check_codec(context.name, "video")
        check_size((context.width, context.height))
        if not context.is_open:
            # cells are already read in parallel
            context.thread_count = 1
            context.thread_type = "NONE"
        return stream

    def _decode(
        self, stream: VideoStream, packets: list[Packet[VideoStream]], count: int, draw: _Drawer
    ) -> tuple[list[np.ndarray], int]:
        """Return the frames at the middles of `count` segments, drawn, and the number of all frames."""
        plan = Plan.of(packets, count)
        frames = plan.decoded if plan is not None else 2 * len(packets)
        self._check_frames(frames, stream)
        if plan is not None:
            drawn = plan.decode(stream.codec_context, stream, draw)
            if drawn is not None:
                return drawn, plan.shown

        # the timestamps do not tell the frames apart, so their numbers must
        return _decode_all(self._file, stream.index, count, draw)

    def _check_frames(self, frames: int, stream: VideoStream) -> None:
        """Raise `BadCell` if so many frames would be decoded that the file must be a bomb."""
        width, height = stream.codec_context.width, stream.codec_context.height
        pixels = frames * width * height
        size = size_of(self._file)
        bounds = limits.current()
        if pixels > bounds.video and pixels > bounds.video_ratio * size:
            content = f"{frames:,} frames of {width} x {height} pixels"
            raise BadCell(f"absurd size: {content} in {size:,} bytes, most likely a decompression bomb")

    def _video(self) -> VideoStream | None:
        """Return the first video stream that is not a cover image, or None."""
        covers = av.stream.Disposition.attached_pic
        for stream in self._container.streams.video:
            if not stream.disposition & covers:
                return stream
        return None

    def _demux(self) -> dict[int, list[Packet[Stream]]]:
        """Return the packets of video and audio by the index of their stream. Read them on the first call.

        Raises `BadCell` on every call if the file lacks something that its header states.
        """
        # a container can be read only once, so frames and audio share what the first pass says
        if self._unreadable:
            raise BadCell(self._unreadable)
        if self._packets is None:
            try:
                self._packets = self._read_packets()
            except BadCell as bad:
                self._unreadable = bad.reason
                raise
        return self._packets

    def _read_packets(self) -> dict[int, list[Packet[Stream]]]:
        """Read the packets of video and audio in one pass, and check that none is missing."""
        streams: list[VideoStream | AudioStream] = list(self._container.streams.audio[:1])
        video = self._video()
        if video is not None:
            streams.insert(0, video)

        packets: dict[int, list[Packet[Stream]]] = {stream.index: [] for stream in streams}
        with guarded(BROKEN):
            for packet in self._container.demux(streams):
                if packet.size:
                    packets[packet.stream_index].append(packet)
                    if packet.stream.type == "video":
                        check_frames(len(packets[packet.stream_index]))

        self._check_duration(streams, packets)
        self._check_packets(streams, packets)
        return packets

    def _check_duration(self, streams: Sequence[Stream], packets: dict[int, list[Packet[Stream]]]) -> None:
        """Raise `BadCell` if the packets last too long, or end before the duration that the header states."""
        end = max((_end(of_stream) for of_stream in packets.values()), default=0.0)
        start = max((self._container.start_time or 0) / av.time_base, 0.0)
        seconds = end - start
        check_length(seconds, limits.current().video_seconds)

        # the headers of other formats state no duration: FFmpeg guesses one
        if not self._formats() & {"mov", "matroska", "avi", "flv", "asf"}:
            return
        stated = (self._container.duration or 0) / av.time_base

        # subtitles may end later than video and audio
        has_other_streams = len(streams) < len(self._container.streams)
        slack = 0.5 + 0.1 * stated if has_other_streams else SLACK
        if end and seconds < 0.995 * stated - slack:
            raise BadCell(f"cut short: {max(seconds, 0):.1f} of {stated:.1f} s are there")

    def _check_packets(
        self, streams: Sequence[VideoStream | AudioStream], packets: dict[int, list[Packet[Stream]]]
    ) -> None:
        """Raise `BadCell` if a stream has fewer packets than an MP4 or MOV header states."""
        if "mov" not in self._formats():
            return
        for stream in streams:
            count = len(packets[stream.index])
            if stream.frames and count < stream.frames:
                raise BadCell(
                    f"cut short: {count:,} of {stream.frames:,} packets of its {stream.type} are there"
                )

    def _formats(self) -> set[str]:
        return set(self._container.format.name.split(","))


def _end(packets: Sequence[Packet[Stream]]) -> float:
    """Return when the last packet ends, in seconds; 0 without timestamps.

    A packet without a duration counts as lasting for the median distance between packets.
    """
    timed = [packet for packet in packets if packet.pts is not None]
    if not timed:
        return 0.0
    times = sorted(packet.pts or 0 for packet in timed)
    usual_duration = _median_distance(times) if len(times) > 1 else 0
    return max(_time_of_end(packet, usual_duration) for packet in timed)


def _time_of_end(packet: Packet[Stream], usual_duration: int) -> float:
    """Return when a packet with a timestamp ends, in seconds."""
    begin = packet.pts or 0
    duration = packet.duration or usual_duration
    return seconds_of(begin + duration, packet.time_base)


def _median_distance(times: list[int]) -> int:
    return int(np.median(np.diff(times)))


@dataclass(frozen=True)
class Plan:
    """Which packets to decode to get the frames at certain times.

    Decoding begins at the last keyframe before each of these frames. Of the packets between, only those
    that other packets refer to are decoded.
    """

    packets: list[Packet[VideoStream]]
    times: list[int]  # of the frames, in order; a frame that is shown for long may be there twice
    runs: list[tuple[int, int]]  # the first and the last packet of each stretch to decode
    shown: int  # frames of the complete video

    @classmethod
    def of(cls, packets: list[Packet[VideoStream]], count: int) -> Plan | None:
        """Plan to decode `count` frames. Returns None if the timestamps do not tell frames apart.

        That is so where timestamps or keyframes are missing, and where two packets have the same time.
        """
        times_of_packets: list[int] = []
        shown: list[int] = []
        for packet in packets:
            if packet.pts is None:
                return None
            times_of_packets.append(packet.pts)
            if not packet.is_discard:
                shown.append(packet.pts)
        if not shown or len(set(shown)) < len(shown):
            return None

        # packets come in the order of decoding, in which a later frame may come first
        shown.sort()
        end = shown[-1] + max(_last_duration(packets, shown), 1)
        times = pick(shown, end, count)
        runs = _runs(packets, times_of_packets, times)
        if runs is None:
            return None
        return cls(packets, times, runs, len(shown))

    @property
    def decoded(self) -> int:
        """The largest number of frames that `decode` decodes."""
        return sum(last - first + 1 for first, last in self.runs)

    def decode(
        self, context: VideoCodecContext, stream: VideoStream, draw: _Drawer
    ) -> list[np.ndarray] | None:
        """Return the planned frames, drawn; None if one of them is not decoded.

        Raises `BadCell` if one of them is damaged.
        """
        expected = set(self.times)
        drawn: dict[int, np.ndarray] = {}
        for first, last in self.runs:
            context.flush_buffers()
            for frame in self._run(context, first, last, expected):
                if frame.pts is None or frame.pts not in expected:
                    continue
                if frame.is_corrupt:
                    seconds = seconds_of(frame.pts, stream.time_base)
                    raise BadCell(f"broken or cut short: the frame at {seconds:.2f} s is damaged")
                drawn[frame.pts] = draw(frame)
        if set(drawn) != expected:
            return None
        return [drawn[time] for time in self.times]

    def _run(
        self, context: VideoCodecContext, first: int, last: int, expected: set[int]
    ) -> Iterator[VideoFrame]:
        """Decode one stretch of packets. Skip frames that are neither expected nor referred to."""
        for packet in self.packets[first : last + 1]:
            context.skip_frame = "DEFAULT" if packet.pts in expected else "NONREF"
            yield from context.decode(packet)

        # the decoder holds the last frames back until it is told that there are no more packets
        context.skip_frame = "DEFAULT"
        yield from context.decode(None)


def _last_duration(packets: list[Packet[VideoStream]], shown: list[int]) -> int:
    """Return how long the last frame is shown; the median distance of frames if no packet says."""
    durations = [packet.duration or 0 for packet in packets if packet.pts == shown[-1]]
    if max(durations):
        return max(durations)
    return _median_distance(shown) if len(shown) > 1 else 1


def _runs(
    packets: list[Packet[VideoStream]], times_of_packets: list[int], times: list[int]
) -> list[tuple[int, int]] | None:
    """Return the first and the last packet of each stretch to decode, one stretch per keyframe.

    Returns None if no keyframe comes before one of the `times`.
    """
    keyframes = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    positions = {time: i for i, time in enumerate(times_of_packets)}
    last_of_run: dict[int, int] = {}
    for time in times:
        position = positions[time]

        # a keyframe that is decoded earlier but shown later is not enough: open groups refer further back
        before = [key for key in keyframes if times_of_packets[key] <= time and key <= position]
        if not before:
            return None
        first = before[-1]
        last_of_run[first] = max(last_of_run.get(first, 0), position)
    return sorted(last_of_run.items())


def pick(shown: list[int], end: int, count: int) -> list[int]:
    """Return the times of the frames shown in the middle of `count` equal segments of the video.

    The video lasts from shown[0] to `end`. These are the segments of Wang et al. 2016, each with its
    centre. Returns all times if there are no more than `count`.
    """
    if len(shown) <= count:
        return shown
    middles = shown[0] + (np.arange(count) + 0.5) * (end - shown[0]) / count
    positions = np.searchsorted(shown, middles, side="right") - 1
    return [shown[max(position, 0)] for position in positions]


def _decode_all(file: bytes | str, stream: int, count: int, draw: _Drawer) -> tuple[list[np.ndarray], int]:
    """Return the frames at the middles of `count` segments by their numbers, and the number of all frames.

    Decodes the complete video twice, each time with a fresh decoder: the first pass only counts, since all
    frames together may be larger than the memory.
    """
    total = sum(1 for _ in _every_frame(file, stream))
    if not total:
        return [], 0
    numbers = set(pick(list(range(total)), total, count))
    drawn = []
    for number, frame in enumerate(_every_frame(file, stream)):
        if number not in numbers:
            continue
        if frame.is_corrupt:
            raise BadCell(BROKEN)
        drawn.append(draw(frame))
    return drawn, total


def _every_frame(file: bytes | str, stream: int) -> Iterator[VideoFrame]:
    """Decode a video stream from its beginning to its end."""
    with opened(file) as container:
        video = container.streams[stream]
        assert isinstance(video, VideoStream)
        video.codec_context.thread_count = 1
        yield from container.decode(video)


class _Drawer:
    """Turns frames into upright squares.

    FFmpeg scales them in the step that converts colours; then they are rotated and padded.
    """

    def __init__(self, framing: Framing, aspect: float) -> None:
        self.framing = framing
        self.aspect = aspect if 0.1 < aspect < 10 else 1.0  # a damaged header may state anything
        self.reformat = av.video.reformatter.VideoReformatter().reformat

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        # the aspect is that of one pixel: pixels of a stream need not be square
        shape = (max(round(frame.width * self.aspect), 1), frame.height)
        width, height = fitted(shape, self.framing)
        shrinks = width < frame.width and height < frame.height
        interpolation = "AREA" if shrinks else "BILINEAR"
        scaled = self.reformat(frame, width, height, "rgb24", interpolation=interpolation)

        turns = round(frame.rotation / 90) % 4
        upright = np.rot90(scaled.to_ndarray(), turns)
        return centre(upright, self.framing)


def _is_by_pillow(file: bytes | str) -> bool:
    """Return whether a file is a GIF, WebP, PNG or AVIF, which Pillow reads in place of FFmpeg."""
    if isinstance(file, str):
        with guarded("cannot be read"), open(file, "rb") as opened_file:
            head = opened_file.read(12)
    else:
        head = file[:12]
    if head[:4] == b"RIFF":  # WAV and AVI begin like this, too
        return head[8:] == b"WEBP"
    return head.startswith(ANIMATED) or head[4:] in (b"ftypavif", b"ftypavis")


def frame_count(image: Pillow.Image) -> int:
    """Return how many frames an image has; 1 if it is not animated."""
    return int(getattr(image, "n_frames", 1))


def check_frames(count: int) -> None:
    """Raise `BadCell` for absurdly many frames."""
    most = limits.current().frames
    if count > most:
        raise BadCell(f"absurd length: more than {most:,} frames")


def _animated_frames(image: Pillow.Image, file_size: int, count: int, framing: Framing) -> Frames:
    """Return frames as `OpenVideo.frames` does."""
    total = frame_count(image)
    check_frames(total)
    pixels = total * math.prod(image.size)
    content = f"{total:,} frames of {image.width} x {image.height} pixels"
    if pixels > limits.current().animation:
        raise BadCell(f"absurd size: {content}")
    check_bomb(pixels, file_size, content)
    numbers = _spread_frames(image, count) if total > count else list(range(total))

    # each frame is drawn over the one before, so Pillow must read them in order
    drawn = {number: _draw(image, number, framing) for number in sorted(set(numbers))}
    return Frames(np.stack([drawn[number] for number in numbers]), total)


def _spread_frames(image: Pillow.Image, count: int) -> list[int]:
    """Return the numbers of the frames shown in the middle of `count` equal segments.

    A frame without a duration lasts 0.1 s, as in browsers.
    """
    starts = []
    end = 0
    for number in range(frame_count(image)):
        image.seek(number)
        image.load()  # WebP tells the duration only then
        starts.append(end)
        milliseconds = int(image.info.get("duration", 100))
        end += max(milliseconds, 10)
    return [starts.index(time) for time in pick(starts, end, count)]


def _draw(image: Pillow.Image, number: int, framing: Framing) -> np.ndarray:
    image.seek(number)
    return square(np.asarray(rgb(image, framing.background)), framing)
