"""The recorder: Kubernetes Events, for people. The log is the record; Events may be dropped under load."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import secrets
from typing import Any

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.core.decisions.plan import Notice
from pilot_identity.core.resources.metadata import API_VERSION, GROUP
from pilot_identity.ports import Clock, PortError

log = logging.getLogger(__name__)

QUEUE_LIMIT = 20_000
SENDERS = 8
"""Few, so that a burst of Events leaves the API server to the writes that matter."""
_NOTE_LIMIT = 1024
_FOREIGN = {"ConfigMap": "v1", "ServiceAccount": "v1", "RoleBinding": "rbac.authorization.k8s.io/v1"}
"""The groups of kinds that are not ours, of which Events tell too."""
_NAME_LIMIT = 200


class EventRecorder:
    """`ports.Recorder` that posts events.k8s.io/v1 Events, each naming its entry in the log."""

    def __init__(self, api: Api, clock: Clock, instance: str) -> None:
        self._api = api
        self._clock = clock
        self._instance = instance
        self._waiting: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(QUEUE_LIMIT)
        self.dropped = 0

    def tell(self, notice: Notice, index: int) -> None:
        """Queue an Event; a full queue drops it and counts that."""
        namespace = notice.owner.key.namespace or "default"
        try:
            self._waiting.put_nowait((namespace, self._event(notice, index, namespace)))
        except asyncio.QueueFull:
            self.dropped += 1

    @property
    def waiting(self) -> int:
        """How many Events wait to be sent."""
        return self._waiting.qsize()

    async def run(self) -> None:
        """Send what is queued, for ever."""
        async with asyncio.TaskGroup() as senders:
            for _ in range(SENDERS):
                senders.create_task(self._send())

    async def _send(self) -> None:
        while True:
            namespace, event = await self._waiting.get()
            try:
                await self._api.create(paths.events(namespace), event)
            except PortError as error:
                self.dropped += 1
                log.warning("an Event was not sent: %s", error)
            finally:
                self._waiting.task_done()

    def _event(self, notice: Notice, index: int, namespace: str) -> dict[str, Any]:
        key = notice.owner.key
        note = f" (audit entry {index})" if index >= 0 else ""
        metadata: dict[str, Any] = {
            "name": f"{key.name[:_NAME_LIMIT]}.{secrets.token_hex(8)}",
            "namespace": namespace,
        }
        if index >= 0:
            metadata["annotations"] = {f"{GROUP}/audit-index": str(index)}
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": metadata,
            "eventTime": self._clock().astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._instance,
            "type": notice.type,
            "reason": str(notice.reason),
            "action": notice.action,
            "note": notice.note[: _NOTE_LIMIT - len(note)] + note,
            "regarding": {
                "apiVersion": _FOREIGN.get(key.kind, API_VERSION),
                "kind": key.kind,
                "name": key.name,
                "namespace": key.namespace or None,
                "uid": notice.owner.uid,
            },
        }
