"""Make requests as attackers do, from a seed, and send them over bare sockets, which send any bytes."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa

from support.hostile_files import CRAFTED, crafted, crossed, damaged, good_files, noise, playlists

# What no answer may hold: addresses, tracebacks, paths, names of libraries.
FORBIDDEN = re.compile(
    rb"0x[0-9a-f]{5,}|Traceback|File \"|site-packages|\.py\b|/home/|/usr/|/tmp/|libav|ffmpeg|pillow|numpy|"
    rb"torch|pyarrow|pydantic|Errno|Exception",
    re.IGNORECASE,
)
SECRET = "canary-7d1f2c"  # stands in the planted file; no request has it
UNANSWERED = -1  # the status of a request that gets no answer in time

BOUNDARY = "plait"
JSON_TYPE, LINES_TYPE = "application/json", "application/jsonl"
ARROW_TYPE = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True)
class Target:
    """What is attacked: the columns of a model by kind, and what must never be read.

    `canary` is the path of a file, and `listener` an address of this machine that nobody may connect to.
    """

    media: Sequence[str]
    plain: Sequence[str]
    good: dict[str, Any]
    canary: str
    listener: str


@dataclass(frozen=True)
class Attack:
    """One request. `kind` and `name` say what it tries, and `pieces` are its bytes, with pauses between.

    `must_fail`: an answer of 200 would be wrong. Damaged files may still be readable.
    """

    kind: str
    name: str
    pieces: tuple[bytes, ...]
    must_fail: bool = True
    pause: float = 0.0
    file: bytes = b""  # what is sent as base64, which messages may show


def request(
    method: str,
    path: str,
    body: bytes = b"",
    headers: Sequence[tuple[str, str]] = (),
    length: str | None = None,
) -> bytes:
    """Return the bytes of a request; `length` replaces the length of its body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogatepass") + body


def posted(path: str, body: bytes, kind: str = JSON_TYPE) -> bytes:
    """Return the bytes of a request with a body."""
    return request("POST", path, body, [("Content-Type", kind)])


def form(fields: Sequence[tuple[str, bytes, bool]], boundary: str = BOUNDARY) -> bytes:
    """Return a form. A field is (name, content, whether it is a file)."""
    pieces = []
    for name, content, is_file in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"' + '; filename="x"' * is_file
        pieces.append(head.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + content + b"\r\n")
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


def posted_form(body: bytes, boundary: str = f"boundary={BOUNDARY}") -> bytes:
    """Return the bytes of a request with a form."""
    return posted("/predict", body, f"multipart/form-data; {boundary}")


# --- One generator for each kind of attack ------------------------------------------------------------------


def _row(rng: np.random.Generator, target: Target, column: str, cell: Any) -> bytes:
    """Return a row in JSON whose other cells are good ones, or absent."""
    row = {name: good for name, good in target.good.items() if rng.random() < 0.3}
    return json.dumps({**row, column: cell}).encode()


def _with_file(rng: np.random.Generator, target: Target, content: bytes) -> bytes:
    """Send a file in a random column, in one of three ways."""
    column = str(rng.choice(list(target.media)))
    way = int(rng.integers(0, 3))
    if way == 0:
        return posted_form(form([(column, content, True)]))
    letters = base64.b64encode(content).decode()
    cell = letters if way == 1 else f"data:image/png;base64,{letters}"
    return posted("/predict", _row(rng, target, column, cell))


def damaged_file(rng: np.random.Generator, target: Target) -> Attack:
    """A file that is damaged, random, or the beginning of one and the end of another."""
    names = list(good_files())
    first, second = (good_files()[names[int(number)]] for number in rng.integers(0, len(names), 2))
    name = names[int(rng.integers(0, len(names)))]
    way = float(rng.random())
    if way < 0.1:
        content = noise(rng)
    elif way < 0.2:
        content = crossed(first, second, rng)
    else:
        content = damaged(good_files()[name], rng)
    return Attack("damaged file", name, (_with_file(rng, target, content),), must_fail=False)


def crafted_file(rng: np.random.Generator, target: Target) -> Attack:
    """A file that no program writes: a bomb, a loop, an absurd size."""
    name = str(rng.choice(list(CRAFTED)))
    # bytes behind the end make it a file that the service has not seen
    content = crafted(name) + (rng.bytes(4) if rng.random() < 0.3 else b"")
    return Attack("crafted file", name, (_with_file(rng, target, content),), must_fail=False)


