"""Chosen namespaces: the operator serves those that it was told to, and has no rights in any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from e2e import places
from e2e.admin import Admin
from e2e.controlplane.cluster import Cluster
from e2e.controlplane.component import Component
from e2e.installation import NAMESPACE, RELEASE, Installation
from e2e.stories.play import Play

USER = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"


@contextmanager
def serving_only(operator: Installation, namespace: str) -> Iterator[Component]:
    """An operator that serves one namespace; afterwards the usual one serves all of them again."""
    operator.operator.stop()
    operator.install("--reuse-values", "--set", f"watchNamespaces={{{namespace}}}")
    replica = operator.replica("chosen-0")
    try:
        replica.start()
        operator.wait_ready(replica)
        yield replica
    finally:
        replica.stop()
        operator.cluster.helm("rollback", RELEASE, "--namespace", NAMESPACE)
        operator.operator.launch()
        operator.wait_ready(operator.operator)


def test_a_namespace_that_is_not_served_is_left_alone(
    play: Play, admin: Admin, cluster: Cluster, operator: Installation
) -> None:
    """Its pilots get nothing and the operator has no right there, until it is served too."""
    elsewhere = Play(admin, f"{play.namespace}-elsewhere")
    cluster.kubectl("create", "namespace", elsewhere.namespace)
    with serving_only(operator, play.namespace) as replica:
        elsewhere.declare("ignored")
        elsewhere.ask("ignored", "ignored", duration="3s")
        play.ready_pilot("triage")
        play.ask("task", "triage", duration="3s")
        play.phase("task", "Expired")
        # Stages are cluster-scoped, so that they are always seen; of the other namespace nothing is.
        stages = len(admin.get(places.stages())["items"])
        assert operator.metrics(replica)["pilot_identity_objects"] == stages + 2
        for path in (elsewhere.pilots("ignored"), elsewhere.grants("ignored")):
            assert elsewhere.status(path).get("conditions") is None
        assert admin.get(elsewhere.secrets())["items"] == []
        for resource, verb in (("secrets", "create"), ("pilotidentities.pilotidentity.dev", "list")):
            assert _may(cluster, verb, resource, elsewhere.namespace) == "no"
            assert _may(cluster, verb, resource, play.namespace) == "yes"
    elsewhere.condition(elsewhere.pilots("ignored"), "Ready", reason="IdentityIssued")
    elsewhere.phase("ignored", "Expired")
    elsewhere.end()


def _may(cluster: Cluster, verb: str, resource: str, namespace: str) -> str:
    """What the API server says to whether the operator's account may do it there."""
    asked = ("auth", "can-i", verb, resource, "--as", USER, "-n", namespace)
    return cluster.run("kubectl", *asked, check=False).stdout.strip()
