"""What the fake API server makes of Kubernetes access: tokens, reviews, and who may bind what.

A token is made as the real server makes one, but for its signature, which nobody here looks at.
"""

from __future__ import annotations

import base64
import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

from pilot_identity.adapters.kubernetes.api import NotFound
from pilot_identity.ports import Refused

if TYPE_CHECKING:
    from tests.fakes.server import FakeServer, Request

Object = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
VIEW = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"}


def furnish(server: FakeServer) -> None:
    """Let the operator bind the ClusterRole `view`, which reads Pods."""
    server.bindable.add(("ClusterRole", "view"))
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    server.plant(("clusterroles", "", "view"), {"metadata": {"name": "view"}, "rules": rules})


def token(server: FakeServer, request: Request) -> Object:
    """TokenRequest: a token of an account that is there."""
    name, namespace = request.place.name, request.place.namespace
    account = server.find("serviceaccounts", name, namespace)
    if account is None:
        raise NotFound(f'{request}: 404: serviceaccounts "{name}" not found')
    expires = server.clock() + dt.timedelta(seconds=request.body["spec"]["expirationSeconds"])
    number = len(server.tokens) + 1
    claims = {
        "jti": f"jti-{number}",
        "kubernetes.io": {"serviceaccount": {"name": name, "uid": account["metadata"]["uid"]}},
    }
    payload = base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode().rstrip("=")
    text = f"e30.{payload}.made-up"
    server.tokens[text] = account["metadata"]["uid"]
    return {"status": {"token": text, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}}


def token_review(server: FakeServer, request: Request) -> Object:
    """TokenReview: a token holds as long as its account, and as long as the cache believes it."""
    uid = server.tokens.get(request.body["spec"]["token"])
    alive = {account["metadata"]["uid"] for account in server.all("serviceaccounts")} | server.believed
    return {"status": {"authenticated": True}} if uid in alive else {"status": {"error": "not valid"}}


def access_review(server: FakeServer, request: Request) -> Object:
    """SubjectAccessReview: whoever a RoleBinding of the namespace names is allowed."""
    spec = request.body["spec"]
    *_, home, name = spec["user"].split(":")
    wanted = {"kind": "ServiceAccount", "name": name, "namespace": home}
    place = spec["resourceAttributes"]["namespace"]
    standing = [*server.all("rolebindings"), *server.remembered]
    for binding in standing:
        metadata = binding["metadata"]
        if metadata["namespace"] == place and wanted in binding["subjects"]:
            said = f'RBAC: allowed by RoleBinding "{metadata["name"]}/{place}" of ClusterRole "view"'
            return {"status": {"allowed": True, "reason": said}}
    return {"status": {"allowed": False}}


def require_bindable(server: FakeServer, request: Request) -> None:
    """RBAC's escalation check, as far as `bind` decides it; a namespace that is not there is told first."""
    namespace = request.place.namespace
    if namespace in server.missing_namespaces:
        raise NotFound(f'{request}: 404: namespaces "{namespace}" not found')
    reference = request.body["roleRef"]
    if (reference["kind"], reference["name"]) not in server.bindable:
        raise Refused(f"{request}: 403: attempting to grant RBAC permissions not currently held")
