"""Plans: what a decision wants done, in the order in which it must be done.

The order of `Plan`'s fields *is* the order of application, and it is the first promise of this program:
access is cut before anything else and waits for nothing; an entry is durable before the credential that it
announces is released; the status says so last. A crash between any two steps is found again by the next
observation.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from pilot_identity.core.audit.entries import Entry
from pilot_identity.core.decisions.stage_keys import OLDEST
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.metadata import Key, View
from pilot_identity.core.resources.task_grant import Binding, Proof
from pilot_identity.core.spiffe.bundle import DEFAULT_REFRESH_HINT
from pilot_identity.core.spiffe.ids import SpiffeId, TrustDomain
from pilot_identity.core.spiffe.keys import VerificationKey
from pilot_identity.core.spiffe.revocation import Revoked


@dataclass(frozen=True, slots=True)
class Owner:
    """The object that something belongs to: its key and UID, for ownerReferences and Events."""

    key: Key
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteCredential:
    """Delete exactly the Secret with this UID; where another stands under the name, ours is gone already."""

    namespace: str
    secret: str
    secret_uid: str


@dataclass(frozen=True, slots=True)
class RemoveBundle:
    """Delete a stage's bundle from the namespace of a pilot that leaves it, if no other needs it there."""

    owner: Owner
    stage: str


@dataclass(frozen=True, slots=True)
class Unbind:
    """Delete a RoleBinding of a grant; one that is gone is gone."""

    binding: Binding


@dataclass(frozen=True, slots=True)
class DeleteAccount:
    """Delete a grant's own ServiceAccount, and with it its tokens; one that is gone is gone."""

    owner: Owner
    name: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """Put what is out on its stage's revocation lists; this waits for nothing, see `OnRevocationList`."""

    revoked: Revoked


Withdrawal: TypeAlias = Unbind | DeleteAccount | DeleteCredential | RemoveBundle | Revoke

WITHDRAWN = "withdrawn"
"""The proof that stands for a withdrawal itself; there is one only where it failed."""


@dataclass(frozen=True, slots=True)
class SecretGone:
    """Test that the Secret of an object no longer holds anything of that object's."""

    name: ClassVar[str] = "secret-gone"
    owner: Owner
    secret: str
    credential_id: str


@dataclass(frozen=True, slots=True)
class AccessDenied:
    """Test by SubjectAccessReview that a grant's account may no longer do what its roles allow."""

    name: ClassVar[str] = "access-denied"
    owner: Owner
    account: str
    bindings: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class TokenRefused:
    """Test by TokenReview that the Kubernetes token of the last issue is no longer believed.

    The API server believes a token for up to 10 s after its account is gone (it caches its answer), so this
    may be not proven at first. A process that did not issue the token does not know it: the account being
    gone is its proof then.

    Attributes:
        account_uid: of the account that the token was issued to.
        credential_id: the token's id (jti).
    """

    name: ClassVar[str] = "token-refused"
    owner: Owner
    account: str
    account_uid: str
    credential_id: str


@dataclass(frozen=True, slots=True)
class OnRevocationList:
    """Test that the lists published in the grant's namespace name all that was out and has not lapsed."""

    name: ClassVar[str] = "on-revocation-list"
    revoked: Revoked


Test: TypeAlias = SecretGone | AccessDenied | TokenRefused | OnRevocationList


@dataclass(frozen=True, slots=True)
class Proving:
    """What was withdrawn is tested; what the tests show decides the rest.

    Attributes:
        tests: each gives one proof, in this order.
        conclude: makes the rest of the plan from the proofs. Where withdrawals failed, one proof that is
            not proven comes first among them and tells of all that failed.
    """

    tests: tuple[Test, ...]
    conclude: Callable[[tuple[Proof, ...]], Plan]


@dataclass(frozen=True, slots=True)
class MakeServiceAccount:
    """Make the pilot's own service account; one that is already this pilot's is left as it is."""

    owner: Owner
    name: str


@dataclass(frozen=True, slots=True)
class PublishBundle:
    """Write a stage's trust bundle into a namespace."""

    namespace: str
    stage: str


Preparation: TypeAlias = MakeServiceAccount | PublishBundle


