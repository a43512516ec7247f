"""The control plane that posts what it audits to the operator, as in `access_seen`."""

from __future__ import annotations

from e2e.stories.access_seen.conftest import admin, cluster, doors, namespace, operator, play

__all__ = ["admin", "cluster", "doors", "namespace", "operator", "play"]
