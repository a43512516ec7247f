from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from pilot_identity.core.audit.access import (
    MAX_EVENTS,
    Account,
    AuditError,
    Sighting,
    parse_events,
    sightings_of,
)
from pilot_identity.core.audit.access_window import (
    ABOUT,
    MAX_BORROWED_ROWS,
    MAX_CREDENTIALS,
    MAX_NAMES,
    MAX_ROWS,
    MAX_USERS,
    AccessWindow,
)
from pilot_identity.core.audit.entries import MAX_ENTRY_BYTES, Entry, EntryType, encode_entry

PREFIX = "pilot-grant-"
ACCOUNT = "system:serviceaccount:team-a:pilot-grant-0123456789abcdef0123"
AT = dt.datetime(2026, 6, 1, 12, 0, 0, tzinfo=dt.UTC)


def event(**fields: Any) -> dict[str, Any]:
    """An answered request as a 1.36 API server tells it; a case says only what matters to it."""
    return {
        "level": "Metadata",
        "auditID": "7b6b0b56-8a3a-4b79-9d4c-6c6f3a3d3c11",
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/team-a/pods/web-0",
        "verb": "get",
        "user": {
            "username": ACCOUNT,
            "uid": "7f1c",
            "groups": ["system:serviceaccounts"],
            "extra": {"authentication.kubernetes.io/credential-id": ["JTI=9e8d"]},
        },
        "sourceIPs": ["10.0.0.7"],
        "objectRef": {"resource": "pods", "namespace": "team-a", "name": "web-0", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "2026-06-01T12:00:00.000001Z",
        "stageTimestamp": "2026-06-01T12:00:00.003000Z",
        "annotations": {"authorization.k8s.io/decision": "allow"},
        **fields,
    }


def batch(*events: dict[str, Any]) -> bytes:
    """A batch as it is posted."""
    return json.dumps(
        {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events}
    ).encode()


def seen(*events: dict[str, Any]) -> list[Sighting]:
    """What is read from a batch."""
    return list(sightings_of(parse_events(batch(*events)), PREFIX))


def test_a_request_is_read_with_its_account_token_and_answer() -> None:
    """Who, by which token, what, when, and what came of it."""
    (found,) = seen(event())
    assert found.account == Account("team-a", "pilot-grant-0123456789abcdef0123")
    assert found.credential_id == "9e8d"
    assert found.target == ("get", "pods", "team-a")
    assert (found.name, found.code, found.is_refused, found.is_granted) == ("web-0", 200, False, True)
    assert found.at == AT + dt.timedelta(microseconds=1)


def test_group_and_subresource_are_part_of_the_resource() -> None:
    """As kubectl and RBAC write them."""
    reference = {"resource": "deployments", "apiGroup": "apps", "subresource": "scale", "namespace": "x"}
    assert seen(event(objectRef=reference))[0].target.resource == "deployments.apps/scale"


def test_a_path_that_is_no_resource_is_named_without_its_query() -> None:
    """Discovery and health, for example."""
    (found,) = seen(event(objectRef=None, requestURI="/openapi/v3?hash=1", verb="get"))
    assert found.target == ("get", "/openapi/v3", "")


@pytest.mark.parametrize(
    "other",
    [
        event(stage="RequestReceived"),
        event(user={"username": "ann"}),
        event(user={"username": "system:serviceaccount:team-a:default"}),
        event(user={"username": "system:serviceaccount:team-a:x:pilot-grant-0123456789abcdef0123"}),
        event(user={"username": "admin"}, impersonatedUser={"username": "ann"}),
    ],
    ids=["not answered yet", "a person", "another account", "no account", "someone who impersonates another"],
)
def test_others_requests_are_not_counted(other: dict[str, Any]) -> None:
    """Only what a grant's account was answered."""
    assert seen(other) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        batch(event(requestReceivedTimestamp="yesterday")),
        batch(event(requestReceivedTimestamp="2026-06-01T12:00:00")),
        batch().replace(b"EventList", b"Event"),
        batch().replace(b"audit.k8s.io/v1", b"audit.k8s.io/v1beta1"),
        batch(
            *[{"verb": "get", "stage": "", "requestReceivedTimestamp": "2026-06-01T12:00:00Z"}]
            * (MAX_EVENTS + 1)
        ),
    ],
    ids=[
        "empty",
        "list",
        "object",
        "binary",
        "deep",
        "time",
        "offset",
        "kind",
        "version",
        "many",
    ],
)
def test_what_is_no_batch_is_refused(body: bytes) -> None:
    """With one error, whatever is wrong."""
    with pytest.raises(AuditError):
        parse_events(body)


