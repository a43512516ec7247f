"""What is there: the objects of grants and pilots, as the API server lists them; never a Secret's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pilot_identity.core.resources import PilotIdentity, TaskGrant
from pilot_identity.core.resources.metadata import GROUP, Key
from pilot_identity.core.resources.pilot_identity import RoleRef

LABEL, LABELLED = "app.kubernetes.io/managed-by", "pilot-identity"
GRANT_PREFIX = "pilot-grant-"
"""Of grants' ServiceAccounts and RoleBindings; admission keeps such names for the operator."""
_CREDENTIAL = f"{GROUP}/credential"
_ACCOUNT = "kubernetes.io/service-account.name"
_USER = "system:serviceaccount:"
_ACCOUNTS = "system:serviceaccounts"
EVERYBODY = "system:authenticated"
_SHIPPED = frozenset(
    {
        (_ACCOUNTS, "system:service-account-issuer-discovery"),
        (_ACCOUNTS, "system:cluster-trust-bundle-discovery"),
        (_ACCOUNTS, "system:image-puller"),  # OpenShift's, for each namespace
        (EVERYBODY, "system:basic-user"),
        (EVERYBODY, "system:discovery"),
        (EVERYBODY, "system:public-info-viewer"),
    }
)
"""ClusterRoles that a cluster comes with, and gives to such a group by itself."""


def account_of(binding: str) -> str:
    """The name of the grant's account with which a RoleBinding's name begins: hex digits follow the prefix.

    >>> account_of("pilot-grant-0123456789abcdef0123-read-pods")
    'pilot-grant-0123456789abcdef0123'
    """
    digits = binding.removeprefix(GRANT_PREFIX).partition("-")[0]
    return f"{GRANT_PREFIX}{digits}" if binding.startswith(GRANT_PREFIX) else ""


@dataclass(frozen=True, slots=True)
class Live:
    """An object by its metadata.

    Attributes:
        owner_uid: of its controller; empty where it has none.
        is_labelled: whether it has the operator's label.
        credential_id: which credential a Secret says that it holds.
        token_of: the ServiceAccount that a Secret asks a lasting token of.
    """

    key: Key
    uid: str
    owner_uid: str = ""
    is_labelled: bool = False
    credential_id: str = ""
    token_of: str = ""

    @classmethod
    def read(cls, kind: str, item: Mapping[str, Any]) -> Live:
        """Read an item of a list; of its contents nothing is looked at."""
        metadata = item["metadata"]
        annotations = metadata.get("annotations") or {}
        owners = metadata.get("ownerReferences") or ()
        return cls(
            key=Key(kind, metadata.get("namespace", ""), metadata["name"]),
            uid=metadata["uid"],
            owner_uid=next((owner["uid"] for owner in owners if owner.get("controller")), ""),
            is_labelled=(metadata.get("labels") or {}).get(LABEL) == LABELLED,
            credential_id=annotations.get(_CREDENTIAL, ""),
            token_of=annotations.get(_ACCOUNT, ""),
        )

    @property
    def is_a_grants_token(self) -> bool:
        """Whether it asks for a lasting token of a grant's account."""
        return self.token_of.startswith(GRANT_PREFIX)

    @property
    def is_a_grants_account(self) -> bool:
        """Whether by its name it is a grant's ServiceAccount."""
        return self.key.kind == "ServiceAccount" and self.key.name.startswith(GRANT_PREFIX)

    @property
    def is_marked(self) -> bool:
        """Whether by its name or label it is one that only the operator makes."""
        return self.is_labelled or self.key.name.startswith(GRANT_PREFIX)


class Subject(NamedTuple):
    """Whom a binding gives a role."""

    kind: str
    namespace: str
    name: str

    @property
    def is_a_grants(self) -> bool:
        """Whether it is the account of a grant, however it is written."""
        return self.account[1].startswith(GRANT_PREFIX)

    @property
    def crowd(self) -> str:
        """The group of accounts that it is, without the namespace after it; empty where it is none such.

        A ServiceAccount is in `system:serviceaccounts`, in that of its namespace, and in `EVERYBODY`.
        """
        if self.kind != "Group":
            return ""
        is_of_accounts = self.name == _ACCOUNTS or self.name.startswith(f"{_ACCOUNTS}:")
        return _ACCOUNTS if is_of_accounts else EVERYBODY if self.name == EVERYBODY else ""

    def may_be(self, namespace: str) -> bool:
        """Whether an account of that namespace is in it, where it is a group of accounts."""
        return self.name in {_ACCOUNTS, f"{_ACCOUNTS}:{namespace}"}

    @property
    def account(self) -> tuple[str, str]:
        """Namespace and name of the ServiceAccount that it is, however it is written; else both are empty."""
        if self.kind == "ServiceAccount":
            return self.namespace, self.name
        is_user = self.kind == "User" and self.name.startswith(_USER)
        namespace, _, name = self.name.removeprefix(_USER).partition(":") if is_user else ("", "", "")
        return namespace, name

    def __str__(self) -> str:
        """As in messages."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class LiveBinding:
    """A RoleBinding, or ClusterRoleBinding, with what it binds to whom."""

    object: Live
    role_ref: RoleRef
    subjects: tuple[Subject, ...]

    @classmethod
    def read(cls, kind: str, item: Mapping[str, Any]) -> LiveBinding:
        """Read an item of a list."""
        subjects = (
            Subject(one["kind"], one.get("namespace", ""), one["name"]) for one in item.get("subjects") or ()
        )
        role = RoleRef(item["roleRef"]["kind"], item["roleRef"]["name"])
        return cls(Live.read(kind, item), role, tuple(subjects))

    @property
    def is_marked(self) -> bool:
        """Whether only the operator makes such a one: by its name, its label, or whom it binds."""
        return self.object.is_marked or any(subject.is_a_grants for subject in self.subjects)

    @property
    def crowds(self) -> tuple[Subject, ...]:
        """The groups of accounts to which it gives what no cluster gives them by itself."""
        role = self.role_ref.name if self.role_ref.kind == "ClusterRole" else ""
        return tuple(one for one in self.subjects if one.crowd and (one.crowd, role) not in _SHIPPED)

    @property
    def is_of_accounts(self) -> bool:
        """Whether it binds some ServiceAccount, whosever it is."""
        return any(one.account[1] for one in self.subjects)

    @property
    def gives_accounts(self) -> tuple[Subject, ...]:
        """Those of `crowds` that only accounts are in."""
        return tuple(one for one in self.crowds if one.crowd == _ACCOUNTS)

    def __str__(self) -> str:
        """As in messages."""
        whom = ", ".join(map(str, self.subjects)) or "nobody"
        return f"{self.role_ref.kind} {self.role_ref.name} to {whom}"


@dataclass(frozen=True, slots=True)
class Listed:
    """All that was listed. A kind that was not is `None`: nothing is said of it.

    Attributes:
        tokens: Secrets that ask for a lasting token of any other account than a grant's.
        namespaces: the ones that were looked into; none is all.
    """

    secrets: tuple[Live, ...] | None = None
    accounts: tuple[Live, ...] | None = None
    bindings: tuple[LiveBinding, ...] | None = None
    cluster_bindings: tuple[LiveBinding, ...] | None = None
    grants: Mapping[str, TaskGrant] | None = None
    pilots: Mapping[str, PilotIdentity] | None = None
    tokens: tuple[Live, ...] = ()
    namespaces: frozenset[str] = field(default_factory=frozenset)

    def covers(self, namespace: str) -> bool:
        """Whether a namespace was looked into."""
        return not self.namespaces or namespace in self.namespaces
