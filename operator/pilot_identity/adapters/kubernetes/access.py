"""Kubernetes access of grants: ServiceAccounts, RoleBindings, tokens, and the tests that they are gone."""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api, Invalid, NotFound
from pilot_identity.adapters.kubernetes.ours import MANAGED_BY, owner_reference
from pilot_identity.core.decisions.hindrance import Hindrance, Obstacle
from pilot_identity.core.decisions.plan import (
    AccessDenied,
    AccountFacts,
    AccountOrder,
    Owner,
    TokenRefused,
)
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.resources.pilot_identity import RoleRef
from pilot_identity.core.resources.task_grant import Binding, Proof
from pilot_identity.ports import AccountToken, Conflict, NameTaken, Refused, Unavailable

TOKENS_KEPT = 20_000
"""Tokens kept in memory until they are proven refused, about 1.2 KB each; the oldest goes first."""
RULES_SECONDS = 60.0
"""How long a role's rules are remembered: they only choose the question that a proof asks."""
_LOOKS = (0.01, 0.03, 0.1)
"""Seconds between looks: the API server's authorizer learns of a deletion some milliseconds late."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a workload finds the API server.

    Attributes:
        server: its URL.
        ca_file: path of the certificates that it is signed by, read anew for each kubeconfig, since they
            are replaced now and then; empty where the workload's own trust store does.
        ca: the certificates, PEM; where given, they stand for the file's.
    """

    server: str
    ca_file: str = ""
    ca: bytes = b""

    def authority(self) -> bytes:
        """The certificates, PEM; empty where there are none to name."""
        return self.ca or (Path(self.ca_file).read_bytes() if self.ca_file else b"")


IN_CLUSTER = Endpoint("https://kubernetes.default.svc")


class Question(NamedTuple):
    """One thing that a role allows."""

    verb: str
    group: str
    resource: str
    subresource: str
    name: str


