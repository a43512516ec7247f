"""What the applier does where something fails, or changes, between its steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pilot_identity.control.apply import Applier
from pilot_identity.control.store import Store
from pilot_identity.core.decisions.plan import WITHDRAWN, AccountOrder, Owner, Plan, Proving, Unbind
from pilot_identity.core.resources.task_grant import Binding, Proof
from pilot_identity.ports import Conflict, Refused
from tests.core.builders import NOW, active_grant

BINDINGS = tuple(
    Binding("team-a", f"pilot-grant-x-{number}", cast("Any", SimpleNamespace())) for number in range(16)
)


class Accounts:
    """Binds and unbinds; what happens meanwhile is the case's."""

    def __init__(self, store: Store, *, revoke_after: int = -1) -> None:
        self.bound: list[str] = []
        self._store, self._revoke_after = store, revoke_after

    async def bind(self, _: Owner, __: str, binding: Binding) -> None:
        """Bind; somebody revokes the grant after so many."""
        self.bound.append(binding.name)
        if len(self.bound) == self._revoke_after:
            self._store.put(active_grant(revoke={"reason": "leak"}, meta={"resourceVersion": "2"}))

    async def unbind(self, binding: Binding) -> None:
        """Take a binding back, if it is there."""
        if self._revoke_after < 0:
            raise Refused(f"{binding.name}: 403")
        self.bound = [name for name in self.bound if name != binding.name]


def applier(accounts: Accounts, store: Store) -> Applier:
    """An applier that has nothing but these accounts."""
    none = cast("Any", SimpleNamespace())
    cluster = cast("Any", SimpleNamespace(accounts=accounts))
    return Applier(store, cluster, none, none, none, none, lambda: NOW)


async def test_many_withdrawals_that_fail_are_one_proof() -> None:
    """A status holds only so many; the proof tells of each that failed."""
    store = Store()
    grant = active_grant()
    said: list[tuple[Proof, ...]] = []

    def conclude(proofs: tuple[Proof, ...]) -> Plan:
        said.append(proofs)
        return Plan()

    plan = Plan(withdraw=tuple(map(Unbind, BINDINGS)), prove=Proving((), conclude))
    await applier(Accounts(store), store).apply(grant, plan)
    ((proof,),) = said
    assert (proof.name, proof.proven, proof.at) == (WITHDRAWN, False, NOW)
    assert all(f"{binding.name}: 403" in proof.message for binding in BINDINGS[:9])


@pytest.mark.parametrize("revoked_after", [1, 15, 16])
async def test_nothing_stays_bound_for_a_grant_that_was_ended_meanwhile(revoked_after: int) -> None:
    """Its access may be cut already, and must not come back."""
    store = Store()
    grant = active_grant()
    store.put(grant)
    accounts = Accounts(store, revoke_after=revoked_after)
    order = SimpleNamespace(kubernetes=AccountOrder("pilot-grant-x", BINDINGS, cast("Any", None)))
    release = SimpleNamespace(owner=Owner(grant.key, grant.metadata.uid), order=order)
    with pytest.raises(Conflict):
        await applier(accounts, store)._bind(cast("Any", release))  # noqa: SLF001 - what stands between two steps
    assert accounts.bound == []
