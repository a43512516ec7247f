"""`audit chain`: the whole story of a task as a tree, from the log alone."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pilot_identity.cli.audit import chapters
from pilot_identity.cli.audit.reading import OpenLog, decoded
from pilot_identity.cli.failures import CliError, UsageError
from pilot_identity.cli.output import encoding_of, tell
from pilot_identity.cli.text import clock, legible, plain
from pilot_identity.core.audit.particulars import text
from pilot_identity.core.audit.story import Family, Section, Standing, Story, open_points
from pilot_identity.core.audit.uses import Line, Uses
from pilot_identity.core.resources.timestamps import format_timestamp

SHOWN_LINES = 24
"""Of one section, the first and the last, for people; a long task renews its credentials very often."""
_WIDE = 100_000
"""Columns where nobody looks: a line is cut for a terminal only."""

_ENDING = (Section.END, Section.PROOF)
"""What is told after the children; all other sections come before them."""
_CHAPTERS = tuple(section for section in Section if section not in _ENDING)

Item = TypeVar("Item")


def read_family(log: OpenLog, name: str) -> Family:
    """Read all that a log says of grants of a name, `NAMESPACE/NAME` or `NAME`; the log must verify.

    Raises:
        UsageError: no grant has such a name.
    """
    namespace, _, own = name.rpartition("/")
    if not own or "/" in namespace or name.startswith("/"):
        raise UsageError(f"a grant is named GRANT or NAMESPACE/GRANT, got {name!r}")
    family = Family(own, namespace)

    def take(index: int, encoded: bytes) -> None:
        entry = decoded(index, encoded)
        if entry is not None:
            family.take(index, entry)

    log.read_sound(take)
    return family


def choose(family: Family, name: str, uid: str) -> Story:
    """Take the grant of that UID, or the newest of the name; says so where there are others.

    Raises:
        CliError: the log has no such grant.
        UsageError: the name is used in several namespaces.
    """
    namesakes = family.namesakes()
    chosen = [story for story in namesakes if uid in {"", story.uid}]
    if not chosen:
        known = ", ".join(f"{story.key} of UID {story.uid}" for story in namesakes[-3:])
        what = f"grant {name} of UID {uid}" if uid else f"grant {name}"
        hint = f"it has {known}" if known else "GRANT may be NAMESPACE/NAME"
        raise CliError(f"the log has no entry about {what}", hint)
    places = sorted({story.key.namespace for story in chosen})
    if len(places) > 1:
        raise UsageError(
            f"there are grants {name} in namespaces {', '.join(places)}", "say which: NAMESPACE/GRANT"
        )
    story = chosen[-1]
    others = [other for other in namesakes if other.uid != story.uid and other.key == story.key]
    if others:
        uids = ", ".join(other.uid for other in others[-3:])
        count = chapters.number_of(len(others), "other grant")
        tell(f"{count} had this name; a story of theirs is told by --uid: {uids}")
    return story


def draw(story: Story, family: Family) -> None:
    """Print the story for people."""
    is_seen = sys.stdout.isatty()
    console = Console(file=sys.stdout, highlight=False, width=None if is_seen else _WIDE)
    tree = Tree(_label(_title(story)), guide_style="dim")
    _grow(tree, story, family)
    if family.last is not None:
        tree.add(_label(f"as of entry {family.last.index}, {clock(family.last.entry.time)}"))
    console.print(tree)


def told_data(story: Story, family: Family) -> dict[str, Any]:
    """The same for programs."""
    return {
        "asOf": None if family.last is None else _moment_data(family.last),
        "namesakes": [
            {"uid": other.uid, "namespace": other.key.namespace, "firstEntry": other.lines[0].index}
            for other in family.namesakes()
        ],
        **_story_data(story, family),
    }


def _as_of(family: Family) -> dt.datetime:
    return family.last.entry.time if family.last is not None else dt.datetime.min.replace(tzinfo=dt.UTC)


def _title(story: Story) -> str:
    return f"{story.key}  uid {story.uid}: {_state(story)}"


def _state(story: Story) -> str:
    outcome = text(story.closure, "outcome")
    match story.standing:
        case Standing.ENDED:
            return f"{outcome}, proven"
        case Standing.UNPROVEN:
            return f"{outcome}, not proven"
        case Standing.OPEN:
            return "not ended yet"
        case standing:
            return str(standing)


def _grow(tree: Tree, story: Story, family: Family) -> None:
    """Add the chapters of a story to its node, the children's stories among them."""
    for section in _CHAPTERS:
        _add_section(tree, section, story)
    if story.children:
        count = chapters.number_of(len(story.children), "grant")
        below = tree.add(_label(f"delegated: {count}, used for {chapters.summed(story.chained)}"))
        for child in story.children:
            _grow(below.add(_label(_title(child))), child, family)
    for section in _ENDING:
        _add_section(tree, section, story)
    points = list(open_points(story, _as_of(family), heard=family.heard))
    if points:
        left = tree.add(_label("left open"))
        for point in points:
            left.add(_label(point))


