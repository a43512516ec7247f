"""What the operator lets in, where it was told to: the audit webhook and the activity endpoint."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pilot_identity.control.sightings import Sightings
from pilot_identity.endpoints import webhook
from pilot_identity.endpoints.activity import Activities
from pilot_identity.endpoints.server import Certificate, Tls, listen
from pilot_identity.endpoints.webhook import Sender
from pilot_identity.ports import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inbound:
    """Which endpoints to serve; a port is 0 where the system is to choose one.

    Attributes:
        certificate: the server's, for both.
        webhook: the port of the audit webhook, and what the API server is known by.
        activity_port: `None` serves no activity endpoint.
    """

    certificate: Certificate
    webhook: tuple[int, Sender] | None = None
    activity_port: int | None = None


@asynccontextmanager
async def serve(
    inbound: Inbound | None,
    sightings: Sightings,
    activities: Activities,
    clock: Clock,
    is_working: Callable[[], bool],
) -> AsyncIterator[None]:
    """Serve what is wanted while the context is open."""
    async with AsyncExitStack() as stack:
        if inbound is not None and inbound.webhook is not None:
            wanted, sender = inbound.webhook
            app = webhook.application(sender, sightings, clock, is_working=is_working)
            tls = Tls(inbound.certificate, sender.pem)
            log.info(
                "takes audit events on port %d", await stack.enter_async_context(listen(app, wanted, tls))
            )
        if inbound is not None and inbound.activity_port is not None:
            tls = Tls(inbound.certificate, activities.authorities)
            app = activities.application()
            port = await stack.enter_async_context(listen(app, inbound.activity_port, tls))
            log.info("takes activities on port %d", port)
        yield
