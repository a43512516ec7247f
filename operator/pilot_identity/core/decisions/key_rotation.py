"""Rotation: the life of a stage's keys, one generation after the other, without anybody noticing.

A generation is Prepared (in the bundle, signs nothing), then Active (signs), then Old (signs nothing, and is
in the bundle until all that it signed has lapsed), then gone with its private keys. SPIRE's local authorities
live so; like them a generation is prepared in the second half of its predecessor's life and signs in the last
sixth.

What is decided follows from what is stored: which generations stand, and what the status says of each. Where
the status does not know one, it is taken to be earlier in its life and to have signed for longer than it may
have: a lost status makes a rotation late, never early.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import msgspec

from pilot_identity.core.decisions.announced import ABANDON_AFTER
from pilot_identity.core.decisions.stage_keys import STANDING_AT_MOST, Generation
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.stage_policy import KeyPhase, KeyStatus
from pilot_identity.core.spiffe.rotation import HINTS_AHEAD, earliest_use

PREPARE_SHARE, PREPARE_AT_MOST = 2, dt.timedelta(days=30)
ACTIVATE_SHARE, ACTIVATE_AT_MOST = 6, dt.timedelta(days=7)
"""A generation is prepared, and signs, when this share of its predecessor's life is left, or that time."""
LONGEST_LIFE = Duration(hours=24)
"""The most that the CRD lets `x509TTL` and `jwtTTL` be."""
STRAGGLING_HINTS = 12
"""For how many refresh hints a bundle or list that cannot be written holds a rotation up."""
LOOK_AGAIN = dt.timedelta(seconds=10)
"""How soon it is looked at again whether all bundles and lists are written, at the latest."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What stands of a stage's keys at one moment, oldest first, and in the same order what each does.

    Attributes:
        behind: namespaces whose bundle or revocation list does not know of all that stands.
    """

    stage: StagePolicy
    generations: tuple[Generation, ...]
    phases: tuple[KeyStatus, ...]
    behind: frozenset[str]
    now: dt.datetime

    @property
    def _signing(self) -> int:
        return next(place for place, one in enumerate(self.phases) if one.phase is KeyPhase.ACTIVE)

    @property
    def signer(self) -> Generation:
        """The generation that signs."""
        return self.generations[self._signing]

    @property
    def signing(self) -> KeyStatus:
        """What the status says of it."""
        return self.phases[self._signing]

    @property
    def successor(self) -> KeyStatus | None:
        """The generation that signs next; `None` where none is prepared."""
        place = self._signing + 1
        return self.phases[place] if place < len(self.phases) else None

    @property
    def oldest(self) -> KeyStatus | None:
        """The oldest generation, where it signs nothing any more."""
        first = self.phases[0]
        return first if first.phase is KeyPhase.OLD else None

    @property
    def hint(self) -> dt.timedelta:
        """How often the slowest verifier fetches the bundle: by the longest hint that it was told."""
        return max(one.refresh_hint for one in self.generations)

    def is_distrusted(self, generation: int) -> bool:
        """Whether somebody else may have the keys: they, or later ones that were made, are not trusted.

        Generations leave the bundle in their order, so the older ones go with the one that is named.
        """
        newest = self.generations[-1].number
        return any(generation <= named <= newest for named in self.stage.spec.keys.distrusted)


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make generation `number`."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Activate:
    """Let the prepared generation sign from now on."""

    after: KeyStatus
    before: KeyStatus
    why: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Drop the oldest generation from the bundle, and delete its keys."""

    generation: KeyStatus
    why: str


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is due before `until`.

    Attributes:
        rotates_at: when another generation will sign, as things stand; `None` where it waits for `behind`.
    """

    until: dt.datetime
    rotates_at: dt.datetime | None


Step: TypeAlias = Prepare | Activate | Retire | Rest


