"""Attenuation rests on `covers`: held here against what patterns mean, path by path."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pilot_identity.core.resources.patterns import (
    PatternError,
    actions_cover,
    covers,
    matches,
    parse_pattern,
    resources_cover,
)

LITERALS = ("a", "b")
FRESH = "other"
"""A literal that stands in no pattern."""

patterns = st.builds(
    lambda leading, rest: "/".join([*leading, *rest]) or "**",
    st.lists(st.sampled_from([*LITERALS, "*"]), max_size=4),
    st.sampled_from([(), ("**",)]),
)
"""Of few literals, so that many pairs cover each other."""
paths = st.lists(st.sampled_from([*LITERALS, FRESH]), max_size=6).map(tuple)
EVERY_PATH = [path for length in range(7) for path in itertools.product(("a", "b", FRESH), repeat=length)]
"""All paths of up to six segments: longer ones are told apart by nothing that four segments cannot tell."""


def meaning(pattern: str, path: tuple[str, ...]) -> bool:
    """What the language's definition says, one segment at a time; the oracle."""

    def fits(segments: tuple[str, ...], rest: tuple[str, ...]) -> bool:
        if segments == ("**",):
            return True
        if not segments or not rest:
            return not segments and not rest
        return segments[0] in {"*", rest[0]} and fits(segments[1:], rest[1:])

    return fits(tuple(pattern.split("/")), path)


@settings(max_examples=500)
@given(patterns)
def test_a_pattern_covers_itself(pattern: str) -> None:
    """`covers` is reflexive."""
    assert covers(pattern, pattern)


@settings(max_examples=1_000)
@given(patterns, patterns, patterns)
def test_covering_passes_on(widest: str, middle: str, narrow: str) -> None:
    """`covers` is transitive, so that a chain of delegations stays within its first link."""
    if covers(widest, middle) and covers(middle, narrow):
        assert covers(widest, narrow)


@settings(max_examples=1_500)
@given(patterns, patterns, paths)
def test_nothing_within_a_covered_pattern_is_outside(wide: str, narrow: str, path: tuple[str, ...]) -> None:
    """Soundness: what the narrow pattern means, a pattern that covers it means too."""
    if covers(wide, narrow) and meaning(narrow, path):
        assert meaning(wide, path)


def test_an_uncovered_pattern_has_a_path_of_its_own() -> None:
    """Exactness: where `covers` says no, some path shows why; where it says yes, none speaks against it.

    Over every pair of patterns of at most three segments of `a`, `b` and `*`, and every path.
    """
    small = [
        "/".join([*leading, *rest]) or "**"
        for length in range(4)
        for leading in itertools.product(("a", "b", "*"), repeat=length)
        for rest in ((), ("**",))
    ]
    reach = {
        pattern: {path for path in EVERY_PATH if meaning(pattern, path)} for pattern in dict.fromkeys(small)
    }
    for wide, narrow in itertools.product(reach, repeat=2):
        assert covers(wide, narrow) is (reach[narrow] <= reach[wide]), (wide, narrow)


@settings(max_examples=1_000)
@given(patterns, paths)
def test_matching_is_what_the_language_says(pattern: str, path: tuple[str, ...]) -> None:
    """`matches` agrees with the definition for every concrete resource."""
    assume(path)
    assert matches(pattern, "/".join(path)) is meaning(pattern, path)


REFUSED = {
    "nothing": "",
    "an empty segment": "a//b",
    "a slash before": "/a",
    "a slash after": "a/",
    "a rest in the middle": "a/**/b",
    "a star within a segment": "a/b*",
    "three stars": "a/***",
    "a blank": "a/b c",
    "an escape": "a/%2e",
    "a letter outside ASCII": "a/ä",
    "a newline": "a/b\n",
    "a query": "a?b",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_no_pattern_is_refused_by_the_rule(text: str) -> None:
    """The message is the rule, with what was found."""
    with pytest.raises(
        PatternError, match=r"segments are literals of A-Za-z0-9\._~-, '\*', or a last '\*\*'"
    ):
        parse_pattern(text)


@pytest.mark.parametrize("side", [0, 1])
def test_a_broken_pattern_covers_nothing_by_accident(side: int) -> None:
    """A comparison with something that is no pattern is an error, not a yes or a no."""
    pair = ["a/**", "a/**"]
    pair[side] = "a//b"
    with pytest.raises(PatternError):
        covers(*pair)


ACTIONS = {
    "fewer of the same": (("read", "comment"), ("read",), True),
    "the same": (("read",), ("read",), True),
    "none": (("read",), (), True),
    "another": (("read",), ("write",), False),
    "one within and one beyond": (("read",), ("read", "write"), False),
    "all, where some are allowed": (("read",), ("*",), False),
    "some, where all are allowed": (("*",), ("read", "write"), True),
    "all, where all are allowed": (("*",), ("*",), True),
    "a prefix is no match": (("issues:comment",), ("issues",), False),
}


@pytest.mark.parametrize("wide, narrow, expected", ACTIONS.values(), ids=ACTIONS)
def test_actions_are_compared_as_words(
    wide: tuple[str, ...], narrow: tuple[str, ...], expected: bool
) -> None:
    """An action is within when it is named, or when everything is."""
    assert actions_cover(wide, narrow) is expected


RESOURCES = {
    "each within one": (("a/**", "b/*"), ("a/x/y", "b/z"), True),
    "none asked for": (("a/**",), (), True),
    "one of two beyond": (("a/**",), ("a/x", "b"), False),
    "none allowed": ((), ("a",), False),
    "together as wide, but none alone": (("a", "a/*/**"), ("a/**",), False),
}


@pytest.mark.parametrize("wide, narrow, expected", RESOURCES.values(), ids=RESOURCES)
def test_each_resource_is_within_one_pattern(
    wide: tuple[str, ...], narrow: tuple[str, ...], expected: bool
) -> None:
    """Several patterns never cover one together: the answer errs on the side of no."""
    assert resources_cover(wide, narrow) is expected


@settings(max_examples=750)
@given(st.lists(patterns, max_size=3), st.lists(patterns, max_size=3), paths)
def test_attenuation_is_sound_for_lists_too(
    wide: list[str], narrow: list[str], path: tuple[str, ...]
) -> None:
    """No path that a narrowed list means lies outside the list that covers it."""
    if resources_cover(tuple(wide), tuple(narrow)) and any(meaning(each, path) for each in narrow):
        assert any(meaning(each, path) for each in wide)
