"""Printing: entries as lines for people or for programs, and what a verification did and did not check."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from pilot_identity.cli.audit.memory import EarlierHead
from pilot_identity.cli.audit.reading import KeyOrigin, OpenLog, archived, older, wrong
from pilot_identity.cli.output import say
from pilot_identity.cli.text import clock, plain
from pilot_identity.core.audit.entries import EntryError, RecordedEntry, decode_entry
from pilot_identity.core.audit.findings import Report
from pilot_identity.core.audit.reader import NDJSON

_PREFIX = "dev.pilotidentity."
_TELLING = ("reason", "requestedBy", "changedBy", "message")
"""The fields of an entry's data that say in a line why it is there."""


def entry_line(index: int, encoded: bytes) -> str:
    """An entry in one line: its index, time, what happened to what, and why."""
    try:
        entry = decode_entry(encoded)
    except EntryError as error:
        return f"{index:>8}  {error}"
    told = f"{short_type(entry):<24}  {entry.subject}{why(entry)}"
    return plain(f"{index:>8}  {clock(entry.time)}  {told}")


def short_type(entry: RecordedEntry) -> str:
    """An entry's type without what all of them have: `grant.issued`."""
    return entry.type.removeprefix(_PREFIX).removesuffix(".v1")


def why(entry: RecordedEntry) -> str:
    """Why an entry is there, as far as it says so at its top; empty where it does not."""
    told = [
        f"{name}={value}" for name in _TELLING if isinstance(value := entry.data.get(name), str) and value
    ]
    return "  " + " ".join(told) if told else ""


