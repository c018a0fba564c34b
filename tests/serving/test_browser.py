"""The page in a browser: people fill in a row, read its answer and search, with a mouse or without."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import plait
from plait.serving import page as service_page
from support.media import wav, wave
from support.serving import served
from support.tables import FAST, make_rows, write_csv

pytest.importorskip("playwright", reason="the browser tests need playwright")
pytest.importorskip("axe_playwright_python", reason="the browser tests need axe-playwright-python")

from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.browser import (
    SIZES,
    answer_with,
    assert_accessible,
    field,
    hold,
    opened,
    played,
    put,
    release,
    wait_for,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
# A camera and a microphone that show and sound the same on every machine.
DEVICES = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
OPTIONS = [
    *FAST,
    "training.epochs=15",
    "modalities.audio.bands=16",
    "modalities.audio.hop=0.02",
    "encoders.audio={name: audio_cnn, channels: [4, 8], width: 8}",
]
TONES = {"red": 300, "green": 900, "blue": 2500}
PLAIN = {"text": "there is a leaf near house number 7", "price": "1.1", "shop": "north", "day": "2024-02-03"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of a photo, a text, a recording, a price, a shop and a day; the label is a colour."""
    rows = make_rows(folder)
    for number, row in enumerate(rows):
        (folder / f"{number}.wav").write_bytes(wav(wave(0.3, TONES[row["label"]], seed=number)))
        row |= {"call": f"{number}.wav", "day": f"2024-{number % 12 + 1:02}-{number % 27 + 1:02}"}
        if number % 8 == 0:
            row["photo"] = None
    return rows


@pytest.fixture(scope="module")
def model(folder: Path, rows: list[dict[str, Any]]) -> plait.Model:
    table = write_csv(folder / "train.csv", rows)
    out = folder / "run"
    fitted = plait.fit(table, "label", align=["photo", "text"], out=out, overrides=OPTIONS, quiet=True)
    fitted.index(table)
    return fitted


@pytest.fixture(scope="module")
def client(model: plait.Model) -> Iterator[httpx.Client]:
    with served(model.folder) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = [*DEVICES, "--no-sandbox"] if os.getuid() == 0 else DEVICES
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(browser: Browser, client: httpx.Client) -> Iterator[Page]:
    """The page on a large screen. A test fails if one of its scripts does."""
    yield from opened(browser, client, "desktop")


def fill_in(page: Page, photo: Path | None = None) -> None:
    """Fill in all fields, but the call."""
    for column, cell in PLAIN.items():
        field(page, column).locator("textarea, input").first.fill(cell)
    if photo is not None:
        field(page, "photo").locator("input.file").set_input_files(photo)


def predict(page: Page) -> dict[str, Any]:
    """Ask for a prediction, and return the answer that came."""
    with page.expect_response("**/predict") as response:
        page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator("#answer")).not_to_have_attribute("aria-busy", "true")
    return dict(response.value.json()["answers"][0])


def shown(page: Page) -> tuple[str, dict[str, float]]:
    """Return the answer that is shown, and the probability of each class."""
    probabilities = {}
    for bar in page.locator(".bars li").all():
        label = bar.locator(".label").inner_text()
        probabilities[label] = float(bar.locator(".p").inner_text().lstrip("<> "))
    return page.locator(".top-answer").inner_text().split("probability")[0].strip(), probabilities


def assert_shown(page: Page, model: plait.Model, row: dict[str, Any]) -> None:
    """Check that the page shows what the model answers."""
    (expected,) = model.predict([row]).to_pylist()
    answer, probabilities = shown(page)
    assert answer == expected["label"]
    for label, p in probabilities.items():
        assert p == pytest.approx(expected[f"label_probability_{label}"], abs=0.006)