def signer_of(stage: StagePolicy, generations: Sequence[Generation], now: dt.datetime) -> Generation:
    """The generation that signs: the status says which; where it does not, the first that has not expired."""
    told = stage.status.signing
    is_it = (one for one in generations if (one.number == told if told else one.not_after > now))
    return next(is_it, generations[-1])


def keys_of(
    stage: StagePolicy, generations: tuple[Generation, ...], behind: frozenset[str], now: dt.datetime
) -> Keys:
    """Put together what stands and what the status says of it.

    Args:
        stage: its status is believed; only the operator writes it.
        generations: at least one, whole, and the one that the status says signs is among them.
        behind: namespaces whose bundle or revocation list does not know of all of them.
        now: aware.
    """
    signing = signer_of(stage, generations, now).number
    known = {one.generation: one for one in stage.status.keys}
    phases = tuple(_phase(stage, one, signing, known.get(one.number), now) for one in generations)
    keys = Keys(stage, generations, phases, behind, now)
    successor = keys.successor
    if successor is None or successor.published_at is not None or not _is_published(keys, successor):
        return keys
    published = msgspec.structs.replace(successor, published_at=now)
    return replace(keys, phases=tuple(published if one is successor else one for one in phases))


def next_step(keys: Keys) -> Step:
    """Decide the next step: at most one, so that each is recorded and shown before the next."""
    oldest, successor = keys.oldest, keys.successor
    if oldest is not None and _is_over(keys, oldest):
        return Retire(oldest, why_retired(keys, oldest))
    if successor is not None:
        at, why = _activation(keys, successor)
        if at is not None and at <= keys.now:
            return Activate(_activated(keys, successor), keys.signing, why)
    elif len(keys.generations) < STANDING_AT_MOST and (why := _occasion(keys)):
        return Prepare(keys.signer.number + 1, why)
    return _rest(keys)


def why_retired(keys: Keys, gone: KeyStatus) -> str:
    """Why a generation leaves the bundle, or left it."""
    return "distrusted" if keys.is_distrusted(gone.generation) else "lapsed"


def prepare_at(signer: Generation) -> dt.datetime:
    """When the generation after `signer` is made for its age."""
    return signer.not_after - min((signer.not_after - signer.made_at) / PREPARE_SHARE, PREPARE_AT_MOST)


def activate_at(signer: Generation) -> dt.datetime:
    """When the generation after `signer` signs because of its age."""
    return signer.not_after - min((signer.not_after - signer.made_at) / ACTIVATE_SHARE, ACTIVATE_AT_MOST)


def use_from(published_at: dt.datetime, hint: dt.timedelta, longest_life: dt.timedelta) -> dt.datetime:
    """From when a generation may sign that has been in every bundle since `published_at`.

    Verifiers had the time to fetch it some times over, and no credential's Secret is left with a bundle of
    before: it was renewed or has lapsed.
    """
    return max(earliest_use(published_at, hint), published_at + longest_life)


def lapses_at(keys: Keys, old: KeyStatus) -> dt.datetime:
    """When all that a generation signed has lapsed, and every verifier has lists that it did not sign."""
    life = old.longest_life or LONGEST_LIFE
    return old.since + max(life, HINTS_AHEAD * keys.hint) + ABANDON_AFTER


def _phase(
    stage: StagePolicy, one: Generation, signing: int, told: KeyStatus | None, now: dt.datetime
) -> KeyStatus:
    if one.number > signing:
        phase = KeyPhase.PREPARED
    else:
        phase = KeyPhase.ACTIVE if one.number == signing else KeyPhase.OLD
    is_same = told is not None and told.phase is phase and told.jwt_key_id == one.jwt_key_id
    return KeyStatus(
        generation=one.number,
        phase=phase,
        jwt_key_id=one.jwt_key_id,
        ca_not_after=one.not_after,
        since=told.since if is_same and told is not None else now,
        published_at=told.published_at if is_same and told is not None else None,
        longest_life=_longest_life(stage, one, phase, told),
        ca_key_sha256=one.ca_key_sha256,
    )