def print_entry(
    index: int, encoded: bytes, *, as_json: bool, more: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Print an entry, for programs as one line of JSON with its index and what `more` is to be said of it."""
    if as_json:
        # The entry's own bytes: what was hashed is what is shown.
        others = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in more.items())
        sys.stdout.write(f'{{"index":{index},"entry":{_ascii(encoded)}{others}}}\n')
        sys.stdout.flush()
    else:
        say(entry_line(index, encoded))


def _ascii(encoded: bytes) -> str:
    """JSON with every character beyond ASCII escaped, which says the same and moves no terminal's cursor."""
    text = encoded.decode(errors="backslashreplace")
    return "".join(char if char.isascii() and char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def whole_entry(encoded: bytes) -> str:
    """An entry over several lines, indented."""
    lines = msgspec.json.format(encoded, indent=2).split(b"\n")
    return "\n".join(_ascii(line) for line in lines)


def checked(report: Report, log: OpenLog) -> Iterator[str]:
    """What the verification did check, a sentence each; of a log that is broken, how far it is in order."""
    count = report.entries - report.first
    if not report.is_sound:
        yield f"{count} entries in {report.parts} stored parts were read; what is wrong stands above"
        yield f"{report.signatures} signed heads verified, by key {log.verifier} ({log.key_origin})"
        if report.head is not None:
            yield f"of the entries the first {report.head.size} are those of a head that is signed"
        return
    yield f"{count} entries in {report.parts} stored parts: each hash, and the root over all"
    yield f"{report.signatures} signed heads, by key {log.verifier} ({log.key_origin})"
    yield "that each entry is a canonical CloudEvent of this log, with an id that no other has"
    first = "the first entry" if report.is_whole else f"entry {report.first}"
    yield f"that no index is missing between {first} and the signed head"
    if report.seen is not None and report.goes_on:
        yield f"that all of it begins with the {report.seen.size} entries whose head was seen before"
    if (earlier := _known_again(report, log)) is not None:
        yield f"that its head was seen on {earlier.at[:19]}Z, and what was seen since goes on from it"
    if log.place.has_lines:
        yield f"that {NDJSON} has just these entries"
    if log.testimony.demand.quorum and log.testimony.is_enough:
        yield f"that it begins with what was cosigned by {log.testimony.good} of the witnesses given"
        if log.testimony.demand.within is not None:
            yield (
                f"that they cosigned no longer than {log.testimony.demand.within} ago, and that what "
                "came since is no older, by its own times and by the heads that were seen here before"
            )


def not_checked(report: Report, log: OpenLog) -> Iterator[str]:
    """What it did not, and what that leaves open."""
    yield (
        "whether everything that happened was logged: this verifies what is in the log, not what should be"
    )
    yield "whether what entries say is true, and whether their decisions were right"
    if not report.is_whole:
        yield f"the archive: {archived(report)}"
    if not log.testimony.good:
        yield (
            "the word of any witness of yours (--witness): whoever holds the log's key can show others "
            "another log, or this one without entries newer than the head that you remember"
        )
    elif log.testimony.unasked or log.testimony.silent:
        names = ", ".join(log.testimony.unasked) or "the witnesses"
        yield (
            f"whether {plain(names)} cosigned a larger head than is published: whoever keeps the log may "
            "hold it back; --witness-url asks them, --witnessed-within bounds for how long"
        )
    if log.testimony.demand.within is not None and report.seen is None:
        yield (
            "how old entries beyond the cosigned head are, but by their own times, which whoever keeps the "
            "log writes: from the next verification on they are held to what was seen here now"
        )
    for url in log.testimony.silent:
        yield f"the word of {plain(url)}: it told no head of this log that a witness given cosigned"
    if log.place.has_lines is None and log.cluster is None:
        yield f"{NDJSON}, where there is one: of a URL only the tiles are read"
    yield from _not_checked_of_before(report, log)
    if log.key_origin is KeyOrigin.PUBLISHED:
        yield (
            "whether the key is the operator's: it was found beside the log; compare it with one from "
            "elsewhere, or give that with --vkey"
        )


def _not_checked_of_before(report: Report, log: OpenLog) -> Iterator[str]:
    """What it did not of how the log was before."""
    if report.seen is None:
        yield (
            "whether it was rewritten or cut before now: no head was seen here before; this one is "
            f"remembered in {log.memory.directory}"
        )
    elif report.is_older:
        yield f"what came after it: it is {older(report, log)}"
        if _known_again(report, log) is None:
            yield (
                "whether what was seen goes on from it: no head of its size was seen here; now this one is "
                "remembered, so verify the log itself, and then this copy again"
            )
    elif report.goes_on is None and report.seen.size < report.first:
        yield (
            f"whether it goes on from the head of {report.seen.size} entries that was seen before: those are "
            "archived; that head stays the one that is remembered"
        )
    elif report.goes_on is None:
        yield "whether it goes on from the head that was seen before: it does not verify that far"


def print_report(report: Report, log: OpenLog) -> None:
    """Print a verdict for people."""
    say(f"log      {log.verifier.name}")
    say(f"at       {log.place.name}")
    if report.head is not None:
        say(f"head     {report.head.size} entries, root {report.head.root.hex()}")
    for line in log.testimony.lines(report.entries):
        say(f"witness  {plain(line)}")
    for unread in log.testimony.unread:
        say(f"witness  {plain(unread)}")
    say("verdict  " + _verdict(report, log))
    for title, lines in (
        ("Wrong", () if report.is_sound else wrong(report)),
        ("Checked", checked(report, log)),
        ("Not checked", not_checked(report, log)),
    ):
        listed = list(lines)
        if listed:
            say("")
            say(f"{title}:")
        for line in listed:
            say(f"  - {line}")


def _known_again(report: Report, log: OpenLog) -> EarlierHead | None:
    """The head of an older copy as it was seen, if the newest that was seen is known to go on from it."""
    earlier = log.held.get(report.entries) if report.is_older else None
    return earlier if earlier is not None and earlier.proven else None


def _verdict(report: Report, log: OpenLog) -> str:
    if not report.is_sound:
        return "BROKEN"
    heard = log.testimony
    if not heard.is_enough:
        late = heard.lateness()
        told = f"NOT WITNESSED: {heard.good} of the witnesses given stand for it, {heard.demand.quorum} must"
        return f"{told}; {late}" if late else told
    if report.is_older:
        return f"sound, but {older(report, log)}"
    return "sound" if report.is_whole else f"sound from entry {report.first} on; the archive was not read"


def report_data(report: Report, log: OpenLog) -> Mapping[str, Any]:
    """A verdict for programs."""
    head = report.head
    return {
        "sound": report.is_sound and log.testimony.is_enough,
        "log": log.verifier.name,
        "place": log.place.name,
        "vkey": str(log.verifier),
        "vkeyFrom": str(log.key_origin),
        "entries": report.entries,
        "first": report.first,
        "whole": report.is_whole,
        "older": report.is_older,
        "signedHeads": report.signatures,
        "head": {"size": head.size, "root": head.root.hex(), "note": report.note}
        if head is not None
        else None,
        "unprovenFrom": report.unproven_from,
        "seen": {"size": report.seen.size, "goesOn": report.goes_on} if report.seen is not None else None,
        "witnesses": log.testimony.data(report.entries),
        "findings": [
            {"flaw": str(each.flaw), "where": each.where, "index": each.index, "message": each.message}
            for each in report.findings
        ],
        "checked": list(checked(report, log)),
        "notChecked": list(not_checked(report, log)),
    }
