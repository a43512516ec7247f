"""What cannot be done: a pilot cannot be kept from being stopped, nor the log from ending.

A spec that this version cannot read, and a Secret that the API server does not let be made, are both in the
hands of those who use a namespace. Neither keeps a credential alive or fills the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from e2e import manifests
from e2e.admin import Admin, Document
from e2e.patience import until
from e2e.stories.play import Play
from pilot_identity.core.audit.entries import EntryType

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/pilotidentities.pilotidentity.dev"
MERGE_PATCH = "application/merge-patch+json"
NO_TIME: list[dict[str, Any]] = [{"rule": "any", "reason": "any", "until": "0000-01-01T00:00:00Z"}]


def _demand_times(admin: Admin, pattern: str) -> str:
    """Put another pattern where the CRD says when an exception ends; returns the one before."""
    crd = admin.get(CRD)
    (version,) = crd["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    until_when: Document = spec["properties"]["exceptions"]["items"]["properties"]["until"]
    before = str(until_when.get("pattern", ""))
    until_when["pattern"] = pattern
    assert admin.ask("PUT", CRD, crd).is_good
    return before


@pytest.fixture
def _crd_of_another_version(play: Play) -> Iterator[None]:
    """The CRD lets through what this version of the operator cannot read, as after a wrong upgrade."""
    before = _demand_times(play.admin, "")
    yield
    _demand_times(play.admin, before)
    # The API server is without storage for this kind for a moment.
    refused = manifests.pilot("refused", exceptions=NO_TIME)
    until(
        lambda: play.admin.ask("POST", f"{play.pilots()}?dryRun=All", refused).code == 422,
        "the API server has taken back the CRD",
    )


@pytest.mark.usefixtures("_crd_of_another_version")
def test_a_pilot_whose_spec_cannot_be_read_is_stopped(play: Play) -> None:
    """Its task and its SVID end as if it were suspended; it is told so, and can be deleted."""
    play.ready_pilot("rogue")
    play.ask("live", "rogue", duration="30m")
    play.phase("live", "Active")
    spec = {"spec": {"exceptions": NO_TIME}}
    until(
        lambda: play.admin.ask("PATCH", play.pilots("rogue"), spec, MERGE_PATCH).is_good,
        "the API server has taken over the CRD",
    )
    told = play.condition(play.pilots("rogue"), "Ready", reason="SpecUnreadable")
    assert told["status"] == "False"
    assert "spec.exceptions[0].until" in told["message"]
    ended = play.phase("live", "Revoked")
    assert ended["status"]["closure"]["reason"] == "PilotSuspended"
    play.gone("live")
    play.gone("pilot-svid-rogue")
    assert play.admin.get(play.pilots("rogue"))["spec"]["suspend"] is False
    play.admin.delete(play.pilots("rogue"))
    until(lambda: play.admin.find(play.pilots("rogue")) is None, "the pilot is let go")


def test_a_secret_that_a_quota_refuses_costs_the_log_two_entries(play: Play) -> None:
    """The grant waits and says for what; once there is room it is issued."""
    play.ready_pilot("frugal")
    quota = f"/api/v1/namespaces/{play.namespace}/resourcequotas"
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}}
    play.admin.create(quota, body | {"spec": {"hard": {"count/secrets": "1"}}})
    until(lambda: "used" in play.admin.get(f"{quota}/few").get("status", {}), "the quota counts")
    uid = play.ask("one", "frugal")["metadata"]["uid"]
    told = play.condition(play.grants("one"), "Ready", reason="SecretRefused")
    assert told["status"] == "False"
    assert "exceeded quota: few" in told["message"]
    assert len(play.events_of(uid, "SecretRefused")) == 1
    assert Counter(line.kind for line in play.trail().of(uid)) == {
        EntryType.GRANT_REQUESTED: 1,
        EntryType.GRANT_ISSUED: 1,
        EntryType.CREDENTIAL_ABANDONED: 1,
    }
    play.admin.delete(f"{quota}/few")
    play.phase("one", "Active", seconds=60)
    assert play.credential("one").owner_uid == uid
