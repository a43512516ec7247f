"""Surroundings: ServiceAccounts and RoleBindings, listed to be held against the audit log.

A binding is listed with all that it says: no label can be asked for that would find one which somebody else
made for a grant's account. Of each page only what concerns us is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import JSON, METADATA_LIST, Api
from pilot_identity.core.audit.live import Live, LiveBinding


class KubernetesSurroundings:
    """`ports.Surroundings` on a real API server."""

    def __init__(self, api: Api, namespaces: Sequence[str] = ()) -> None:
        self._api = api
        self._namespaces = tuple(namespaces)

    async def accounts(self) -> Sequence[Live]:
        """Every ServiceAccount that only the operator makes, by its metadata."""
        listed = self._listed("/api/v1", "serviceaccounts", METADATA_LIST)
        return [one async for item in listed if (one := Live.read("ServiceAccount", item)).is_marked]

    async def bindings(self) -> Sequence[LiveBinding]:
        """Every RoleBinding that only the operator makes, or that gives a group of accounts something."""
        listed = self._listed(paths.RBAC, "rolebindings", JSON)
        return [
            one
            async for item in listed
            if (one := LiveBinding.read("RoleBinding", item)).is_marked or one.gives_accounts
        ]

    async def _listed(self, group: str, plural: str, accept: str) -> AsyncIterator[dict[str, Any]]:
        for namespace in self._namespaces or ("",):
            where = f"/namespaces/{namespace}" if namespace else ""
            async for item in self._api.pages(f"{group}{where}/{plural}", accept=accept):
                yield item
