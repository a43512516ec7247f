"""Proofs: what a grant had out, and the tests that show that none of it gives access any more.

Withdrawing is an order, and orders get lost; so what was withdrawn is tested afterwards. What nobody can
withdraw, because a verifier that asks nobody would still accept a copy of it, goes on its stage's
revocation lists, and its end is told as `residualUntil`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec

from pilot_identity.core.decisions.plan import (
    WITHDRAWN,
    AccessDenied,
    OnRevocationList,
    SecretGone,
    TokenRefused,
)
from pilot_identity.core.resources import TaskGrant
from pilot_identity.core.resources.task_grant import (
    GrantCredentialStatus,
    IssuedToken,
    Proof,
    Superseded,
    TaskGrantStatus,
)
from pilot_identity.core.spiffe.revocation import Revoked, RevokedCertificate, RevokedToken

UNPROVEN_AFTER = dt.timedelta(seconds=30)
"""So long a closing may take before people are told that something is wrong.

A revoked Kubernetes token is believed for 10 s more by the API server's cache, so that a Kubernetes grant
is seldom proven at once.
"""
FIRST_RETRY = dt.timedelta(seconds=1)
LONGEST_RETRY = dt.timedelta(minutes=5)

NAMES = (WITHDRAWN, SecretGone.name, AccessDenied.name, TokenRefused.name, OnRevocationList.name)
"""Every proof that a closure may hold."""


MOST_SUPERSEDED = 64
"""How many credentials that renewals replaced a status may hold; a further renewal waits for one to lapse."""


def superseded(before: GrantCredentialStatus, now: dt.datetime) -> tuple[Superseded, ...]:
    """What a renewal of `before` leaves out that still lives: itself, and what it replaced."""
    tokens = tuple(token for token in before.tokens if _lives(token, now))
    replaced = Superseded(before.serial, before.not_after, tokens)
    return tuple(one for one in (*before.superseded, replaced) if _until(one) > now)


def storable(status: TaskGrantStatus, now: dt.datetime) -> TaskGrantStatus:
    """The status as the API server takes it, whatever was announced: an end must never fail for its length.

    No renewal goes beyond `MOST_SUPERSEDED`, and what lapsed is nobody's concern; should there be more
    nevertheless, those that hold longest stay, and the log's entries name the others.
    """
    credential = status.credential
    if credential is None or len(credential.superseded) <= MOST_SUPERSEDED:
        return status
    longest = sorted((one for one in credential.superseded if _until(one) > now), key=_until)
    kept = msgspec.structs.replace(credential, superseded=tuple(longest[-MOST_SUPERSEDED:]))
    return msgspec.structs.replace(status, credential=kept)


def room_at(before: GrantCredentialStatus, now: dt.datetime) -> dt.datetime | None:
    """When a renewal of `before` has room again for what it replaces; `None` where it has room now."""
    held = superseded(before, now)
    if len(held) <= MOST_SUPERSEDED:
        return None
    return sorted(map(_until, held))[len(held) - MOST_SUPERSEDED - 1]


def revoked_of(grant: TaskGrant, now: dt.datetime) -> Revoked | None:
    """All that was issued to a grant and has not lapsed; `None` where there is nothing."""
    credential = grant.status.credential
    if credential is None:
        return None
    current = Superseded(credential.serial, credential.not_after, credential.tokens)
    each = (*credential.superseded, current)
    closure = grant.status.closure
    revoked = Revoked(
        stage=grant.status.stage,
        namespace=grant.metadata.namespace,
        at=closure.withdrawn_at if closure is not None and closure.withdrawn_at is not None else now,
        certificates=tuple(
            RevokedCertificate(one.serial, one.not_after) for one in each if one.not_after > now
        ),
        tokens=tuple(
            # A token of a version that did not record its end lapses with its certificate at the latest.
            RevokedToken(token.jti, token.not_after or one.not_after)
            for one in each
            for token in one.tokens
            if (token.not_after or one.not_after) > now
        ),
    )
    return revoked if revoked.lapses_at is not None else None


def residual_until(grant: TaskGrant, now: dt.datetime) -> dt.datetime | None:
    """Until when a verifier that asks nobody could accept a copy of anything that was issued."""
    credential, revoked = grant.status.credential, revoked_of(grant, now)
    ends = [revoked.lapses_at] if revoked is not None and revoked.lapses_at is not None else []
    if credential is not None and credential.kubernetes is not None:
        ends.append(credential.kubernetes.not_after)
    return max((end for end in ends if end > now), default=None)


def retry_at(since: dt.datetime, now: dt.datetime) -> dt.datetime:
    """When to test again what was withdrawn at `since`: later and later, the same after a restart."""
    return now + min(LONGEST_RETRY, max(FIRST_RETRY, (now - since) / 2))


def is_proven(proofs: Sequence[Proof]) -> bool:
    """Whether every test shows that access ended."""
    return all(proof.proven for proof in proofs)


def unproven(proofs: Sequence[Proof]) -> str:
    """Say what is not shown, in a sentence for people."""
    return "; ".join(f"{proof.name}: {proof.message}" for proof in proofs if not proof.proven)


def same_but_time(before: Sequence[Proof], after: Sequence[Proof]) -> bool:
    """Whether two rounds of tests showed the same."""
    return [(one.name, one.proven, one.message) for one in before] == [
        (one.name, one.proven, one.message) for one in after
    ]


def _until(one: Superseded) -> dt.datetime:
    """Until when a copy of anything of it would be believed."""
    return max(one.not_after, *(token.not_after or one.not_after for token in one.tokens), one.not_after)


def _lives(token: IssuedToken, now: dt.datetime) -> bool:
    return token.not_after is not None and token.not_after > now
