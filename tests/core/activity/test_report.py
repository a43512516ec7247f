from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from pilot_identity.core.activity import attributes
from pilot_identity.core.activity.report import (
    MAX_ACTIVITIES,
    MAX_REPORT_OCTETS,
    ActivityKind,
    Report,
    ReportError,
    parse_report,
)
from pilot_identity.core.audit.entries import MAX_ENTRY_BYTES, Entry, EntryType, encode_entry

NOW = dt.datetime(2026, 6, 1, 12, 0, 0, tzinfo=dt.UTC)
DIGEST = "sha256:" + "ab" * 32


def call(**fields: Any) -> dict[str, Any]:
    """A tool call."""
    return {"kind": "tool_call", "attributes": {"gen_ai.tool.name": "search"}, **fields}


def read(*activities: Any, **fields: Any) -> Report:
    """Read a report with these activities."""
    return parse_report(json.dumps({"activities": activities, **fields}).encode(), NOW)


EXAMPLES: dict[str, dict[str, Any]] = {
    "prompt": {
        "kind": "prompt",
        "at": "2026-06-01T11:59:59Z",
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude",
            "gen_ai.conversation.id": "c-1",
            "gen_ai.usage.input_tokens": 12,
        },
        "digests": {"gen_ai.input.messages": DIGEST},
    },
    "tool_call": {
        "kind": "tool_call",
        "attributes": {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "search",
            "gen_ai.tool.call.id": "call_1",
            "mcp.method.name": "tools/call",
        },
        "digests": {"gen_ai.tool.call.arguments": DIGEST},
    },
    "action": {
        "kind": "action",
        "attributes": {
            "pilotidentity.access": "tickets",
            "pilotidentity.action": "comment",
            "pilotidentity.resource": "projects/billing/7",
        },
    },
    "result": {
        "kind": "result",
        "attributes": {"gen_ai.tool.call.id": "call_1", "gen_ai.response.finish_reasons": ["stop"]},
        "digests": {"gen_ai.tool.call.result": DIGEST},
    },
    "approval_seen": {
        "kind": "approval_seen",
        "attributes": {"pilotidentity.approver": "ann", "pilotidentity.decision": "approve"},
    },
}
"""A good one of each kind."""


def test_each_kind_can_be_told() -> None:
    """And is told in the log as it was reported."""
    assert EXAMPLES.keys() == set(ActivityKind)
    report = read(*EXAMPLES.values(), id="run-7.1")
    assert [activity.data() for activity in report.activities] == list(EXAMPLES.values())


@pytest.mark.parametrize("name", sorted(attributes.CONTENT | attributes.OUTDATED))
def test_content_is_refused_by_name(name: str) -> None:
    """Prompts, arguments, answers: only digests."""
    with pytest.raises(ReportError, match="is content"):
        read(call(attributes={"gen_ai.tool.name": "search", name: "What is my salary?"}))


