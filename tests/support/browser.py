"""What the tests of the page do in a browser. They need Playwright, and Chromium of the system."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def opened(
    browser: Browser, client: httpx.Client, size: str, query: str = "", **options: Any
) -> Iterator[Page]:
    width, height = SIZES[size]
    is_phone = size == "phone"
    context = browser.new_context(
        viewport={"width": width, "height": height},
        has_touch=is_phone,
        is_mobile=is_phone,
        permissions=["clipboard-read", "clipboard-write", "microphone", "camera"],
        reduced_motion="reduce",
        **options,
    )
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Security Policy" in line.text else None)
    page.goto(f"{client.base_url}/{query}")
    yield page
    context.close()
    assert not errors


def field(page: Page, column: str, form: str = "#row") -> Locator:
    return page.locator(f"{form} .field[data-column='{column}']")


def played(page: Page, player: Locator) -> bool:
    """Return whether a player plays: its time goes on."""
    expect(player).to_be_visible()
    player.evaluate("player => { player.muted = true; return player.play(); }")
    page.wait_for_timeout(300)
    return bool(player.evaluate("player => player.currentTime > 0"))


PUT = """([name, type, content, kind]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type }));
    const options = { bubbles: true, cancelable: true };
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { ...options, clipboardData: data })
        : new DragEvent("drop", { ...options, dataTransfer: data });
    document.body.dispatchEvent(event);
}"""


def put(page: Page, path: Path, media: str, kind: str) -> None:
    """Paste or drop a file on the page, beside all its fields. `kind` is "paste" or "drop"."""
    content = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(PUT, [path.name, media, content, kind])


def answer_with(page: Page, status: int, body: dict[str, Any], **headers: str) -> None:
    """Have the service answer every prediction like this."""

    def fulfil(route: Any) -> None:
        route.fulfill(status=status, content_type="application/json", body=json.dumps(body), headers=headers)

    page.route("**/predict", fulfil)


def hold(page: Page, address: str) -> list[Route]:
    """Have requests to an address wait; return the list that they will stand in, in the order they came."""
    routes: list[Route] = []
    page.route(address, lambda route: routes.append(route))
    return routes


def wait_for(page: Page, routes: list[Route], count: int) -> None:
    """Wait until so many requests wait."""
    for _ in range(500):
        if len(routes) >= count:
            return
        page.wait_for_timeout(10)
    raise AssertionError(f"expected {count} requests, came {len(routes)}")


def release(page: Page, route: Route, **answer: Any) -> None:
    """Let a request go on, or give it an answer, and wait until the page has dealt with it."""
    with page.expect_response(route.request.url):
        if answer:
            route.fulfill(**answer)
        else:
            route.continue_()
    page.wait_for_timeout(150)


def assert_accessible(page: Page, state: str) -> None:
    """Check a state of the page with axe-core, and that nothing lies beside the screen."""
    results = Axe().run(page)
    assert not results.response["violations"], f"{state}: {results.generate_report()}"
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.evaluate("innerWidth"), f"{state}: {width} px wide"
