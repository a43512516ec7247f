"""How access is written on the command line: `tickets`, `tickets=read,comment`, `tickets=read@projects/7/**`.

`=` and `@` are in the alphabet of neither an entry's name, nor an action, nor a resource, so there is one way
to read each text. `:` would not do: it is part of actions such as `issues:comment`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pilot_identity.cli.failures import UsageError
from pilot_identity.core.resources.patterns import PatternError, parse_pattern

SYNTAX = "NAME[=ACTION,...][@RESOURCE,...]"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_ACTION = re.compile(r"[a-z0-9._:-]+|\*")


def parse_access(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Read the entries that a grant asks for, as its spec has them.

    >>> parse_access(["tickets=read,issues:comment@projects/billing/**", "invoices"])
    [{'name': 'tickets', 'actions': ['read', 'issues:comment'], 'resources': ['projects/billing/**']}, {'name': 'invoices'}]

    Raises:
        UsageError: a text is not written so, or two name the same entry.
    """  # noqa: E501 - what doctest compares stands in one line
    entries = [_entry(text) for text in texts]
    names = [entry["name"] for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--access {name}: named twice; list its actions and resources in one --access")
    return entries


def _entry(text: str) -> dict[str, Any]:
    head, at, resources = text.partition("@")
    name, equals, actions = head.partition("=")
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"--access {text!r}: begins with the name of one of the pilot's access entries, as {SYNTAX}"
        )
    entry: dict[str, Any] = {"name": name}
    if equals:
        entry["actions"] = actions.split(",")
        for action in entry["actions"]:
            if _ACTION.fullmatch(action) is None:
                raise UsageError(
                    f"--access {text!r}: an action is a-z, 0-9 and . _ : -, or *, got {action!r}"
                )
    if at:
        entry["resources"] = resources.split(",")
        for resource in entry["resources"]:
            try:
                parse_pattern(resource)
            except PatternError as error:
                raise UsageError(f"--access {text!r}: {error}") from error
    return entry


def format_access(name: str, actions: Sequence[str], resources: Sequence[str]) -> str:
    """Write one entry as the command line takes it; the inverse of `parse_access`.

    >>> format_access("tickets", ("read",), ())
    'tickets=read'
    """
    return (
        name + (f"={','.join(actions)}" if actions else "") + (f"@{','.join(resources)}" if resources else "")
    )
