"""Tell what a media cell is by its content: an image, an animated image, or a video."""

from __future__ import annotations

from collections import Counter

from plait.errors import BadCell
from plait.media.cell import Media
from plait.media.still import is_animation, is_heif, open_image

# the share of animated images from which a column of images is one of videos
ANIMATED = 0.9


def image_kind(media: Media) -> str:
    """Return "image" or "animation". Raises `BadCell` for anything else."""
    # what an image without its package would be cannot be seen, but it is no video
    if is_heif(media.content):
        return "image"
    return "animation" if is_animation(open_image(media.content)) else "image"


def image_or_video(media: Media) -> str:
    """Return "image", "animation" or "video"; nothing for a file that does not move. Raises `BadCell`."""
    try:
        return image_kind(media)
    except BadCell:
        return "video" if media.video.moves else ""


def are_videos(kinds: Counter[str]) -> bool:
    """Return whether animated images stand for videos: nearly all images of their column are animated.

    Among still images, an animated one is an image that happens to move.
    """
    return kinds["animation"] >= ANIMATED * (kinds["animation"] + kinds["image"])
