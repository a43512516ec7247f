"""A report: what is posted to the activity endpoint, read without believing it."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec
import rfc8785

from pilot_identity.core.activity.attributes import CONTENT, objection_to
from pilot_identity.core.resources.timestamps import format_timestamp
from pilot_identity.core.spiffe import jose

MAX_REPORT_OCTETS = 32 * 1024
"""Of one report; so an entry of it always fits into the log (65,535 bytes)."""
MAX_ACTIVITIES = 16
"""In one report, which makes one entry."""
MAX_AHEAD = dt.timedelta(minutes=5)
"""How far a reporter's clock may be ahead of ours."""
MAX_BEHIND = dt.timedelta(hours=24)
"""How old an activity may be; a report is made while it happens, or when the network is back."""

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID_DIGITS = 32


class ReportError(ValueError):
    """A report cannot be taken; the message says what to change."""


class ActivityKind(StrEnum):
    """What was done. The docstring below each is its meaning in plain words."""

    PROMPT = "prompt"
    """A model was asked."""
    TOOL_CALL = "tool_call"
    """A tool was called."""
    ACTION = "action"
    """Something was done to the world outside, by a tool or by the agent itself."""
    RESULT = "result"
    """A model or a tool answered."""
    APPROVAL_SEEN = "approval_seen"
    """A person's word on one step came before it was taken."""


NEEDED: Mapping[ActivityKind, tuple[frozenset[str], ...]] = MappingProxyType(
    {
        ActivityKind.PROMPT: (
            frozenset({"gen_ai.operation.name"}),
            frozenset({"digest of gen_ai.input.messages", "digest of gen_ai.system_instructions"}),
        ),
        ActivityKind.TOOL_CALL: (frozenset({"gen_ai.tool.name"}),),
        ActivityKind.ACTION: (frozenset({"pilotidentity.action"}),),
        ActivityKind.RESULT: (
            frozenset({"gen_ai.tool.call.id", "gen_ai.response.id"}),
            frozenset(
                {
                    "digest of gen_ai.output.messages",
                    "digest of gen_ai.tool.call.result",
                    "error.type",
                }
            ),
        ),
        ActivityKind.APPROVAL_SEEN: (
            frozenset({"pilotidentity.approver"}),
            frozenset({"pilotidentity.decision"}),
        ),
    }
)
"""What each kind cannot be told without: of each set, at least one."""


@dataclass(frozen=True, slots=True)
class Activity:
    """One thing that was done.

    Attributes:
        at: when, by the reporter's clock; `None` where it does not say.
        digests: of content, by the name of the attribute that would carry it.
    """

    kind: ActivityKind
    at: dt.datetime | None
    attributes: Mapping[str, Any]
    digests: Mapping[str, str]

    def data(self) -> dict[str, Any]:
        """Tell it as plain JSON values."""
        told: dict[str, Any] = {"kind": str(self.kind), "attributes": dict(self.attributes)}
        if self.digests:
            told["digests"] = dict(self.digests)
        if self.at is not None:
            told["at"] = format_timestamp(self.at)
        return told


@dataclass(frozen=True, slots=True)
class Report:
    """What one request reports.

    Attributes:
        id: the reporter's own name for it, so that it can be sent again; empty where it has none.
    """

    id: str
    activities: tuple[Activity, ...]

    def step(self, drawn: str) -> str:
        """Name the entry: for a report that is sent again the same, for any other another one.

        The log takes an id once. So the content is in the name: whoever uses an id twice for two things has
        both recorded. `drawn` is a random name for a report that has none.
        """
        if not self.id:
            return f"activity/{drawn}"
        content = rfc8785.dumps([activity.data() for activity in self.activities])
        return f"activity/{self.id}/{hashlib.sha256(content).hexdigest()[:_ID_DIGITS]}"


def parse_report(body: bytes, now: dt.datetime) -> Report:
    """Read a report.

    Raises:
        ReportError: it is no report, or it has what a log must not keep.
    """
    if len(body) > MAX_REPORT_OCTETS:
        raise ReportError(f"a report has at most {MAX_REPORT_OCTETS} bytes")
    try:
        members = jose.json_object(body)
    except (ValueError, UnicodeDecodeError) as error:
        raise ReportError(f"a report is a JSON object: {error}") from error
    _only(members, {"id", "activities"}, "a report")
    name = members.get("id", "")
    if name != "" and not (isinstance(name, str) and _ID.fullmatch(name)):
        raise ReportError("id must be 1 to 64 characters of A-Z a-z 0-9 . _ : -")
    found = members.get("activities")
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_ACTIVITIES:
        raise ReportError(f"activities must be a list of 1 to {MAX_ACTIVITIES}")
    return Report(name, tuple(_activity(number, item, now) for number, item in enumerate(found)))


def _activity(number: int, item: object, now: dt.datetime) -> Activity:
    where = f"activities[{number}]"
    if not isinstance(item, dict):
        raise ReportError(f"{where} must be an object")
    _only(item, {"kind", "at", "attributes", "digests"}, where)
    try:
        kind = ActivityKind(str(item.get("kind")))
    except ValueError:
        raise ReportError(f"{where}.kind must be one of {', '.join(ActivityKind)}") from None
    activity = Activity(
        kind,
        _moment(where, item.get("at"), now),
        _attributes(where, item.get("attributes", {})),
        _digests(where, item.get("digests", {})),
    )
    for missing in _missing(activity):
        raise ReportError(f"{where}: {kind} needs {missing}")
    return activity


def _missing(activity: Activity) -> Iterator[str]:
    told = {*activity.attributes, *(f"digest of {name}" for name in activity.digests)}
    for any_of in NEEDED[activity.kind]:
        if told.isdisjoint(any_of):
            yield " or ".join(sorted(any_of))


def _moment(where: str, value: object, now: dt.datetime) -> dt.datetime | None:
    if value is None:
        return None
    try:
        at = msgspec.convert(value, dt.datetime)
    except msgspec.ValidationError:
        raise ReportError(f"{where}.at must be a time such as 2026-11-21T08:30:00Z") from None
    if at.tzinfo is None:
        raise ReportError(f"{where}.at must say its offset, as in 2026-11-21T08:30:00Z")
    if not now - MAX_BEHIND <= at <= now + MAX_AHEAD:
        raise ReportError(f"{where}.at must be within the last day; it is now {format_timestamp(now)}")
    return at


def _attributes(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ReportError(f"{where}.attributes must be an object")
    for name, given in value.items():
        objection = objection_to(name, given)
        if objection:
            raise ReportError(f"{where}.attributes: {objection}")
    return value


def _digests(where: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ReportError(f"{where}.digests must be an object")
    for name, given in value.items():
        if name not in CONTENT:
            raise ReportError(f"{where}.digests: {name[:64]!r} is not one of {', '.join(sorted(CONTENT))}")
        if not (isinstance(given, str) and _DIGEST.fullmatch(given)):
            raise ReportError(f"{where}.digests: {name} must be sha256: and 64 digits in lower case")
    return value


def _only(members: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for name in members.keys() - allowed:
        raise ReportError(f"{where} has no {name[:64]!r}, only {', '.join(sorted(allowed))}")
