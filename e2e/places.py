"""Places: paths of the API server under which stories find things."""

from __future__ import annotations

from e2e.installation import NAMESPACE

_GROUP = "/apis/pilotidentity.dev/v1alpha1"


def _named(collection: str, name: str) -> str:
    return f"{collection}/{name}" if name else collection


def stages(name: str = "") -> str:
    """The stage policies, or one."""
    return _named(f"{_GROUP}/stagepolicies", name)


def pilots(namespace: str, name: str = "") -> str:
    """A namespace's pilots, or one."""
    return _named(f"{_GROUP}/namespaces/{namespace}/pilotidentities", name)


def grants(namespace: str, name: str = "") -> str:
    """A namespace's grants, or one."""
    return _named(f"{_GROUP}/namespaces/{namespace}/taskgrants", name)


def approvals(namespace: str, name: str = "") -> str:
    """A namespace's approvals, or one."""
    return _named(f"{_GROUP}/namespaces/{namespace}/approvals", name)


def namespaces(name: str = "") -> str:
    """The namespaces, or one."""
    return _named("/api/v1/namespaces", name)


def core(plural: str, namespace: str = NAMESPACE, name: str = "") -> str:
    """A collection of the core group, by default in the operator's namespace, or one object of it."""
    return _named(f"/api/v1/namespaces/{namespace}/{plural}", name)


def secrets(namespace: str, name: str = "") -> str:
    """A namespace's Secrets, or one."""
    return core("secrets", namespace, name)


def events(namespace: str) -> str:
    """A namespace's Events."""
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def lease() -> str:
    """The operator's Lease."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/pilot-identity"
