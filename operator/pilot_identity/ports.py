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
from pilot_identity.core.audit.live import Live, LiveBinding
from pilot_identity.core.decisions.hindrance import Hindrance
from pilot_identity.core.decisions.plan import (
    AccessDenied,
    AccountFacts,
    AccountOrder,
    CredentialOrder,
    KeyOrder,
    MakeServiceAccount,
    Notice,
    Owner,
    RetireKeys,
    TokenRefused,
)
from pilot_identity.core.decisions.stage_keys import OLDEST, Generation, KeyFacts
from pilot_identity.core.decisions.witnessed import WitnessStanding
from pilot_identity.core.resources import Resource
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.task_grant import Binding, Proof
from pilot_identity.core.spiffe.revocation import Revoked


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


@dataclass(frozen=True, slots=True)
class AccountToken:
    """A token of a grant's account in memory, on its way into a Secret, with a kubeconfig around it.

    Its text form shows neither.
    """

    facts: AccountFacts
    kubeconfig: bytes

    def __repr__(self) -> str:
        """Name the token, never show it."""
        return f"AccountToken({self.facts.credential_id})"


class Accounts(Protocol):
    """The Kubernetes access of grants. Every call may raise any `PortError`."""

    async def hindrance(self, owner: Owner, account: str, binding: Binding) -> Hindrance | None:
        """Try by a dry run whether a binding could be made; makes nothing."""
        ...

    async def make(self, owner: Owner, order: AccountOrder, *, is_renewal: bool) -> AccountToken:
        """Make the grant's account, or find it, and get a token of it. It gives no access yet.

        Raises:
            NameTaken: an account of that name is not the grant's.
        """
        ...

    async def bind(self, owner: Owner, account: str, binding: Binding) -> None:
        """Give the account its role; a binding that says exactly this is left as it is.

        Raises:
            NameTaken: a RoleBinding of that name says something else.
        """
        ...

    async def unbind(self, binding: Binding) -> None:
        """Delete a RoleBinding; one that is gone is gone."""
        ...

    async def delete(self, namespace: str, account: str) -> None:
        """Delete an account, and with it its tokens; one that is gone is gone."""
        ...

    async def test_access(self, test: AccessDenied) -> Proof:
        """Test that the account may no longer do what its roles allow."""
        ...

    async def test_token(self, test: TokenRefused) -> Proof:
        """Test that the token of the last issue is refused; once it is, the token is forgotten."""
        ...


class Cluster(Protocol):
    """The API server, as far as the operator may use it. Every call may raise any `PortError`."""

    @property
    def accounts(self) -> Accounts:
        """The Kubernetes access of grants."""
        ...

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

    async def refusal(self, owner: Owner, secret: str) -> str:
        """Return why the API server would not let the Secret be made; empty where it would."""
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

    async def discard(self, resource: Resource) -> None:
        """Delete the object if it is still the one that was read; one that is gone is gone."""
        ...

    async def set_finalizer(self, resource: Resource, *, held: bool) -> Resource | None:
        """Put our finalizer on or take it off; `None` where the object went with it."""
        ...


class Issuer(Protocol):
    """Holds the stages' keys and signs with them. Keys never leave it but into a Secret."""

    async def facts(self, stage: str, generation: int = OLDEST) -> KeyFacts | None:
        """What is public of a stage's keys, where a generation signs; `None` where that does not stand."""
        ...

    async def generations(self, stage: str) -> tuple[Generation, ...]:
        """Every generation that is stored now, oldest first; bundle and signing go by it from then on."""
        ...

    def draw_keys(self, order: KeyOrder) -> Mapping[str, str]:
        """Make a generation of a stage's keys in memory; returns their public fingerprints."""
        ...

    async def store_keys(self, order: KeyOrder) -> None:
        """Store the keys that were drawn; keys that another process stored first win."""
        ...

    async def delete_keys(self, retired: RetireKeys) -> None:
        """Delete a generation, private keys and all; one that is gone is gone."""
        ...

    def sign(self, order: CredentialOrder) -> SignedCredential:
        """Make a credential in memory."""
        ...

    def bundle(self, stage: str) -> Mapping[str, str]:
        """The stage's trust bundle, of every generation that stands, by file name."""
        ...

    def revocation_lists(self, order: RevocationOrder) -> Mapping[str, str]:
        """Sign a stage's revocation lists; returns them by file name."""
        ...


@dataclass(frozen=True, slots=True)
class RevocationOrder:
    """A stage's revocation lists to be signed: serial numbers with their times, and token ids.

    Attributes:
        number: larger than that of any list of the stage before.
        next_update: by when there is a newer one.
        generation: of the stage's keys, to sign the list of token ids with.
    """

    stage: str
    certificates: tuple[tuple[int, dt.datetime], ...]
    token_ids: tuple[str, ...]
    number: int
    this_update: dt.datetime
    next_update: dt.datetime
    generation: int = OLDEST


