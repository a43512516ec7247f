"""Announcements: what an entry said of a credential, kept so small that tens of thousands are in memory.

Where it is only told whether something else says the same, a digest of each field is kept; what objects are
named by is kept as it is, and what many say alike is kept once.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import RecordedEntry
from pilot_identity.core.resources.task_grant import Binding, GrantCredentialStatus, KubernetesCredential

Place = tuple[str, str]
"""Namespace and name."""
_MARK_OCTETS = 16
"""128 bits, so that nobody finds another value of the same mark."""
_ABSENT = b"\0" * _MARK_OCTETS


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What is kept of tens of thousands of subjects; nothing in it refers back, so that no cycle forms."""


class Said(Kept, frozen=True):
    """What an entry said in each of some fields, by digests: whether something else says the same is told.

    Attributes:
        names: the fields, in order.
        marks: a digest of each one's value, in the same order.
    """

    names: tuple[str, ...]
    marks: bytes

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Said:
        """Take the digests of plain JSON values."""
        names = tuple(sorted(data))
        return cls(_shared(names), b"".join(_mark(data[name]) for name in names))

    def differences(self, says: Mapping[str, Any], but: Collection[str] = ()) -> list[str]:
        """The fields in which `says` differs; one that is left out is as good as its default.

        >>> Said.of({"stage": "pilot", "owners": ["ana"]}).differences({"stage": "sandbox", "by": "eve"})
        ['by', 'owners', 'stage']
        """
        said = dict(zip(self.names, self._each, strict=True))
        return sorted(
            name
            for name in (says.keys() | said.keys()) - set(but)
            if (_mark(says[name]) if name in says else _ABSENT) != said.get(name, _ABSENT)
        )

    @property
    def _each(self) -> Iterator[bytes]:
        for at in range(0, len(self.marks), _MARK_OCTETS):
            yield self.marks[at : at + _MARK_OCTETS]


def _mark(value: Any) -> bytes:
    encoded = msgspec.json.encode(value, order="deterministic")
    return hashlib.blake2b(encoded, digest_size=_MARK_OCTETS).digest()


@lru_cache(maxsize=256)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of equal names those that came first."""
    return names


class Access(Kept, frozen=True):
    """The Kubernetes access that was announced: the account, its UID and its bindings.

    Attributes:
        bound: the bindings, named without the account's name that theirs begin with, so that the grants of a
            pilot have them in common.
    """

    account: str
    account_uid: str
    bound: tuple[Binding, ...]

    @classmethod
    def of(cls, one: KubernetesCredential) -> Access:
        """Keep what objects are held against."""
        account = one.service_account_name
        bound = (msgspec.structs.replace(each, name=_below(each.name, account)) for each in one.bindings)
        return cls(account, one.service_account_uid, _bound(tuple(bound)))

    def binding(self, place: Place) -> Binding | None:
        """The binding of a place; `None` where none was announced."""
        return next((one for one in self.bindings if (one.namespace, one.name) == place), None)

    @property
    def bindings(self) -> Iterator[Binding]:
        """The bindings by their full names."""
        for one in self.bound:
            name = self.account + one.name if one.name.startswith(_JOIN) else one.name
            yield Binding(one.namespace, name, one.role_ref)


_JOIN = "-"
"""Between an account's name and what follows; no name of an object begins with it (RFC 1123)."""


def _below(name: str, account: str) -> str:
    rest = name.removeprefix(account)
    return rest if rest.startswith(_JOIN) else name


@lru_cache(maxsize=1024)
def _bound(bindings: tuple[Binding, ...]) -> tuple[Binding, ...]:
    """Of equal bindings those that came first."""
    return bindings


class Announcement(Kept, frozen=True):
    """A credential that an entry announced.

    Attributes:
        said: the credential as the entry says it, without what no status has.
        id: the credential's.
        secret_name: where it is; empty where there is no Secret.
        lapses_at: until when anything of it would be believed.
        access: `None` where there is no Kubernetes access.
    """

    index: int
    time: dt.datetime
    said: Said
    id: str
    secret_name: str
    lapses_at: dt.datetime
    access: Access | None

    @classmethod
    def of(cls, index: int, entry: RecordedEntry) -> Announcement:
        """Read it off its entry.

        Raises:
            KeyError, msgspec.ValidationError: the entry announces nothing that this version can read.
        """
        said = {name: value for name, value in entry.data["credential"].items() if name != "publicKeySHA256"}
        one = msgspec.convert({**said, "secretUID": "", "auditIndex": index}, GrantCredentialStatus)
        return cls(
            index=index,
            time=entry.time,
            said=Said.of(said),
            id=one.id,
            secret_name=one.secret_name,
            lapses_at=_lapses_at(one),
            access=Access.of(one.kubernetes) if one.kubernetes is not None else None,
        )

    def sharing(self, name: str, access: Access | None) -> Announcement:
        """The same, with what is in memory already where that is equal: a name, and other access."""
        return msgspec.structs.replace(
            self,
            secret_name=name if name == self.secret_name else self.secret_name,
            access=access if access == self.access else self.access,
        )


def _lapses_at(one: GrantCredentialStatus) -> dt.datetime:
    ends = [one.not_after, *(token.not_after for token in one.tokens if token.not_after is not None)]
    if one.kubernetes is not None:
        ends.append(one.kubernetes.not_after)
    return max(ends)
