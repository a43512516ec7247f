"""What was accessed, from the source: the API server's word, and that of the agents and their tools."""

from __future__ import annotations

import json
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e import manifests, places
from e2e.admin import Document
from e2e.audit import Line
from e2e.controlplane import pki
from e2e.controlplane.cluster import Cluster
from e2e.installation import Installation
from e2e.patience import until
from e2e.stories.access_seen.agent import PODS, Agent, call, make_pods
from e2e.stories.access_seen.conftest import Doors
from e2e.stories.play import Play
from pilot_identity.core.audit.entries import EntryType

pytestmark = pytest.mark.usefixtures("pilot")


def entries(play: Play, grant: Document, kind: EntryType) -> list[Line]:
    """The entries of a kind about a grant."""
    return [line for line in play.trail().of(grant["metadata"]["uid"]) if line.kind is kind]


def seen(play: Play, grant: Document, *, verb: str, resource: str) -> dict[str, Any]:
    """Wait until the log tells of a verb on a resource; returns the row."""

    def look() -> dict[str, Any] | None:
        for line in entries(play, grant, EntryType.ACCESS_SEEN):
            for row in line.entry.data["access"]:
                if (row["verb"], row["resource"]) == (verb, resource):
                    return {**row, "entry": line.entry}
        return None

    return until(look, f"{verb} {resource} is in the log", seconds=90)


def working(play: Play, name: str, **spec: Any) -> Document:
    """A grant with a tool and with Kubernetes access, active."""
    play.ask(name, "triage", access=[{"name": "tickets"}, {"name": "pods"}], **spec)
    return play.phase(name, "Active")


@pytest.fixture
def pilot(play: Play) -> None:
    """A pilot that may do both, and may delegate to itself."""
    play.ready_pilot("triage", access=[manifests.tool(), PODS], delegation={"to": ["triage"], "maxDepth": 2})


def test_the_log_tells_what_a_grant_asked_the_api_server_for(
    play: Play, cluster: Cluster, tmp_path: Path
) -> None:
    """Two Pods were read and one deletion was refused, with this grant's token; the status sums it up."""
    make_pods(play, "web-0", "web-1")
    grant = working(play, "watch")
    agent = Agent(play, cluster, "watch", tmp_path)
    for name in ("web-0", "web-1"):
        assert agent.kubectl("get", "pod", name).returncode == 0
    row = seen(play, grant, verb="get", resource="pods")
    assert (row["namespace"], row["refused"]) == (play.namespace, 0)
    assert set(row["names"]) <= {"web-0", "web-1"}
    (token,) = row["entry"].data["tokens"]
    told = grant["status"]["credential"]["kubernetes"]["credentialID"].removeprefix("JTI=")
    assert (token["credentialID"], token["isKnown"]) == (told, True)
    issued = entries(play, grant, EntryType.GRANT_ISSUED)[0].entry.data["credential"]["kubernetes"]
    assert issued["credentialID"].removeprefix("JTI=") == told

    assert "forbidden" in agent.kubectl("delete", "pod", "web-0", "--wait=false").stderr.lower()
    # The second entry comes with the grant's end, well before its minute is over.
    play.admin.patch(play.grants("watch"), {"spec": {"completed": True}})
    assert seen(play, grant, verb="delete", resource="pods")["refused"] >= 1

    def summed() -> Document | None:
        usage: Document = play.status(play.grants("watch")).get("usage", {})
        return usage if usage.get("refused") else None

    usage = until(summed, "the status tells of the refusal", seconds=90)
    lines = entries(play, grant, EntryType.ACCESS_SEEN)
    assert usage["requests"] == sum(line.entry.data["requests"] for line in lines)
    assert usage["refused"] == sum(line.entry.data["refused"] for line in lines)
    assert usage["firstUsed"] <= usage["lastUsed"]
    assert all(line.entry.data["pilot"] == "triage" for line in lines)