def playlist(rng: np.random.Generator, target: Target) -> Attack:
    """A file that names another one, on the disk or in the network."""
    relative = target.canary.rpartition("/")[2]
    places = [
        target.canary,
        relative,
        f"file://{target.canary}",
        f"{target.listener}/{relative}",
        f"../{relative}",
    ]
    files = playlists(str(rng.choice(places)))
    name = str(rng.choice(list(files)))
    return Attack("playlist", name, (_with_file(rng, target, files[name]),), False, file=files[name])


def address(rng: np.random.Generator, target: Target) -> Attack:
    """A path or a URL where a file is expected."""
    relative = target.canary.rpartition("/")[2]
    cells = [
        target.canary, f"file://{target.canary}", relative, f"./{relative}", f"../../..{target.canary}",
        f"{target.listener}/a.png", f"{target.listener}/a.mp4", "http://169.254.169.254/latest/meta-data/",
        "/etc/passwd", "/dev/zero", "/proc/self/environ", "/proc/self/fd/0", "\\\\localhost\\share\\a.png",
        "C:\\Windows\\win.ini", f"concat:{target.canary}", f"subfile,,start,0,end,9,,:{target.canary}",
        f"data:text/plain,{target.canary}", f"crypto:{target.canary}", "pipe:0", "fd:0", "tcp://127.0.0.1:22",
        "~/.ssh/id_rsa", "$HOME/.bashrc", "%2e%2e%2fetc%2fpasswd", "a\0b", "x" * 5000, "\ud800", ".", "/", "",
    ]  # fmt: skip
    cell: Any = cells[int(rng.integers(0, len(cells)))]
    column = str(rng.choice(list(target.media)))
    if rng.random() < 0.3:
        cell = [{"path": cell, "bytes": None}, {"bytes": cell}, [cell], [[cell]]][int(rng.integers(0, 4))]
    must_fail = bool(cell) and cell not in ({"bytes": ""}, [""], {"path": "", "bytes": None})
    return Attack(
        "path or URL", str(cell)[:40], (posted("/predict", _row(rng, target, column, cell)),), must_fail
    )


def _strange(rng: np.random.Generator, depth: int = 0) -> Any:
    """Return anything that JSON can write."""
    cells = [
        None, True, False, 0, -1, 1.5, 1e308, -1e308, 10**400, 2**63, 2**64, 5e-324, "", " ", "x", "nan",
        "inf", "NaN", "1e999", "\0", "\x1b[31m", "\u202e", "ￜ", "😀" * 50, "=1+1",
        "<script>alert(1)</script>",
        "%s%n", "' OR 1=1 --", "{{7*7}}", "../..", "9" * 5000, "x" * 20_000, "2024-13-45", "0000-00-00",
        "99999-01-01", "1,5", "[1,2", "[1, 2, 3]", [], {}, [[]], [None], {"a": {}}, [1, "a", None],
        [1e308] * 3,
        [0.5] * 10_000,
        {"bytes": "x"}, {"bytes": None, "path": "x"}, {"__class__": "x"}, {"$ref": "#"},
    ]  # fmt: skip
    if depth < 3 and rng.random() < 0.2:
        inner = [_strange(rng, depth + 1) for _ in range(int(rng.integers(0, 4)))]
        return inner if rng.random() < 0.5 else {f"k{number}": cell for number, cell in enumerate(inner)}
    return cells[int(rng.integers(0, len(cells)))]


def wrong_type(rng: np.random.Generator, target: Target) -> Attack:
    """Values of any type in any column."""
    columns = [*target.media, *target.plain]
    row = {str(column): _strange(rng) for column in rng.choice(columns, int(rng.integers(1, len(columns))))}
    rows = [row] * int(rng.choice([1, 1, 1, 2, 30]))
    body = json.dumps(rows if len(rows) > 1 or rng.random() < 0.1 else row).encode()
    path = str(rng.choice(["/predict", "/predict?strict=false", "/embed", "/predict/batch"]))
    if path == "/predict/batch":
        lines = b"\n".join(json.dumps(row).encode() for row in rows)
        return Attack("wrong types", path, (posted(path, lines, LINES_TYPE),), must_fail=False)
    return Attack("wrong types", path, (posted(path, body),), must_fail=False)