def _longest_life(
    stage: StagePolicy, one: Generation, phase: KeyPhase, told: KeyStatus | None
) -> Duration | None:
    """The longest life of what a generation signed; where the status does not know, the longest there is."""
    if phase is KeyPhase.PREPARED:
        return None
    lifetimes = stage.spec.credentials
    allowed = max(lifetimes.x509_ttl, lifetimes.jwt_ttl)
    if told is not None and told.phase is not KeyPhase.PREPARED:
        known = told.longest_life or LONGEST_LIFE
        # A stage issues by its policy only once its status has seen it, so that this is in time.
        return max(known, allowed) if phase is KeyPhase.ACTIVE else known
    created = stage.metadata.creation_timestamp
    is_new = created is not None and one.made_at >= created and not stage.status.jwt_key_id
    return allowed if is_new and phase is KeyPhase.ACTIVE else LONGEST_LIFE


def _is_published(keys: Keys, successor: KeyStatus) -> bool:
    """Whether every bundle and list knows the generation, or those that do not were waited for."""
    return not keys.behind or successor.since + STRAGGLING_HINTS * keys.hint <= keys.now


def _occasion(keys: Keys) -> str:
    """Why a next generation is to be made now; empty where it is not."""
    rules, signer = keys.stage.spec.keys, keys.signer
    if keys.is_distrusted(signer.number):
        return "distrusted"
    if rules.rotate and rules.rotate != signer.rotate:
        return "asked"
    return "age" if prepare_at(signer) <= keys.now else ""


def _activation(keys: Keys, successor: KeyStatus) -> tuple[dt.datetime | None, str]:
    """When the prepared generation signs and why; no time where that waits for bundles and lists."""
    signer, rules = keys.signer, keys.stage.spec.keys
    if keys.is_distrusted(signer.number):
        return keys.now, "distrusted"
    if signer.not_after <= keys.now:
        # Nothing that the stage has out is valid any more; there is nobody to wait for.
        return keys.now, "expired"
    if successor.published_at is None:
        return None, ""
    known_from = use_from(successor.published_at, keys.hint, keys.signing.longest_life or LONGEST_LIFE)
    made_under = next(one.rotate for one in keys.generations if one.number == successor.generation)
    if made_under != signer.rotate or rules.rotate not in {"", signer.rotate}:
        return known_from, "asked"
    return max(known_from, activate_at(signer)), "age"


def _activated(keys: Keys, successor: KeyStatus) -> KeyStatus:
    lifetimes = keys.stage.spec.credentials
    return msgspec.structs.replace(
        successor,
        phase=KeyPhase.ACTIVE,
        since=keys.now,
        longest_life=max(lifetimes.x509_ttl, lifetimes.jwt_ttl),
    )


def _is_over(keys: Keys, old: KeyStatus) -> bool:
    """Whether nobody needs a generation any more: what it signed has lapsed, and no list is by its keys."""
    if keys.is_distrusted(old.generation):
        return True
    over = lapses_at(keys, old)
    return over <= keys.now and (not keys.behind or over + STRAGGLING_HINTS * keys.hint <= keys.now)


def _rest(keys: Keys) -> Rest:
    rotates_at = activate_at(keys.signer)
    if keys.successor is not None:
        at, _ = _activation(keys, keys.successor)
        rotates_at = at if at is not None else rotates_at
        until = min(_times(keys, at))
        return Rest(until, at)
    return Rest(min(_times(keys, prepare_at(keys.signer))), rotates_at)


def _times(keys: Keys, due: dt.datetime | None) -> Iterator[dt.datetime]:
    """Every moment from which something else may be due."""
    soon = keys.now + min(keys.hint, LOOK_AGAIN)
    # What is due and not done waits for an older generation to go.
    yield max(due, soon) if due is not None else soon
    yield max(keys.signer.not_after, soon)
    if keys.oldest is not None:
        yield max(lapses_at(keys, keys.oldest), soon if keys.behind else keys.now)
