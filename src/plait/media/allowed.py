"""Which containers, codecs and image formats plait opens, in training and in use.

FFmpeg and Pillow read hundreds of formats. Some of them name other files, which FFmpeg then opens: a playlist
in a cell would bring any local file, or an address, into a table. Some run a program. Most are old, read by
nobody, and decoded by code that nobody attacks but strangers. So everything that is not listed is refused.
"""

from __future__ import annotations

import io
import mmap

from plait.errors import BadCell

# Image formats by Pillow's names. Left out are those that run a program (EPS, WMF), those that need code from
# elsewhere (BUFR, GRIB, HDF5, MPEG), and those of single programs, games and instruments.
IMAGES = (
    "JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "JPEG2000",  # of cameras, phones and the web; JPEG with MPO
    "BMP", "DIB", "TIFF", "PPM", "TGA", "PCX", "SGI", "QOI",  # of scanners, archives and renderers
    "ICO", "CUR",  # of programs; what is inside is a PNG or a BMP
)  # fmt: skip


# Containers by FFmpeg's names of demuxers, of which one may have several. Left out are those that open other
# files (hls, dash, concat, imf, image2, vobsub), a network (rtsp, sdp, sap) or a device, those that FFmpeg
# recognises in plain text (tty, subtitles), and those of single games.
AUDIO_CONTAINERS = (
    "wav", "w64", "aiff", "caf", "au", "voc", "sox", "nistsphere",  # samples
    "mp3", "aac", "latm", "loas", "ac3", "eac3", "dts", "dtshd", "mlp", "truehd", "gsm", "amr",
    "amrnb", "amrwb",
    "flac", "ape", "wv", "tta", "tak", "mpc", "mpc8", "shn", "dsf",  # compressed without a loss, or nearly
)  # fmt: skip
VIDEO_CONTAINERS = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2",  # one demuxer
    "matroska", "webm", "ogg", "avi", "asf", "flv", "mpeg", "mpegts", "rm", "mxf", "dv", "swf", "nut", "ivf",
    "h264", "hevc", "av1", "obu", "m4v", "mpegvideo", "mjpeg", "h263", "vc1", "yuv4mpegpipe",  # streams alone
)  # fmt: skip
STILL_CONTAINERS = ("jpeg_pipe", "png_pipe", "bmp_pipe", "tiff_pipe", "webp_pipe", "gif", "apng")  # one image


# Decoders by FFmpeg's names.
AUDIO_CODECS = (
    "aac", "aac_latm", "mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "opus", "libopus", "vorbis",
    "speex", "ac3", "eac3", "dca", "mlp", "truehd", "wmav1", "wmav2", "wmapro", "wmavoice",
    "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "gsm", "gsm_ms", "g722", "g726", "g726le",
    "cook", "sipr", "real_144", "real_288", "nellymoser", "qdm2", "qcelp", "evrc",
    "flac", "alac", "ape", "wavpack", "tta", "tak", "wmalossless", "mpc7", "mpc8", "shorten",
    "dsd_lsbf", "dsd_lsbf_planar", "dsd_msbf", "dsd_msbf_planar", "truespeech", "mace3", "mace6",
    "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_swf", "adpcm_yamaha", "adpcm_adx",
    "dvaudio", "s302m",
    "pcm_alaw", "pcm_mulaw", "pcm_bluray", "pcm_dvd", "pcm_u8", "pcm_s8", "pcm_s8_planar",
    "pcm_s16le", "pcm_s16be", "pcm_s16le_planar", "pcm_s16be_planar", "pcm_u16le", "pcm_u16be",
    "pcm_s24le", "pcm_s24be", "pcm_s24le_planar", "pcm_u24le", "pcm_u24be",
    "pcm_s32le", "pcm_s32be", "pcm_s32le_planar", "pcm_u32le", "pcm_u32be", "pcm_s64le", "pcm_s64be",
    "pcm_f16le", "pcm_f24le", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be",
)  # fmt: skip
VIDEO_CODECS = (
    "h264", "hevc", "vvc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9",  # of today
    "mpeg1video", "mpeg2video", "mpegvideo", "mpeg4", "h261", "h263", "h263i", "h263p", "theora", "vp3",
    "flv", "vp6", "vp6a", "vp6f", "vp7", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "wmv1", "wmv2", "wmv3", "vc1",
    "rv10", "rv20", "rv30", "rv40", "svq1", "svq3", "cinepak", "indeo3", "indeo4", "indeo5", "msvideo1",
    "mjpeg", "jpeg2000", "prores", "dnxhd", "cfhd", "dvvideo", "png", "apng", "gif", "webp", "bmp", "tiff",
    "ffv1", "ffvhuff", "huffyuv", "utvideo", "magicyuv", "rawvideo", "qtrle", "rpza", "v210", "flashsv",
)  # fmt: skip


