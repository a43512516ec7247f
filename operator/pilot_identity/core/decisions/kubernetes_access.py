"""Kubernetes access: the account, the bindings and the token of a grant, and how they are taken back.

A grant that asks for Kubernetes access gets a ServiceAccount of its own, one RoleBinding for each entry and a
token. All names follow from the grant's UID, so that they are the same after a crash and no other grant's.
What was made is known from the status, or from the log's announcement until the status knows it; an account
that was made in the moment before its announcement has no binding, and goes with its owner, the grant.
"""

from __future__ import annotations

import datetime as dt

import msgspec

from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.plan import (
    AccessDenied,
    AccountFacts,
    AccountOrder,
    DeleteAccount,
    Owner,
    Test,
    TokenRefused,
    Unbind,
    Withdrawal,
)
from pilot_identity.core.resources import PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.task_grant import Binding, KubernetesCredential

ACCOUNT_PREFIX = "pilot-grant-"
"""What the names of all grants' ServiceAccounts and RoleBindings begin with, as admission policies know."""
SHORTEST_TOKEN = dt.timedelta(minutes=10)
"""The API server gives out no token for less (ValidateTokenRequest)."""
LONGEST_TOKEN = dt.timedelta(hours=1)
"""No API server cuts a token of an hour: --service-account-max-token-expiration begins there."""
_UID_DIGITS = 20


def account_name(grant: TaskGrant) -> str:
    """Name the grant's ServiceAccount: 80 bits of its UID, which no other grant shares."""
    return ACCOUNT_PREFIX + grant.metadata.uid.replace("-", "")[:_UID_DIGITS]


def bindings_of(grant: TaskGrant, pilot: PilotIdentity) -> tuple[Binding, ...]:
    """The RoleBindings that the grant asks for, in its order; none where it asks for tools alone."""
    ceiling = {entry.name: entry.kubernetes for entry in pilot.spec.access}
    account = account_name(grant)
    return tuple(
        Binding(access.namespace or grant.metadata.namespace, f"{account}-{asked.name}", access.role_ref)
        for asked in grant.spec.access
        if (access := ceiling.get(asked.name)) is not None
    )


def account_order(
    grant: TaskGrant, pilot: PilotIdentity, stage: StagePolicy, left: dt.timedelta
) -> AccountOrder | None:
    """Order the grant's Kubernetes access; `left` is what is left of the task's time.

    A task that ends sooner than the shortest token has its account deleted at its end, and the token with it.
    """
    bindings = bindings_of(grant, pilot)
    if not bindings:
        return None
    wanted = min(stage.spec.credentials.kubernetes_ttl, left, LONGEST_TOKEN)
    return AccountOrder(account_name(grant), bindings, max(SHORTEST_TOKEN, wanted))


def credential_of(order: AccountOrder, facts: AccountFacts) -> KubernetesCredential:
    """What entry and status tell of the access."""
    return KubernetesCredential(
        service_account_name=order.name,
        service_account_uid=facts.uid,
        credential_id=facts.credential_id,
        not_after=facts.not_after,
        bindings=order.bindings,
    )


def withdrawals(seen: GrantSeen) -> tuple[Withdrawal, ...]:
    """Take the access back: the bindings, by which it stops at once, then the account with its tokens."""
    owner = _owner(seen)
    out = _out(seen)
    bindings = dict.fromkeys(binding for one in out for binding in one.bindings)
    accounts = dict.fromkeys(one.service_account_name for one in out)
    return (
        *(Unbind(binding) for binding in bindings),
        *(DeleteAccount(owner, name) for name in accounts),
    )


def tests(seen: GrantSeen) -> tuple[Test, ...]:
    """Test what `withdrawals` took back."""
    owner = _owner(seen)
    out = _out(seen)
    if not out:
        return ()
    latest = out[-1]
    bindings = tuple(dict.fromkeys(binding for one in out for binding in one.bindings))
    name, uid = latest.service_account_name, latest.service_account_uid
    return (
        AccessDenied(owner, name, bindings),
        TokenRefused(owner, name, uid, latest.credential_id),
    )


def is_as_bound(seen: GrantSeen, pilot: PilotIdentity) -> bool:
    """Whether the pilot's access still says what was bound for the grant, as far as something was."""
    credential = seen.grant.status.credential
    known = credential.kubernetes if credential is not None else None
    return known is None or known.bindings == bindings_of(seen.grant, pilot)


def _owner(seen: GrantSeen) -> Owner:
    return Owner(seen.grant.key, seen.grant.metadata.uid)


def _out(seen: GrantSeen) -> tuple[KubernetesCredential, ...]:
    """All that may be out: what the status knows, then what the log announced after it."""
    known = seen.grant.status.credential
    found = [known.kubernetes] if known is not None and known.kubernetes is not None else []
    if seen.announced is not None:
        told = seen.announced.entry.data.get("credential", {}).get("kubernetes")
        if told is not None:
            found.append(msgspec.convert(told, KubernetesCredential))
    return tuple(found)
