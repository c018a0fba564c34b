"""The page for people, as it comes over HTTP: what it names, in which language, and who may see it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

import plait
from plait.serving import page
from support.serving import served
from support.tables import FAST, make_rows, write_csv

TOKEN = "a secret; with = signs"
ODD = '<b>"p\'rice"</b> {{ 7*7 }} & = ñ 价格'


class Reader(HTMLParser):
    """Gathers the elements of a page, as names with attributes, and what its scripts hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts.append(data)

    def values(self, attribute: str) -> list[str | None]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads("".join(self.scripts)))


@pytest.fixture(scope="module")
def guarded(model: plait.Model) -> Iterator[httpx.Client]:
    """A client of a service that asks for a token."""
    with served(model.folder, TOKEN) as client:
        yield client


def test_every_input_has_a_field(service: httpx.Client) -> None:
    html = Reader(service.get("/").text)
    assert html.values("data-column") == ["photo", "text", "price", "shop"]
    assert html.values("data-kind") == ["image", "text", "number", "category"]


def test_the_values_of_a_category_are_offered(service: httpx.Client) -> None:
    html = Reader(service.get("/").text)
    options = [attributes["value"] for tag, attributes in html.elements if tag == "option"]
    assert set(options) == {"north", "south"}


def test_the_page_knows_the_classes_of_a_target(service: httpx.Client) -> None:
    (answer,) = Reader(service.get("/").text).facts["answers"]
    assert answer["target"] == "label"
    assert {"label": "red", "column": "label_probability_red"} in answer["probabilities"]


def test_every_label_and_description_leads_to_an_element(service: httpx.Client) -> None:
    html = Reader(service.get("/").text)
    ids = html.values("id")
    assert len(ids) == len(set(ids))
    for attribute in ("for", "aria-labelledby", "aria-describedby", "aria-controls", "list"):
        for value in html.values(attribute):
            assert value is not None
            assert set(value.split()) <= set(ids), f"{attribute}={value}"


def test_the_page_runs_nothing_but_its_own_files(service: httpx.Client) -> None:
    response = service.get("/")
    assert "default-src 'self'" in response.headers["content-security-policy"]
    for tag, attributes in Reader(response.text).elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        if tag == "script":
            assert "src" in attributes or attributes["type"] == "application/json"


def test_all_files_of_the_page_are_there(service: httpx.Client) -> None:
    html = Reader(service.get("/").text)
    addresses = [value for value in [*html.values("src"), *html.values("href")] if value]
    static = [address for address in addresses if address.startswith("static/")]
    assert len(static) >= 4
    for address in static:
        assert service.get(f"/{address}").status_code == 200, address


def test_every_module_finds_what_it_imports() -> None:
    folder = page.FOLDER / "static"
    for module in folder.glob("*.js"):
        for name in re.findall(r'from "\./(.+?)"', module.read_text(encoding="utf-8")):
            assert (folder / name).is_file(), f"{module.name} imports {name}"


@pytest.mark.parametrize(
    ("query", "header", "language"),
    [
        ("?lang=zh", "en", "zh"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "fr, zh;q=0.2, en;q=0.7", "en"),
        ("", "en;q=0, zh;q=x", "en"),
        ("?lang=../../x", "", "en"),
        ("?lang=zh&lang=en", "", "en"),
    ],
)
def test_language(service: httpx.Client, query: str, header: str, language: str) -> None:
    response = service.get(f"/{query}", headers={"Accept-Language": header})
    assert response.headers["content-language"] == language
    assert f'<html lang="{language}">' in response.text
    assert page.read_messages(language)["inputs.note"] in response.text


def test_all_languages_have_the_same_messages() -> None:
    english = page.read_messages("en")
    for language in page.languages():
        messages = page.read_messages(language)
        assert list(messages) == list(english), language
        for key, text in messages.items():
            assert places(text) == places(english[key]), f"{language}: {key}"


def places(text: str) -> set[str]:
    """Return the names in a message that values are put in for."""
    return set(re.findall(r"\{(\w+)\}", text))


