"""Make files as attackers do: damaged, absurd, and of formats that name other files. All from a seed."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from support.files import animation
from support.media import clip, encoded, wav, wave

PNG = b"\x89PNG\r\n\x1a\n"


@cache
def good_files() -> dict[str, bytes]:
    """Return small good files by their format."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    sound = wave(0.2)
    files = {kind: saved(image, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")}
    files |= {kind: saved(image, kind) for kind in ("JPEG2000", "PPM", "TGA", "ICO")}
    files |= {f"animated {kind}": animation(kind) for kind in ("GIF", "WEBP", "PNG")}
    files |= {kind: wav(sound, kind=kind) for kind in ("WAV", "FLAC", "OGG", "AIFF", "AU", "CAF", "W64")}
    files["MP3"] = encoded(sound, "mp3", "libmp3lame")
    files["M4A"] = encoded(sound, "ipod", "aac")
    files["Opus"] = encoded(sound, "ogg", "libopus", rate=48_000)
    files["WMA"] = encoded(sound, "asf", "wmav2")
    for container in ("mp4", "matroska", "mov", "mpegts"):
        files[container] = clip(6, container)
    files["webm"] = clip(6, "webm", "libvpx")
    files["avi"] = clip(6, "avi", "mpeg4")
    files["mp4 with sound"] = clip(6, sound=sound)
    return files


def saved(image: Image.Image, kind: str) -> bytes:
    """Return an image as a file of this format."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one of several ways."""
    broken = bytearray(content)
    place = int(rng.integers(0, len(broken)))
    length = int(rng.integers(1, 64))
    noise = rng.bytes(length)
    way = int(rng.integers(0, 8))
    if way == 0:
        return bytes(broken[:place])
    if way == 1:
        for position in rng.integers(0, len(broken), 1 + length // 4).tolist():
            broken[position] ^= 1 << int(rng.integers(0, 8))
    elif way == 2:  # most of what decides is at the beginning
        for position in rng.integers(0, min(len(broken), 128), 4).tolist():
            broken[position] = int(rng.integers(0, 256))
    elif way == 3:
        broken[place : place + length] = noise
    elif way == 4:
        broken[place:place] = noise
    elif way == 5:
        del broken[place : place + length]
    elif way == 6:  # sizes and counts
        broken[place : place + 4] = rng.choice(
            [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x80" * 4]
        )
    else:
        broken += broken[place:] + noise
    return bytes(broken)


def crossed(first: bytes, second: bytes, rng: np.random.Generator) -> bytes:
    """Return the beginning of one file with the end of another."""
    return first[: int(rng.integers(4, len(first)))] + second[int(rng.integers(0, len(second))) :]


def noise(rng: np.random.Generator) -> bytes:
    """Return random bytes, some of which begin as a file does."""
    heads = [
        b"",
        PNG,
        b"\xff\xd8\xff\xe0",
        b"RIFF",
        b"OggS",
        b"ID3\x04",
        b"\x1aE\xdf\xa3",
        b"\0\0\0\x20ftypmp42",
        b"GIF89a",
    ]
    return heads[int(rng.integers(0, len(heads)))] + rng.bytes(int(rng.integers(0, 4096)))


# --- Files that no program writes -------------------------------------------------------------------------


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG, with its sum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"", mode: int = 2) -> bytes:
    """Return a PNG of any size, with chunks before its pixels. Without `pixels`, they are missing."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0))
    body = png_chunk(b"IDAT", pixels or zlib.compress(bytes(100)))
    return PNG + head + b"".join(chunks) + body + png_chunk(b"IEND", b"")


@cache
def black(width: int, height: int) -> bytes:
    """Return a complete grey PNG of one colour, which is tiny."""
    return png(width, height, pixels=zlib.compress(bytes((width + 1) * height), 9), mode=0)


def gif(frames: int, width: int = 1, height: int = 1) -> bytes:
    """Return a GIF of many equal frames."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * frames + b"\x3b"


def tiff(entries: list[tuple[int, int, int, int]], next_directory: int = 0, head: bytes = b"II*\0") -> bytes:
    """Return a TIFF of one directory whose entries are (tag, type, count, value)."""
    content = head + struct.pack("<IH", 8, len(entries))
    for entry in entries:
        content += struct.pack("<HHII", *entry)
    return content + struct.pack("<I", next_directory)


def tiff_of_directories(count: int) -> bytes:
    """Return a TIFF of very many directories, each of which leads to the next one."""
    shape = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
    size = 2 + 12 * len(shape) + 4
    entries = struct.pack("<H", len(shape)) + b"".join(struct.pack("<HHII", *entry) for entry in shape)
    directories = [entries + struct.pack("<I", 8 + size * (number + 1)) for number in range(count)]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(directories)


def box(name: bytes, *contents: bytes, size: int | None = None) -> bytes:
    """Return a box of MP4, AVIF or JPEG 2000. It may lie about its size."""
    content = b"".join(contents)
    return struct.pack(">I", 8 + len(content) if size is None else size) + name + content


def jpeg_2000(width: int, height: int, tile: int) -> bytes:
    """Return the beginning of a JPEG 2000 stream of so many tiles, without pixels."""
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, tile, tile, 0, 0, 3) + b"\x07\x01\x01" * 3
    siz = b"\xff\x51" + struct.pack(">H", len(size) + 2) + size
    cod = b"\xff\x52" + struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 1, 5, 4, 4, 0, 0)
    qcd = b"\xff\x5c" + struct.pack(">HB", 19, 0x40) + bytes(16)
    sot = b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 0, 0, 1) + b"\xff\x93"
    return b"\xff\x4f" + siz + cod + qcd + sot + bytes(64) + b"\xff\xd9"