@pytest.mark.parametrize(
    "broken, message",
    [
        (call(kind="thought"), "kind must be one of"),
        (call(kind=["tool_call"]), "kind must be one of"),
        (call(attributes=[]), "attributes must be an object"),
        (call(attributes={}), "tool_call needs gen_ai.tool.name"),
        (call(attributes={"gen_ai.tool.name": ""}), "1 to 256 characters"),
        (call(attributes={"gen_ai.tool.name": "a\nb"}), "one line"),
        (call(attributes={"gen_ai.tool.name": "x" * 257}), "1 to 256 characters"),
        (call(attributes={"gen_ai.tool.name": 7}), "1 to 256 characters"),
        (call(attributes={"gen_ai.usage.input_tokens": True}), "whole number"),
        (call(attributes={"gen_ai.usage.input_tokens": -1}), "whole number"),
        (call(attributes={"gen_ai.usage.input_tokens": 2**53}), "whole number"),
        (call(attributes={"gen_ai.usage.input_tokens": 1.5}), "whole number"),
        (call(attributes={"gen_ai.response.finish_reasons": ["x"] * 17}), "at most 16"),
        (call(attributes={"gen_ai.secret": "x"}), "is no attribute"),
        (call(digests={"gen_ai.tool.name": DIGEST}), "is not one of"),
        (call(digests={"gen_ai.tool.call.result": "ab" * 32}), "sha256:"),
        (call(digests={"gen_ai.tool.call.result": DIGEST.upper()}), "sha256:"),
        (call(digests=7), "digests must be an object"),
        (call(at="soon"), "must be a time"),
        (call(at="2026-06-01T12:00:00"), "offset"),
        (call(at="2026-06-01T12:05:01Z"), "within the last day"),
        (call(at="2026-05-31T11:59:59Z"), "within the last day"),
        (call(text="hello"), "has no 'text'"),
        ("tool_call", "must be an object"),
        ({"kind": "prompt", "attributes": {"gen_ai.operation.name": "chat"}}, "prompt needs digest of"),
        ({"kind": "result", "attributes": {"gen_ai.response.id": "r"}}, "result needs digest of"),
        ({"kind": "approval_seen", "attributes": {"pilotidentity.approver": "ann"}}, "decision"),
        ({"kind": "action"}, "pilotidentity.action"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_what_to_change(broken: Any, message: str) -> None:
    """Names, types, sizes and times."""
    with pytest.raises(ReportError, match=message):
        read(broken)


@pytest.mark.parametrize(
    "body, message",
    [
        (b"", "JSON"),
        (b"[]", "JSON must be an object"),
        (b"\xff\xfe", "a report is a JSON object"),
        (b"[" * 20_000, "nested"),
        (b'{"activities": [], "activities": []}', "unique"),
        (b'{"activities": []}', "1 to 16"),
        (b'{"activities": 7}', "1 to 16"),
        (b'{"activities": NaN}', "NaN"),
        (b'{"id": "a b", "activities": []}', "id must be"),
        (b'{"id": 7, "activities": []}', "id must be"),
        (b'{"prompt": "hello"}', "has no 'prompt'"),
        (b" " * (MAX_REPORT_OCTETS + 1), "at most"),
        (json.dumps({"activities": [call()] * (MAX_ACTIVITIES + 1)}).encode(), "1 to 16"),
    ],
)
def test_what_is_no_report_is_refused(body: bytes, message: str) -> None:
    """Whatever it is."""
    with pytest.raises(ReportError, match=message):
        parse_report(body, NOW)


def test_a_report_that_is_sent_again_is_the_same_step() -> None:
    """So the log takes it once."""
    assert read(call(), id="r-1").step("x") == read(call(), id="r-1").step("y")


def test_an_id_that_is_used_for_something_else_hides_nothing() -> None:
    """The other content makes another step."""
    other = call(attributes={"gen_ai.tool.name": "delete"})
    assert read(call(), id="r-1").step("x") != read(other, id="r-1").step("x")


def test_a_report_without_an_id_is_a_step_of_its_own() -> None:
    """Two like calls are two."""
    assert read(call()).step("x") != read(call()).step("y")


def test_the_largest_report_fits_into_the_log() -> None:
    """With the longest facts about its grant."""
    name = "é" * 256
    texts = dict.fromkeys(sorted(attributes.TEXTS)[:3], name) | {"gen_ai.tool.name": name}
    body = json.dumps({"activities": [call(attributes=texts)] * 14}, ensure_ascii=False).encode()
    assert MAX_REPORT_OCTETS * 0.9 < len(body) <= MAX_REPORT_OCTETS
    report = parse_report(body, NOW)
    facts = {
        "task": {"id": "t" * 253, "description": "\u2028" * 1024},
        "delegation": [
            {"grant": "g" * 63, "uid": "u" * 36, "pilot": "p" * 63, "requestedBy": "é" * 253}
            for _ in range(9)
        ],
        "activities": [activity.data() for activity in report.activities],
    }
    entry = Entry("id", EntryType.ACTIVITY_RECORDED, "TaskGrant team-a/x", "uid", NOW, facts)
    assert len(encode_entry(entry, "example.org/log")) <= MAX_ENTRY_BYTES
