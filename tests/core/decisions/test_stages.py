from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions.plan import Outcome, Plan
from pilot_identity.core.decisions.stage_keys import Generation
from pilot_identity.core.decisions.stages import StageSeen, decide_stage, is_ready
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.stage_policy import StagePolicyStatus
from tests.core.builders import CA_END, NOW, deleting, moment, stage

DAY = dt.timedelta(days=1)
KEYS = Generation(1, "sandbox.example.org", CA_END - 365 * DAY, CA_END, "key-of-sandbox")
OWN = replace(KEYS, ca_key_sha256="a" * 64)
OLDER = {"creationTimestamp": "2026-05-01T00:00:00Z"}
YOUNGER = {"creationTimestamp": "2026-06-01T11:30:00Z"}


def seen(policy: StagePolicy, *others: StagePolicy, keys: Generation | None = KEYS) -> StageSeen:
    """A stage among others."""
    return StageSeen(policy, others, () if keys is None else (keys,), NOW)


def other(rank: int = 7, meta: Mapping[str, Any] | None = None, **spec: Any) -> StagePolicy:
    """An older stage that shares nothing with the one looked at unless the case says so."""
    return stage("other", rank, meta=OLDER if meta is None else meta, **{"dataClasses": ["of-other"], **spec})


REFUSED: Mapping[str, tuple[StageSeen, str, str]] = {
    "an older stage has its rank": (
        seen(stage(), other(0)),
        "RankShared",
        "stage 'other' already has rank 0; give this stage a rank of its own",
    ),
    "an older stage has its trust domain": (
        seen(stage(), other(trustDomain="sandbox.example.org")),
        "TrustDomainShared",
        "stage 'other' already has trust domain 'sandbox.example.org'",
    ),
    "an older stage has one of its data classes": (
        seen(stage(), other(dataClasses=["of-other", "synthetic"])),
        "DataClassShared",
        "stage 'other' already has data class 'synthetic'",
    ),
    "its keys are gone": (seen(stage(), keys=None), "KeysMissing", "had keys (JWT key key-of-sandbox)"),
    "its keys are of another trust domain": (
        seen(stage(), keys=replace(KEYS, trust_domain="old.example.org")),
        "KeysForeign",
        "are for trust domain 'old.example.org', the policy says 'sandbox.example.org'",
    ),
    "its keys are not those that it had": (
        seen(stage(), keys=replace(KEYS, jwt_key_id="another")),
        "KeysForeign",
        "are not those that it had (JWT key key-of-sandbox, now another)",
    ),
    "its authority has expired": (
        seen(stage(), keys=replace(KEYS, not_after=NOW)),
        "CertificateAuthorityExpired",
        "expired at",
    ),
    "one of its rules is no expression": (
        seen(stage(rules=[{"name": "good", "expression": "true"}, {"name": "bad", "expression": "grant."}])),
        "RuleInvalid",
        "rule 'bad' does not compile, so nothing is issued in this stage: <input>:1:7: Syntax error",
    ),
    "one of its rules is no question": (
        seen(stage(rules=[{"name": "sum", "expression": "1 + 1"}])),
        "RuleInvalid",
        "rule 'sum' does not compile, so nothing is issued in this stage: it gives int",
    ),
    "it does not say when approvals are asked for": (
        seen(stage(approvals={"grant": {"required": 1, "when": "risky"}})),
        "RuleInvalid",
        "approvals.grant.when does not compile",
    ),
    "one of the same second has a smaller UID": (
        seen(stage(), other(0, {"uid": "uid-a"})),
        "RankShared",
        "already has rank 0",
    ),
}


@pytest.mark.parametrize("case, reason, message", REFUSED.values(), ids=REFUSED)
def test_a_stage_is_refused_because(case: StageSeen, reason: str, message: str) -> None:
    """It is not ready and stalled, the log says why, and no keys are made."""
    plan = decide_stage(case, moment())
    assert plan.make_keys is None
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, StagePolicyStatus)
    assert [(one.type, one.status, one.reason) for one in status.conditions] == [
        ("Ready", "False", reason),
        ("Stalled", "True", reason),
    ]
    assert message in status.conditions[0].message
    assert status.jwt_key_id == "key-of-sandbox", "what it had is not forgotten"
    assert [entry.data["reason"] for entry in plan.entries] == [reason]