class GrantAccounts:
    """`ports.Accounts` on a real API server."""

    def __init__(self, api: Api, endpoint: Endpoint) -> None:
        self._api = api
        self._endpoint = endpoint
        self._tokens: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._questions: dict[tuple[str, str, str], tuple[float, Question | None]] = {}

    async def hindrance(self, owner: Owner, account: str, binding: Binding) -> Hindrance | None:
        """Try by a dry run whether a binding could be made; makes nothing.

        The dry run passes RBAC's own escalation check and every admission policy. It does not see whether
        the role exists, since RBAC binds what may yet come.
        """
        namespace = binding.namespace
        try:
            await self._api.create(
                paths.role_bindings(namespace), role_binding(owner, account, binding), dry_run=True
            )
        except Refused:
            return Hindrance(binding, Obstacle.NOT_BINDABLE)
        except NotFound as error:
            # Where `bind` is not given, the API server looks the role up to see whether we hold all of it.
            is_place = f'namespaces "{namespace}" not found' in str(error)
            return Hindrance(binding, Obstacle.NAMESPACE_MISSING if is_place else Obstacle.ROLE_MISSING)
        except Conflict:
            if not await self._is_bound(owner, account, binding):
                return Hindrance(binding, Obstacle.NAME_TAKEN)
        try:
            await self._question(binding.role_ref, namespace)
        except NotFound:
            return Hindrance(binding, Obstacle.ROLE_MISSING)
        except Refused:
            return Hindrance(binding, Obstacle.NOT_BINDABLE)
        return None

    async def make(self, owner: Owner, order: AccountOrder, *, is_renewal: bool) -> AccountToken:
        """Make the grant's account, or find it, and get a token of it."""
        if not is_renewal:
            await self._make_account(owner, order.name)
        namespace = owner.key.namespace
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": int(order.lifetime.total_seconds())},
        }
        where = paths.account_tokens(namespace, order.name)
        try:
            answer = await self._api.create(where, request)
        except NotFound:
            # Someone deleted the account; the renewal is when it comes back.
            await self._make_account(owner, order.name)
            answer = await self._api.create(where, request)
        token = str(answer["status"]["token"])
        facts = _facts(token, answer["status"]["expirationTimestamp"])
        self._keep(owner.uid, facts.credential_id, token)
        home = order.bindings[0].namespace
        return AccountToken(facts, kubeconfig(self._endpoint, order.name, home, token))

    async def bind(self, owner: Owner, account: str, binding: Binding) -> None:
        """Give the account its role; a binding that says exactly this is left as it is."""
        body = role_binding(owner, account, binding)
        try:
            await self._api.create(paths.role_bindings(binding.namespace), body)
        except Conflict as error:
            if not await self._is_bound(owner, account, binding):
                raise NameTaken(
                    f"RoleBinding {binding.namespace}/{binding.name} is not this grant's"
                ) from error

    async def unbind(self, binding: Binding) -> None:
        """Delete a RoleBinding; one that is gone is gone, and another's of that name is left alone."""
        await self._take_back(paths.role_bindings(binding.namespace, binding.name))

    async def delete(self, namespace: str, account: str) -> None:
        """Delete an account; one that is gone is gone, and another's of that name is left alone."""
        await self._take_back(paths.core(namespace, "serviceaccounts", account))

    async def test_access(self, test: AccessDenied) -> Proof:
        """Ask the authorizer, for each binding, about one thing that its role allows.

        All rules of a role hang on the one binding, so that one question for each tells. Where something
        else allows the same, the answer names it, and the binding itself is looked for.
        """
        asked: list[str] = []
        for binding in test.bindings:
            told = await self._still_allowed(test, binding)
            if told.is_ours:
                return Proof(test.name, proven=False, message=told.message)
            asked.append(told.message)
        return Proof(test.name, proven=True, message="; ".join(asked))

    async def test_token(self, test: TokenRefused) -> Proof:
        """Ask the authenticator about the token; where it is not known, look for its account."""
        credential_id, token = self._tokens.get(test.owner.uid, ("", ""))
        if credential_id != test.credential_id:
            return await self._test_account(test)
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        try:
            answer = await self._api.create(paths.TOKEN_REVIEWS, review)
        except Refused:
            # Reviews are ours to make only while the chart lists roles that may be bound.
            return await self._test_account(test)
        if answer["status"].get("authenticated", False):
            message = "TokenReview still says authenticated; the API server caches that for up to 10 s"
            return Proof(test.name, proven=False, message=message)
        del self._tokens[test.owner.uid]
        return Proof(test.name, proven=True, message="TokenReview says not authenticated")

    async def _test_account(self, test: TokenRefused) -> Proof:
        where = f"ServiceAccount {test.owner.key.namespace}/{test.account}"
        try:
            found = await self._api.get(paths.core(test.owner.key.namespace, "serviceaccounts", test.account))
        except NotFound:
            is_gone = True
        else:
            is_gone = found["metadata"]["uid"] != test.account_uid
        if not is_gone:
            return Proof(test.name, proven=False, message=f"{where} is still there")
        message = (
            f"{where} with UID {test.account_uid} is gone, and its tokens with it; the token itself cannot "
            "be asked about, since an earlier process issued it or we may make no TokenReview"
        )
        return Proof(test.name, proven=True, message=message)

    async def _take_back(self, path: str) -> None:
        """Delete what is ours.

        Raises:
            Invalid: admission keeps it, though it has our label, which nobody else can give in such a name.
        """
        try:
            await self._api.delete(path)
        except NotFound:
            return
        except Invalid:
            try:
                found = await self._api.get(path)
            except NotFound:
                return
            if MANAGED_BY.items() <= found["metadata"].get("labels", {}).items():
                raise

    async def _make_account(self, owner: Owner, name: str) -> None:
        namespace = owner.key.namespace
        body = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": MANAGED_BY,
                "ownerReferences": [owner_reference(owner)],
            },
            "automountServiceAccountToken": False,
        }
        try:
            await self._api.create(paths.core(namespace, "serviceaccounts"), body)
        except Conflict as error:
            found = await self._api.get(paths.core(namespace, "serviceaccounts", name))
            owners = found["metadata"].get("ownerReferences", ())
            if [reference["uid"] for reference in owners] != [owner.uid]:
                raise NameTaken(f"ServiceAccount {namespace}/{name} is not this grant's") from error

    async def _is_bound(self, owner: Owner, account: str, binding: Binding) -> bool:
        """Whether the RoleBinding of that name says exactly what ours says, and is to stay."""
        try:
            found = await self._api.get(paths.role_bindings(binding.namespace, binding.name))
        except NotFound as error:
            raise Conflict(f"RoleBinding {binding.namespace}/{binding.name} went meanwhile") from error
        wanted = role_binding(owner, account, binding)
        return (
            found.get("subjects") == wanted["subjects"]
            and found["roleRef"] == wanted["roleRef"]
            and "deletionTimestamp" not in found["metadata"]
        )

    async def _still_allowed(self, test: AccessDenied, binding: Binding) -> _Told:
        question = await self._question_if_known(binding)
        where = f"RoleBinding {binding.namespace}/{binding.name}"
        if question is None:
            return await self._told_by_existence(binding)
        for wait in (*_LOOKS, None):
            try:
                status = await self._review(test, binding.namespace, question)
            except Refused:
                return await self._told_by_existence(binding)
            said = str(status.get("reason", ""))
            may = f"{question.verb} {question.resource} in {binding.namespace}"
            if not status.get("allowed", False):
                return _Told(False, f"SubjectAccessReview: may not {may}")
            if f'"{binding.name}/{binding.namespace}"' not in said and not await self._exists(binding):
                return _Told(False, f"{where} is gone; others still allow to {may}: {said}")
            if wait is not None:
                await asyncio.sleep(wait)
        return _Told(True, f"SubjectAccessReview: may still {may}: {said}")

    async def _told_by_existence(self, binding: Binding) -> _Told:
        """What is left to say where nothing can be asked."""
        where = f"RoleBinding {binding.namespace}/{binding.name}"
        is_there = await self._exists(binding)
        return _Told(is_there, f"{where} is still there" if is_there else f"{where} is gone")

    async def _review(self, test: AccessDenied, namespace: str, question: Question) -> Mapping[str, Any]:
        home = test.owner.key.namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{home}:{test.account}",
                "groups": [
                    "system:serviceaccounts",
                    f"system:serviceaccounts:{home}",
                    "system:authenticated",
                ],
                "resourceAttributes": {"namespace": namespace, **question._asdict()},
            },
        }
        status: Mapping[str, Any] = (await self._api.create(paths.ACCESS_REVIEWS, review))["status"]
        return status

    async def _exists(self, binding: Binding) -> bool:
        try:
            await self._api.get(paths.role_bindings(binding.namespace, binding.name))
        except NotFound:
            return False
        return True

    async def _question_if_known(self, binding: Binding) -> Question | None:
        try:
            return await self._question(binding.role_ref, binding.namespace)
        except (NotFound, Refused):
            # The role went, or an admin took it from us: then nothing can be asked about it.
            return None

    async def _question(self, role: RoleRef, namespace: str) -> Question | None:
        """Choose one thing that a role allows; `None` where it allows nothing."""
        key = (role.kind, namespace if role.kind == "Role" else "", role.name)
        known = self._questions.get(key)
        now = time.monotonic()
        if known is not None and now - known[0] < RULES_SECONDS:
            return known[1]
        found = await self._api.get(paths.role(role, namespace))
        question = next(_questions(found.get("rules") or ()), None)
        self._questions[key] = (now, question)
        return question

    def _keep(self, owner_uid: str, credential_id: str, token: str) -> None:
        self._tokens[owner_uid] = (credential_id, token)
        self._tokens.move_to_end(owner_uid)
        if len(self._tokens) > TOKENS_KEPT:
            self._tokens.popitem(last=False)