def _add_section(tree: Tree, section: Section, story: Story) -> None:
    lines = story.section(section)
    if not lines:
        return
    node = tree.add(_label(str(section) + _sum_of(section, story)))
    for line in _ends(lines):
        if line is None:
            node.add(_label(f"… {len(lines) - SHOWN_LINES} more; -o json has all"))
            continue
        told = chapters.tell(section, line, story)
        entry = node.add(_label(f"{line.index}  {clock(line.entry.time)}  {told.head}"))
        for particular in told.particulars:
            entry.add(_label(particular))


def _sum_of(section: Section, story: Story) -> str:
    own = story.own
    if section is Section.ACCESS:
        return f": {chapters.summed(Uses(own.requests, own.refused))}"
    if section is Section.ACTIVITY:
        return f": {chapters.summed(Uses(activities=own.activities))}"
    return ""


def _ends(items: Sequence[Item]) -> Iterator[Item | None]:
    """The first and the last of many, and `None` for those between."""
    if len(items) <= SHOWN_LINES:
        yield from items
        return
    half = SHOWN_LINES // 2
    yield from items[:half]
    yield None
    yield from items[-half:]


def _label(words: str) -> Text:
    return Text(legible(plain(words), encoding_of(sys.stdout)))


def _moment_data(line: Line) -> dict[str, Any]:
    return {"index": line.index, "time": format_timestamp(line.entry.time)}


def _story_data(story: Story, family: Family) -> dict[str, Any]:
    sections = {section: story.section(section) for section in Section}
    return {
        "namespace": story.key.namespace,
        "name": story.key.name,
        "uid": story.uid,
        "standing": str(story.standing),
        "outcome": text(story.closure, "outcome") or None,
        "parent": dict(story.parent) or None,
        "use": {"own": _use_data(story.own), "chained": _use_data(story.chained)},
        "sections": {
            str(section): [_line_data(section, line, story) for line in lines]
            for section, lines in sections.items()
            if lines
        },
        "leftOpen": list(open_points(story, _as_of(family), heard=family.heard)),
        "entries": [
            {
                **_moment_data(line),
                "id": line.entry.id,
                "type": line.type,
                "subject": line.entry.subject,
                "data": line.entry.data,
            }
            for line in story.lines
        ],
        "children": [_story_data(child, family) for child in story.children],
    }


def _line_data(section: Section, line: Line, story: Story) -> dict[str, Any]:
    told = chapters.tell(section, line, story)
    return {**_moment_data(line), "type": line.type, "told": [told.head, *told.particulars]}


def _use_data(uses: Uses) -> dict[str, Any]:
    return {
        "requests": uses.requests,
        "refused": uses.refused,
        "afterEnd": uses.after_end,
        "allowedAfterEnd": uses.allowed_after_end,
        "aboutEnd": uses.about_end,
        "byUnknownTokens": uses.unknown_tokens,
        "byOthers": uses.by_others,
        "activities": dict(sorted(uses.activities.items())),
    }
