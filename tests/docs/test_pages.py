import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")
TARGET = re.compile(r"`make ([a-z0-9-]+)`")


def links() -> Iterator[tuple[Path, str]]:
    """Each link to a place in this tree, with the page that it is on."""
    for page in PAGES:
        for target in LINK.findall(page.read_text()):
            yield page, target


@pytest.mark.parametrize("page, target", list(links()), ids=str)
def test_link_leads_somewhere(page: Path, target: str) -> None:
    """A link between pages leads to a file or directory that is there."""
    assert (page.parent / target).exists()


def test_make_targets_are_there() -> None:
    """Each `make …` that a page names is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    named = {target for page in PAGES for target in TARGET.findall(page.read_text())}
    missing = {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)}
    assert named
    assert not missing


def test_decisions_are_numbered_without_gaps() -> None:
    """Decisions are numbered from 1 on, each number once, the same in file name and title."""
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    titles = [int(page.read_text().removeprefix("# ").split(".")[0]) for page in pages]
    assert numbers == titles == list(range(1, len(pages) + 1))