def riff(kind: bytes, *chunks: bytes, size: int | None = None) -> bytes:
    """Return a RIFF file. It may lie about its size."""
    content = kind + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content) if size is None else size) + content


def riff_chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    """Return a chunk of a RIFF file. It may lie about its size."""
    return name + struct.pack("<I", len(content) if size is None else size) + content


def wav_format(rate: int = 16_000, channels: int = 1, bits: int = 16, tag: int = 1) -> bytes:
    """Return the chunk of a WAV file that says how samples are written."""
    block = channels * bits // 8
    content = struct.pack(
        "<HHIIHH", tag, channels & 0xFFFF, rate, rate * block & 0xFFFF_FFFF, block & 0xFFFF, bits
    )
    return riff_chunk(b"fmt ", content)


def element(name: bytes, content: bytes, size: bytes | None = None) -> bytes:
    """Return an element of Matroska. It may lie about its size."""
    return name + (struct.pack(">BI", 8, len(content)) if size is None else size) + content


def matroska(*elements: bytes, size: bytes | None = None) -> bytes:
    """Return a Matroska file with these elements of a segment."""
    head = element(b"\x1aE\xdf\xa3", element(b"\x42\x82", b"matroska"))
    return head + element(b"\x18\x53\x80\x67", b"".join(elements), size)


