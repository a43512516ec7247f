"""Grants with a certificate request: the status itself releases the certificate; nothing else is made."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.decisions.announced import ABANDON_AFTER, Announced, Announcement, Holding
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.plan import DeleteCredential, Outcome, Plan
from pilot_identity.core.resources import Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from tests.core.builders import (
    CA_END,
    NOW,
    active_grant,
    credential_status,
    grant,
    moment,
    ready_pilot,
    stage,
)

KEY = ec.generate_private_key(ec.SECP256R1())
REQUEST = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([]))
    .sign(KEY, hashes.SHA256())
    .public_bytes(serialization.Encoding.PEM)
    .decode()
)
KUBERNETES: Mapping[str, Any] = {
    "name": "cluster",
    "dataClass": "synthetic",
    "kubernetes": {"roleRef": {"kind": "Role", "name": "view"}},
}


def seen(asked: TaskGrant | None = None, pilot: PilotIdentity | None = None, **facts: Any) -> GrantSeen:
    """A grant with a certificate request that would be issued, but for what the case changes."""
    known = {"ca_not_after": CA_END, **facts}
    return GrantSeen(asked or grant(certificateRequest=REQUEST), pilot or ready_pilot(), stage(), **known)


def running(**spec: Any) -> TaskGrant:
    """The same, issued; its certificate is to be renewed in a minute."""
    ends = (NOW + dt.timedelta(minutes=5)).isoformat()
    known = credential_status(secretName="", secretUID="", certificate="the first", notAfter=ends)
    return active_grant(status={"credential": known}, **{"certificateRequest": REQUEST, **spec})


def status_of(plan: Plan) -> TaskGrantStatus:
    """The status that a plan writes."""
    assert plan.status is not None
    status = plan.status(Outcome(9, certificate="a certificate"))
    assert isinstance(status, TaskGrantStatus)
    return status


def test_the_workloads_key_is_certified_and_nothing_else_is_made() -> None:
    """No Secret is named anywhere, no token is ordered, and the certificate is in the status."""
    plan = decide_grant(seen(), moment())
    assert plan.release is not None
    assert plan.release.secret == ""
    order = plan.release.order
    assert order.public_key == KEY.public_key()
    assert (order.tokens, order.kubernetes) == ((), None)
    entry = plan.release.announce("ab" * 32)
    assert entry.type is EntryType.GRANT_ISSUED
    assert entry.data["credential"]["publicKeySHA256"] == "ab" * 32
    status = status_of(plan)
    assert status.phase is Phase.ACTIVE
    assert status.credential is not None
    assert status.credential.certificate == "a certificate"
    assert (status.credential.secret_name, status.credential.secret_uid) == ("", "")
    assert status.credential.tokens == ()
    assert status.conditions[0].message == "credentials in status.credential.certificate"


def test_it_is_renewed_over_the_same_key() -> None:
    """Under a new number and serial, in the same place."""
    plan = decide_grant(seen(running()), moment(NOW + dt.timedelta(minutes=2), 7))
    assert plan.release is not None
    assert plan.release.secret == ""
    assert plan.release.order.public_key == KEY.public_key()
    assert plan.release.order.serial == 7
    status = status_of(plan)
    assert status.issuances == 2
    assert status.credential is not None
    assert status.credential.certificate == "a certificate"


def test_its_end_takes_no_secret_away() -> None:
    """There is none that could be its."""
    plan = decide_grant(seen(running(revoke={"reason": "taken over"})), moment())
    assert not [one for one in plan.withdraw if isinstance(one, DeleteCredential)]
    assert plan.prove is not None
    assert "secret-gone" not in [test.name for test in plan.prove.tests]


DENIED: Mapping[str, tuple[GrantSeen, str, str]] = {
    "the request is none": (
        seen(grant(certificateRequest="-----BEGIN CERTIFICATE REQUEST-----")),
        "certificate-request-sound",
        "spec.certificateRequest: certificate request must be one PEM block",
    ),
    "a Secret is named": (
        seen(grant(certificateRequest=REQUEST, secretName="mine")),
        "certificate-request-alone",
        "no Secret is made; leave spec.secretName out",
    ),
    "Kubernetes access is asked for": (
        seen(
            grant(certificateRequest=REQUEST, access=[{"name": "cluster"}]),
            ready_pilot(access=[dict(KUBERNETES)]),
        ),
        "certificate-request-alone",
        "access 'cluster' is Kubernetes access, whose token needs a Secret",
    ),
}


@pytest.mark.parametrize("case, check, message", DENIED.values(), ids=DENIED)
def test_it_is_denied_for_good_where(case: GrantSeen, check: str, message: str) -> None:
    """The message says what to change."""
    status = status_of(decide_grant(case, moment()))
    assert (status.phase, status.conditions[0].reason) == (Phase.DENIED, "CertificateRequestInvalid")
    assert message in status.conditions[0].message
    assert status.decision is not None
    assert status.decision.checks[-1].name == check


class TestAnnouncedAndNotInTheStatus:
    """What a status does not know was never released."""

    @staticmethod
    def announced(age: dt.timedelta, issuance: int = 1) -> Announced:
        """An announcement that no write of a status followed."""
        entry = RecordedEntry("e", "t", "TaskGrant team-a/task-1", "uid-of-task-1", NOW - age, {})
        return Announced(entry, 7, Announcement("announced", issuance), Holding.NOTHING)

    def test_it_is_waited_for_while_its_process_may_write_yet(self) -> None:
        """Another leader may be on its way to the API server."""
        plan = decide_grant(seen(announced=self.announced(dt.timedelta(seconds=1))), moment())
        assert (plan.entries, plan.release) == ((), None)
        assert plan.recheck_at == NOW + ABANDON_AFTER - dt.timedelta(seconds=1)

    @pytest.mark.parametrize("asked, issuance", [(None, 1), (running(), 2)], ids=["first", "renewal"])
    def test_it_is_abandoned_after_that(self, asked: TaskGrant | None, issuance: int) -> None:
        """In the log, and its number is not used again."""
        plan = decide_grant(seen(asked, announced=self.announced(ABANDON_AFTER, issuance)), moment())
        (entry,) = plan.entries
        assert entry.type is EntryType.CREDENTIAL_ABANDONED
        assert plan.release is None
        assert status_of(plan).issuances == issuance
