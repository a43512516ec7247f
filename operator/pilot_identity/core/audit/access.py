"""What grants' accounts asked the API server for, from its own audit events (`audit.k8s.io/v1`).

The API server's word is the source: it names the account that it authenticated, the token's id and its own
answer, and a client can write none of these. It can write much of the rest. It chooses paths and names, which
are kept short and to plain characters; and it may choose the audit id (the header `Audit-ID`), so that an id
alone does not tell that an event was sent twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import msgspec

MAX_EVENTS = 5_000
"""In one batch; an API server sends 400 unless --audit-webhook-batch-max-size says otherwise."""
_API_VERSION = "audit.k8s.io/v1"
_CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")
# A watch is told when it starts, and again when it ends; whichever is told first is counted.
_STAGES = frozenset({"ResponseStarted", "ResponseComplete", "Panic"})
_FORBIDDEN = 403
_FIRST_FAILURE = 400
_MARK_OCTETS = 16
_MAX_TEXT = 253
_MAX_VERB = 32
_MAX_RESOURCE = 160
_MAX_NAMESPACE = 63
_UNPLAIN = re.compile(r"[^A-Za-z0-9._:/@~*-]")


class AuditError(ValueError):
    """A body is not a batch of audit events; the message says why."""


class _Wire(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Part of an event; fields that are not read are passed over."""


class _User(_Wire, frozen=True):
    username: str = ""
    uid: str = ""
    extra: dict[str, tuple[str, ...] | None] | None = None


class _Reference(_Wire, frozen=True):
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    api_group: str = ""


class _Answer(_Wire, frozen=True):
    code: int = 0


class AuditEvent(_Wire, frozen=True):
    """One event, as far as it is read."""

    verb: str
    stage: str
    request_received_timestamp: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    audit_id: str = msgspec.field(name="auditID", default="")
    request_uri: str = msgspec.field(name="requestURI", default="")
    user: _User = _User()
    impersonated_user: _User | None = None
    object_ref: _Reference | None = None
    response_status: _Answer | None = None


class _EventList(_Wire, frozen=True):
    kind: str
    api_version: str
    items: tuple[AuditEvent, ...] | None = None


def parse_events(body: bytes) -> tuple[AuditEvent, ...]:
    """Read a batch as the API server posts it.

    Raises:
        AuditError: it is no `EventList` of `audit.k8s.io/v1`, or has too many events.
    """
    try:
        batch = msgspec.json.decode(body, type=_EventList)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AuditError(f"not a batch of audit events: {error}") from error
    if (batch.kind, batch.api_version) != ("EventList", _API_VERSION):
        raise AuditError(f"expected an EventList of {_API_VERSION}, got {batch.kind} of {batch.api_version}")
    items = batch.items or ()
    if len(items) > MAX_EVENTS:
        raise AuditError(f"a batch has at most {MAX_EVENTS} events, this one has {len(items)}")
    return items


class Account(NamedTuple):
    """A ServiceAccount."""

    namespace: str
    name: str


class Target(NamedTuple):
    """What was asked for: a verb on a kind of resource in a namespace, or on a path."""

    verb: str
    resource: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """One request that the API server answered.

    Attributes:
        account: as whom it was authenticated.
        account_uid: the account's UID.
        credential_id: of the token, without the `JTI=` before it; empty where the event has none.
        target: what was asked for.
        name: the object's, empty where the request named none.
        at: when the API server received it.
        code: the HTTP status of the answer, 0 where there was none.
        mark: the same for every telling of one request, and for no other request.
        borrower: who asked as the account, by impersonation; empty where it asked itself.
        borrowed: as whom the account asked, by impersonation; empty where it asked as itself.
    """

    account: Account
    account_uid: str
    credential_id: str
    target: Target
    name: str
    at: dt.datetime
    code: int
    mark: bytes
    borrower: str = ""
    borrowed: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether the account may not do it."""
        return self.code == _FORBIDDEN

    @property
    def is_granted(self) -> bool:
        """Whether the API server did it, as far as it told."""
        return self.code < _FIRST_FAILURE


def sightings_of(events: Iterable[AuditEvent], prefix: str) -> Iterator[Sighting]:
    """Find the answered requests of ServiceAccounts whose names begin with `prefix`.

    Who impersonates such an account has its rights and none of its tokens: that request is the account's too,
    with its `borrower`.
    """
    for event in events:
        if event.stage not in _STAGES:
            continue
        other = event.impersonated_user
        account = _account(event.user, prefix)
        if account is not None:
            borrowed = plain(other.username) if other is not None else ""
            told = _credential_id(event.user.extra or {})
            yield _sighting(event, account, event.user.uid, told, borrowed=borrowed)
        account = _account(other, prefix) if other is not None else None
        if account is not None and other is not None:
            yield _sighting(event, account, other.uid, "", borrower=plain(event.user.username) or "?")


def _account(user: _User, prefix: str) -> Account | None:
    """The ServiceAccount that a user is, where its name begins with `prefix`."""
    match = _ACCOUNT.fullmatch(user.username)
    return Account(match[1], match[2]) if match is not None and match[2].startswith(prefix) else None


def _sighting(  # noqa: PLR0913 - what both kinds tell apart
    event: AuditEvent,
    account: Account,
    uid: str,
    credential_id: str,
    *,
    borrower: str = "",
    borrowed: str = "",
) -> Sighting:
    return Sighting(
        account=account,
        account_uid=uid,
        credential_id=credential_id,
        target=_target(event),
        name=plain(event.object_ref.name) if event.object_ref is not None else "",
        at=event.request_received_timestamp,
        code=event.response_status.code if event.response_status is not None else 0,
        mark=_mark(event, borrower),
        borrower=borrower,
        borrowed=borrowed,
    )


def plain(text: str, longest: int = _MAX_TEXT) -> str:
    """Keep a client's text short and to characters that no terminal, log or JSON stumbles over.

    >>> plain("pods/log")
    'pods/log'
    >>> plain('a b"c')
    'a?b?c'
    """
    return _UNPLAIN.sub("?", text[:longest])


def _credential_id(extra: Mapping[str, tuple[str, ...] | None]) -> str:
    values = extra.get(_CREDENTIAL_ID) or ("",)
    return plain(values[0].removeprefix("JTI="))


def _target(event: AuditEvent) -> Target:
    reference, verb = event.object_ref, plain(event.verb, _MAX_VERB)
    if reference is None or not reference.resource:
        return Target(verb, plain(event.request_uri.partition("?")[0], _MAX_RESOURCE), "")
    group = f".{reference.api_group}" if reference.api_group else ""
    below = f"/{reference.subresource}" if reference.subresource else ""
    resource = plain(f"{reference.resource}{group}{below}", _MAX_RESOURCE)
    return Target(verb, resource, plain(reference.namespace, _MAX_NAMESPACE))


def _mark(event: AuditEvent, borrower: str) -> bytes:
    """Tell one request from another by what the client does not choose as well: when it was received.

    A grant's account that acts as another grant's is told of for both, and each counts.
    """
    told = (
        event.user.username,
        event.audit_id,
        event.request_received_timestamp.isoformat(),
        event.verb,
        event.request_uri,
        borrower,
    )
    return hashlib.blake2b("\n".join(told).encode(), digest_size=_MARK_OCTETS).digest()