@pytest.fixture
def photo(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return folder / rows[1]["photo"]


def typed(photo: Path | None = None) -> dict[str, Any]:
    """Return the row that `fill_in` fills in, as a table has it."""
    row: dict[str, Any] = {**PLAIN, "price": 1.1}
    return row if photo is None else {**row, "photo": str(photo)}


def test_a_row_gets_the_answer_of_the_model(
    browser: Browser, client: httpx.Client, model: plait.Model, photo: Path, size: str
) -> None:
    for page in opened(browser, client, size):
        fill_in(page, photo)
        expect(field(page, "photo").locator("img")).to_be_visible()
        predict(page)
        assert_shown(page, model, typed(photo))


def test_what_is_left_out_is_not_sent(page: Page, model: plait.Model, photo: Path) -> None:
    fill_in(page, photo)
    predict(page)
    field(page, "photo").get_by_role("button", name="Leave out photo").click()
    expect(page.get_by_text("The inputs have changed")).to_be_visible()
    predict(page)
    assert_shown(page, model, typed())

    field(page, "photo").get_by_role("button", name="Leave out photo").click()
    predict(page)
    assert_shown(page, model, typed(photo))


def test_a_row_without_anything_gets_an_answer(page: Page, model: plait.Model) -> None:
    predict(page)
    expect(page.get_by_text("No input was filled in")).to_be_visible()
    assert_shown(page, model, {})


def test_an_error_stands_at_its_column_and_gets_the_focus(page: Page, folder: Path) -> None:
    fill_in(page)
    broken = folder / "broken.png"
    broken.write_bytes(b"\x89PNG but no image")
    field(page, "photo").locator("input.file").set_input_files(broken)
    page.get_by_role("button", name="Predict", exact=True).click()

    error = field(page, "photo").locator(".error")
    expect(error).to_contain_text("image")
    control = field(page, "photo").locator("input.file")
    expect(control).to_be_focused()
    expect(control).to_have_attribute("aria-invalid", "true")
    assert error.get_attribute("id") in str(control.get_attribute("aria-describedby"))

    error.get_by_role("button", name="Leave it out").click()
    expect(error).to_be_hidden()
    predict(page)
    expect(page.locator(".top-answer")).to_be_visible()


def test_a_number_that_is_none_is_an_error_of_its_column(page: Page) -> None:
    field(page, "price").locator("input").fill("much")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(field(page, "price").locator(".error")).to_contain_text("much")
    expect(field(page, "price").locator("input")).to_be_focused()


def test_a_file_that_has_gone_is_an_error_of_its_column(page: Page, photo: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(photo, tmp_path / "moved.png"))
    field(page, "photo").locator("input.file").set_input_files(moved)
    moved.unlink()
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(field(page, "photo").locator(".error")).to_contain_text("choose it again")


def test_a_file_of_another_kind_is_refused_at_once(page: Page, folder: Path) -> None:
    field(page, "photo").locator("input.file").set_input_files(folder / "1.wav")
    expect(field(page, "photo").locator(".error")).to_contain_text("Expected image")


def test_each_input_is_recomputed_without(page: Page, model: plait.Model, photo: Path) -> None:
    fill_in(page, photo)
    predict(page)
    page.get_by_role("button", name="Recompute: without photo").click()
    line = page.locator(".effects li", has_text="without photo")
    cells = {**dict.fromkeys(["photo", "text", "call", "price", "shop", "day"]), **typed(photo)}
    (before, after) = model.predict([cells, {**cells, "photo": None}]).to_pylist()
    column = f"label_probability_{before['label']}"
    words = line.locator(".effect p").inner_text()
    assert f"{before['label']} " in words
    assert f"{after[column]:.2f}"[:3] in words

    page.get_by_role("button", name="Compute all").click()
    expect(page.locator(".effect p")).to_have_count(6)  # five inputs, and all plain ones together


def ask(page: Page) -> None:
    """Ask for a prediction without waiting for it."""
    page.get_by_role("button", name="Predict", exact=True).click()


def test_a_row_that_changes_meanwhile_makes_the_answer_stale(page: Page, model: plait.Model) -> None:
    fill_in(page)
    requests = hold(page, "**/predict")
    ask(page)
    wait_for(page, requests, 1)
    field(page, "price").locator("input").fill("999")
    release(page, requests[0])
    assert_shown(page, model, typed())
    stale = page.locator("#answer .notice", has_text="The inputs have changed since")
    expect(stale).to_be_visible()
    # What an input contributes would be the difference between two rows.
    expect(page.locator("#effects")).to_be_hidden()
    expect(page.locator("#spoken")).to_contain_text("The inputs have changed since")

    page.unroute("**/predict")
    page.get_by_role("button", name="Predict again").click()
    expect(stale).to_have_count(0)
    expect(page.locator("#effects")).to_be_visible()
    assert_shown(page, model, {**typed(), "price": 999.0})


def test_an_error_of_a_row_that_has_changed_marks_no_column(page: Page) -> None:
    price = field(page, "price")
    price.locator("input").fill("much")
    requests = hold(page, "**/predict")
    ask(page)
    wait_for(page, requests, 1)
    price.locator("input").fill("1")
    field(page, "text").locator("textarea").focus()
    release(page, requests[0])
    expect(page.locator("#answer .is-error")).to_contain_text("much")
    expect(price.locator(".error")).to_be_hidden()
    expect(field(page, "text").locator("textarea")).to_be_focused()


def test_nothing_is_shown_after_clear(page: Page) -> None:
    requests = hold(page, "**/predict")
    for answer in ({"status": 500, "json": {"error": "too late"}}, {}):
        requests.clear()
        ask(page)
        wait_for(page, requests, 1)
        page.get_by_role("button", name="Clear all").click()
        release(page, requests[0], **answer)
        expect(page.locator("#answer")).to_have_text(
            "Fill in some inputs, or pick an example, and ask for a prediction."
        )
        expect(page.locator("#answer")).not_to_have_attribute("aria-busy", "true")


def test_an_answer_that_is_overtaken_is_not_shown(page: Page) -> None:
    requests = hold(page, "**/predict")
    ask(page)
    ask(page)
    wait_for(page, requests, 2)
    release(page, requests[1])
    expect(page.locator(".top-answer")).to_be_visible()
    release(page, requests[0], status=500, json={"error": "too late"})
    expect(page.locator(".top-answer")).to_be_visible()
    expect(page.locator("#answer .is-error")).to_have_count(0)


def test_effects_of_an_answer_that_is_gone_are_not_shown(page: Page) -> None:
    fill_in(page)
    predict(page)
    requests = hold(page, "**/predict")
    page.get_by_role("button", name="Recompute: without text").click()
    wait_for(page, requests, 1)
    field(page, "price").locator("input").fill("2")
    release(page, requests[0], status=500, json={"error": "too late"})
    expect(page.locator("#answer .is-error")).to_have_count(0)
    expect(page.locator(".top-answer")).to_be_visible()


def test_a_search_that_is_overtaken_is_not_shown(page: Page) -> None:
    page.get_by_role("tab", name="Search").click()
    requests = hold(page, "**/search*")
    query = field(page, "text", "#query").locator("textarea")
    for place, words in enumerate(("a cherry", "a leaf"), 1):
        query.fill(words)
        page.locator("#query button.primary").click()
        wait_for(page, requests, place)
    release(page, requests[1])
    newest = page.locator("#results").inner_text()
    assert "score" in newest
    release(page, requests[0])
    assert page.locator("#results").inner_text() == newest


def test_the_last_example_that_was_clicked_counts(page: Page, client: httpx.Client) -> None:
    examples = client.get("/schema").json()["examples"]
    places = [place for place, example in enumerate(examples) if "call" in example["files"]]
    slow, fast = places[:2]
    (recording,) = examples[slow]["files"]["call"]
    requests = hold(page, f"**/{recording}")
    page.locator(".example").nth(slow).click()
    wait_for(page, requests, 1)
    page.locator(".example").nth(fast).click()
    expect(page.locator(".top-answer")).to_be_visible()
    release(page, requests[0])
    values = examples[fast]["values"]
    expect(field(page, "text").locator("textarea")).to_have_value(values["text"])
    name = Path(examples[fast]["files"]["call"][0]).name
    expect(field(page, "call").locator(".file-name")).to_have_text(name)


def test_what_is_typed_counts_more_than_a_late_example(page: Page, client: httpx.Client) -> None:
    examples = client.get("/schema").json()["examples"]
    slow = next(place for place, example in enumerate(examples) if "call" in example["files"])
    requests = hold(page, f"**/{examples[slow]['files']['call'][0]}")
    page.locator(".example").nth(slow).click()
    wait_for(page, requests, 1)
    field(page, "text").locator("textarea").fill("my own words")
    release(page, requests[0])
    expect(field(page, "text").locator("textarea")).to_have_value("my own words")
    expect(field(page, "call").locator("audio")).to_have_count(0)


def test_an_example_fills_in_the_row(page: Page, client: httpx.Client) -> None:
    examples = client.get("/schema").json()["examples"]
    number = next(place for place, example in enumerate(examples) if "photo" in example["files"])
    page.locator(".example").nth(number).click()
    expect(page.locator(".truth")).to_be_visible()
    values = examples[number]["values"]
    expect(field(page, "text").locator("textarea")).to_have_value(values["text"])
    expect(field(page, "day").locator("input")).to_have_value(values["day"])
    expect(field(page, "photo").locator("img")).to_be_visible()
    expect(field(page, "call").locator("audio")).to_be_visible()
    truth = page.locator(".truth").inner_text()
    assert truth == "as in the table" or truth.endswith(values["label"])


def test_a_category_is_chosen_by_a_button_or_typed(page: Page) -> None:
    shop = field(page, "shop")
    shop.get_by_role("button", name="south").click()
    expect(shop.locator("input")).to_have_value("south")
    shop.locator("input").fill("elsewhere")
    expect(shop.get_by_role("button", name="south")).to_have_attribute("aria-pressed", "false")
    predict(page)


def test_a_recording_is_played_and_predicted(page: Page) -> None:
    call = field(page, "call")
    call.get_by_role("button", name="Record", exact=True).click()
    expect(call.get_by_text("Recording 1 s")).to_be_visible()
    call.get_by_role("button", name="Stop").click()
    expect(call.get_by_role("button", name="Record", exact=True)).to_be_focused()
    assert played(page, call.locator("audio"))
    predict(page)


def test_recording_is_cancelled_by_escape(page: Page) -> None:
    call = field(page, "call")
    call.get_by_role("button", name="Record", exact=True).click()
    expect(call.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Escape")
    expect(call.locator(".recorder")).to_be_hidden()
    expect(call.locator("audio")).to_have_count(0)


def test_a_photo_is_taken_and_predicted(page: Page) -> None:
    photo = field(page, "photo")
    photo.get_by_role("button", name="Take a photo").click()
    photo.locator(".recorder video").evaluate(
        "video => video.videoWidth || new Promise((resolve) => { video.onloadeddata = resolve; })"
    )
    photo.get_by_role("button", name="Capture").click()
    expect(photo.locator("figure img")).to_be_visible()
    predict(page)


def test_a_phone_opens_its_camera(browser: Browser, client: httpx.Client) -> None:
    for page in opened(browser, client, "phone"):
        with page.expect_file_chooser() as chooser:
            field(page, "photo").get_by_role("button", name="Take a photo").click()
        assert chooser.value.element.get_attribute("capture") == "environment"


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_files_go_to_the_column_that_takes_them(page: Page, photo: Path, folder: Path, kind: str) -> None:
    for path, media in ((photo, "image/png"), (folder / "1.wav", "audio/wav")):
        put(page, path, media, kind)
    expect(field(page, "photo").locator("img")).to_be_visible()
    expect(field(page, "call").locator("audio")).to_be_visible()


def test_an_image_is_pasted_by_a_button(page: Page) -> None:
    page.evaluate(
        """async () => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 20, height: 20 });
            const blob = await new Promise((resolve) => canvas.toBlob(resolve));
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }"""
    )
    field(page, "photo").get_by_role("button", name="Paste").click()
    expect(field(page, "photo").locator("figure img")).to_be_visible()


def test_search_shows_the_rows_and_plays_them(
    browser: Browser, client: httpx.Client, model: plait.Model, size: str
) -> None:
    for page in opened(browser, client, size):
        page.get_by_role("tab", name="Search").click()
        query = field(page, "text", "#query").locator("textarea")
        query.fill("there is a cherry near house number 3")
        page.locator("#query button.primary").click()
        expect(page.locator(".hit")).to_have_count(12)
        expect(page.locator(".hit img").first).to_be_visible()
        rows = model.search("there is a cherry near house number 3", k=12).to_pylist()
        assert rows[0]["text"] in page.locator(".hit").first.inner_text()
        assert played(page, page.locator(".hit audio").first)


def test_search_without_a_query_says_what_is_missing(page: Page) -> None:
    page.get_by_role("tab", name="Search").click()
    page.locator("#query button.primary").click()
    expect(page.locator("#results .is-error")).to_be_visible()


def test_warnings_are_shown_and_announced(page: Page) -> None:
    answer_with(page, 200, {"answers": [{"label": "red"}], "warnings": ["<i>the shop</i> is new"]})
    predict(page)
    expect(page.locator("#answer .notice li")).to_contain_text("<i>the shop</i> is new")
    expect(page.locator("#spoken")).to_contain_text("is new")


def test_an_answer_that_is_a_recording_is_played(page: Page) -> None:
    recording = base64.b64encode(wav(wave(1.0))).decode()
    answer_with(page, 200, {"answers": [{"label": f"data:audio/wav;base64,{recording}"}], "warnings": []})
    predict(page)
    assert played(page, page.locator(".target audio"))
    expect(page.locator("#spoken")).to_have_text("label: audio")


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (429, {"Retry-After": "7"}, "Try again in 7 s"),
        (401, {}, "Log in again"),
        (500, {}, "what went wrong"),
    ],
)
def test_a_refused_request_says_why(page: Page, status: int, headers: dict[str, str], words: str) -> None:
    answer_with(page, status, {"error": "what went wrong"}, **headers)
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator("#answer .is-error")).to_contain_text(words)
    page.unroute("**/predict")
    predict(page)
    expect(page.locator(".top-answer")).to_be_visible()