# What FFmpeg is told. It opens a file by no protocol but the one that plait uses, and no container and no
# decoder besides those above. Formats that have checksums are to check them.
OPTIONS = {
    "format_whitelist": ",".join((*AUDIO_CONTAINERS, *VIDEO_CONTAINERS, *STILL_CONTAINERS)),
    "codec_whitelist": ",".join((*AUDIO_CODECS, *VIDEO_CODECS)),
    "err_detect": "crccheck",
}


CODECS = frozenset((*AUDIO_CODECS, *VIDEO_CODECS))


READ_IMAGES = "JPEG, PNG, GIF, WebP, AVIF, HEIF, BMP, TIFF, JPEG 2000 and others"
READ_MEDIA = "WAV, MP3, FLAC, Ogg, AAC, MP4, MOV, Matroska, WebM, AVI and others"
DECODED = "PCM, MP3, AAC, Opus, Vorbis, FLAC, H.264, H.265, VP9, AV1, MPEG-4 and others"


NAMES_FILES = ", which may name other files"

# How files of formats begin that are refused, behind spaces and marks of an encoding, in small letters.
REFUSED = {
    b"#extm3u": f"a playlist (M3U){NAMES_FILES}",
    b"ffconcat": f"a playlist (ffconcat){NAMES_FILES}",
    b"[playlist]": f"a playlist (PLS){NAMES_FILES}",
    b"[reference]": f"a playlist (ASX){NAMES_FILES}",
    b"<asx": f"a playlist (ASX){NAMES_FILES}",
    b"<smil": f"a playlist (SMIL){NAMES_FILES}",
    b"<mpd": f"a playlist (DASH){NAMES_FILES}",
    b"<playlist": f"a playlist (XSPF){NAMES_FILES}",
    b"rtsptext": f"a playlist (QuickTime){NAMES_FILES}",
    b"v=0": f"a description of a session (SDP){NAMES_FILES}",
    b"<svg": f"a drawing (SVG){NAMES_FILES}",
    b"<?xml": f"XML{NAMES_FILES}",
    b"<!doctype": "a web page (HTML)",
    b"<html": "a web page (HTML)",
    b"%!ps": "a program for printers (EPS)",
    b"\xc5\xd0\xd3\xc6": "a program for printers (EPS)",
    b"%pdf": "a document (PDF)",
    b"\xd7\xcd\xc6\x9a": "a drawing of Windows (WMF)",
    b"simple  =": "a measurement (FITS)",
    b"8bps": "a document of Photoshop (PSD)",
    b"gimp xcf": "a document of GIMP (XCF)",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cjxl ": "JPEG XL",
    b"dds ": "a texture (DDS)",
    b"icns": "an icon of macOS (ICNS)",
    b"v/1\x01": "OpenEXR",
    b"pk\x03\x04": "an archive (ZIP)",
    b"\x1f\x8b": "an archive (gzip)",
    b"7z\xbc\xaf\x27\x1c": "an archive (7z)",
    b"rar!": "an archive (RAR)",
    b"\x7felf": "a program",
    b"mz": "a program",
}
MARKS = b"\xef\xbb\xbf \t\r\n\0"  # may stand before a text


def format_of(head: bytes) -> str:
    """Return what a file is that begins like this, if its format is one that plait refuses; otherwise ""."""
    for beginning in (head.lower(), head.lstrip(MARKS).lower()):
        for start, name in REFUSED.items():
            if beginning.startswith(start):
                return name
    return ""


def head_of(file: bytes | str | mmap.mmap | io.BytesIO) -> bytes:
    """Return the first bytes of a file."""
    if isinstance(file, str):
        with open(file, "rb") as opened_file:
            return opened_file.read(64)
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:64]
    return bytes(file[:64])


def check_codec(name: str, kind: str) -> None:
    """Raise `BadCell` for a stream whose codec is not listed. `kind` is "audio" or "video"."""
    if name not in CODECS:
        raise BadCell(f"{kind} of the codec '{name}', which plait does not decode; it decodes {DECODED}")