def mp4(
    width: int = 16, height: int = 16, entries: int = 1, edits: int = 0, sizes: int = 1, reference: str = ""
) -> bytes:
    """Return an MP4 whose tables state so many entries, edits and sizes of samples, without samples.

    `reference` is a file that is said to hold them.
    """
    times = box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 1, entries & 0xFFFF_FFFF, 0, 0))
    handler = box(b"hdlr", bytes(8) + b"vide" + bytes(13))
    visual = bytes(6) + struct.pack(">H", 1) + bytes(16) + struct.pack(">HH", width, height) + bytes(50)
    described = box(b"stsd", struct.pack(">II", 0, 1), box(b"mp4v", visual))
    tables = [
        described,
        box(b"stts", struct.pack(">IIII", 0, 1, entries & 0xFFFF_FFFF, 1)),
        box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1)),
        box(b"stsz", struct.pack(">III", 0, 4, sizes & 0xFFFF_FFFF)),
        box(b"stco", struct.pack(">III", 0, 1, 48)),
    ]
    named = box(b"dref", struct.pack(">II", 0, 1), box(b"url ", bytes(4) + reference.encode()))
    media = box(b"mdia", times, handler, box(b"minf", box(b"dinf", named), box(b"stbl", *tables)))
    head = box(b"tkhd", bytes(76) + struct.pack(">II", width << 16, height << 16))
    listed = box(
        b"edts",
        box(b"elst", struct.pack(">II", 0, edits) + struct.pack(">IiI", 9, 0, 65536) * min(edits, 5000)),
    )
    movie = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1, 0x7FFF_FFFF) + bytes(80))
    return (
        box(b"ftyp", b"mp42\0\0\0\0mp42")
        + box(b"moov", movie, box(b"trak", head, listed, media))
        + box(b"mdat", bytes(64))
    )


def id3(content: bytes, depth: int) -> bytes:
    """Return a file behind tags of ID3, one in the other."""
    for _ in range(depth):
        frame = b"APIC" + struct.pack(">I", len(content)) + b"\0\0" + content
        size = len(frame)
        letters = bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
        content = b"ID3\x03\0\0" + letters + frame
    return content


def nested_boxes(depth: int) -> bytes:
    """Return an MP4 of boxes in boxes."""
    content = b""
    for _ in range(depth):
        content = box(b"moov", content)
    return box(b"ftyp", b"mp42\0\0\0\0mp42") + content


@cache
def crafted(name: str) -> bytes:
    """Return a file that no program writes."""
    return CRAFTED[name]()


def _text_bombs() -> bytes:
    bomb = zlib.compress(bytes(8_000_000), 9)
    chunks = [png_chunk(b"zTXt", b"k%d\0\0" % number + bomb) for number in range(40)]
    chunks.append(png_chunk(b"iTXt", b"k\0\1\0\0\0" + bomb))
    return png(8, 8, png_chunk(b"iCCP", b"p\0\0" + bomb), *chunks)


