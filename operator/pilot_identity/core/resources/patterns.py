"""Resource patterns: a language so small that "is this within that" is decidable.

A pattern is segments split by `/`: a literal, `*` for exactly one segment, and at the end `**` for any
rest, also none. Attenuation (a grant within its pilot, a child within its parent) rests on `covers`.
"""

from __future__ import annotations

import re

_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+|\*")
ANY = "*"
REST = "**"


class PatternError(ValueError):
    """The text is no resource pattern; the message is the rule."""


def parse_pattern(text: str) -> tuple[str, ...]:
    """Split `text` into its segments.

    >>> parse_pattern("projects/*/issues/**")
    ('projects', '*', 'issues', '**')

    Raises:
        PatternError: a segment is empty or has a character outside `A-Za-z0-9._~-`, or `**` is not last.
    """
    *leading, last = text.split("/")
    if last != REST:
        leading.append(last)
    for segment in leading:
        if _SEGMENT.fullmatch(segment) is None:
            raise PatternError(
                f"a resource pattern's segments are literals of A-Za-z0-9._~-, '*', or a last '**': {text!r}"
            )
    return (*leading, REST) if last == REST else tuple(leading)


def covers(wide: str, narrow: str) -> bool:
    """Whether every resource that `narrow` matches is matched by `wide` too.

    Proof by segments: a literal covers itself; `*` covers any one segment but not a rest; a last `**`
    covers every rest. There is no other way to match, so the comparison is exact, not an approximation.

    >>> covers("projects/**", "projects/a/issues/*")
    True
    >>> covers("projects/*", "projects/**")
    False
    """
    left, right = parse_pattern(wide), parse_pattern(narrow)
    for position, segment in enumerate(left):
        if segment == REST:
            return True
        if position >= len(right):
            return False
        other = right[position]
        if other == REST or segment not in {ANY, other}:
            return False
    return len(left) == len(right)


def matches(pattern: str, resource: str) -> bool:
    """Whether `pattern` matches the one resource named by the literal path `resource`.

    >>> matches("projects/*/issues/**", "projects/a/issues/7/comments")
    True
    """
    return covers(pattern, resource)


def actions_cover(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    """Whether every action of `narrow` is among `wide`; `*` among `wide` stands for all.

    >>> actions_cover(("read", "comment"), ("read",))
    True
    >>> actions_cover(("read",), ("*",))
    False
    """
    return ANY in wide or set(narrow) <= set(wide)


def resources_cover(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    """Whether each pattern of `narrow` is covered by one pattern of `wide`.

    By one pattern, never by several together: `a` and `a/*/**` are together as wide as `a/**`, but do not
    cover it here. The answer errs on the side of no, so that attenuation stays sound and easy to explain.
    """
    return all(any(covers(outer, inner) for outer in wide) for inner in narrow)
