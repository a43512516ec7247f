"""Watching: a Kopf registry whose handlers feed the store."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import kopf

from pilot_identity.core.resources import KINDS, Resource, ResourceError
from pilot_identity.core.resources.metadata import GROUP, VERSION, Key
from pilot_identity.core.resources.parsing import Kind, read_as

log = logging.getLogger(__name__)

LOGIN_SECONDS = 600
"""How long Kopf keeps a login before it asks again; the token file is renewed long before its own end."""


class Intake(Protocol):
    """Takes what the watches see."""

    def held(self, key: Key, version: int) -> Resource | None:
        """The object, where just this version is known already, as from the answer to our own write."""
        ...

    def seen(self, resource: Resource) -> None:
        """An object as it is now."""
        ...

    def gone(self, key: Key, version: int) -> None:
        """An object was deleted."""
        ...

    def listed_again(self) -> None:
        """A watch had to list anew: deletions in between were not told."""
        ...


class NoDiffs(kopf.DiffBaseStorage):
    """Compares nothing and stores nothing: no decision here reads a diff.

    Kopf's own way copies every object deeply at every event to compare it with what it has stored on it.
    """

    def build(
        self,
        *,
        body: kopf.Body,  # noqa: ARG002 - Kopf's signature
        extra_fields: object = None,  # noqa: ARG002
    ) -> kopf.BodyEssence:
        """Return an essence with nothing in it."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002
        """Return that nothing was stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


def settings() -> kopf.OperatorSettings:
    """Kopf, kept to watching: no peering, no scanning, no Events, no annotations."""
    chosen = kopf.OperatorSettings()
    chosen.scanning.disabled = True
    chosen.peering.standalone = True
    chosen.posting.enabled = False
    # Kopf takes its own finalizer off objects that no deletion handler wants: it must not be ours.
    chosen.persistence.finalizer = f"{GROUP}/not-used-by-kopf"
    chosen.persistence.diffbase_storage = NoDiffs()
    # Kopf keeps a task for each object that it hears of: for five seconds, ten thousand at start.
    chosen.queueing.idle_timeout = 0.1
    chosen.watching.chunk_size = 500
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 310
    chosen.watching.connect_timeout = 10
    chosen.networking.request_timeout = 15
    return chosen


def registry(
    intake: Intake, login: Callable[[], kopf.ConnectionInfo], on_stop: Callable[[], Awaitable[None]]
) -> kopf.OperatorRegistry:
    """Make the handlers; explicit, so that importing this module changes nothing.

    `on_stop` is awaited when the process is told to stop, before Kopf waits seconds for what still runs.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.cleanup(registry=handlers)
    async def stop(**_: Any) -> None:
        await on_stop()

    @kopf.on.login(registry=handlers)
    def log_in(**_: Any) -> kopf.ConnectionInfo:
        return login()

    for kind in KINDS.values():
        _watch(handlers, kind, intake)
    return handlers


def expiration() -> dt.datetime:
    """When Kopf should ask for a login again."""
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=LOGIN_SECONDS)


def _watch(handlers: kopf.OperatorRegistry, kind: Kind, intake: Intake) -> None:
    streamed = False

    @kopf.on.event(GROUP, VERSION, kind.plural, registry=handlers, id=f"watch-{kind.plural}")
    async def on_event(event: Mapping[str, Any], **_: Any) -> None:
        nonlocal streamed
        body: Mapping[str, Any] = event["object"]
        metadata = body["metadata"]
        if event["type"] is not None:
            streamed = True
        elif streamed:
            # Kopf marks what it lists with no type. After events it lists only when the watch was lost;
            # what was deleted meanwhile is not told. A loss before any event is found by the slow sweep.
            streamed = False
            intake.listed_again()
        key = Key(kind.name, metadata.get("namespace", ""), metadata["name"])
        version = int(metadata["resourceVersion"])
        if event["type"] == "DELETED":
            intake.gone(key, version)
            return
        held = intake.held(key, version)
        if held is not None:
            intake.seen(held)
            return
        try:
            resource = read_as(body, kind)
        except ResourceError as error:
            log.error("not understood, so not touched: %s", error)  # noqa: TRY400 - the message says it all
            return
        if resource.metadata.unreadable:
            log.error("not understood, so stopped: %s", resource.metadata.unreadable)
        intake.seen(resource)
