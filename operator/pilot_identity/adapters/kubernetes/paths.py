"""Where things are on the API server."""

from __future__ import annotations

from pilot_identity.core.resources import KINDS
from pilot_identity.core.resources.metadata import API_VERSION, Key

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def collection(kind: str, namespace: str = "") -> str:
    """The collection of one of our kinds, in a namespace or in all."""
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{API_VERSION}{where}/{KINDS[kind].plural}"


def custom(key: Key) -> str:
    """One object of our kinds."""
    return f"{collection(key.kind, key.namespace)}/{key.name}"


def core(namespace: str, plural: str, name: str = "") -> str:
    """A collection or object of the core group."""
    return f"/api/v1/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def events(namespace: str) -> str:
    """The collection of Events."""
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def lease(namespace: str, name: str = "") -> str:
    """The collection of Leases, or one."""
    return LEASES.format(namespace=namespace) + (f"/{name}" if name else "")
