from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from pilot_identity.endpoints import figures, probes


@dataclass
class Served:
    """A server, and what it tells."""

    port: int
    is_ready: bool = False
    written: int = 3

    async def get(self, path: str) -> tuple[int, str, str]:
        """Status, content type and text."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
        ):
            return answer.status, answer.content_type, await answer.text()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Serve on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        state = Served(free.getsockname()[1])
    metrics = figures.collect(
        {
            "pilot_identity_objects": ("Objects watched.", lambda: 10.0),
            "pilot_identity_groups_total": ("Groups written.", lambda: float(state.written)),
        }
    )
    async with probes.serve(state.port, is_ready=lambda: state.is_ready, metrics=metrics):
        yield state


async def test_the_loop_turns(served: Served) -> None:
    """`/healthz` answers as soon as it is asked."""
    assert await served.get("/healthz") == (200, "text/plain", "ok\n")


async def test_ready_is_what_the_operator_says_now(served: Served) -> None:
    """Not yet, then yes, then no longer."""
    assert await served.get("/readyz") == (503, "text/plain", "not ready\n")
    served.is_ready = True
    assert (await served.get("/readyz"))[0] == 200
    served.is_ready = False
    assert (await served.get("/readyz"))[0] == 503


async def test_metrics_are_read_when_asked_for(served: Served) -> None:
    """Gauges and counters, beside the process's own."""
    assert "pilot_identity_groups_total 3.0" in (await served.get("/metrics"))[2]
    served.written = 4
    status, content_type, text = await served.get("/metrics")
    assert (status, content_type) == (200, "text/plain")
    assert "# TYPE pilot_identity_groups_total counter" in text
    assert "pilot_identity_groups_total 4.0" in text
    assert "# TYPE pilot_identity_objects gauge" in text
    assert "process_cpu_seconds_total" in text


async def test_nothing_else_is_served(served: Served) -> None:
    """No listing, no debugging."""
    assert (await served.get("/"))[0] == 404


async def test_a_port_that_the_system_chose_is_told() -> None:
    """And is the one on every address, IPv4 and IPv6."""
    async with probes.serve(0, is_ready=lambda: True, metrics=figures.collect({})) as port:
        assert await Served(port).get("/healthz") == (200, "text/plain", "ok\n")


async def test_the_port_is_free_again_afterwards() -> None:
    """Whoever starts next can have it."""
    metrics = figures.collect({})
    async with probes.serve(0, is_ready=lambda: True, metrics=metrics) as port:
        pass
    async with probes.serve(port, is_ready=lambda: True, metrics=metrics) as again:
        assert again == port