def unknown_column(rng: np.random.Generator, target: Target) -> Attack:
    """A column that the model does not have, of any name."""
    names = [
        "x", "", " ", "__proto__", "constructor", "../../etc/passwd", "\0", "a\r\nSet-Cookie: x=1", "\ud800",
        "x" * 100_000, "<img src=x onerror=alert(1)>", "'; drop table rows; --", "%s%s%s%n", "{0.__class__}",
        "\u202egnp.exe", "photo ", "PHOTO", "photo.sound", "clip.sound", "photo[]", "photo.bytes", "😀",
        "label\n",
    ]  # fmt: skip
    name = names[int(rng.integers(0, len(names)))]
    if rng.random() < 0.3:
        return Attack(
            "unknown column", repr(name)[:30], (posted_form(form([(name, b"1", rng.random() < 0.5)])),), False
        )
    must_fail = not name.startswith("label")
    return Attack(
        "unknown column", repr(name)[:30], (posted("/predict", _row(rng, target, name, 1)),), must_fail
    )


def broken_json(rng: np.random.Generator, target: Target) -> Attack:
    """JSON that is broken, deep, huge, or no row."""
    good = json.dumps(target.good).encode()
    deep = int(rng.choice([100, 1_000, 100_000, 1_000_000]))
    wrong: dict[str, Callable[[], bytes]] = {
        "nothing": lambda: b"",
        "null": lambda: b"null",
        "a number": lambda: b"1",
        "a text": lambda: b'"x"',
        "true": lambda: b"true",
        "lists": lambda: b"[[]]",
        "nulls": lambda: b"[null]",
        "deep lists": lambda: b"[" * deep,
        "deep objects": lambda: b'{"a":' * deep,
        "a deep cell": lambda: b'{"text":' + b"[" * deep + b"]" * deep + b"}",
        "two rows": lambda: good + good,
        "UTF-16": lambda: good.decode().encode("utf-16"),
        "UTF-32": lambda: good.decode().encode("utf-32"),
        "Latin-1": lambda: b'{"text": "\xe9"}',
        "NaN": lambda: b'{"price": NaN}',
        "Infinity": lambda: b'{"price": Infinity}',
        "single quotes": lambda: b"{'a': 1}",
        "a comment": lambda: b'{"text": "x" /* y */}',
        "a comma": lambda: b'{"text": "x",}',
        "many rows": lambda: b"[" + b"{}," * 5_000 + b"{}]",
        "many columns": lambda: json.dumps({f"c{number}": 1 for number in range(20_000)}).encode(),
        "noise": lambda: rng.bytes(int(rng.integers(1, 300))),
        "XML": lambda: b"<row><text>x</text></row>",
        "a form": lambda: b"text=x&price=1",
        "YAML": lambda: b"!!python/object/apply:os.system ['id']",
        "pickle": lambda: b"\x80\x04cos\nsystem\n.",
    }
    strange: dict[str, Callable[[], bytes]] = {
        "a list": lambda: b"[]",
        "a mark of UTF-8": lambda: b"\xef\xbb\xbf" + good,
        "a surrogate": lambda: b'{"text": "\\ud800"}',
        "a null character": lambda: b'{"text": "\\u0000"}',
        "a huge number": lambda: b'{"price": ' + b"9" * 100_000 + b"}",
        "a huge exponent": lambda: b'{"price": 1e999999999}',
        "a column again and again": lambda: b"{" + b'"text": "x",' * 20_000 + b'"text": "y"}',
        "a huge text": lambda: b'{"text": "' + b"x" * 3_000_000 + b'"}',
        "cut short": lambda: good[: int(rng.integers(1, len(good)))],
        "damaged": lambda: damaged(good, rng),
    }
    name = str(rng.choice([*wrong, *strange]))
    body = wrong[name]() if name in wrong else strange[name]()
    return Attack("JSON", name, (posted("/predict", body),), must_fail=name in wrong)