def test_a_service_that_is_gone_is_an_error(page: Page) -> None:
    page.route("**/predict", lambda route: route.abort())
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator("#answer .is-error")).to_contain_text("cannot be reached")


def test_files_that_are_too_large_are_not_sent(browser: Browser, model: plait.Model, tmp_path: Path) -> None:
    with served(model.folder, body=20_000) as client:
        for page in opened(browser, client, "desktop"):
            large = tmp_path / "large.png"
            large.write_bytes(b"\x89PNG" + bytes(40_000))
            field(page, "photo").locator("input.file").set_input_files(large)
            page.get_by_role("button", name="Predict", exact=True).click()
            expect(field(page, "photo").locator(".error")).to_contain_text("at most 0.02 MB")


def test_every_kind_of_target_is_shown(browser: Browser, tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    for number, row in enumerate(rows):
        row["tags"] = [["warm"], ["cold", "round"], ["cold"]][number % 3]
    targets = ["label", "price", "tags"]
    fitted = plait.fit(rows, targets, root=tmp_path, out=tmp_path / "run", overrides=FAST, quiet=True)
    with served(fitted.folder) as client:
        for page in opened(browser, client, "desktop"):
            field(page, "text").locator("textarea").fill("there is a sky near house number 7")
            answer = predict(page)
            cards = page.locator(".target")
            expect(cards.nth(0).locator(".top-answer")).to_contain_text(answer["label"])
            shown_price = float(cards.nth(1).locator(".top-answer").inner_text())
            assert shown_price == pytest.approx(answer["price"], rel=1e-3)
            words = ", ".join(answer["tags"]) or "none of the labels"
            expect(cards.nth(2).locator(".top-answer")).to_have_text(words)
            page.get_by_role("button", name="Compute all").click()
            expect(page.locator(".effect p")).to_have_count(3)


@pytest.mark.parametrize("has_file", [True, False])
def test_the_calls_of_the_api_answer_as_the_page_does(
    page: Page, model: plait.Model, photo: Path, has_file: bool
) -> None:
    fill_in(page, photo if has_file else None)
    field(page, "text").locator("textarea").fill('it\'s a "leaf" for $5 \\ `now`; @home\n价格')
    assert_calls_answer(page, model, predict(page), photo.parent)


def assert_calls_answer(page: Page, model: plait.Model, answer: dict[str, Any], folder: Path) -> None:
    """Run the calls that the page shows, in a folder with the files of the row."""
    page.get_by_role("tab", name="API").click()
    curl, over_http, local = [call.inner_text() for call in page.locator(".call code").all()]
    shown_by_python = over_http.replace("import requests", "import json, requests")
    shown_by_python = shown_by_python.replace("print(answer.json())", "print(json.dumps(answer.json()))")
    shown_locally = re.sub(r'load\(".*"\)', f"load({str(model.folder)!r}, quiet=True)", local)
    shown_locally = shown_locally.replace("import plait", "import json, plait")
    shown_locally = shown_locally.replace(
        "print(model.predict([row]))", 'print(json.dumps({"answers": model.predict([row]).to_pylist()}))'
    )
    commands = [[sys.executable, "-c", code] for code in (shown_by_python, shown_locally)]
    if shutil.which("curl"):
        commands.append(["bash", "-c", curl])
    for command in commands:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        (answered,) = json.loads(done.stdout)["answers"]
        for name, p in answered.items():
            assert p == (pytest.approx(answer[name], abs=1e-4) if isinstance(p, float) else answer[name])


@pytest.mark.parametrize("has_file", [True, False])
def test_the_calls_have_the_cells_of_the_form(browser: Browser, tmp_path: Path, has_file: bool) -> None:
    rows = make_rows(tmp_path)
    for number, row in enumerate(rows):
        row["place"] = [number * 0.1, number % 3 + 0.5, 1.0]
    fitted = plait.fit(rows, "label", root=tmp_path, out=tmp_path / "run", overrides=FAST, quiet=True)
    with served(fitted.folder) as client:
        for page in opened(browser, client, "desktop"):
            field(page, "place").locator("textarea").fill("1.0, 2.0, 0.5")
            field(page, "price").locator("input").fill("0x10")
            if has_file:
                field(page, "photo").locator("input.file").set_input_files(tmp_path / rows[0]["photo"])
            assert_calls_answer(page, fitted, predict(page), (tmp_path / rows[0]["photo"]).parent)
            for call in page.locator(".call code").all():
                assert "0x10" in call.inner_text()  # as it was typed: tables may read it otherwise


ODD = '<b>"p\'rice"</b> = $HOME \\ `ls`; 价格'


def test_names_of_columns_may_be_any_text(browser: Browser, tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    odd_rows = [{ODD if name == "price" else name: cell for name, cell in row.items()} for row in rows]
    table = write_csv(tmp_path / "train.csv", odd_rows)
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True)
    with served(model.folder) as client:
        for page in opened(browser, client, "desktop"):
            odd = page.locator("#row .field").nth(2)
            expect(odd.locator(".name")).to_have_text(ODD)
            odd.locator("input").fill("1.5")
            field(page, "photo").locator("input.file").set_input_files(tmp_path / rows[0]["photo"])
            answer = predict(page)
            page.get_by_role("button", name="Compute all").click()
            expect(page.locator(".effects")).to_contain_text(f"without {ODD}")
            assert_calls_answer(page, model, answer, tmp_path / "photos")


def test_everything_is_reached_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the inputs")).to_be_focused()
    page.keyboard.press("Enter")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        if page.evaluate("document.activeElement === document.body"):
            break
    ids = page.locator("#row .field :is(textarea, input:not(.capture))").evaluate_all(
        "all => all.map((e) => e.id)"
    )
    assert set(ids) <= reached
    assert {"Predict", "clear"} <= reached

    page.get_by_role("tab", name="Predict").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Search")).to_be_focused()
    expect(page.locator("#search")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator("#api")).to_be_visible()


def test_the_answer_is_announced(page: Page) -> None:
    answer = predict(page)
    expect(page.locator("#spoken")).to_contain_text(f"label: {answer['label']}, probability")


def test_colours_are_chosen_and_remembered(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.locator("#theme")
    button.click()
    button.click()
    assert page.evaluate(ground) != light
    page.reload()
    expect(button).to_have_text("Colours: dark")
    assert page.evaluate(ground) != light


def test_the_page_speaks_chinese(browser: Browser, client: httpx.Client) -> None:
    messages = service_page.read_messages("zh")
    for page in opened(browser, client, "desktop", locale="zh-CN"):
        field(page, "shop").locator("input").fill("north")
        page.get_by_role("button", name=messages["predict"], exact=True).click()
        expect(page.locator(".top-answer")).to_contain_text(messages["answer.probability"].split()[0])
        page.get_by_role("link", name="English").click()
        expect(page.get_by_role("button", name="Predict", exact=True)).to_be_visible()
        expect(field(page, "shop").locator("input")).to_have_value("north")


def test_another_language_keeps_the_row_with_its_files(page: Page, model: plait.Model, photo: Path) -> None:
    fill_in(page, photo)
    field(page, "shop").get_by_role("button", name="Leave out shop").click()
    page.get_by_role("tab", name="API").click()
    page.get_by_role("link", name="中文").click()
    # The calls have the files too.
    expect(page.locator(".call code").first).to_contain_text(f'photo=@"{photo.name}"')
    page.get_by_role("link", name="English").click()
    page.get_by_role("tab", name="Predict").click()
    expect(field(page, "photo").locator(".file-name")).to_have_text(photo.name)
    predict(page)
    row = typed(photo)
    del row["shop"]
    assert_shown(page, model, row)

    # Nothing stays on the machine.
    page.reload()
    expect(field(page, "text").locator("textarea")).to_have_value("")
    assert page.evaluate(STORED_FILES) == 0


STORED_FILES = """() => new Promise((resolve) => {
    const opening = indexedDB.open("plait-row");
    opening.onsuccess = () => {
        const count = opening.result.transaction("files").objectStore("files").count();
        count.onsuccess = () => resolve(count.result);
    };
})"""


def test_what_a_change_of_language_would_lose_is_asked(page: Page, photo: Path) -> None:
    page.evaluate("Object.defineProperty(window, 'indexedDB', { value: undefined })")
    field(page, "photo").locator("input.file").set_input_files(photo)
    questions: list[str] = []

    def refuse(dialog: Any) -> None:
        questions.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", refuse)
    page.get_by_role("link", name="中文").click()
    expect(field(page, "photo").locator(".file-name")).to_have_text(photo.name)
    assert questions == [service_page.read_messages("en")["language.lost"]]
    expect(page.locator("html")).to_have_attribute("lang", "en")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(
    browser: Browser, client: httpx.Client, photo: Path, size: str, scheme: Any
) -> None:
    for page in opened(browser, client, size, color_scheme=scheme):
        assert_accessible(page, "empty")
        fill_in(page, photo)
        field(page, "call").locator("input.file").set_input_files(photo.parent.parent / "1.wav")
        field(page, "shop").get_by_role("button", name="Leave out shop").click()
        assert_accessible(page, "filled")
        predict(page)
        page.get_by_role("button", name="Compute all").click()
        expect(page.locator(".effect p")).to_have_count(6)
        assert_accessible(page, "answered")
        field(page, "price").locator("input").fill("much")
        assert_accessible(page, "stale")
        page.get_by_role("button", name="Predict", exact=True).click()
        expect(field(page, "price").locator(".error")).to_be_visible()
        assert_accessible(page, "error")
        page.get_by_role("tab", name="API").click()
        assert_accessible(page, "calls")
        page.get_by_role("tab", name="Search").click()
        field(page, "text", "#query").locator("textarea").fill("a cherry")
        page.locator("#query button.primary").click()
        expect(page.locator(".hit").first).to_be_visible()
        assert_accessible(page, "search")


def test_many_columns_are_found_by_their_names(browser: Browser, tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    for number, row in enumerate(rows):
        row |= {f"size {place}": number * place % 11 + 0.5 for place in range(100)}
    table = write_csv(tmp_path / "train.csv", rows)
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True)
    with served(model.folder) as client:
        for page in opened(browser, client, "phone"):
            page.get_by_label("Find a column").fill("size 42")
            expect(page.locator(".field.plain:visible")).to_have_count(1)
            field(page, "size 42").locator("input").fill("x")
            page.get_by_label("Find a column").fill("size 7")
            page.get_by_role("button", name="Predict", exact=True).click()
            # What is wrong is shown, whatever the filter hides.
            expect(field(page, "size 42").locator("input")).to_be_focused()
            assert_accessible(page, "many columns")


def test_the_login_opens_the_page(browser: Browser, model: plait.Model) -> None:
    with served(model.folder, "a secret") as client:
        for page in opened(browser, client, "phone"):
            assert_accessible(page, "login")
            page.get_by_label("Token").fill("a guess")
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_role("alert")).to_be_visible()
            page.get_by_label("Token").fill("a secret")
            page.get_by_role("button", name="Log in").click()
            expect(page.locator("#row")).to_be_visible()
            predict(page)
