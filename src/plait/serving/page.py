"""The page for people: HTML made from the model's schema, the files it needs, and the login."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs

import jinja2
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from plait.media.kinds import media_type
from plait.serving import openapi
from plait.serving.answers import row_schema
from plait.serving.bodies import read_body
from plait.serving.gate import COOKIE
from plait.serving.inputs import Input
from plait.serving.refusals import Refusal
from plait.serving.service import Service
from plait.table.json import JSON

Messages = Mapping[str, str]

FOLDER = Path(str(files("plait.pages") / "service"))
DEFAULT_LANGUAGE = "en"
PROBABILITY = "_probability_"  # stands between a target and a class in the name of an answer's column

PROMINENT = ("image", "audio", "video", "text", "vector")  # kinds that get a wide field
PLAIN = ("number", "category", "datetime")
MANY = 20  # plain columns from which on there is a box that filters them
MOST_OFFERED = 2000  # values of a category that are offered while somebody types
FEW = 5  # values of a category that are shown as buttons
MOST_WRITTEN_OUT = 1e12  # numbers beyond this are written with an exponent
LONGEST_BUTTON = 24  # characters of such a value
LARGEST_LOGIN = 4096  # bytes of the form that carries a token


@dataclass(frozen=True)
class Field:
    """A column as the page asks for it. `kind` is the sort of control, and `number` its place on the page."""

    number: int
    name: str
    kind: str
    media: str | None
    several: bool
    missing: float
    low: str | None = None
    median: str | None = None
    high: str | None = None
    values: Sequence[str] = ()
    length: int | None = None

    @property
    def is_prominent(self) -> bool:
        """Whether the column gets a wide field before the grid of plain ones."""
        return self.kind in PROMINENT

    @property
    def offered(self) -> Sequence[str]:
        """The values that are offered while somebody types."""
        return self.values[:MOST_OFFERED]

    @property
    def buttons(self) -> Sequence[str]:
        """The values that are shown as buttons: all of a category, if they are few and short."""
        short = all(len(category) <= LONGEST_BUTTON for category in self.values)
        return self.values if short and len(self.values) <= FEW else ()

    @classmethod
    def of(cls, number: int, source: Input, description: JSON) -> Field:
        """Describe an input; `description` is that of `/schema`."""
        training = source.schema.get("x-training")
        training = training if isinstance(training, Mapping) else {}
        low, high = training.get("low"), training.get("high")
        length = source.schema.get("maxItems")
        values = training.get("values")
        media = description["media"]
        return cls(
            number=number,
            name=source.name,
            kind=_kind(source, media, low, high),
            media=media if isinstance(media, str) else None,
            several=source.several,
            missing=source.missing,
            low=_figure(low),
            median=_figure(training.get("median")),
            high=_figure(high),
            values=[str(category) for category in values] if isinstance(values, Sequence) else (),
            length=length if isinstance(length, int) else None,
        )


def add(app: FastAPI, service: Service, token: str | None) -> None:
    """Add the page, its files, the examples and the login to a service. `token` is that of `Gate`."""
    page = _Page(service)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")

    @app.get("/", include_in_schema=False)
    async def show(request: Request, lang: str = "") -> HTMLResponse:
        return page.html("page.html", _language(request, lang), has_token=token is not None)

    @app.get("/examples/{name}", include_in_schema=False)
    async def example(name: str) -> Response:
        path = page.examples.get(name)
        if path is None:
            raise Refusal(404, "no example has such a file")
        with path.open("rb") as file:
            kind = media_type(file.read(32))
        return FileResponse(path, media_type=kind)

    if token is not None:
        _add_login(app, page, token)


def _add_login(app: FastAPI, page: _Page, token: str) -> None:
    """Add a form that takes the token and keeps it in a cookie, which scripts and other sites cannot use."""

    @app.get("/login", include_in_schema=False)
    async def login(request: Request, lang: str = "") -> HTMLResponse:
        return page.html("login.html", _language(request, lang), is_wrong=False)

    @app.post("/login", include_in_schema=False)
    async def log_in(request: Request, lang: str = "") -> Response:
        language = _language(request, lang)
        # Anybody may send this form, so little of it is read.
        limits = replace(page.limits, body=LARGEST_LOGIN)
        sent = _sent_token(await read_body(request, limits))
        if not hmac.compare_digest(sent.encode(), token.encode()):
            return page.html("login.html", language, status=401, is_wrong=True)
        answer = RedirectResponse(f"./?lang={language}", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return answer


def _sent_token(body: bytes | bytearray) -> str:
    """Return the token in the body of a form; nothing for a broken one."""
    try:
        fields = parse_qs(body.decode(errors="replace"), max_num_fields=10)
    except ValueError:
        return ""
    return fields.get("token", [""])[0].strip()


class _Page:
    """The templates of a service, and what they show of its model."""

    def __init__(self, service: Service) -> None:
        self.limits = service.limits
        self.examples: dict[str, Path] = {}
        for row in service.examples:
            for paths in row.files.values():
                self.examples |= {path.name: path for path in paths}
        description = openapi.description(service)
        self._model = service.model
        self._name = service.name
        self._fields = _fields(service, description)
        alignments = {name: service.model.alignments[name] for name in service.gallery.names}
        aligned = {column for columns in alignments.values() for column in columns}
        self._query_fields = [field for field in self._fields if field.name in aligned]
        self._facts = {
            "name": service.name,
            "answers": _answers(service.model.targets, row_schema(service.model)),
            "ids": service.model.schema.of("id"),
            "media": {field.name: field.media.partition("/")[0] for field in self._fields if field.media},
            "alignments": alignments,
            "examples": description["examples"],
            "limits": {"body": service.limits.body, "rows": service.limits.rows},
        }
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self._templates.policies["json.dumps_kwargs"] = {}  # keep the order of columns

    def html(self, template: str, language: str, status: int = 200, **variables: object) -> HTMLResponse:
        """Return a page in a language."""
        messages = read_messages(language)

        def text(key: str, **words: object) -> str:
            return messages[key].format_map(words)

        html = self._templates.get_template(template).render(
            t=text,
            language=language,
            languages={name: read_messages(name)["language"] for name in languages()},
            name=self._name,
            summary=self._model.summary,
            fields=self._fields,
            query_fields=self._query_fields,
            many=MANY,
            facts={**self._facts, "language": language, "messages": messages},
            **variables,
        )
        headers = {
            "Content-Language": language,
            "Vary": "Accept-Language, Cookie",
            "Cache-Control": "no-store",
        }
        return HTMLResponse(html, status, headers)


def _fields(service: Service, description: JSON) -> list[Field]:
    """Return the inputs as fields, in the table's order."""
    inputs = description["inputs"]
    assert isinstance(inputs, list)
    fields = []
    for number, described in enumerate(inputs):
        source = service.reader.inputs[described["name"]]
        fields.append(Field.of(number, source, described))
    return fields


