from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from pilot_identity.core.resources import KINDS, ResourceError, TaskGrant, parse
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.metadata import FINALIZER, Key
from pilot_identity.core.resources.parsing import encode, parse_as, read_as
from tests.core.builders import active_grant, grant, metadata, pilot, ready_pilot, stage
from tests.core.schema import misfits, schema_of

APPROVAL: Mapping[str, Any] = {
    "kind": "Approval",
    "metadata": metadata("yes"),
    "spec": {
        "subject": {"kind": "TaskGrant", "name": "task-1", "uid": "u"},
        "purpose": "Grant",
        "digest": "sha256:00",
        "decision": "Approve",
        "reason": "looked at it",
    },
}


def grant_body(**spec: Any) -> dict[str, Any]:
    """A grant's JSON in which `spec` replaces fields."""
    asked = {"pilot": "triage", "task": {"id": "T"}, "access": [{"name": "tickets"}]}
    return {"kind": "TaskGrant", "metadata": metadata("task-1"), "spec": {**asked, **spec}}


BROKEN: Mapping[str, tuple[dict[str, Any], str]] = {
    "a number where a name belongs": (grant_body(pilot=7), "$.spec.pilot"),
    "a duration that is none": (grant_body(duration="soon"), "$.spec.duration"),
    "a duration that is a number": (grant_body(duration=900), "$.spec.duration"),
    "a duration of zero": (grant_body(duration="0s"), "$.spec.duration"),
    "a field within a list": (grant_body(access=[{"name": "a"}, {"actions": ["read"]}]), "$.spec.access[1]"),
    "a required field left out": (grant_body(task={}), "$.spec.task"),
    "a phase of another version": (
        {**grant_body(), "status": {"phase": "Sleeping"}},
        "$.status.phase",
    ),
    "a time that is none": ({**grant_body(), "status": {"expiresAt": "noon"}}, "$.status.expiresAt"),
    "no spec": ({"kind": "TaskGrant", "metadata": metadata("task-1")}, "spec"),
}


@pytest.mark.parametrize("body, field", BROKEN.values(), ids=BROKEN)
def test_an_object_that_does_not_fit_is_named_with_its_field(body: dict[str, Any], field: str) -> None:
    """The message says which object, and where in it."""
    with pytest.raises(ResourceError, match=rf"TaskGrant team-a/task-1: .*{re.escape(field)}"):
        parse(body)


@pytest.mark.parametrize("kind", ["Pod", "", None, "taskgrant"])
def test_a_foreign_kind_is_refused_with_the_list_of_ours(kind: str | None) -> None:
    """Nothing is guessed from the shape of an object."""
    with pytest.raises(ResourceError, match="StagePolicy, PilotIdentity, TaskGrant, Approval"):
        parse({"kind": kind, "metadata": metadata("x"), "spec": {}})


def test_a_kindless_body_is_refused() -> None:
    """An item of a list is parsed by `parse_as`, which is told the kind."""
    with pytest.raises(ResourceError, match="got kind None"):
        parse({"metadata": metadata("x"), "spec": {}})


def test_an_item_of_a_list_needs_no_kind() -> None:
    """A LIST leaves `kind` out of its items."""
    body = grant_body()
    del body["kind"]
    assert parse_as(body, KINDS["TaskGrant"]) == parse(grant_body())


def test_an_error_without_metadata_is_still_an_error() -> None:
    """A body that is not even an object of the API is told as such, not with a KeyError."""
    with pytest.raises(ResourceError, match="metadata"):
        parse({"kind": "Approval", "spec": APPROVAL["spec"]})


def test_unknown_fields_are_dropped() -> None:
    """A view holds only what the operator reads, so that ten thousand fit in memory."""
    body = grant_body(later="field")
    body["metadata"] = metadata("task-1", managedFields=[{"manager": "kubectl"}], annotations={"a": "b"})
    assert parse(body) == parse(grant_body())