def wrong_content(rng: np.random.Generator, target: Target) -> Attack:
    """A body that is not what its headers say."""
    good = json.dumps(target.good).encode()
    headers: list[list[tuple[str, str]]] = [
        [], [("Content-Type", "")], [("Content-Type", "text/plain")], [("Content-Type", "application/xml")],
        [("Content-Type", "x" * 5_000)], [("Content-Type", "application/x-www-form-urlencoded")],
        [("Content-Type", "application/x-python-pickle")], [("Content-Type", "multipart/mixed; boundary=x")],
        [("Content-Type", JSON_TYPE), ("Content-Encoding", "gzip")],
        [("Content-Type", JSON_TYPE), ("Content-Encoding", "br, gzip, deflate")],
        [("Content-Type", "application/json; charset=utf-16")], [("Content-Type", "APPLICATION/JSON;;;=")],
        [("Content-Type", "application/json\x0b")], [("Content-Type", "application/json, text/html")],
    ]  # fmt: skip
    chosen = headers[int(rng.integers(0, len(headers)))]
    is_json = any(name == "Content-Type" and value.lower().startswith(JSON_TYPE) for name, value in chosen)
    return Attack("content type", str(chosen)[:40], (request("POST", "/predict", good, chosen),), not is_json)


def broken_form(rng: np.random.Generator, target: Target) -> Attack:
    """A form that is broken."""
    column = str(rng.choice(list(target.media)))
    good = form([(column, good_files()["PNG"], True), ("text", b"x", False)])
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{column}"'.encode()
    tail = f"\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode()
    bare = f"--{BOUNDARY}\r\n".encode()

    # first whole requests, then forms in a request that has nothing wrong with it
    requests: dict[str, Callable[[], bytes]] = {
        "without a boundary": lambda: posted("/predict", good, "multipart/form-data"),
        "with an empty boundary": lambda: posted_form(good, "boundary="),
        "with a boundary of 10,000 letters": lambda: posted_form(good, "boundary=" + "x" * 10_000),
        "with another boundary": lambda: posted_form(good, "boundary=other"),
        "with a boundary that is not ASCII": lambda: posted_form(good, "boundary=\u00e9\u20ac"),
        "with two boundaries": lambda: posted_form(good, "boundary=plait; boundary=other"),
    }
    forms: dict[str, Callable[[], bytes]] = {
        "without an end": lambda: good[:-12],
        "cut short": lambda: good[: int(rng.integers(1, len(good) - 4))],
        "damaged": lambda: damaged(good, rng),
        "empty": lambda: b"",
        "noise": lambda: rng.bytes(500),
        "of 50,000 parts": lambda: form([("text", b"x", False)] * 50_000),
        "of 11,000 files": lambda: form([(column, b"x", True)] * 11_000),
        "of empty parts": lambda: (bare + b"\r\n\r\n") * 1_000 + f"--{BOUNDARY}--".encode(),
        "with a name of 1 MB": lambda: form([("x" * 1_000_000, b"x", False)]),
        "with a header of 1 MB": lambda: head + b"\r\nX: " + b"y" * 1_000_000 + tail,
        "with 10,000 headers": lambda: head + b"\r\nX: y" * 10_000 + tail,
        "without a name": lambda: bare + b"Content-Disposition: form-data" + tail,
        "without headers": lambda: bare + tail[2:],
        "in itself": lambda: form([(column, form([(column, good, True)]), True)]),
        "with a strange file name": lambda: head + b'; filename="../../etc/passwd\0"' + tail,
        "with a strange encoding": lambda: head + b"\r\nContent-Transfer-Encoding: base64" + tail,
        "with a text that is not UTF-8": lambda: form([("text", b"\xff\xfe\x80", False)]),
        "with _charset_": lambda: form([("_charset_", b"utf-7", False), ("text", b"+ADw-", False)]),
    }
    name = str(rng.choice([*requests, *forms]))
    raw = requests[name]() if name in requests else posted_form(forms[name]())
    return Attack("form", name, (raw,), name not in ("damaged", "with a text that is not UTF-8"))


