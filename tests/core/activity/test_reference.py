"""The reference says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from pilot_identity.core.activity import attributes, rate, report
from pilot_identity.core.audit import access_window as access

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "activity.md").read_text(encoding="utf-8")


def rows(title: str) -> dict[str, str]:
    """The rows of the table below a heading or with a header cell: the first cell to the rest."""
    table = PAGE.split(title, 1)[1].split("\n\n", 2)
    lines = next(part for part in table if part.lstrip().startswith("|")).strip().splitlines()
    return {cells[1].strip(): cells[2] for line in lines if len(cells := line.split("|", 2)) > 2}


def names(text: str) -> set[str]:
    """What is written as code in a cell."""
    return set(re.findall(r"`([^`]+)`", text))


def test_every_attribute_is_in_the_reference() -> None:
    """With the kind of its value, and no other name."""
    told = rows("not here are refused")
    ours = {name for name in attributes.TEXTS if name.startswith("pilotidentity.")}
    assert names(told["Text, 1 to 256 characters in one line"]) == attributes.TEXTS - ours
    assert names(told["Text, ours"]) == ours
    assert names(told["Whole number"]) == attributes.INTEGERS
    assert names(told["List of at most 16 texts"]) == attributes.LISTS
    assert names(told["Only as a digest"]) == attributes.CONTENT
    assert names(told["Not at all (outdated names of content)"]) == attributes.OUTDATED


def test_every_kind_is_in_the_reference() -> None:
    """With what it needs."""
    kinds = dict(re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert set(report.ActivityKind) <= kinds.keys()
    for kind, needed in report.NEEDED.items():
        wanted = {name.removeprefix("digest of ") for any_of in needed for name in any_of}
        assert names(kinds[kind]) == wanted


def test_bounds_are_in_the_reference() -> None:
    """The figures of the code."""
    for allowance in (rate.GRANT, rate.TOGETHER):
        assert f"{allowance.burst:.0f} at once, {allowance.per_second:.0f} a second" in PAGE
    assert f"{report.MAX_REPORT_OCTETS} bytes" in PAGE
    assert f"1 to {report.MAX_ACTIVITIES}" in PAGE
    assert f"At most {access.MAX_ROWS} rows" in PAGE
    assert f"at most {access.MAX_NAMES} `names`" in PAGE
    assert f"At most {access.MAX_CREDENTIALS}, then" in PAGE
    assert f"at most {access.MAX_USERS} `user`s, then" in PAGE
    assert f"(at most {access.MAX_BORROWED_ROWS} rows)" in PAGE
    assert f"within `seconds` ({access.ABOUT.total_seconds():.0f}) of the end" in PAGE
