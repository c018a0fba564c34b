"""Tell what a media cell is by its content: an image, an animated image, or a video."""

from __future__ import annotations

from collections import Counter

from plait.errors import BadCell
from plait.media.cell import Media
from plait.media.still import is_animation, is_heif, open_image

# the share of animated images from which a column of images is one of videos
ANIMATED = 0.9

BYTES = "application/octet-stream"

# the media types of files by how they begin
HEADS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"OggS": "audio/ogg",
    b"fLaC": "audio/flac",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"\xff\xf3": "audio/mpeg",
    b"\x1aE\xdf\xa3": "video/webm",
}

# and by what stands behind the fourth or the eighth byte; the empty one stands for any other
CONTAINERS = {
    b"RIFF": {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"},
    b"FORM": {b"AIF": "audio/aiff"},
    b"ftyp": {
        b"avif": "image/avif", b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heic",
        b"M4A": "audio/mp4", b"qt": "video/quicktime", b"": "video/mp4",
    },
}  # fmt: skip


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


def media_type(content: bytes) -> str:
    """Return the media type of a file by how it begins, such as image/png; for others that of bytes."""
    for head, name in HEADS.items():
        if content.startswith(head):
            return name
    by_kind = CONTAINERS.get(content[:4] if content[4:8] != b"ftyp" else b"ftyp", {})
    for kind, name in by_kind.items():
        if content[8:].startswith(kind):
            return name
    return BYTES
