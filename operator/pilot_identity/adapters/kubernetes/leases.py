"""The Lease by which replicas agree on who works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api, NotFound


class KubernetesLease:
    """`ports.LeaseStore` on a real API server."""

    def __init__(self, api: Api, namespace: str, name: str = "pilot-identity") -> None:
        self._api = api
        self._namespace = namespace
        self._name = name

    async def read(self) -> Mapping[str, Any] | None:
        """Return the Lease, or `None` where there is none."""
        try:
            found: Mapping[str, Any] = await self._api.get(paths.lease(self._namespace, self._name))
        except NotFound:
            return None
        return found

    async def create(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create the Lease."""
        body = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": spec}
        created: Mapping[str, Any] = await self._api.create(paths.lease(self._namespace), body)
        return created

    async def update(self, lease: Mapping[str, Any], spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace the Lease's spec; its resourceVersion fences off whoever read it earlier."""
        path = paths.lease(self._namespace, self._name)
        updated: Mapping[str, Any] = await self._api.replace(path, {**lease, "spec": spec})
        return updated
