"""Take the screenshots of the page of `plait serve` that the documentation shows.

Train the samples, serve them, and give both addresses:

    plait demo stamps --out runs/stamps && plait serve runs/stamps --port 8001
    plait fit clips.csv --target category --align clip,caption --out runs/clips
    plait index runs/clips clips.csv && plait serve runs/clips --port 8002
    python docs/screenshots/take.py http://127.0.0.1:8001 http://127.0.0.1:8002
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent
DESKTOP, PHONE = (1280, 900), (390, 844)


def main(rows: str, search: str) -> None:
    """Take one screenshot in light, one in dark, one on a phone, and one of a search."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, size, scheme in (
            ("light", DESKTOP, "light"),
            ("dark", DESKTOP, "dark"),
            ("phone", PHONE, "light"),
        ):
            page = opened(browser, rows, size, scheme)
            page.locator(".example").first.click()
            page.get_by_role("button", name="Compute all").click()
            page.locator(".effect p").first.wait_for()
            if name != "phone":
                page.evaluate("scrollTo(0, 0)")
            save(page, name)

        page = opened(browser, f"{search}/#search", DESKTOP, "light")
        page.locator("#query textarea").first.fill("a bee moves up, fast")
        page.locator("#query button.primary").click()
        page.locator(".hit").first.wait_for()
        save(page, "search")
        browser.close()


def opened(browser: Browser, address: str, size: tuple[int, int], scheme: Any) -> Page:
    """Open the page on a screen of a size in pixels, in light or dark colours."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(address)
    return page


def save(page: Page, name: str) -> None:
    """Save what the screen shows, once it has come to rest."""
    page.wait_for_timeout(2000)
    Image.open(io.BytesIO(page.screenshot())).save(FOLDER / f"{name}.webp", quality=82, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:3])
