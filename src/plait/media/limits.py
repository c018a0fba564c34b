"""The limits of one media file, in one place: what is larger is taken for a mistake or an attack.

They hold for the process. Training has the defaults; a process that decodes the files of strangers sets
narrower ones before it reads the first file.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image as Pillow


@dataclass(frozen=True)
class Limits:
    """What a file may hold at most. Times are in seconds, memory in bytes.

    Without `memory`, the variable `PLAIT_DECODE_MEMORY` says how much decoding may take.
    """

    pixels: int = 178_956_970  # of an image or a frame; Pillow's own limit: about 13,000 x 13,000
    frames: int = 6_000_000  # of a video or an animation: a day at 60 frames a second
    seconds: float = 4 * 3600.0  # of a recording
    video_seconds: float = 24 * 3600.0  # of a video, whose frames are decoded only here and there
    animation: int = 2_000_000_000  # pixels of all frames of an animated image: about a minute of decoding

    # Pixels of all frames of a video that are decoded: minutes. That many are a bomb only if they are more
    # than `video_ratio` for each byte. A still screen takes a byte for 100,000.
    video: int = 50_000_000_000
    video_ratio: int = 100_000

    memory: int | None = None


_current = Limits()


def current() -> Limits:
    """Return the limits of this process."""
    return _current


def set_limits(limits: Limits) -> None:
    """Set the limits of this process, before it decodes anything."""
    global _current
    _current = limits

    # images inside of other files, as in icons, are opened by Pillow itself, which refuses twice this number
    Pillow.MAX_IMAGE_PIXELS = limits.pixels // 2