CRAFTED: dict[str, Callable[[], bytes]] = {
    "nothing but a zero": lambda: b"\0",
    "one letter": lambda: b"x",
    "PNG of 65535 x 1": lambda: black(65_535, 1),
    "PNG of 1 x 65535": lambda: black(1, 65_535),
    "PNG of 1 x 1": lambda: black(1, 1),
    "PNG of 0 x 0": lambda: png(0, 0),
    "PNG of 20000 x 20000": lambda: black(20_000, 20_000),
    "PNG of 7000 x 7000 black pixels": lambda: black(7_000, 7_000),
    "PNG that states 2 ** 31 pixels a side": lambda: png(0x7FFF_FFFF, 0x7FFF_FFFF),
    "PNG with compressed texts of 320 MB": _text_bombs,
    "PNG with a chunk of 4 GB": lambda: png(8, 8, b"\xff\xff\xff\xfftEXtx"),
    "APNG of 2 ** 31 frames": lambda: png(8, 8, png_chunk(b"acTL", struct.pack(">II", 0x7FFF_FFFF, 0))),
    "GIF of 65535 x 65535": lambda: gif(1, 65_535, 65_535),
    "GIF of 200,000 frames": lambda: gif(200_000),
    "GIF of 3000 frames of 3000 x 3000": lambda: gif(3_000, 3_000, 3_000),
    "WebP that states 16384 x 16384": lambda: riff(
        b"WEBP", riff_chunk(b"VP8X", b"\x02\0\0\0\xff\x3f\0\xff\x3f\0")
    ),
    "TIFF of 65535 x 65535": lambda: tiff(
        [(256, 4, 1, 65_535), (257, 4, 1, 65_535), (258, 3, 1, 8), (259, 3, 1, 5)]
    ),
    "TIFF of 100,000 directories": lambda: tiff_of_directories(100_000),
    "TIFF whose directory leads to itself": lambda: tiff([(256, 3, 1, 1), (257, 3, 1, 1)], 8),
    "TIFF with a tag of 4 GB": lambda: tiff([(256, 3, 1, 8), (257, 3, 1, 8), (700, 7, 0xFFFF_FFFF, 8)]),
    "BMP of 2 ** 30 pixels a side": lambda: (
        b"BM" + struct.pack("<4I2i2H6I", 54, 0, 54, 40, *[1 << 30] * 2, 1, 24, *[0] * 6)
    ),
    "TGA of 65535 x 65535": lambda: struct.pack("<3B2HB4H2B", 0, 0, 10, *[0] * 5, 65_535, 65_535, 24, 0),
    "PPM of a billion pixels a side": lambda: b"P6\n1000000000 1000000000\n255\n" + bytes(99),
    "PPM with a width of a million digits": lambda: b"P6\n" + b"9" * 1_000_000 + b" 1\n255\n",
    "ICO with a PNG of 20000 x 20000 inside": lambda: _icon(black(20_000, 20_000)),
    "JPEG 2000 of 65,536 tiles": lambda: jpeg_2000(65_536, 65_536, 256),
    "JPEG 2000 of tiles of one pixel": lambda: jpeg_2000(30_000, 1_500, 1),
    "AVIF without images": lambda: box(b"ftyp", b"avif\0\0\0\0avifmif1") + box(b"meta", bytes(4)),
    "AVIF that states a box of 4 GB": lambda: (
        box(b"ftyp", b"avif\0\0\0\0avif") + box(b"meta", bytes(8), size=0xFFFF_FFF0)
    ),
    "HEIF without images": lambda: box(b"ftyp", b"heic\0\0\0\0heicmif1") + box(b"meta", bytes(4)),
    "JPEG of 65535 x 65535": lambda: good_files()["JPEG"].replace(b"\0\x18\0\x20\3", b"\xff\xff\xff\xff\3"),
    "JPEG with a thousand scans": lambda: _scans(1_000),
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="99999999" height="99999999"></svg>',
    "EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n",
    "FITS": lambda: (
        b"SIMPLE  =                    T" + b" " * 50 + b"BITPIX  =                    8" + b" " * 50
    ),
    "WAV with a size of 4 GB": lambda: riff(
        b"WAVE", wav_format(), riff_chunk(b"data", bytes(100), 0xFFFF_FFF0), size=0xFFFF_FFFF
    ),
    "WAV of 65535 channels": lambda: riff(
        b"WAVE", wav_format(channels=65_535), riff_chunk(b"data", bytes(1000))
    ),
    "WAV of 4 billion samples a second": lambda: riff(
        b"WAVE", wav_format(0xFFFF_FFFF), riff_chunk(b"data", bytes(1000))
    ),
    "WAV of no samples a second": lambda: riff(b"WAVE", wav_format(0), riff_chunk(b"data", bytes(1000))),
    "WAV of a codec that is unknown": lambda: riff(
        b"WAVE", wav_format(tag=0x1234), riff_chunk(b"data", bytes(999))
    ),
    "WAV of hours of silence": lambda: riff(
        b"WAVE", wav_format(50, bits=8), riff_chunk(b"data", bytes(2_000_000))
    ),
    "Ogg with absurd sizes": lambda: b"OggS\0\2" + b"\xff" * 20 + b"\xff" * 256,
    "Ogg with a codec and no more": lambda: good_files()["OGG"][:80],
    "FLAC of 2 ** 36 samples": lambda: (
        b"fLaC\x80\0\0\x22\x10\0\x10\0" + bytes(6) + b"\x0a\xc4\x42\xff\xff\xff\xff\xff" + bytes(16)
    ),
    "AIFF of 2 ** 31 samples": lambda: (
        b"FORM\xff\xff\xff\xf0AIFFCOMM\0\0\0\x12\0\1\x7f\xff\xff\xff\0\x10\x40\x0e\xac\x44"
        + bytes(6)
        + b"SSND\x7f\xff\xff\xff"
    ),
    "Matroska of an unknown size": lambda: matroska(size=b"\x01" + b"\xff" * 7),
    "Matroska with an element of 2 ** 56 bytes": lambda: matroska(b"\x16\x54\xae\x6b\x01" + b"\xfe" * 7),
    "Matroska in itself": lambda: _nested_matroska(500),
    "MP4 of 2 ** 32 samples": lambda: mp4(entries=0xFFFF_FFFF, sizes=0xFFFF_FFFF),
    "MP4 with a million edits": lambda: mp4(edits=1_000_000),
    "MP4 with 5000 edits": lambda: mp4(edits=5_000, entries=100, sizes=100),
    "MP4 of 65535 x 65535": lambda: mp4(65_535, 65_535),
    "MP4 of boxes in boxes": lambda: nested_boxes(20_000),
    "MP4 that names another file": lambda: mp4(reference="/etc/passwd"),
    "ID3 in ID3": lambda: id3(good_files()["MP3"], 200),
    "ID3 of 256 MB": lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1000),
    "ZIP": lambda: b"PK\x03\x04" + bytes(100),
    "gzip of 50 MB": lambda: gzip.compress(bytes(50_000_000)),
    "program": lambda: b"\x7fELF\x02\x01\x01" + bytes(100),
}


