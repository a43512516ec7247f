"""Particulars: what an entry's data holds at a path, read without believing that it is there.

A log outlives versions: an entry of another one may lack what is looked for, or have something else in its
place. Here that reads as nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any


def _at(data: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = data
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def text(data: Mapping[str, Any], *path: str) -> str:
    """The text at a path into an entry's data; empty where there is none."""
    value = _at(data, path)
    return value if isinstance(value, str) else ""


def count(data: Mapping[str, Any], *path: str) -> int:
    """The whole number at a path; 0 where there is none."""
    value = _at(data, path)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def mapping(data: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The object at a path; empty where there is none."""
    value = _at(data, path)
    return value if isinstance(value, Mapping) else {}


def mappings(data: Mapping[str, Any], *path: str) -> tuple[Mapping[str, Any], ...]:
    """The objects in the list at a path; empty where there is none."""
    value = _at(data, path)
    return tuple(each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else ()


def texts(data: Mapping[str, Any], *path: str) -> tuple[str, ...]:
    """The texts in the list at a path; empty where there is none."""
    value = _at(data, path)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def moment(data: Mapping[str, Any], *path: str) -> dt.datetime | None:
    """The time at a path; `None` where there is none."""
    try:
        value = dt.datetime.fromisoformat(text(data, *path))
    except ValueError:
        return None
    return value if value.tzinfo is not None else None