ACCEPTED: Mapping[str, StageSeen] = {
    "it is alone": seen(stage()),
    "it shares nothing": seen(stage(), other()),
    "a younger stage has its rank": seen(stage(), other(0, YOUNGER)),
    "a younger stage has its data class": seen(stage(), other(meta=YOUNGER, dataClasses=["synthetic"])),
    "a younger stage has its trust domain": seen(
        stage(), other(meta=YOUNGER, trustDomain="sandbox.example.org")
    ),
    "one of the same second has a larger UID": seen(stage(), other(0, {"uid": "uid-z"})),
}


@pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)
def test_a_stage_is_ready_where(case: StageSeen) -> None:
    """Of two that clash the elder stays; its status names its authority's end."""
    plan = decide_stage(case, moment())
    assert [entry.type for entry in plan.entries] == [EntryType.STAGE_POLICY_CHANGED]
    assert plan.recheck_at == CA_END - 30 * DAY, "when the next keys are made"
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, StagePolicyStatus)
    assert (status.ca_not_after, status.conditions[0].reason) == (CA_END, "KeysReady")


def test_a_new_stage_gets_keys_of_its_own() -> None:
    """They are announced before they are stored, for this trust domain and five years."""
    plan = decide_stage(seen(stage(status={}), keys=None), moment())
    order = plan.make_keys
    assert order is not None
    assert (order.stage, order.trust_domain.name) == ("sandbox", "sandbox.example.org")
    assert order.not_before < NOW < order.not_after
    entry = order.announce({"jwtKeyID": "k"})
    assert (entry.type.value, entry.data["jwtKeyID"]) == ("dev.pilotidentity.stage.keys-made.v1", "k")
    assert plan.status is None
    assert plan.recheck_at == NOW


def test_a_refused_stage_that_was_never_ready_makes_no_keys() -> None:
    """Keys are made on first need, not for what is refused."""
    assert decide_stage(seen(stage(status={}), other(0), keys=None), moment()).make_keys is None


def test_a_stage_that_is_being_deleted_is_left() -> None:
    """Its keys' Secret stays: what was issued is still to be verified."""
    assert decide_stage(seen(stage(meta=deleting())), moment()) == Plan()


READINESS: Mapping[str, tuple[StagePolicy, bool]] = {
    "it was found ready": (stage(), True),
    "it was never looked at": (stage(status={}), False),
    "its spec changed since": (
        stage(status={"observedGeneration": 0, "conditions": []}, meta={"generation": 2}),
        False,
    ),
    "it is being deleted": (stage(meta=deleting()), False),
}


@pytest.mark.parametrize("policy, expected", READINESS.values(), ids=READINESS)
def test_pilots_get_identities_in_a_stage_where(policy: StagePolicy, expected: bool) -> None:
    """Readiness is of the spec as it stands now."""
    assert is_ready(policy) is expected


def test_an_authority_that_expires_stops_the_stage() -> None:
    """At its end, to the instant."""
    keys = replace(KEYS, not_after=NOW + dt.timedelta(seconds=1))
    before = decide_stage(seen(stage(), keys=keys), moment()).entries
    assert EntryType.STAGE_REFUSED not in {entry.type for entry in before}
    late = replace(seen(stage(), keys=keys), now=NOW + dt.timedelta(seconds=1))
    assert decide_stage(late, moment(late.now)).entries[0].data["reason"] == "CertificateAuthorityExpired"


@pytest.mark.parametrize(
    "swapped", [replace(OWN, jwt_key_id="another"), replace(OWN, ca_key_sha256="b" * 64)], ids=["JWT", "CA"]
)
def test_keys_that_somebody_replaced_sign_nothing(swapped: Generation) -> None:
    """Whoever gets past the policies to the Secret would have a stage vouch for what a foreign CA signs."""

    def told(before: StagePolicy, plan: Plan) -> StagePolicy:
        assert plan.status is not None
        return msgspec.structs.replace(before, status=plan.status(Outcome()))

    fresh = msgspec.structs.replace(stage(), status=StagePolicyStatus())
    ready = told(fresh, decide_stage(seen(fresh, keys=OWN), moment()))
    assert is_ready(ready)
    plan = decide_stage(seen(ready, keys=swapped), moment())
    refused = told(ready, plan)
    assert not is_ready(refused)
    assert refused.status.conditions[0].reason == "KeysForeign"
    assert [entry.type for entry in plan.entries] == [EntryType.STAGE_REFUSED]
    assert refused.status.keys == ready.status.keys
    assert is_ready(told(refused, decide_stage(seen(refused, keys=OWN), moment())))
