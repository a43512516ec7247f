from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from pilot_identity.core.resources.digests import grant_digest, pilot_digest, policy_digest
from tests.core.builders import TOOL, active_grant, grant, pilot, ready_pilot, stage, tool

FORM = re.compile(r"sha256:[0-9a-f]{64}")

IMMATERIAL_IN_A_PILOT: Mapping[str, dict[str, Any]] = {
    "the purpose is reworded": {"purpose": "sorts the invoices"},
    "the workflow is renamed": {"workflow": "billing"},
    "it is suspended": {"suspend": True},
    "its sensitivity is written out": {"access": [{**TOOL, "sensitivity": "low"}]},
    "an empty workload is written out": {"workload": {}},
    "an empty delegation is written out": {"delegation": {}},
    "a delegation of depth zero is written out": {"delegation": {"maxDepth": 0}},
    "an empty list of exceptions is written out": {"exceptions": []},
    "nothing material about its model is written out": {"material": {}},
}
MATERIAL_IN_A_PILOT: Mapping[str, dict[str, Any]] = {
    "another owner": {"owners": {"business": "eve", "technical": "tom"}},
    "another stage": {"stage": "pilot"},
    "another service account": {"workload": {"serviceAccountName": "bot"}},
    "one more access entry": {"access": [TOOL, tool("wiki")]},
    "a wider resource": {"access": [tool("tickets", resources=["**"])]},
    "a higher sensitivity": {"access": [{**TOOL, "sensitivity": "high"}]},
    "another data class": {"access": [{**TOOL, "dataClass": "personal"}]},
    "delegation": {"delegation": {"to": ["helper"], "maxDepth": 1}},
    "another model": {"material": {"model": "m-2"}},
    "another data source": {"material": {"dataSources": ["crm"]}},
    "an exception": {"exceptions": [{"rule": "r", "reason": "x", "until": "2026-07-01T00:00:00Z"}]},
}


@pytest.mark.parametrize("spec", IMMATERIAL_IN_A_PILOT.values(), ids=IMMATERIAL_IN_A_PILOT)
def test_what_is_immaterial_leaves_a_pilots_digest(spec: dict[str, Any]) -> None:
    """A reviewer need not look again."""
    assert pilot_digest(pilot(**spec)) == pilot_digest(pilot())


@pytest.mark.parametrize("spec", MATERIAL_IN_A_PILOT.values(), ids=MATERIAL_IN_A_PILOT)
def test_what_is_material_changes_a_pilots_digest(spec: dict[str, Any]) -> None:
    """A reviewer must look again."""
    assert pilot_digest(pilot(**spec)) != pilot_digest(pilot())


def test_a_pilots_digest_is_of_its_spec_alone() -> None:
    """What the operator writes, or someone labels, does not change what was approved."""
    assert pilot_digest(ready_pilot(meta={"generation": 7})) == pilot_digest(pilot())


IMMATERIAL_IN_A_POLICY: Mapping[str, dict[str, Any]] = {
    "it is frozen": {"freeze": True},
    "its keys are rotated": {"keys": {"rotate": "incident", "lifetime": "720h"}},
    "a lifetime is written another way": {"retention": "168h0m"},
}
MATERIAL_IN_A_POLICY: Mapping[str, dict[str, Any]] = {
    "another rank": {"rank": 5},
    "another data class": {"dataClasses": ["synthetic", "public"]},
    "longer tasks": {"credentials": {"maxTaskDuration": "2h"}},
    "an approval more": {"approvals": {"grant": {"required": 1}}},
    "a rule": {"rules": [{"name": "r", "expression": "true"}]},
    "a limit": {"limits": {"activeGrants": 5}},
    "evidence": {"entry": {"soak": "24h"}},
}


@pytest.mark.parametrize("spec", IMMATERIAL_IN_A_POLICY.values(), ids=IMMATERIAL_IN_A_POLICY)
def test_what_is_immaterial_leaves_a_policys_digest(spec: dict[str, Any]) -> None:
    """Stopping a stage does not change its rules, nor does another spelling."""
    assert policy_digest(stage(**spec)) == policy_digest(stage())


@pytest.mark.parametrize("spec", MATERIAL_IN_A_POLICY.values(), ids=MATERIAL_IN_A_POLICY)
def test_what_is_material_changes_a_policys_digest(spec: dict[str, Any]) -> None:
    """An approval under other rules is no approval under these."""
    assert policy_digest(stage(**spec)) != policy_digest(stage())


IMMATERIAL_IN_A_GRANT: Mapping[str, dict[str, Any]] = {
    "it is completed": {"completed": True},
    "it is revoked": {"revoke": {"reason": "enough"}},
    "its duration is spelt another way": {"duration": "900s"},
}
MATERIAL_IN_A_GRANT: Mapping[str, dict[str, Any]] = {
    "another pilot": {"pilot": "other"},
    "another task": {"task": {"id": "TICKET-43"}},
    "another requester": {"requestedBy": "eve"},
    "less access": {"access": [{"name": "tickets", "actions": ["read"]}]},
    "a longer time": {"duration": "16m"},
    "another Secret": {"secretName": "other"},
    "an audience": {"audience": ["https://tickets.example.org"]},
    "an emergency": {"emergency": True},
}


@pytest.mark.parametrize("spec", IMMATERIAL_IN_A_GRANT.values(), ids=IMMATERIAL_IN_A_GRANT)
def test_what_is_immaterial_leaves_a_grants_digest(spec: dict[str, Any]) -> None:
    """How a grant ends is not part of what was asked."""
    assert grant_digest(grant(**spec)) == grant_digest(grant())


@pytest.mark.parametrize("spec", MATERIAL_IN_A_GRANT.values(), ids=MATERIAL_IN_A_GRANT)
def test_what_is_material_changes_a_grants_digest(spec: dict[str, Any]) -> None:
    """Approving one request approves no other."""
    assert grant_digest(grant(**spec)) != grant_digest(grant())


def test_digests_have_the_form_that_an_approval_cites() -> None:
    """`sha256:` and 64 hexadecimal digits; a status changes none of them."""
    for digest in (pilot_digest(pilot()), policy_digest(stage()), grant_digest(grant())):
        assert FORM.fullmatch(digest)
    assert grant_digest(active_grant()) == grant_digest(grant())
