"""The pages for people: links lead somewhere, and lines can be read without scrolling."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
PACKAGE = ROOT / "src" / "plait"
WIDTH = 110  # columns
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^\s*```.*?^\s*```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]+`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have on code hosts."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    prose = CODE.sub("", BLOCK.sub("", page.read_text(encoding="utf-8")))
    for link in LINK.findall(prose):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{link} does not exist"
        assert not anchor or anchor in anchors(linked), f"{link} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_line_is_wider_than_110_columns(page: Path) -> None:
    for line in BLOCK.sub("", page.read_text(encoding="utf-8")).splitlines():
        assert line.startswith("|") or len(line) <= WIDTH, line


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_source_file_that_is_named_exists(page: Path) -> None:
    """Paths begin at the repository or the package. CONTRIBUTING also names files that its reader makes."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for path in re.findall(r"`([a-z]\w*/[\w/]+\.(?:py|md))`", text):
        is_example = path.startswith("src/plait/") and page.name == "CONTRIBUTING.md"
        assert is_example or any((base / path).exists() for base in (ROOT, PACKAGE)), f"no file {path}"


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = LINK.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert {page.name for page in folder.glob("0*.md")} <= set(listed)
