"""The cluster: every object that the operator reads or writes for its users."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.access import IN_CLUSTER, Endpoint, GrantAccounts
from pilot_identity.adapters.kubernetes.api import Api, Invalid, NotFound
from pilot_identity.adapters.kubernetes.ours import MANAGED_BY, owner_reference
from pilot_identity.core.decisions.plan import MakeServiceAccount, Owner
from pilot_identity.core.resources import KINDS, Resource, ResourceError
from pilot_identity.core.resources.metadata import FINALIZER, GROUP, Key
from pilot_identity.core.resources.parsing import read_as
from pilot_identity.core.resources.pilot_identity import bundle_name
from pilot_identity.ports import Conflict, NameTaken, Refused, SignedCredential

log = logging.getLogger(__name__)

CREDENTIAL_TYPE = f"{GROUP}/credential"
CREDENTIAL = f"{GROUP}/credential"
REPLACES = f"{GROUP}/replaces"


class KubernetesCluster:
    """`ports.Cluster` on a real API server."""

    def __init__(self, api: Api, namespaces: Sequence[str] = (), endpoint: Endpoint = IN_CLUSTER) -> None:
        self._api = api
        self._namespaces = tuple(namespaces)
        self.accounts = GrantAccounts(api, endpoint)

    async def list(self, kind: str) -> AsyncIterator[Resource | Key]:
        """Yield every object of a kind in the watched namespaces; of one that does not parse, its key."""
        where = self._namespaces if KINDS[kind].is_namespaced and self._namespaces else ("",)
        for namespace in where:
            async for item in self._api.pages(paths.collection(kind, namespace)):
                try:
                    yield read_as(item, KINDS[kind])
                except ResourceError as error:
                    log.error("not understood, so not touched: %s", error)  # noqa: TRY400
                    yield Key(kind, item["metadata"].get("namespace", ""), item["metadata"]["name"])

    async def write_credential(
        self, owner: Owner, secret: str, credential: SignedCredential, *, replaces: str
    ) -> str:
        """Create the Secret, or replace exactly the credential named by `replaces`; returns its UID."""
        namespace = owner.key.namespace
        body = _secret(owner, secret, credential.order.id, replaces, credential.files)
        if replaces:
            try:
                written = await self._api.replace(paths.core(namespace, "secrets", secret), body)
            except Invalid as error:
                raise NameTaken(f"Secret {namespace}/{secret} is not credential {replaces}") from error
            except NotFound:
                # Someone deleted it; this renewal is when it comes back.
                body = _secret(owner, secret, credential.order.id, "", credential.files)
            else:
                return str(written["metadata"]["uid"])
        try:
            written = await self._api.create(paths.core(namespace, "secrets"), body)
        except Conflict as error:
            raise NameTaken(f"a Secret {namespace}/{secret} exists already") from error
        return str(written["metadata"]["uid"])

    async def holds(self, owner: Owner, secret: str, credential_id: str) -> str | None:
        """Ask by a dry run whether the Secret holds a credential; see `core.decisions.announced`.

        The admission policy lets us replace only a Secret of our type and owner whose annotation names the
        credential that we say we replace. So the answer to "may I?" is the answer to "is it?".
        """
        namespace = owner.key.namespace
        body = _secret(owner, secret, credential_id, credential_id, {})
        try:
            answer = await self._api.replace(paths.core(namespace, "secrets", secret), body, dry_run=True)
        except NotFound:
            return None
        except Invalid:
            return ""
        return str(answer["metadata"]["uid"])

    async def refusal(self, owner: Owner, secret: str) -> str:
        """Ask by a dry run why the Secret could not be made, for example for a quota; empty where it could.

        One that exists is no refusal here: what it holds is asked otherwise.
        """
        body = _secret(owner, secret, "none", "", {})
        try:
            await self._api.create(paths.core(owner.key.namespace, "secrets"), body, dry_run=True)
        except Conflict:
            return ""
        except (Refused, Invalid, NotFound) as error:
            return str(error)
        return ""

    async def delete_credential(self, namespace: str, secret: str, uid: str) -> None:
        """Delete the Secret with that UID; where it is gone, all is well."""
        try:
            await self._api.delete(paths.core(namespace, "secrets", secret), uid=uid)
        except (NotFound, Conflict):
            return

    async def make_service_account(self, wanted: MakeServiceAccount) -> None:
        """Create the account; one that is the owner's already is left as it is."""
        namespace = wanted.owner.key.namespace
        body = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {
                "name": wanted.name,
                "namespace": namespace,
                "labels": MANAGED_BY,
                "ownerReferences": [owner_reference(wanted.owner)],
            },
            "automountServiceAccountToken": False,
        }
        try:
            await self._api.create(paths.core(namespace, "serviceaccounts"), body)
        except Conflict as error:
            if not await self.owns_service_account(wanted.owner, wanted.name):
                raise NameTaken(f"ServiceAccount {namespace}/{wanted.name} is not the pilot's") from error

    async def owns_service_account(self, owner: Owner, name: str) -> bool | None:
        """Tell whether the account is that owner's; `None` where there is none."""
        try:
            found = await self._api.get(paths.core(owner.key.namespace, "serviceaccounts", name))
        except NotFound:
            return None
        owners = found["metadata"].get("ownerReferences", ())
        return any(reference["uid"] == owner.uid for reference in owners)

    async def publish_bundle(self, namespace: str, stage: str, data: Mapping[str, str]) -> None:
        """Write the stage's bundle ConfigMap, whatever it held before."""
        name = bundle_name(stage)
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {**MANAGED_BY, f"{GROUP}/stage": stage},
            },
            "data": dict(data),
        }
        try:
            await self._api.replace(paths.core(namespace, "configmaps", name), body)
        except NotFound:
            await self._api.create(paths.core(namespace, "configmaps"), body)
        except Invalid as error:
            raise NameTaken(f"ConfigMap {namespace}/{name} is not ours") from error

    async def remove_bundle(self, namespace: str, stage: str) -> None:
        """Delete the stage's bundle ConfigMap; one that is gone, or not ours, is left."""
        try:
            await self._api.delete(paths.core(namespace, "configmaps", bundle_name(stage)))
        except (NotFound, Invalid):
            return

    async def write_status(
        self, resource: Resource, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> Resource:
        """Change the status from `before` to `after`, if the object is still the one that was read."""
        body = {
            "metadata": {"uid": resource.metadata.uid, "resourceVersion": resource.metadata.resource_version},
            "status": merge_patch(before, after),
        }
        try:
            answer = await self._api.patch(f"{paths.custom(resource.key)}/status", body)
        except NotFound as error:
            raise Conflict(f"{resource.key} is gone") from error
        return read_as(answer, KINDS[resource.key.kind])

    async def discard(self, resource: Resource) -> None:
        """Delete the object if it is still the one that was read."""
        try:
            await self._api.delete(
                paths.custom(resource.key),
                uid=resource.metadata.uid,
                version=resource.metadata.resource_version,
            )
        except NotFound:
            return

    async def set_finalizer(self, resource: Resource, *, held: bool) -> Resource | None:
        """Put our finalizer on or take it off; `None` where the object went with it."""
        others = [name for name in resource.metadata.finalizers if name != FINALIZER]
        metadata = {
            "uid": resource.metadata.uid,
            "resourceVersion": resource.metadata.resource_version,
            "finalizers": [*others, FINALIZER] if held else others,
        }
        try:
            answer = await self._api.patch(paths.custom(resource.key), {"metadata": metadata})
        except NotFound:
            return None
        written = read_as(answer, KINDS[resource.key.kind])
        return None if written.metadata.is_deleting and not written.metadata.finalizers else written


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest merge patch (RFC 7386) that turns `before` into `after`.

    >>> merge_patch({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": 1, "d": 3}})
    {'b': {'d': 3}, 'a': None}
    """
    patch: dict[str, Any] = {}
    for name, value in after.items():
        known = before.get(name)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            inner = merge_patch(known, value)
            if inner:
                patch[name] = inner
        elif value != known:
            patch[name] = value
    patch.update(dict.fromkeys(before.keys() - after.keys()))
    return patch


def _secret(
    owner: Owner, name: str, credential_id: str, replaces: str, files: Mapping[str, bytes]
) -> dict[str, Any]:
    annotations = {CREDENTIAL: credential_id}
    if replaces:
        annotations[REPLACES] = replaces
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": CREDENTIAL_TYPE,
        "metadata": {
            "name": name,
            "namespace": owner.key.namespace,
            "labels": MANAGED_BY,
            "annotations": annotations,
            "ownerReferences": [owner_reference(owner)],
        },
        "data": {file: base64.b64encode(content).decode() for file, content in files.items()},
    }