class _Told(NamedTuple):
    """What the API server told of a binding: whether it still gives access, in words."""

    is_ours: bool
    message: str


def role_binding(owner: Owner, account: str, binding: Binding) -> dict[str, Any]:
    """A RoleBinding from a role to a grant's account. An owner elsewhere cannot be an ownerReference."""
    metadata: dict[str, Any] = {
        "name": binding.name,
        "namespace": binding.namespace,
        "labels": MANAGED_BY,
        "annotations": {f"{GROUP}/grant": f"{owner.key.namespace}/{owner.key.name}"},
    }
    if binding.namespace == owner.key.namespace:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": binding.role_ref.kind,
            "name": binding.role_ref.name,
        },
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": owner.key.namespace}],
    }


def kubeconfig(endpoint: Endpoint, account: str, namespace: str, token: str) -> bytes:
    """A kubeconfig that kubectl and every client library take as it is; JSON, which is YAML."""
    cluster: dict[str, Any] = {"server": endpoint.server}
    authority = endpoint.authority()
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": account, "user": {"token": token}}],
        "contexts": [
            {"name": "grant", "context": {"cluster": "cluster", "user": account, "namespace": namespace}}
        ],
        "current-context": "grant",
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _questions(rules: Any) -> Iterator[Question]:
    """What rules allow, a wildcard by what is common; rules for URLs do not count in a RoleBinding."""
    for rule in rules:
        for resource in rule.get("resources", ()):
            kind, _, subresource = resource.partition("/")
            yield Question(
                verb="get" if "*" in rule["verbs"] else rule["verbs"][0],
                group="" if "*" in rule["apiGroups"] else rule["apiGroups"][0],
                resource="pods" if kind == "*" else kind,
                subresource=subresource,
                name=next(iter(rule.get("resourceNames", ())), ""),
            )


class _Claims(msgspec.Struct):
    """What is read of a ServiceAccount's token."""

    jti: str
    kubernetes: Mapping[str, Any] = msgspec.field(name="kubernetes.io")


def _facts(token: str, expires: str) -> AccountFacts:
    """Read a token's id and its account's UID off the token that the API server just gave us.

    Raises:
        Unavailable: it has none; API servers before 1.30 give none unless told to.
    """
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(
            base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims
        )
        uid = str(claims.kubernetes["serviceaccount"]["uid"])
    except (IndexError, KeyError, TypeError, binascii.Error, msgspec.MsgspecError):
        # Not chained, so that no traceback quotes the token.
        raise Unavailable("the API server gave a token without jti and account UID; it needs 1.30") from None
    return AccountFacts(uid, claims.jti, dt.datetime.fromisoformat(expires))