def _icon(content: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(content), 22) + content


def _scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.new("RGB", (1024, 1024), (9, 99, 9)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + b"\xff\xd9"


def _nested_matroska(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = element(b"\x18\x53\x80\x67", content)
    return element(b"\x1aE\xdf\xa3", element(b"\x42\x82", b"matroska")) + content


def playlists(target: str) -> dict[str, bytes]:
    """Return files that make players open another one: `target` is a path or a URL."""
    texts = {
        "M3U": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n",
        "M3U with a key": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:5,\n{target}\n',
        "M3U with a map": f'#EXTM3U\n#EXT-X-MAP:URI="{target}"\n#EXTINF:5,\n{target}\n',
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\nduration 2\n",
        "DASH": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period>"
        f"<AdaptationSet mimeType='video/mp4'><Representation id='1'><BaseURL>{target}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
        "PLS": f"[playlist]\nFile1={target}\nNumberOfEntries=1\nVersion=2\n",
        "XSPF": f"<playlist><trackList><track><location>{target}</location></track></trackList></playlist>",
        "SDP": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns={target}\nc=IN IP4 127.0.0.1\nm=audio 8239 RTP/AVP 0\n",
        "SMIL": f"<smil><body><video src='{target}'/></body></smil>",
        "ASX": f"<asx version='3'><entry><ref href='{target}'/></entry></asx>",
        "RTSP": f"RTSPtext\r\n{target}\r\n",
        "SVG": f"<svg xmlns='http://www.w3.org/2000/svg'><image href='{target}'/></svg>",
        "XML": f"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY y SYSTEM '{target}'>]><svg>&y;</svg>",
        "IMF": f"<?xml version='1.0'?><AssetMap><Asset><Path>{target}</Path></Asset></AssetMap>",
        "VobSub": f"# VobSub index file, v7\nid: en, index: 0\n# {target}\n",
        "LRC": f"[00:01.00]{target}\n",
        "filter": f"movie={target}[out0]",
    }
    files = {name: text.encode() for name, text in texts.items()}
    files["M3U in UTF-16"] = texts["M3U"].encode("utf-16")
    files["M3U behind ID3"] = b"ID3\x03\0\0\0\0\0\0" + files["M3U"]
    files["M3U behind a PNG"] = good_files()["PNG"] + files["M3U"]
    files["ffconcat behind a GIF"] = b"GIF89a" + files["ffconcat"]
    files["MP3 before M3U"] = good_files()["MP3"] + files["M3U"]
    return files
