"""A stage's keys as decisions see them: generations, of which one signs and all that stand are trusted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from pilot_identity.core.spiffe.bundle import DEFAULT_REFRESH_HINT

STANDING_AT_MOST = 3
"""Generations at one time: one that still vouches for what it signed, one that signs, one that will."""
OLDEST = 0
"""In place of a generation's number: the oldest that stands, which every verifier knows."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What is public of one generation of a stage's stored keys.

    Attributes:
        number: counted from 1; never used twice while the stage has keys.
        made_at: from when its CA is valid, but for the skew.
        rotate: the `spec.keys.rotate` that it was made under.
        refresh_hint: how often verifiers are told to fetch the bundle while it is the newest.
        ca_key_sha256: of the CA's public key (SubjectPublicKeyInfo), in hex.
    """

    number: int
    trust_domain: str
    made_at: dt.datetime
    not_after: dt.datetime
    jwt_key_id: str
    rotate: str = ""
    refresh_hint: dt.timedelta = DEFAULT_REFRESH_HINT
    ca_key_sha256: str = ""


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is public of the generation that signs, and the sequence of the stage's bundle."""

    trust_domain: str
    not_after: dt.datetime
    jwt_key_id: str
    sequence: int


def is_whole(generations: Sequence[Generation]) -> bool:
    """Whether no generation is missing between the oldest and the newest."""
    numbers = [one.number for one in generations]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True


def bundle_sequence(generations: Sequence[Generation]) -> int:
    """The `spiffe_sequence` of the bundle of the generations that stand, in the order of their numbers.

    They come at one end, one at a time, and go at the other: either raises it by one. It follows from what
    stands alone, so that no count can be lost.

    >>> at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    >>> one, two = (Generation(number, "a.example.org", at, at, "key") for number in (1, 2))
    >>> [bundle_sequence(them) for them in ([one], [one, two], [two])]
    [1, 2, 3]
    """
    return generations[0].number + generations[-1].number - 1


def refresh_hint(generations: Sequence[Generation]) -> dt.timedelta:
    """The refresh hint of the bundle: the newest generation's, so that it changes with the sequence."""
    return generations[-1].refresh_hint


def facts_of(generations: Sequence[Generation], signing: int) -> KeyFacts | None:
    """The facts where generation `signing` signs; `None` where it does not stand."""
    number = signing or (generations[0].number if generations else OLDEST)
    signer = next((one for one in generations if one.number == number), None)
    if signer is None:
        return None
    return KeyFacts(signer.trust_domain, signer.not_after, signer.jwt_key_id, bundle_sequence(generations))
