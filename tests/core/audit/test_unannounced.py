"""What gives access and is not held against the log is named, once."""

from __future__ import annotations

from pilot_identity.core.audit.completeness import Disagreement, Discrepancy
from pilot_identity.core.audit.live import Listed, LiveBinding, Subject
from pilot_identity.core.audit.unannounced import beside
from pilot_identity.core.resources.pilot_identity import RoleRef
from tests.core.audit.worlds import VIEW, bound, live, pilot
from tests.core.builders import NAMESPACE

OWN = Subject("ServiceAccount", NAMESPACE, "pilot-workload-triage")
OWN_AS_USER = Subject("User", "", f"system:serviceaccount:{NAMESPACE}:pilot-workload-triage")
CROWD = Subject("Group", "", f"system:serviceaccounts:{NAMESPACE}")
EVERYBODY = Subject("Group", "", "system:authenticated")
TOKEN = {"kubernetes.io/service-account.name": "pilot-workload-triage"}


def binding(name: str, whom: Subject, role: RoleRef = VIEW) -> LiveBinding:
    """A RoleBinding that nothing marks as the operator's."""
    return LiveBinding(live("RoleBinding", name, name), role, (whom,))


def named(*bindings: LiveBinding, found: tuple[Discrepancy, ...] = ()) -> list[str]:
    """What is told where these are there."""
    one = pilot()
    return list(beside(Listed(bindings=bindings, pilots={one.metadata.uid: one}), found))


def test_what_is_nobodys_concern_is_not_named() -> None:
    """The operator's own, other accounts', other people's, and what every cluster gives to everybody."""
    assert named(bound(), binding("a", Subject("ServiceAccount", NAMESPACE, "default"))) == []
    assert (
        named(binding("a", Subject("Group", "", "people")), binding("b", OWN._replace(namespace="x"))) == []
    )
    assert named(binding("a", EVERYBODY, RoleRef("ClusterRole", "system:discovery"))) == []


def test_a_role_that_is_only_named_like_a_shipped_one_is_named() -> None:
    """A namespace's own Role may have any name."""
    (told,) = named(binding("a", EVERYBODY, RoleRef("Role", "system:discovery")))
    assert told.endswith(": everybody has it, and so has each grant's account")


def test_a_pilots_own_account_is_known_however_it_is_written() -> None:
    """As a ServiceAccount, and as the user that it is."""
    (told,) = named(binding("a", OWN), binding("b", OWN_AS_USER))
    assert told.startswith("2 bindings such as ")
    assert told.endswith("a pilot's own account, whatever its grants are")


def test_lasting_tokens_of_a_pilots_own_account_are_named() -> None:
    """They are no grant's, and do not end."""
    one, token = pilot(), live("Secret", "lasting", "t", annotations=TOKEN)
    other = live(
        "Secret", "other", "o", annotations={**TOKEN, "kubernetes.io/service-account.name": "default"}
    )
    listed = Listed(tokens=(token, other), pilots={one.metadata.uid: one})
    assert list(beside(listed, ())) == [
        f"1 lasting tokens of pilots' own accounts, such as Secret {NAMESPACE}/lasting"
    ]


def test_what_was_found_is_not_named_again() -> None:
    """A group in which a grant's account is has its row above."""
    one = binding("a", CROWD)
    assert len(named(one)) == 1
    found = Discrepancy.about(Disagreement.STRANGER, one.object, -1, "binds it")
    assert named(one, found=(found,)) == []