def test_parsing_and_encoding_are_inverse() -> None:
    """What is written out reads back as the same view, for every kind."""
    for view in (stage(), pilot(), ready_pilot(), grant(), active_grant(duration="90m"), parse(APPROVAL)):
        assert parse(encode(view)) == view


def test_views_cannot_be_changed() -> None:
    """A newer version of an object is a new view."""
    with pytest.raises(AttributeError):
        setattr(grant().spec, "duration", Duration(hours=9))  # noqa: B010 - mypy knows that it is frozen


def test_what_was_built_for_the_tests_is_what_the_api_server_admits() -> None:
    """The builders make nothing that the CRDs would refuse."""
    for view in (stage(), ready_pilot(), active_grant()):
        kind = KINDS[view.key.kind]
        schema = schema_of(kind.plural)["properties"]
        assert list(misfits(schema["spec"], encode(view.spec), "spec")) == []
        assert list(misfits(schema["status"], encode(view.status), "status")) == []


def test_only_what_has_a_rule_is_encoded() -> None:
    """A value of a foreign type is an error, not its text form."""
    with pytest.raises(NotImplementedError, match="complex"):
        encode({"a": complex(1)})


def test_keys_name_objects() -> None:
    """A key reads as in `kubectl`, and leads from a grant to its pilot."""
    assert str(grant().key) == "TaskGrant team-a/task-1"
    assert str(stage().key) == "StagePolicy sandbox"
    assert grant().pilot_key == pilot().key == Key("PilotIdentity", "team-a", "triage")
    assert parse(APPROVAL).key == Key("Approval", "team-a", "yes")


def test_names_of_what_is_made_for_an_object_are_known_beforehand() -> None:
    """A Job made beside its grant can name the Secret that it will mount."""
    assert grant().secret == "task-1"
    assert grant(secretName="mine").secret == "mine"
    assert pilot().svid_secret == "pilot-svid-triage"
    assert (pilot().service_account, pilot().makes_service_account) == ("pilot-workload-triage", True)
    named = pilot(workload={"serviceAccountName": "bot"})
    assert (named.service_account, named.makes_service_account) == ("bot", False)


def test_the_finalizer_and_the_deletion_are_read() -> None:
    """What is being deleted, and what we hold, is told by metadata alone."""
    held = grant(meta={"finalizers": ["other", FINALIZER], "deletionTimestamp": "2026-06-01T12:00:00Z"})
    assert held.metadata.is_held
    assert held.metadata.is_deleting
    assert not grant(meta={"finalizers": ["other"]}).metadata.is_held
    assert not grant().metadata.is_deleting


def test_versions_are_compared_as_numbers() -> None:
    """Resource version 10 is newer than 9."""
    assert (
        grant(meta={"resourceVersion": "10"}).metadata.version
        > grant(meta={"resourceVersion": "9"}).metadata.version
    )


def test_who_changed_an_object_is_read_from_the_stamp() -> None:
    """Only the annotation that the API server stamps counts."""
    stamped = pilot(meta={"annotations": {"pilotidentity.dev/changed-by": "ana", "changed-by": "eve"}})
    assert stamped.metadata.changed_by == "ana"
    assert pilot().metadata.changed_by == ""


def test_views_of_ten_thousand_objects_are_light() -> None:
    """Views are kept out of the cyclic garbage collector, and have no dict each."""
    assert not hasattr(grant(), "__dict__")
    assert msgspec.structs.asdict(grant())["metadata"].name == "task-1"


SPECS: Mapping[str, dict[str, Any]] = {
    "PilotIdentity": {
        "workflow": "w",
        "purpose": "p",
        "owners": {"business": "bea", "technical": "tom"},
        "stage": "sandbox",
        "suspend": False,
    },
    "TaskGrant": {"pilot": "triage", "task": {"id": "T"}, "access": [{"name": "tickets"}]},
    "StagePolicy": {"rank": 3, "trustDomain": "a.example", "dataClasses": ["d"], "freeze": False},
}


