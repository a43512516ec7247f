"""What the loop needs of the world outside, as protocols; `adapters` provide it, tests fake it.

Errors, as one tree:

```
PortError
├── Unavailable        the other side did not answer, or asked to come back: try again later
├── Conflict           the object changed, or went, since it was read: look again
├── NameTaken          the name belongs to something that is not ours; nothing was overwritten
├── Refused            the API server will not do this for us: missing rights or an admission policy
└── AlreadyRecorded    the log has this step already, decided by another pass: look again
```
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

from pilot_identity.core.audit.entries import Entry, RecordedEntry
from pilot_identity.core.decisions.plan import CredentialOrder, KeyOrder, MakeServiceAccount, Notice, Owner
from pilot_identity.core.decisions.stages import KeyFacts
from pilot_identity.core.resources import Resource
from pilot_identity.core.resources.metadata import Key


class PortError(Exception):
    """Something outside did not do what was asked."""


class Unavailable(PortError):  # noqa: N818 - named for what is so, as the tree above reads
    """The other side did not answer in time, or asked to come back later."""


class Conflict(PortError):  # noqa: N818
    """The object is not as it was when it was read."""


class NameTaken(PortError):  # noqa: N818
    """The name belongs to something that is not ours."""


class Refused(PortError):  # noqa: N818
    """The API server will not do this for this account."""


class AlreadyRecorded(PortError):  # noqa: N818
    """The log already has another entry for the same step."""


class Clock(Protocol):
    """Tells the time, aware and in UTC."""

    def __call__(self) -> dt.datetime:
        """Return now."""
        ...


@dataclass(frozen=True, slots=True)
class SignedCredential:
    """A credential in memory, on its way into a Secret. Its text form never shows what is in it."""

    order: CredentialOrder
    public_key_sha256: str
    files: Mapping[str, bytes]

    def __repr__(self) -> str:
        """Name the credential, never its keys."""
        return f"SignedCredential({self.order.id})"


class Cluster(Protocol):
    """The API server, as far as the operator may use it. Every call may raise any `PortError`."""

    def list(self, kind: str) -> AsyncIterator[Resource | Key]:
        """Yield every object of a kind in the watched namespaces; of one that does not parse, its key."""
        ...

    async def write_credential(
        self, owner: Owner, secret: str, credential: SignedCredential, *, replaces: str
    ) -> str:
        """Create the Secret, or replace exactly the credential named by `replaces`; returns its UID.

        Raises:
            NameTaken: something else stands there.
        """
        ...

    async def holds(self, owner: Owner, secret: str, credential_id: str) -> str | None:
        """Return the UID of the Secret if it holds that credential of that owner.

        Empty where it holds something else, `None` where there is no Secret.
        """
        ...

    async def delete_credential(self, namespace: str, secret: str, uid: str) -> None:
        """Delete the Secret with that UID; where it is gone, all is well."""
        ...

    async def make_service_account(self, wanted: MakeServiceAccount) -> None:
        """Create the account; raises `NameTaken` where it is not the owner's."""
        ...

    async def owns_service_account(self, owner: Owner, name: str) -> bool | None:
        """Tell whether the account is that owner's; `None` where there is none."""
        ...

    async def publish_bundle(self, namespace: str, stage: str, data: Mapping[str, str]) -> None:
        """Write the stage's bundle ConfigMap."""
        ...

    async def remove_bundle(self, namespace: str, stage: str) -> None:
        """Delete the stage's bundle ConfigMap; one that is gone is gone."""
        ...

    async def write_status(
        self, resource: Resource, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> Resource:
        """Change the status from `before` to `after`, if the object is still the one that was read."""
        ...

    async def set_finalizer(self, resource: Resource, *, held: bool) -> Resource | None:
        """Put our finalizer on or take it off; `None` where the object went with it."""
        ...


class Issuer(Protocol):
    """Holds the stages' keys and signs with them. Keys never leave it but into a Secret."""

    async def facts(self, stage: str) -> KeyFacts | None:
        """What is public of a stage's keys; `None` where it has none yet."""
        ...

    def draw_keys(self, order: KeyOrder) -> Mapping[str, str]:
        """Make a stage's keys in memory; returns their public fingerprints."""
        ...

    async def store_keys(self, order: KeyOrder) -> None:
        """Store the keys that were drawn; keys that another process stored first win."""
        ...

    def sign(self, order: CredentialOrder) -> SignedCredential:
        """Make a credential in memory."""
        ...

    def bundle(self, stage: str) -> Mapping[str, str]:
        """The stage's trust bundle, by file name."""
        ...


class AuditLog(Protocol):
    """The record. What `commit` returned for is durable."""

    async def commit(self, entries: Sequence[Entry]) -> int:
        """Commit entries in one group, each id once; returns the index of the last.

        Raises:
            AlreadyRecorded: the last entry's id stands in the log already, with other content, and it
                announces a credential.
        """
        ...

    def announced(self, subject_uid: str) -> tuple[int, RecordedEntry] | None:
        """The last entry that announces a credential for a subject, until it is forgotten."""
        ...

    def settle(self, subject_uid: str, index: int) -> None:
        """Forget what was announced up to that entry: the subject's status tells what became of it."""
        ...

    def retain(self, subject_uids: AbstractSet[str]) -> None:
        """Forget the announcements of all other subjects: they are gone, and their Secrets with them."""
        ...


class Recorder(Protocol):
    """Tells people, as Kubernetes Events. Never waits and never fails its caller."""

    def tell(self, notice: Notice, index: int) -> None:
        """Queue an Event that names the log's entry `index` (-1: none)."""
        ...


class LeaseStore(Protocol):
    """Where leadership is recorded."""

    async def read(self) -> Mapping[str, Any] | None:
        """Return the Lease, or `None` where there is none."""
        ...

    async def create(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create the Lease; raises `Conflict` where it exists."""
        ...

    async def update(self, lease: Mapping[str, Any], spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace the Lease's spec if it is still the one given; raises `Conflict` otherwise."""
        ...