@dataclass(frozen=True, slots=True)
class Publication:
    """Whether the published lists name something, and a word on it."""

    is_done: bool
    message: str


class Revocations(Protocol):
    """The lists of what was taken back before it lapsed."""

    def revoke(self, revoked: Revoked) -> None:
        """Put it on its stage's lists, which are published soon. Waits for nothing and never fails."""
        ...

    def behind(self, stage: str, keys: KeyFacts) -> frozenset[str]:
        """The namespaces whose lists are not signed with these keys; they will be, soon."""
        ...

    async def published(self, revoked: Revoked) -> Publication:
        """Wait a short, bounded time until the lists in its namespace name it, and say whether they do."""
        ...


class AuditLog(Protocol):
    """The record. What `commit` returned for is durable."""

    async def commit(self, entries: Sequence[Entry]) -> int:
        """Commit entries in one group, each id once; returns the index of the last.

        Raises:
            AlreadyRecorded: the last entry's id stands in the log already, with other content, and it
                announces a credential or tells a grant's end.
        """
        ...

    def owe(self, entries: Sequence[Entry]) -> None:
        """Record entries as soon as the log takes them again; they are lost only with the process."""
        ...

    async def announced(self, subject_uid: str, beyond: int) -> tuple[int, RecordedEntry] | None:
        """The last entry that announces a credential for a subject, until it is forgotten.

        Args:
            subject_uid: the subject.
            beyond: the number of the last credential that its status knows; up to it all is forgotten.
        """
        ...

    async def recorded(self, subject_uid: str, step: str) -> tuple[int, RecordedEntry] | None:
        """The entry of a step of a subject that exists, if the log has it: its id is `<uid>/<step>`.

        Raises:
            Unavailable: it is in the log, and cannot be read now.
        """
        ...

    def has_room(self, entry: Entry) -> bool:
        """Whether the log can know this entry when it comes again; a named report may find no room."""
        ...

    def settle(self, subject_uid: str, index: int) -> None:
        """Forget what was announced up to that entry: the subject's status tells what became of it."""
        ...

    def retain(self, subject_uids: AbstractSet[str]) -> None:
        """Forget the announcements of all other subjects: they are gone, and their Secrets with them."""
        ...


class Recorded(Protocol):
    """What the log has of an object that exists."""

    @property
    def size(self) -> int:
        """How many entries are committed."""
        ...

    def steps(self, subject_uid: str) -> Mapping[str, int]:
        """The index of each step of the subject; of its credentials, `credential/<number>`, the newest."""
        ...


class StoredEntries(Protocol):
    """Entries of the log, read back by their indices."""

    async def read(self, indices: AbstractSet[int]) -> Mapping[int, RecordedEntry]:
        """Read entries; what is not stored in the cluster any more, or is no entry, is left out.

        Raises:
            Unavailable: the API server did not answer.
        """
        ...


class Surroundings(Protocol):
    """What is there beside our own kinds. Every call may raise any `PortError`."""

    async def accounts(self) -> Sequence[Live]:
        """Every ServiceAccount of the watched namespaces that only the operator makes."""
        ...

    async def bindings(self) -> Sequence[LiveBinding]:
        """Every RoleBinding of the watched namespaces that only the operator makes, or of all accounts."""
        ...


class LogWitnesses(Protocol):
    """Those who cosign the log."""

    def standings(self) -> Sequence[WitnessStanding]:
        """How it stands with each; none where no witness is configured."""
        ...


class Archive(Protocol):
    """Where the oldest part of the log is kept as files, by path; a directory, or an object store.

    Every call may raise `Unavailable`: the archive cannot be read or written, and the message says why.
    """

    async def read(self, path: str) -> bytes | None:
        """Read a file; `None` where there is none. No file of a log is larger than a full bundle."""
        ...

    async def write_once(self, path: str, content: bytes) -> None:
        """Write a file, durably on return; one that is there with this content is done.

        Raises:
            NameTaken: it has another content, and is left as it is.
        """
        ...

    async def replace(self, path: str, content: bytes) -> None:
        """Write a file as a whole, in place of what is there; durable on return."""
        ...


class Recorder(Protocol):
    """Tells people, as Kubernetes Events. Never waits and never fails its caller."""

    def tell(self, notice: Notice, index: int) -> None:
        """Queue an Event that names the log's entry `index` (-1: none)."""
        ...


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What a witness keeps of a log: the newest head that it cosigned, as it was returned.

    Attributes:
        note: the head with the log's signature and the witness's own.
        version: the store's, for the next `replace`.
    """

    note: str
    version: str


class WitnessState(Protocol):
    """Where a witness keeps what it cosigned last. Every call may raise any `PortError`."""

    async def read(self, origin: str) -> Cosigned:
        """Return what is kept of a log; the note is empty where nothing is."""
        ...

    async def replace(self, origin: str, before: Cosigned, note: str) -> None:
        """Keep `note` if what is kept is still `before`; durable on return.

        Raises:
            Conflict: it is not; another replica was faster.
        """
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
