"""What an issuing entry says was given, beside what follows from its request.

The entry itself says what was drawn by chance, and what only making the account told: the credential's id and
number, the serial, the keys' fingerprint, the account's UID and its token. From these, the request and the
time all the rest follows, by the code that issues.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from pilot_identity.core.audit.canonical import canonical
from pilot_identity.core.audit.entries import RecordedEntry
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.issuing import given_for, told_given
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.plan import AccountFacts, AccountOrder
from pilot_identity.core.resources.metadata import View
from pilot_identity.core.spiffe.keys import spki_sha256

CLOCKS_APART = dt.timedelta(minutes=5)
"""Of the API server, which says until when an account's token holds, and of the operator."""
_RENEWAL = "credential.renewAt"
_Time = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class _Account(View, frozen=True):
    """What only making an account and its token told."""

    service_account_uid: str = msgspec.field(name="serviceAccountUID", default="")
    credential_id: str = msgspec.field(name="credentialID", default="")
    not_after: _Time | None = None


class _Drawn(View, frozen=True):
    """What was drawn by chance, or told by others, of a credential."""

    id: str
    issuance: int
    serial: str
    renew_at: _Time
    public_key_sha256: str = msgspec.field(name="publicKeySHA256")
    kubernetes: _Account | None = None


def misgiven(request: Request, entry: RecordedEntry) -> Iterator[str]:
    """The fields in which an entry says that something else was given than follows from the request."""
    try:
        drawn = msgspec.convert(entry.data.get("credential"), _Drawn)
        serial = int(drawn.serial, 16)
    except (msgspec.ValidationError, ValueError) as error:
        yield f"credential: it cannot be read: {error}"
        return
    step = f"{request.grant.metadata.uid}/credential/{drawn.issuance}"
    if entry.id != step:
        yield f"id: the entry says {entry.id}, the number of its credential makes {step}"
    status = msgspec.structs.replace(request.grant.status, issuances=drawn.issuance - 1)
    seen = replace(request.seen, grant=msgspec.structs.replace(request.grant, status=status))
    case = Case(seen, Moment(request.now, drawn.id, serial, jitter=0.0))
    told = dict(_leaves({name: value for name, value in entry.data.items() if name in _GIVEN}))
    again = dict(_leaves(_given_again(case, request, drawn)))
    soonest = msgspec.convert(again[_RENEWAL], dt.datetime)
    latest = given_for(replace(case, moment=replace(case.moment, jitter=1.0)), request).credential.renew_at
    if soonest <= drawn.renew_at <= latest:
        again[_RENEWAL] = told[_RENEWAL]
    for field in dict.fromkeys((*again, *told)):
        if again.get(field) != told.get(field):
            yield f"{field}: the entry says {told.get(field)}, from the request follows {again.get(field)}"


_GIVEN = frozenset({"stage", "access", "credential", "expiresAt", "delegation"})


def _given_again(case: Case, request: Request, drawn: _Drawn) -> Mapping[str, Any]:
    """All that follows from the request, as an entry tells it."""
    given = given_for(case, request)
    order, account, key = given.order, drawn.kubernetes, drawn.public_key_sha256
    if order.public_key is not None:
        key = spki_sha256(order.public_key)
    facts = _account_facts(case, order.kubernetes, account) if order.kubernetes is not None else None
    told = canonical(told_given(case, request, given, key, facts))
    return msgspec.json.decode(told, type=dict[str, Any])


def _account_facts(case: Case, order: AccountOrder, account: _Account | None) -> AccountFacts:
    """What making the account told, as far as it can have been told: its token's end is bounded."""
    until = case.moment.second + order.lifetime
    if account is None or account.not_after is None or account.not_after > until + CLOCKS_APART:
        return AccountFacts("", "", until)
    return AccountFacts(account.service_account_uid, account.credential_id, account.not_after)


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field of an object, and of objects in it, with its path."""
    for name, inner in value.items():
        at = f"{path}.{name}" if path else name
        if isinstance(inner, dict):
            yield from _leaves(inner, at)
        else:
            yield at, inner