def test_every_message_is_used_and_every_used_one_exists() -> None:
    sources = ""
    for path in [*page.FOLDER.glob("*.html"), *page.FOLDER.glob("static/*.js")]:
        sources += path.read_text(encoding="utf-8")
    messages = page.read_messages("en")
    asked = set(re.findall(r'\bt\("([a-z_.]+)"\s*[,)]', sources))
    families = set(re.findall(r'\bt\(["`]([a-z]+\.)(?:\$|")', sources))
    assert asked <= set(messages)
    for key in messages:
        is_member = any(key.startswith(family) for family in families)
        assert key in asked or is_member or key == "language", f"nothing shows '{key}'"


def test_examples_are_served_with_their_files(service: httpx.Client, model: plait.Model) -> None:
    examples = Reader(service.get("/").text).facts["examples"]
    assert len(examples) > 1
    for example in examples:
        assert example["values"]["label"] in ("red", "green", "blue")
        (address,) = example["files"]["photo"]
        response = service.get(f"/{address}")
        assert response.headers["content-type"] == "image/png"
        assert response.content == (model.folder / address).read_bytes()


@pytest.mark.parametrize(
    "name", ["plan.json", "..%2fplan.json", "%2e%2e%2fplan.json", "0-0-9.png", "%2fetc%2fpasswd", "a%00b"]
)
def test_other_files_are_not_served(service: httpx.Client, name: str) -> None:
    for folder in ("examples", "static"):
        assert service.get(f"/{folder}/{name}").status_code == 404


def test_without_a_token_there_is_no_login(service: httpx.Client) -> None:
    assert service.get("/login").status_code == 404


def test_who_has_not_logged_in_is_led_to_the_login(guarded: httpx.Client) -> None:
    response = guarded.get("/?lang=zh")
    assert response.status_code == 303
    assert response.headers["location"] == "login?lang=zh"
    assert 'type="password"' in guarded.get("/login?lang=zh").text
    assert guarded.get("/examples/0-0-0.png").status_code == 401


def test_a_wrong_token_is_refused(guarded: httpx.Client) -> None:
    response = guarded.post("/login", data={"token": "guess"})
    assert response.status_code == 401
    assert page.read_messages("en")["login.wrong"] in response.text
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"token", b"&" * 100, b"token=" + b"a" * 100_000])
def test_a_broken_login_is_refused(guarded: httpx.Client, body: bytes) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert guarded.post("/login", content=body, headers=kind).status_code in (401, 413)


def test_little_is_read_of_a_login(guarded: httpx.Client) -> None:
    response = guarded.post("/login", content=b"token=" + b"a" * 4096)
    assert response.status_code == 413
    assert "4,096 bytes" in response.text
    assert guarded.post("/login", content=b"token=" + b"a" * 4090).status_code == 401


def test_the_right_token_opens_the_page(guarded: httpx.Client) -> None:
    address = guarded.base_url
    with httpx.Client(base_url=address, timeout=60) as person:
        response = person.post("/login?lang=zh", data={"token": f"{TOKEN}\n"})
        assert response.status_code == 303
        assert response.headers["location"] == "./?lang=zh"
        cookie = response.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert person.get("/").status_code == 200
        assert person.post("/predict", json={"shop": "north"}).status_code == 200


def test_names_of_columns_are_shown_as_they_are(tmp_path: Path) -> None:
    rows = [
        {ODD if name == "price" else name: cell for name, cell in row.items()} for row in make_rows(tmp_path)
    ]
    table = write_csv(tmp_path / "train.csv", rows)
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True)
    with served(model.folder) as client:
        response = client.get("/")
        assert ODD in Reader(response.text).values("data-column")
        assert "<b>" not in response.text
        assert client.post("/predict", json={ODD: 1.5}).status_code == 200


def test_many_columns_can_be_filtered(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    for number, row in enumerate(rows):
        row |= {f"size {place}": number * place % 7 + 0.5 for place in range(1, 25)}
    table = write_csv(tmp_path / "train.csv", rows)
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True)
    with served(model.folder) as client:
        html = Reader(client.get("/").text)
        assert "filter" in html.values("id")
        # What takes room comes first, whatever the order of the table is.
        assert html.values("data-column")[:3] == ["photo", "text", "price"]