def _kind(source: Input, media: object, low: object, high: object) -> str:
    """Return the sort of control that a column needs: its modality, or how precise its times are.

    A modality from outside is asked for as the media type of its files says, or as text.
    """
    if source.modality not in (*PROMINENT, *PLAIN):
        family = media.partition("/")[0] if isinstance(media, str) else ""
        return family if family in PROMINENT else "text"
    if source.modality != "datetime":
        return source.modality
    has_time = any("T" in str(bound) for bound in (low, high))
    return "datetime" if has_time else "date"


def _figure(bound: object) -> str | None:
    """Write a bound of the training rows: a time to the minute, a number in a few digits, with commas."""
    if isinstance(bound, float):
        is_large = 10_000 <= abs(bound) < MOST_WRITTEN_OUT
        return f"{bound:,.0f}" if is_large else f"{bound:.4g}"
    return None if bound is None else str(bound).replace("T", " ").removesuffix(":00")


def _answers(targets: Sequence[str], schema: JSON) -> list[JSON]:
    """Return each target with its classes and the columns of their probabilities."""
    columns = schema["properties"]
    assert isinstance(columns, Mapping)
    probabilities: dict[str, list[JSON]] = {target: [] for target in targets}

    # One target may begin with the name of another: the longest that fits is the right one.
    by_length = sorted(targets, key=len, reverse=True)
    for column in columns:
        for target in by_length:
            if column.startswith(target + PROBABILITY):
                label = column.removeprefix(target + PROBABILITY)
                probabilities[target].append({"label": label, "column": column})
                break
    return [{"target": target, "probabilities": probabilities[target]} for target in targets]


@cache
def languages() -> tuple[str, ...]:
    """Return the languages that the page has messages in, by their codes."""
    return tuple(sorted(path.stem for path in (FOLDER / "messages").glob("*.json")))


@cache
def read_messages(language: str) -> Messages:
    """Return all messages in a language, by key."""
    messages: Messages = json.loads((FOLDER / "messages" / f"{language}.json").read_text(encoding="utf-8"))
    return messages


def _language(request: Request, asked: str) -> str:
    """Return the language that an address asks for, or else what the browser likes best."""
    if asked in languages():
        return asked
    liked = []
    for entry in request.headers.get("accept-language", "")[:200].split(","):
        code, _, quality = entry.strip().partition(";q=")
        language = code.partition("-")[0].lower()
        if language in languages():
            liked.append((-_quality(quality), language))
    return min(liked, key=lambda pair: pair[0])[1] if liked else DEFAULT_LANGUAGE


def _quality(text: str) -> float:
    """Return how much a browser likes a language, from 0 to 1."""
    try:
        return float(text or 1)
    except ValueError:
        return 0.0