def test_missing_and_null_fields_are_read_as_empty() -> None:
    """The API server leaves out what is empty, and a Go nil is null."""
    (found,) = seen(
        event(user={"username": ACCOUNT, "extra": {"authentication.kubernetes.io/credential-id": None}})
    )
    assert found.credential_id == ""
    assert seen(event(user={"username": ACCOUNT}, responseStatus=None))[0].code == 0
    assert parse_events(b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":null}') == ()


def test_one_request_has_one_mark_however_often_it_is_told() -> None:
    """A batch that is sent again, and a watch that is told at its start and at its end."""
    first, again, end = seen(
        event(), event(), event(stage="ResponseStarted", stageTimestamp="2026-06-01T12:00:01Z")
    )
    assert first.mark == again.mark == end.mark


def test_a_client_that_chooses_the_audit_id_hides_nothing() -> None:
    """`Audit-ID` is a header that anyone may send: requests with one id are still different requests."""
    one, other = seen(event(), event(requestReceivedTimestamp="2026-06-01T12:00:00.000002Z"))
    assert one.mark != other.mark
    one, other = seen(event(), event(requestURI="/api/v1/namespaces/team-a/pods/web-1"))
    assert one.mark != other.mark


def window(*events: dict[str, Any], ended_at: dt.datetime | None = None) -> AccessWindow:
    """A window with what these events tell."""
    filled = AccessWindow()
    for sighting in seen(*events):
        filled.add(sighting, ended_at)
    return filled


def test_requests_are_counted_by_verb_resource_and_namespace() -> None:
    """With refusals, the objects' names, the first and the last time, and the token."""
    refused = event(
        verb="delete",
        responseStatus={"code": 403},
        requestReceivedTimestamp="2026-06-01T12:00:05Z",
    )
    data = window(event(), event(), refused).data(["9e8d"])
    assert data == {
        "requests": 3,
        "refused": 1,
        "access": [
            {
                "verb": "delete",
                "resource": "pods",
                "namespace": "team-a",
                "requests": 1,
                "refused": 1,
                "names": ["web-0"],
            },
            {
                "verb": "get",
                "resource": "pods",
                "namespace": "team-a",
                "requests": 2,
                "refused": 0,
                "names": ["web-0"],
            },
        ],
        "tokens": [{"credentialID": "9e8d", "requests": 3, "isKnown": True}],
        "from": "2026-06-01T12:00:00.000Z",
        "until": "2026-06-01T12:00:05Z",
    }


def test_a_token_that_the_operator_did_not_issue_is_told() -> None:
    """Somebody with the right to make tokens made one for the grant's account."""
    assert window(event()).data(["another"])["tokens"] == [
        {"credentialID": "9e8d", "requests": 1, "isKnown": False}
    ]


def test_what_was_done_after_the_end_is_told_apart() -> None:
    """In the seconds in which the API server's cache still knows the token."""
    later = "2026-06-01T12:00:10Z"
    data = window(
        event(),
        event(requestReceivedTimestamp=later),
        event(requestReceivedTimestamp=later, verb="list", responseStatus={"code": 403}),
        ended_at=AT + dt.timedelta(seconds=9),
    ).data([])
    assert data["afterEnd"] == {
        "requests": 2,
        "allowed": 1,
        "withdrawnAt": "2026-06-01T12:00:09Z",
        "from": later,
        "until": later,
        "about": {"seconds": 15, "requests": 2, "allowed": 1},
    }


def test_what_two_clocks_may_disagree_about_is_called_so() -> None:
    """Later than that it is the end's failure, and counted as such."""
    told = [AT + ABOUT, AT + ABOUT + dt.timedelta(seconds=1)]
    filled = window(*[event(requestReceivedTimestamp=at.isoformat()) for at in told], ended_at=AT)
    late = filled.data([])["afterEnd"]
    assert (late["requests"], late["about"]["requests"], filled.allowed_late) == (2, 1, 1)
    assert (late["from"], late["until"]) == ("2026-06-01T12:00:15Z", "2026-06-01T12:00:16Z")
    assert "about" not in window(event(), ended_at=AT - 2 * ABOUT).data([])["afterEnd"]


def test_whoever_acts_as_a_grants_account_is_told_in_a_field_of_its_own() -> None:
    """His requests are no use of the grant: no token of its, and none of its sums."""
    borrowed = event(user={"username": "admin", "uid": "a"}, impersonatedUser={"username": ACCOUNT})
    (found,) = seen(borrowed)
    assert (found.account.name, found.borrower) == ("pilot-grant-0123456789abcdef0123", "admin")
    assert (found.account_uid, found.credential_id) == ("", "")
    data = window(event(), borrowed, ended_at=AT - 2 * ABOUT).data(["9e8d"])
    assert (data["requests"], data["afterEnd"]["requests"]) == (1, 1)
    assert data["tokens"] == [{"credentialID": "9e8d", "requests": 1, "isKnown": True}]
    others = data["impersonatedBy"]
    assert others["users"] == [{"user": "admin", "requests": 1}]
    assert (others["requests"], others["refused"], len(others["access"])) == (1, 0, 1)
    assert window(borrowed).data([])["requests"] == 0
    assert not window(borrowed).is_empty


def test_as_whom_a_grants_account_acts_is_told() -> None:
    """Its token was used, with the rights of another."""
    acting = event(impersonatedUser={"username": "system:admin"})
    (found,) = seen(acting)
    assert (found.borrowed, found.borrower) == ("system:admin", "")
    data = window(event(), acting).data([])
    assert (data["requests"], data["impersonated"]) == (2, [{"user": "system:admin", "requests": 1}])


def test_a_grants_account_that_acts_as_anothers_is_told_for_both() -> None:
    """Neither telling hides the other."""
    other = ACCOUNT.replace("0123456789abcdef0123", "ffffffffffffffffffff")
    own, lent = seen(event(impersonatedUser={"username": other}))
    assert (own.account.name[-4:], own.borrowed) == ("0123", other)
    assert (lent.account.name[-4:], lent.borrower) == ("ffff", ACCOUNT)
    assert own.mark != lent.mark


def test_a_window_stays_small_whatever_is_asked_for() -> None:
    """A client may ask for anything: rows, names and tokens are bounded, and the sums still add up."""
    long = '\\"\u2028é' * 400
    events = [
        event(
            verb=long,
            objectRef={
                "resource": f"{number % (2 * MAX_ROWS)}{long}",
                "namespace": long,
                "name": f"{number}{long}",
            },
            user={
                "username": ACCOUNT,
                "extra": {"authentication.kubernetes.io/credential-id": [f"JTI={number}{long}"]},
            },
            responseStatus={"code": 403},
        )
        for number in range(10 * MAX_ROWS)
    ]
    events += [
        {**one, "impersonatedUser": {"username": f"{number}{long}"}}
        for number, one in enumerate(events[:100])
    ]
    events += [
        {**one, "user": {"username": f"{number}{long}"}, "impersonatedUser": {"username": ACCOUNT}}
        for number, one in enumerate(events[:100])
    ]
    data = window(*events, ended_at=AT - ABOUT).data([])
    made = 10 * MAX_ROWS + 100
    assert data["requests"] == data["refused"] == made
    assert len(data["impersonatedBy"]["access"]) == MAX_BORROWED_ROWS
    assert len(data["impersonatedBy"]["users"]) == len(data["impersonated"]) == MAX_USERS + 1
    assert len(data["access"]) == MAX_ROWS
    assert sum(row["requests"] for row in data["access"]) + data["otherAccess"]["requests"] == made
    assert {len(row["names"]) for row in data["access"]} == {MAX_NAMES}
    assert all(row["moreNames"] for row in data["access"])
    assert len(data["tokens"]) == MAX_CREDENTIALS + 1
    assert sum(token["requests"] for token in data["tokens"]) == made
    facts = {
        "pilot": "p" * 63,
        "task": {"id": "t" * 253, "description": "\u2028" * 1024},
        "requestedBy": "r" * 253,
        "delegation": [
            {"grant": "g" * 63, "uid": "u" * 36, "pilot": "p" * 63, "requestedBy": "é" * 253}
            for _ in range(9)
        ],
    }
    entry = Entry("id", EntryType.ACCESS_SEEN, "TaskGrant team-a/x", "uid", AT, {**facts, **data})
    assert len(encode_entry(entry, "example.org/log")) <= MAX_ENTRY_BYTES