@dataclass(frozen=True, slots=True)
class TokenOrder:
    """A JWT-SVID to be signed.

    Attributes:
        file: the key in the Secret's data.
        claims: claims beside the registered ones; `cnf` is added by the issuer.
    """

    file: str
    audience: str
    token_id: str
    expires_at: dt.datetime
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AccountOrder:
    """Kubernetes access to be given: an account of the grant's own, what binds it, and a token of it.

    Attributes:
        name: of the ServiceAccount, in the grant's namespace.
        lifetime: how long the token is to hold.
    """

    name: str
    bindings: tuple[Binding, ...]
    lifetime: dt.timedelta


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What only making an account and its token tells.

    Attributes:
        uid: the ServiceAccount's.
        credential_id: the token's id (jti), as the API server's audit names it.
        not_after: until when the token holds.
    """

    uid: str
    credential_id: str
    not_after: dt.datetime


@dataclass(frozen=True, slots=True)
class CredentialOrder:
    """A credential to be made: everything about it but the keys.

    Attributes:
        public_key: the workload's own, to be certified as it is; `None` where a key is to be made. With it
            nothing but the certificate is made: no private key, and no file that would have to be kept.
        generation: of the stage's keys, to sign with.
    """

    id: str
    stage: str
    spiffe_id: SpiffeId
    serial: int
    not_before: dt.datetime
    not_after: dt.datetime
    tokens: tuple[TokenOrder, ...] = ()
    kubernetes: AccountOrder | None = None
    public_key: VerificationKey | None = None
    generation: int = OLDEST


class Announce(Protocol):
    """Makes the entry that announces a credential."""

    def __call__(self, public_key_sha256: str, account: AccountFacts | None = None, /) -> Entry:
        """Make it from the SHA-256 (hex) of the certified public key and what making the account told."""
        ...


@dataclass(frozen=True, slots=True)
class Release:
    """A credential to be made, announced in the log, and only then written to its Secret.

    Kubernetes access is made in parts around the entry: the account and its token, which give nothing, stand
    before it so that the entry can name them; the bindings, which give the access, follow it.

    Where the order has the workload's public key there is no Secret: the certificate is released by the write
    of the status, which succeeds only over the version that was read.

    Attributes:
        secret: its name; empty where there is none.
        replaces: the id of the credential that stands in the Secret, empty where the Secret must be new.
    """

    owner: Owner
    secret: str
    order: CredentialOrder
    replaces: str
    announce: Announce


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """A generation of a stage's keys to be made, announced, and only then stored.

    Attributes:
        announce: makes the entry from the public fingerprints of the keys.
        rotate: the stage's word that it is made under.
    """

    owner: Owner
    stage: str
    trust_domain: TrustDomain
    not_before: dt.datetime
    not_after: dt.datetime
    announce: Callable[[Mapping[str, str]], Entry]
    generation: int = 1
    rotate: str = ""
    refresh_hint: dt.timedelta = DEFAULT_REFRESH_HINT


@dataclass(frozen=True, slots=True)
class RetireKeys:
    """A generation of a stage's keys to be deleted, and so to leave the bundle."""

    stage: str
    generation: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A Kubernetes Event for people; the number of the log's entry is added when it is known."""

    owner: Owner
    type: Literal["Normal", "Warning"]
    reason: Reason
    action: str
    note: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What only applying a plan tells.

    Attributes:
        index: of the last entry committed; -1 where none was.
        secret_uid: of the Secret that holds what was released; empty where nothing was.
        account: what making the Kubernetes account told, where one was asked for.
        certificate: PEM, of a credential that has no Secret; empty otherwise.
    """

    index: int = -1
    secret_uid: str = ""
    account: AccountFacts | None = None
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for one object, in this order; an empty plan does nothing.

    Attributes:
        hold: put our finalizer on the object before anything is released for it.
        withdraw: access to cut, at once.
        prove: tests of what was withdrawn; with it the fields below are the concluding plan's.
        prepare: what credentials need around them.
        make_keys: a stage's keys to make.
        entries: to commit in one group, together with what `release` announces.
        release: a credential to release once its entry is durable.
        retire_keys: a generation of keys to delete once its entry is durable.
        status: makes the status to write from what applying the steps before it told.
        notices: to tell people.
        let_go: take our finalizer off: nothing is left to withdraw.
        discard: delete the object itself, whose time as a record is over.
        is_overdue: the deleted object waited past its bound: let go even where a step before that fails. Its
            Secret is the garbage collector's then, since the object owns it.
        recheck_at: when to look again although nothing changed.
    """

    hold: bool = False
    withdraw: tuple[Withdrawal, ...] = ()
    prove: Proving | None = None
    prepare: tuple[Preparation, ...] = ()
    make_keys: KeyOrder | None = None
    entries: tuple[Entry, ...] = ()
    release: Release | None = None
    retire_keys: RetireKeys | None = None
    status: Callable[[Outcome], View] | None = None
    notices: tuple[Notice, ...] = ()
    let_go: bool = False
    discard: bool = False
    is_overdue: bool = False
    recheck_at: dt.datetime | None = None