def broken_stream(rng: np.random.Generator, target: Target) -> Attack:
    """A stream of JSON Lines or Arrow that is broken."""
    arrow = _arrow(
        pa.table({"text": ["a", "b"], "price": [1.0, 2.0], target.media[0]: [good_files()["PNG"], b"x"]})
    )
    streams: dict[str, tuple[bytes, str]] = {
        "damaged Arrow": (damaged(arrow, rng), ARROW_TYPE),
        "Arrow with flipped bits": (_flipped(arrow, rng), ARROW_TYPE),
        "Arrow of 2 GB": (b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(100), ARROW_TYPE),
        "noise as Arrow": (rng.bytes(500), ARROW_TYPE),
        "Arrow of dates that no calendar has": (_strange_dates(rng), ARROW_TYPE),
        "Arrow without columns": (_arrow(pa.table({"x": pa.nulls(30_000_000)}).select([])), ARROW_TYPE),
        "Arrow of 30,000,000 empty cells": (_arrow(pa.table({"text": pa.nulls(30_000_000)})), ARROW_TYPE),
        "Arrow of 30,000,000 times no bytes": (
            _arrow(pa.table({"photo": _no_bytes(30_000_000)})),
            ARROW_TYPE,
        ),
        "Arrow of many batches without rows": (_empty_batches(20_000), ARROW_TYPE),
        "damaged lines": (damaged(b'{"text": "x"}\n{"price": 1}\n' * 5, rng), LINES_TYPE),
        "a line of no row": (b"[1]\nnull\n1\n{}\n", LINES_TYPE),
        "a line of 5 MB": (b'{"text": "' + b"x" * 5_000_000, LINES_TYPE),
        "deep lines": ((b"[" * 100_000 + b"\n") * 3, LINES_TYPE),
        "lines of playlists": (_line(target, playlists(target.canary)["ffconcat"]), LINES_TYPE),
        "empty lines": (b"\n" * 100_000, LINES_TYPE),
        "another type": (b"{}", "text/csv"),
    }
    name = str(rng.choice(list(streams)))
    content, kind = streams[name]
    return Attack("stream", name, (posted("/predict/batch", content, kind),), must_fail=False)


def _arrow(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def _strange_dates(rng: np.random.Generator) -> bytes:
    """Return a stream of Arrow with a date or a time that Python has no object for."""
    kinds = [
        pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC"),
        pa.timestamp("us", "No/Where"), pa.time32("s"), pa.time64("ns"), pa.duration("s"),
        pa.month_day_nano_interval(),
    ]  # fmt: skip
    kind = kinds[int(rng.integers(0, len(kinds)))]
    bits = np.full(2, int(rng.choice([2**63 - 1, -(2**63), 2**31 - 1])), np.int64)
    cells = pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(bits)])
    return _arrow(pa.table({str(rng.choice(["day", "price", "text"])): cells}))


def _no_bytes(rows: int) -> pa.Array:
    """Return cells of no bytes, which take no memory however many they are."""
    return pa.Array.from_buffers(pa.binary(0), rows, [None, pa.py_buffer(b"")])


