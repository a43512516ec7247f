"""What grants' accounts asked the API server for, from its own audit events (`audit.k8s.io/v1`).

The API server's word is the source: it names the account that it authenticated, the token's id and its own
answer, and a client can write none of these. It can write much of the rest. It chooses paths, so that rows
and names are bounded and kept to plain characters; and it may choose the audit id (the header `Audit-ID`),
so that an id alone does not tell that an event was sent twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import msgspec

from pilot_identity.core.resources.timestamps import format_timestamp

MAX_EVENTS = 5_000
"""In one batch; an API server sends 400 unless --audit-webhook-batch-max-size says otherwise."""
MAX_ROWS = 32
"""Different verbs, resources and namespaces in one entry; what goes beyond is counted in one sum."""
MAX_NAMES = 3
"""Objects named in one row, the first ones."""
MAX_CREDENTIALS = 8
"""Tokens told apart in one entry."""

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
    """

    account: Account
    account_uid: str
    credential_id: str
    target: Target
    name: str
    at: dt.datetime
    code: int
    mark: bytes

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

    Who impersonates such an account is authenticated as somebody else, and is not counted for it.
    """
    for event in events:
        match = _ACCOUNT.fullmatch(event.user.username)
        if match is None or event.stage not in _STAGES or not match[2].startswith(prefix):
            continue
        yield Sighting(
            account=Account(match[1], match[2]),
            account_uid=event.user.uid,
            credential_id=_credential_id(event.user.extra or {}),
            target=_target(event),
            name=plain(event.object_ref.name) if event.object_ref is not None else "",
            at=event.request_received_timestamp,
            code=event.response_status.code if event.response_status is not None else 0,
            mark=_mark(event),
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


def _mark(event: AuditEvent) -> bytes:
    """Tell one request from another by what the client does not choose as well: when it was received."""
    told = (
        event.user.username,
        event.audit_id,
        event.request_received_timestamp.isoformat(),
        event.verb,
        event.request_uri,
    )
    return hashlib.blake2b("\n".join(told).encode(), digest_size=_MARK_OCTETS).digest()


@dataclass(slots=True)
class _Row:
    requests: int = 0
    refused: int = 0
    names: dict[str, None] = field(default_factory=dict)
    has_more_names: bool = False

    def add(self, sighting: Sighting) -> None:
        self.requests += 1
        self.refused += sighting.is_refused
        if not sighting.name or sighting.name in self.names:
            return
        if len(self.names) < MAX_NAMES:
            self.names[sighting.name] = None
        else:
            self.has_more_names = True

    def data(self, target: Target) -> dict[str, Any]:
        told: dict[str, Any] = {**target._asdict(), "requests": self.requests, "refused": self.refused}
        if not target.namespace:
            del told["namespace"]
        if self.names:
            told["names"] = list(self.names)
        if self.has_more_names:
            told["moreNames"] = True
        return told


class AccessWindow:
    """The requests of one account since the last entry about it; its size is bounded whatever they are."""

    def __init__(self) -> None:
        self.requests = 0
        self.refused = 0
        self.first_at: dt.datetime | None = None
        self.last_at: dt.datetime | None = None
        self._rows: dict[Target, _Row] = {}
        self._beyond = _Row()
        self._credentials: dict[str, int] = {}
        self._after_end = 0
        self._granted_after_end = 0

    def add(
        self, sighting: Sighting, ended_at: dt.datetime | None = None, *, max_rows: int = MAX_ROWS
    ) -> None:
        """Count a request; `ended_at` is when the grant's access was withdrawn, if it was."""
        self.requests += 1
        self.refused += sighting.is_refused
        self.first_at = min(self.first_at or sighting.at, sighting.at)
        self.last_at = max(self.last_at or sighting.at, sighting.at)
        row = self._rows.get(sighting.target)
        if row is None and len(self._rows) < min(max_rows, MAX_ROWS):
            row = self._rows[sighting.target] = _Row()
        (row or self._beyond).add(sighting)
        self._count_credential(sighting.credential_id)
        if ended_at is not None and sighting.at > ended_at:
            self._after_end += 1
            self._granted_after_end += sighting.is_granted

    def _count_credential(self, credential_id: str) -> None:
        if credential_id not in self._credentials and len(self._credentials) >= MAX_CREDENTIALS:
            credential_id = "others"
        self._credentials[credential_id] = self._credentials.get(credential_id, 0) + 1

    def data(self, issued: Iterable[str]) -> dict[str, Any]:
        """Tell it as an entry's data; `issued` are the ids of tokens that are known to be the grant's.

        `allowedAfterEnd` is what was still done after the access was withdrawn: in the API server's token
        cache lives a token for some seconds longer than its account.
        """
        known = frozenset(issued)
        told: dict[str, Any] = {
            "requests": self.requests,
            "refused": self.refused,
            "access": [row.data(target) for target, row in sorted(self._rows.items())],
            "tokens": [
                {"credentialID": credential_id, "requests": count, "isKnown": credential_id in known}
                for credential_id, count in sorted(self._credentials.items())
            ],
        }
        if self.first_at is not None and self.last_at is not None:
            told |= {"from": format_timestamp(self.first_at), "until": format_timestamp(self.last_at)}
        if self._beyond.requests:
            told["otherAccess"] = {"requests": self._beyond.requests, "refused": self._beyond.refused}
        if self._after_end:
            told["afterEnd"] = {"requests": self._after_end, "allowed": self._granted_after_end}
        return told
