"""Where things are on the API server."""

from __future__ import annotations

from urllib.parse import quote

from pilot_identity.core.resources import KINDS
from pilot_identity.core.resources.metadata import API_VERSION, Key
from pilot_identity.core.resources.pilot_identity import RoleRef

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path


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


def account_tokens(namespace: str, account: str) -> str:
    """Where tokens of a ServiceAccount are asked for."""
    return f"{core(namespace, 'serviceaccounts', account)}/token"


def role_bindings(namespace: str, name: str = "") -> str:
    """The collection of RoleBindings, or one."""
    return f"{RBAC}/namespaces/{namespace}/rolebindings" + (f"/{name}" if name else "")


def role(reference: RoleRef, namespace: str) -> str:
    """A Role of a namespace, or a ClusterRole. A role's name may hold what a path may not."""
    name = quote(reference.name, safe="")
    if reference.kind == "ClusterRole":
        return f"{RBAC}/clusterroles/{name}"
    return f"{RBAC}/namespaces/{namespace}/roles/{name}"


def events(namespace: str) -> str:
    """The collection of Events."""
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def lease(namespace: str, name: str = "") -> str:
    """The collection of Leases, or one."""
    return LEASES.format(namespace=namespace) + (f"/{name}" if name else "")