def meddler(play: Play, cluster: Cluster) -> str:
    """A token of an account that may act as every other one of the namespace."""
    metadata = {"name": "meddler"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "meddler"}
    rule = {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{play.namespace}"
    subject = {"kind": "ServiceAccount", "name": "meddler", "namespace": play.namespace}
    play.admin.create(places.core("serviceaccounts", play.namespace), {"metadata": metadata})
    play.admin.create(f"{rbac}/roles", {"metadata": metadata, "rules": [rule]})
    play.admin.create(f"{rbac}/rolebindings", {"metadata": metadata, "roleRef": role, "subjects": [subject]})
    return cluster.kubectl("-n", play.namespace, "create", "token", "meddler").strip()


def test_whoever_acts_as_a_grants_account_is_in_the_log_by_his_own_name(
    play: Play, cluster: Cluster, tmp_path: Path
) -> None:
    """As the API server tells it; and it is no use of the grant."""
    grant = working(play, "lent")
    agent, account = Agent(play, cluster, "lent", tmp_path), grant["status"]["credential"]["kubernetes"]
    whom = f"system:serviceaccount:{play.namespace}:{account['serviceAccountName']}"
    asked = agent.kubectl("get", "pods", "--as", whom, "--token", meddler(play, cluster))
    assert asked.returncode == 0, asked.stderr

    def told() -> Document | None:
        lines = entries(play, grant, EntryType.ACCESS_SEEN)
        return next((line.entry.data for line in lines if "impersonatedBy" in line.entry.data), None)

    data = until(told, "the log tells who acted as the account", seconds=90)
    (user,) = data["impersonatedBy"]["users"]
    assert user["user"] == f"system:serviceaccount:{play.namespace}:meddler"
    rows = {(row["verb"], row["resource"]) for row in data["impersonatedBy"]["access"]}
    assert ("list", "pods") in rows
    assert (data["requests"], data["tokens"]) == (0, [])


def test_an_agent_tells_what_it_does(play: Play, cluster: Cluster, doors: Doors, tmp_path: Path) -> None:
    """Three tool calls by token, an action by certificate, one by a child: each in the log, each tied."""
    grant = working(play, "agent")
    agent = Agent(play, cluster, "agent", tmp_path)
    answers = [doors.report(call(number), token=agent.token) for number in range(3)]
    assert [status for status, _ in answers] == [201, 201, 201]
    action = {"kind": "action", "attributes": {"pilotidentity.action": "comment"}}
    status, answer = doors.report(action, client=agent.pair)
    assert status == 201, answer

    lines = entries(play, grant, EntryType.ACTIVITY_RECORDED)
    assert [line.index for line in lines] == [answer["index"] for _, answer in answers] + [answer["index"]]
    assert lines[0].entry.data["activities"] == [call(0)]
    assert [line.entry.data["authentication"]["method"] for line in lines] == ["JWT-SVID"] * 3 + ["X509-SVID"]

    child = play.ask("child", "triage", parent="agent", access=[{"name": "tickets"}], duration="5m")
    play.phase("child", "Active")
    assert doors.report(call(9), token=Agent(play, cluster, "child", tmp_path).token)[0] == 201
    (line,) = entries(play, child, EntryType.ACTIVITY_RECORDED)
    assert [ancestor["grant"] for ancestor in line.entry.data["delegation"]] == ["agent"]

    def chained() -> Document | None:
        usage: Document = play.status(play.grants("agent")).get("usage", {})
        return usage if usage.get("chained") else None

    usage = until(chained, "the parent's status tells of its child", seconds=90)
    assert (usage["activities"], usage["chained"]["activities"]) == (4, 1)


def test_nothing_is_taken_after_the_end(play: Play, cluster: Cluster, doors: Doors, tmp_path: Path) -> None:
    """The credentials are good by themselves for minutes; the endpoint refuses them at once."""
    grant = working(play, "short")
    agent = Agent(play, cluster, "short", tmp_path)
    assert doors.report(call(0), token=agent.token)[0] == 201
    play.admin.patch(play.grants("short"), {"spec": {"revoke": {"reason": "seen enough"}}})
    play.phase("short", "Closing", "Revoked")
    for shown in ({"token": agent.token}, {"client": agent.pair}):
        status, answer = doors.report(call(1), **shown)
        assert status == 403
        assert "nothing is recorded after a grant's end" in answer["error"]
    assert len(entries(play, grant, EntryType.ACTIVITY_RECORDED)) == 1


def test_only_the_api_server_tells_what_was_accessed(
    play: Play, cluster: Cluster, doors: Doors, tmp_path: Path
) -> None:
    """Neither a stranger nor another client of the same authority nor a grant is believed."""
    working(play, "liar")
    batch = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": []}
    assert doors.post(doors.webhook_port, "/v1/audit-events", batch)[0] == 401
    other = doors.authority.user("kubelet", (), datetime.now(UTC)).write(tmp_path, "kubelet")
    assert doors.post(doors.webhook_port, "/v1/audit-events", batch, client=other)[0] == 401
    agent = Agent(play, cluster, "liar", tmp_path)
    assert doors.post(doors.webhook_port, "/v1/audit-events", batch, token=agent.token)[0] == 401
    stranger = pki.Authority("stranger", datetime.now(UTC)).user("kube-apiserver", (), datetime.now(UTC))
    for pair in (agent.pair, stranger.write(tmp_path, "stranger")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            doors.post(doors.webhook_port, "/v1/audit-events", batch, client=pair)


def test_what_is_accessed_while_the_operator_is_down_is_told_afterwards(
    play: Play, cluster: Cluster, doors: Doors, operator: Installation, tmp_path: Path
) -> None:
    """The API server sends again what nobody took."""
    grant = working(play, "outage")
    agent = Agent(play, cluster, "outage", tmp_path)
    operator.operator.kill()
    port, everywhere = doors.webhook_port, socket.AF_INET6
    with socket.create_server(("", port), family=everywhere, dualstack_ipv6=True) as nobody:
        nobody.settimeout(20)
        assert agent.kubectl("get", "pods", "-o", "json").returncode == 0
        nobody.accept()[0].close()  # the API server tried, and was hung up on
    operator.start_operator()
    row = seen(play, grant, verb="list", resource="pods")
    assert row["requests"] == 1
    assert json.dumps(row["entry"].data).count("eyJ") == 0  # no token


def test_an_operator_that_is_stopped_tells_what_it_knows(
    play: Play, cluster: Cluster, operator: Installation, tmp_path: Path
) -> None:
    """Without waiting for the minute, and before another replica works."""
    grant = working(play, "rollout")
    agent = Agent(play, cluster, "rollout", tmp_path)
    assert agent.kubectl("get", "pods", "-o", "json").returncode == 0
    seen(play, grant, verb="list", resource="pods")
    told = sum(line.entry.data["requests"] for line in entries(play, grant, EntryType.ACCESS_SEEN))
    assert agent.kubectl("get", "secrets").returncode != 0

    def taken() -> bool:
        return operator.metrics(operator.operator)["pilot_identity_requests_seen_total"] > before

    before = operator.metrics(operator.operator)["pilot_identity_requests_seen_total"]
    assert agent.kubectl("get", "services", "-o", "json").returncode == 0
    until(taken, "the operator has taken another batch")
    operator.operator.stop()
    lines = entries(play, grant, EntryType.ACCESS_SEEN)
    assert sum(line.entry.data["requests"] for line in lines) > told
    rows = [row for line in lines for row in line.entry.data["access"]]
    assert [row["refused"] for row in rows if row["resource"] == "secrets"] == [1]
    operator.start_operator()