def read(kind: str, **spec: Any) -> Any:
    """What is read of an object whose spec has these fields beside, or instead of, good ones."""
    body = {"kind": kind, "metadata": metadata("it"), "spec": {**SPECS[kind], **spec}}
    return read_as(body, KINDS[kind])


def is_stopped(found: Any) -> bool:
    """Whether it counts as suspended, revoked or frozen."""
    spec = found.spec
    return bool(
        getattr(spec, "suspend", False)
        or getattr(spec, "freeze", False)
        or getattr(spec, "revoke", None) is not None
    )


@pytest.mark.parametrize(
    "kind, name",
    [(kind, info.encode_name) for kind in SPECS for info in msgspec.structs.fields(type(read(kind).spec))],
)
@pytest.mark.parametrize("value", [7, "x", ["x"], {"x": 1}, None, [None], True])
def test_whatever_stands_in_a_field_is_read_or_stops_the_object(kind: str, name: str, value: Any) -> None:
    """No value of any field makes the object unseen; what else it says is kept, and why it stopped."""
    found = read(kind, **{name: value})
    if not found.metadata.unreadable:
        assert parse_as(
            {"kind": kind, "metadata": metadata("it"), "spec": {**SPECS[kind], name: value}}, KINDS[kind]
        )
        return
    assert is_stopped(found)
    assert f"{kind} team-a/it: " in found.metadata.unreadable
    good = encode(read(kind).spec)
    kept = encode(found.spec)
    untouched = SPECS[kind].keys() - {name, "suspend", "freeze"}
    assert {one: kept[one] for one in untouched} == {one: good[one] for one in untouched}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("spec", [None, "x", []])
def test_an_object_without_a_spec_is_stopped(kind: str, spec: Any) -> None:
    """Its metadata is read, so that a deletion of it is seen."""
    found = read_as({"kind": kind, "metadata": metadata("it"), "spec": spec}, KINDS[kind])
    assert is_stopped(found)
    assert found.metadata.name == "it"


def test_a_revocation_that_can_be_read_is_kept_as_it_was_said() -> None:
    """Somebody's word stands before what the parser has to say."""
    found = read("TaskGrant", duration="soon", revoke={"reason": "enough", "by": "ann"})
    assert (found.spec.revoke.reason, found.spec.revoke.by) == ("enough", "ann")
    assert found.metadata.unreadable


@pytest.mark.parametrize("kind", SPECS)
def test_a_status_that_does_not_fit_is_not_guessed(kind: str) -> None:
    """Only the operator writes it: what is out would be forgotten with it."""
    body = {"kind": kind, "metadata": metadata("it"), "spec": {}, "status": {"conditions": 7}}
    with pytest.raises(ResourceError, match=r"status\.conditions"):
        read_as(body, KINDS[kind])


def test_an_approval_that_does_not_fit_counts_for_nothing() -> None:
    """It cannot change, so nothing was in force before."""
    with pytest.raises(ResourceError, match=r"spec\.digest"):
        read_as({**APPROVAL, "spec": {**APPROVAL["spec"], "digest": 7}}, KINDS["Approval"])


def test_what_many_grants_say_alike_is_in_memory_once() -> None:
    """Ten thousand active grants are what the operator holds; their decisions are the same sentences."""
    checks = [{"name": "rule-" + "x" * number, "passed": True, "message": "m"} for number in range(3)]
    digests = {"pilotDigest": "sha256:" + "a" * 64, "policyDigest": "sha256:" + "b" * 64}
    decision = {"allowed": True, "checks": checks, "owners": ["bea@" + "example.org"], **digests}
    told = json.dumps({**grant_body(), "status": {"decision": decision}})
    parsed = [parse_as(json.loads(told), KINDS["TaskGrant"]) for _ in range(2)]
    one, other = (each.status.decision for each in parsed if isinstance(each, TaskGrant))
    assert one is not None
    assert other is not None
    assert one == other
    assert [check.name for check in one.checks] == [check["name"] for check in checks]
    assert one.checks is other.checks
    assert one.policy_digest is other.policy_digest
    assert one.owners[0] is other.owners[0]
