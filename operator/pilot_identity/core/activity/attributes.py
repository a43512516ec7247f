"""The attributes that an activity may have: OpenTelemetry's names, and a few of ours.

Names and types are those of the OpenTelemetry semantic conventions for generative AI, the Model Context
Protocol and errors (semantic-conventions v1.41: docs/registry/attributes/{gen-ai,mcp,jsonrpc,error}.md).
A name that is not here is refused: nobody could tell whether it carries somebody's text.
"""

from __future__ import annotations

import re

MAX_TEXT = 256
"""Characters in one value."""
MAX_VALUES = 16
"""Values in one list."""
MAX_INTEGER = 2**53 - 1
"""RFC 8785 §3.2.2.3: beyond it a number is not the same to everyone."""

_OURS = "pilotidentity."

TEXTS = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.agent.id",
        "gen_ai.agent.name",
        "gen_ai.agent.version",
        "gen_ai.conversation.id",
        "gen_ai.data_source.id",
        "gen_ai.output.type",
        "gen_ai.prompt.name",
        "gen_ai.request.model",
        "gen_ai.response.id",
        "gen_ai.response.model",
        "gen_ai.tool.call.id",
        "gen_ai.tool.name",
        "gen_ai.tool.type",
        "mcp.method.name",
        "mcp.protocol.version",
        "mcp.resource.uri",
        "mcp.session.id",
        "jsonrpc.request.id",
        "error.type",
        f"{_OURS}access",
        f"{_OURS}action",
        f"{_OURS}resource",
        f"{_OURS}approval",
        f"{_OURS}approver",
        f"{_OURS}decision",
    }
)
"""Attributes whose value is a short text."""

INTEGERS = frozenset(
    {
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_read.input_tokens",
    }
)
"""Attributes whose value is a count."""

LISTS = frozenset({"gen_ai.response.finish_reasons"})
"""Attributes whose value is a list of short texts."""

CONTENT = frozenset(
    {
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.system_instructions",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
        "gen_ai.tool.definitions",
        "gen_ai.retrieval.documents",
        "gen_ai.retrieval.query.text",
    }
)
"""Attributes that carry somebody's text: only their digests are taken."""

OUTDATED = frozenset({"gen_ai.prompt", "gen_ai.completion"})
"""Content by names that OpenTelemetry has given up; not taken in any form."""

# Printable, and no line breaks: a value is shown to people line by line.
_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,256}")


def objection_to(name: str, value: object) -> str:
    """Say what is wrong with an attribute; empty where nothing is.

    >>> objection_to("gen_ai.tool.name", "search")
    ''
    >>> objection_to("gen_ai.input.messages", [])
    'gen_ai.input.messages is content; give its SHA-256 in digests, and keep the text'
    """
    if name in CONTENT:
        return f"{name} is content; give its SHA-256 in digests, and keep the text"
    if name in OUTDATED:
        return f"{name} is content by an outdated name; give a SHA-256 in digests, by the name of today"
    if name in TEXTS:
        return "" if _is_text(value) else f"{name} must be a text of 1 to {MAX_TEXT} characters in one line"
    if name in INTEGERS:
        return "" if _is_count(value) else f"{name} must be a whole number from 0 to {MAX_INTEGER}"
    if name in LISTS:
        return "" if _is_list(value) else f"{name} must be a list of at most {MAX_VALUES} short texts"
    return f"{name[:MAX_TEXT]!r} is no attribute that an activity may have"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and _TEXT.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


def _is_list(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MAX_VALUES and all(map(_is_text, value))