@cache
def _empty_batches(count: int) -> bytes:
    """Return a stream of Arrow of many batches, none of which has rows."""
    schema = pa.schema({"text": pa.string()})
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, schema) as writer:
        for _ in range(count):
            writer.write_batch(pa.RecordBatch.from_pylist([], schema))
    return buffer.getvalue()


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    broken = bytearray(content)
    for place in rng.integers(0, len(broken), 3).tolist():
        broken[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(broken)


def _line(target: Target, content: bytes) -> bytes:
    return json.dumps({target.media[0]: base64.b64encode(content).decode()}).encode() + b"\n"


def broken_http(rng: np.random.Generator, target: Target) -> Attack:
    """A request that is hardly HTTP."""
    good = json.dumps({"text": "x"}).encode()
    kind = [("Content-Type", JSON_TYPE)]
    chunked = [*kind, ("Transfer-Encoding", "chunked")]
    requests: dict[str, bytes] = {
        "noise": rng.bytes(300),
        "nothing but a line": b"GET\r\n\r\n",
        "another version": b"POST /predict HTTP/9.9\r\nHost: x\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.bytes(200),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(50),
        "without a host": b"GET /schema HTTP/1.1\r\nConnection: close\r\n\r\n" + b"",
        "a line of 1 MB": b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "a header of 1 MB": request("POST", "/predict", good, [*kind, ("X", "y" * 1_000_000)]),
        "10,000 headers": request("POST", "/predict", good, [*kind, *[("X", "y")] * 10_000]),
        "a length that is too long": request("POST", "/predict", good, kind, length="5000"),
        "a length that is too short": request("POST", "/predict", good, kind, length="3"),
        "a negative length": request("POST", "/predict", good, kind, length="-1"),
        "a length of 2 ** 64": request("POST", "/predict", good, kind, length=str(2**64)),
        "a length of 1 TB": request("POST", "/predict", good, kind, length=str(10**12)),
        "a length in words": request("POST", "/predict", good, kind, length="many"),
        "two lengths": request("POST", "/predict", good, [*kind, ("Content-Length", "1")]),
        "length and chunks": request("POST", "/predict", good, chunked),
        "a broken chunk": request("POST", "/predict", b"", chunked) + b"zz\r\nx\r\n0\r\n\r\n",
        "a chunk of 2 ** 64 bytes": request("POST", "/predict", b"", chunked) + b"ffffffffffffffff\r\nx",
        "a chunk of -1 bytes": request("POST", "/predict", b"", chunked) + b"-1\r\nx\r\n",
        "chunks without an end": request("POST", "/predict", b"", chunked) + b"1\r\n{\r\n",
        "a trailer without an end": request("POST", "/predict", b"", chunked)
        + b"1\r\n{\r\n0\r\nX: "
        + b"y" * 1_000_000,
        "trailers without an end": request("POST", "/predict", b"", chunked)
        + b"1\r\n{\r\n0\r\n"
        + b"X: y\r\n" * 200_000,
        "smuggling": request("POST", "/predict", b"", chunked)
        + b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "an upgrade": request(
            "GET", "/predict", headers=[("Upgrade", "websocket"), ("Connection", "Upgrade")]
        ),
        "a header without a name": b"GET /schema HTTP/1.1\r\n: x\r\n\r\n",
        "a header with a line break": b"GET /nothing HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        "a null in a header": b"GET /nothing HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n",
        "a cookie of strange letters": request(
            "GET", "/nothing", headers=[("Cookie", "plait_token=\xff; a=;;;=")]
        ),
        "an absolute address": request("GET", "http://169.254.169.254/latest/"),
        "expecting": request("POST", "/predict", b"", [*kind, ("Expect", "100-continue")], length="3"),
    }
    name = str(rng.choice(list(requests)))
    return Attack(
        "HTTP", name, (requests[name],), name not in ("length and chunks", "smuggling", "without a host")
    )


def wrong_path(rng: np.random.Generator, target: Target) -> Attack:
    """A path or a method that the service does not have, and paths that lead elsewhere."""
    relative = target.canary.rpartition("/")[2]
    folders = ["/", "/examples/", "/static/", "/media/", "/schema/", "/predict/"]
    ups = [
        "..",
        "%2e%2e",
        "..%2f..",
        "..%5c..",
        "....//",
        "%252e%252e",
        "..;",
        "\\..\\..",
        "%c0%ae%c0%ae",
        "..%00",
    ]
    names = [
        relative,
        "etc/passwd",
        "run.json",
        "plan.json",
        "weights.safetensors",
        "%00",
        "a" * 3000,
        "?x=1",
        "#",
    ]
    methods = [
        "GET",
        "GET",
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "OPTIONS",
        "PATCH",
        "TRACE",
        "CONNECT",
        "x",
    ]
    pick = [str(rng.choice(choice)) for choice in (folders, ups, ups, names, methods)]
    path = f"{pick[0]}{pick[1]}/{pick[2]}/{pick[3]}" if rng.random() < 0.7 else f"{pick[0]}{pick[3]}"
    is_the_page = path.startswith(("/?", "/#"))
    return Attack("path", path[:40], (request(pick[4], path),), must_fail=not is_the_page)


def wrong_query(rng: np.random.Generator, target: Target) -> Attack:
    """Arguments of routes that they cannot read."""
    arguments = [
        "", "x", "-1", "0", "99999999999999999999", "1e9", "true", "null", "NaN", "%00", "%ff", "..%2f",
        "a" * 2000, "[]", "{}", "%0d%0aSet-Cookie:%20a=1", "1;drop", "score%20%3E%201", "__class__", "%F0%9F",
    ]  # fmt: skip
    names = [
        "strict",
        "k",
        "in",
        "where",
        "exact",
        "alignment",
        "column",
        "labels",
        "template",
        "threshold",
        "text",
        "row",
    ]
    chosen = rng.choice(names, int(rng.integers(1, 5)))
    query = "&".join(f"{name}={arguments[int(rng.integers(0, len(arguments)))]}" for name in chosen)
    route = str(rng.choice(["/predict", "/embed", "/search", "/classify", "/media", "/predict/batch"]))
    good = json.dumps({"text": "x"}).encode()
    raw = request("GET", f"{route}?{query}") if route == "/media" else posted(f"{route}?{query}", good)
    return Attack("query", route, (raw,), must_fail=False)


def indexed(rng: np.random.Generator, target: Target) -> Attack:
    """A query of an index, labels of a stranger, or a file of the index."""
    conditions = [
        "price < 1", "1=1", "price < 1; DROP TABLE rows", "text = '' OR 1=1 --", "(" * 500,
        "NOT " * 200 + "1=1", "price IN (" + "1," * 400 + "1)", "price / 0 > 1", "CAST(text AS INT) = 1",
        "text LIKE '%" * 50,
        "regexp_like(text, '(a+)+$')", "(SELECT 1) = 1", "EXISTS (SELECT * FROM rows)", "row_folder != ''",
        "price < 1e999", "'\0' = text", "\ud800 = 1", "read_csv('/etc/passwd') = 1", "price BETWEEN", "",
        "9" * 900 + " > price", "array_repeat(1, 999999999) IS NULL", "/etc/passwd", "_rowid >= 0",
    ]  # fmt: skip
    labels = ["a", "b", "c", "", " ", "\0", "{}", "{0.__class__}", "x" * 20_000, "\u202e", "\n", "a" * 200]
    numbers = ["0", "5", "-1", "47", "48", "99999999999", "99999999999999999999", "1e3", "0x1", "NaN", ""]
    columns = ["photo"] * 5 + ["text"] * 5
    columns += ["call", "row_folder", "row", "../photo", "%00", "", "photo.bytes", "x" * 3000]
    templates = ["{}", "{}", "a {} b", "{", "{x}", "{}" * 40, "%s", "{}{}", "{:>999999999}"]
    alignments = ["alignment", "alignment", "x", "../alignment", "", "\0"]

    def pick(choices: Sequence[str]) -> str:
        return choices[int(rng.integers(0, len(choices)))]

    def query(**arguments: object) -> str:
        return urlencode(arguments, doseq=True, errors="surrogatepass")

    route = pick(["/search", "/search", "/classify", "/media"])
    if route == "/media":
        asked = query(row=pick(numbers), column=pick(columns), alignment=pick(alignments))
        return Attack("index", route, (request("GET", f"/media?{asked}"),), must_fail=False)
    if route == "/search":
        arguments: dict[str, object] = {"k": pick(["1", "1000", pick(numbers)])}
        arguments |= {"where": pick(conditions)} if rng.random() < 0.7 else {}
        arguments |= {"in": pick(columns), "exact": pick(["true", "false"])} if rng.random() < 0.5 else {}
    else:
        arguments = {"labels": [pick(labels) for _ in range(int(rng.choice([1, 3, 60])))]}
        arguments |= {"template": pick(templates), "column": pick(columns)}
        arguments |= {"threshold": pick(["nan", "inf", "-1e308", "0.5"])} if rng.random() < 0.3 else {}

    # half of the queries are good rows
    way = float(rng.random())
    if way < 0.5:
        body = json.dumps({"text": "there is a leaf"}).encode()
    elif way < 0.7:
        body = json.dumps({"text": _strange(rng), "photo": _strange(rng)}).encode()
    else:
        names = list(good_files())
        content = damaged(good_files()[pick(names)], rng)
        body = json.dumps({"photo": base64.b64encode(content).decode()}).encode()
    return Attack("index", route, (posted(f"{route}?{query(**arguments)}", body),), must_fail=False)


def endless(rng: np.random.Generator, target: Target) -> Attack:
    """A stream that goes on and on, and brings little or nothing."""
    line = json.dumps({"text": "x"}).encode() + b"\n"
    pieces = {
        "empty lines": b"\n",
        "spaces": b" ",
        "rows": line,
        "a line without an end": b'{"text": "' + b"x",
    }
    name = str(rng.choice(list(pieces)))
    head = request("POST", "/predict/batch", headers=[("Content-Type", LINES_TYPE)], length=str(10**9))
    return Attack("endless", name, (head, *[pieces[name]] * 30), must_fail=False, pause=0.15)


def slow(rng: np.random.Generator, target: Target) -> Attack:
    """A request that hardly arrives."""
    good = json.dumps({"text": "x" * 200}).encode()
    raw = posted("/predict", good)
    ways = {"headers": raw[:60], "body": raw, "nothing": b""}
    name = str(rng.choice(list(ways)))
    sent = ways[name]
    cut = len(sent) - 150 if name == "body" else 0
    letters = sent[cut:]
    pieces = (sent[:cut], *(letters[place : place + 5] for place in range(0, len(letters), 5)))
    return Attack("slow", name, pieces, pause=0.15)


Generator = Callable[[np.random.Generator, Target], Attack]

# Of a thousand requests, so many are of each kind.
SHARES: dict[Generator, int] = {
    damaged_file: 420, crafted_file: 70, playlist: 90, address: 80, wrong_type: 90, unknown_column: 30,
    broken_json: 70, wrong_content: 15, broken_form: 40, broken_stream: 25, broken_http: 30, wrong_path: 25,
    wrong_query: 13, indexed: 30, endless: 2, slow: 2,
}  # fmt: skip


def attacks(count: int, target: Target, seed: int = 0) -> list[Attack]:
    """Return attacks of all kinds, in a random order."""
    rng = np.random.default_rng(seed)
    generators = list(SHARES)
    shares = np.array(list(SHARES.values())) / sum(SHARES.values())
    numbers = rng.choice(len(generators), count, p=shares)
    numbers[: len(generators)] = np.arange(len(generators))  # each kind at least once
    return [generators[int(number)](rng, target) for number in rng.permutation(numbers)]


# --- Sending ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """What came back: the status, and all bytes. The status is 0 if the connection was closed without any."""

    status: int
    content: bytes
    seconds: float


def send(attack: Attack, port: int, timeout: float = 30.0) -> Reply:
    """Send an attack, and return what comes back."""
    began = time.perf_counter()
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        try:
            for piece in attack.pieces:
                connection.sendall(piece)
                time.sleep(attack.pause)
        except OSError:  # the service has answered already, or closed the connection
            pass
        try:
            while piece := connection.recv(1 << 16):
                received += piece
                if _is_complete(received):
                    break
        except TimeoutError:
            return Reply(UNANSWERED, received, time.perf_counter() - began)
        except OSError:
            pass
    return Reply(_status(received), received, time.perf_counter() - began)


def _status(received: bytes) -> int:
    received = _final(received)
    head = received[:12].split(b" ")
    return int(head[1]) if len(head) > 1 and head[0].startswith(b"HTTP/") and head[1].isdigit() else 0


def _final(received: bytes) -> bytes:
    """Return what follows "100 Continue", which is no answer yet."""
    return received.partition(b"\r\n\r\n")[2] if received.startswith(b"HTTP/1.1 100") else received


def faults(attack: Attack, reply: Reply, folder: str) -> list[str]:
    """Return what is wrong with a reply. `folder` is where the service runs, which no reply may show."""
    wrong = []
    if reply.status >= 500:
        wrong.append(f"status {reply.status}")
    if reply.status == UNANSWERED:
        wrong.append("no answer in time")
    if attack.must_fail and 200 <= reply.status < 300:
        wrong.append("answered")

    # a message may show what came
    sent = b"".join(attack.pieces) + attack.file
    for match in [*FORBIDDEN.findall(reply.content), folder.encode()]:
        if match in reply.content and match not in sent:
            wrong.append(f"holds {match!r}")
    if SECRET.encode() in reply.content:
        wrong.append("holds what was planted")
    return wrong


class _Received:
    """Bytes that look like a socket to `http.client`."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._content)


def _is_complete(received: bytes) -> bool:
    """Return whether a response is there to its end."""
    try:
        response = http.client.HTTPResponse(_Received(_final(received)))  # type: ignore[arg-type]
        response.begin()
        if response.length is None and not response.chunked:
            return False
        response.read()
    except (http.client.HTTPException, ValueError, OSError):
        return False
    return True
