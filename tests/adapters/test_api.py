from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pilot_identity.adapters.kubernetes import api as api_module
from pilot_identity.adapters.kubernetes.api import MERGE_PATCH, USER_AGENT, Api, Invalid, NotFound
from pilot_identity.adapters.kubernetes.login import Login
from pilot_identity.ports import Conflict, PortError, Refused, Unavailable

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Stand:
    """A real HTTP server on loopback that answers as the test says, and the client to it."""

    def __init__(self, server: TestServer, token_file: Path) -> None:
        self.server = server
        self.token_file = token_file
        self.api = Api(Login(str(server.make_url("")).rstrip("/"), "", token_file=str(token_file)))
        self.requests: list[tuple[str, str, str, str]] = []
        self.answer: Answer = self.echo

    async def echo(self, request: web.Request) -> web.StreamResponse:
        """Answer with what was sent."""
        return web.json_response({"sent": await request.json() if request.can_read_body else None})

    def say(self, status: int, text: str = '{"message": "because"}') -> None:
        """Answer with a status and a text."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, text=text)

        self.answer = answer


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """A server and a client."""
    token_file = tmp_path / "token"
    token_file.write_text("first-token\n")
    app = web.Application()
    server = TestServer(app)
    here: list[Stand] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = request.headers
        here[0].requests.append(
            (
                request.method,
                request.path_qs,
                headers.get("Content-Type", ""),
                headers.get("Authorization", ""),
            )
        )
        return await here[0].answer(request)

    app.router.add_route("*", "/{tail:.*}", handle)
    await server.start_server()
    here.append(Stand(server, token_file))
    yield here[0]
    await here[0].api.close()
    await server.close()


@pytest.mark.parametrize(
    "status, error",
    [
        (400, Refused),
        (401, Refused),
        (403, Refused),
        (404, NotFound),
        (408, Unavailable),
        (409, Conflict),
        (410, Conflict),
        (422, Invalid),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
async def test_each_error_answer_is_one_of_ours(stand: Stand, status: int, error: type[PortError]) -> None:
    """By its status, with what the API server said and what was asked."""
    stand.say(status)
    with pytest.raises(error, match=rf"^GET /api/v1/x: {status}: because$") as caught:
        await stand.api.get("/api/v1/x")
    assert type(caught.value) is error


@pytest.mark.parametrize("text", ["", "<html>", "[]", '"text"', "{"])
async def test_an_error_without_explanation_is_still_one_of_ours(stand: Stand, text: str) -> None:
    """A proxy in between may answer anything."""
    stand.say(404, text)
    with pytest.raises(NotFound):
        await stand.api.get("/api/v1/x")


@pytest.mark.parametrize("text", ["", "<html>", '{"metadata": '])
async def test_a_good_answer_that_cannot_be_read_is_no_answer(stand: Stand, text: str) -> None:
    """Whether it had its effect is not known: everything that awaits a `PortError` must get one."""
    stand.say(200, text)
    with pytest.raises(Unavailable):
        await stand.api.get("/api/v1/x")


async def test_no_answer_in_time_is_unavailable(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is bounded."""
    monkeypatch.setattr(api_module, "REQUEST_SECONDS", 0.05)

    released = asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    stand.answer = never
    with pytest.raises(Unavailable, match="no answer within"):
        await stand.api.get("/api/v1/x")
    released.set()


async def test_a_connection_that_breaks_is_unavailable(stand: Stand) -> None:
    """Before the answer, or in the middle of it."""

    async def hang_up(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.close()
        return web.Response()

    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"half":')
        if request.transport is not None:
            request.transport.close()
        return response

    for answer in (hang_up, break_off):
        stand.answer = answer
        with pytest.raises(Unavailable):
            await stand.api.create("/api/v1/x", {})


async def test_a_server_that_is_not_there_is_unavailable(stand: Stand) -> None:
    """As at a restart of the API server."""
    await stand.server.close()
    with pytest.raises(Unavailable):
        await stand.api.get("/api/v1/x")


async def test_each_verb_says_what_it_means(stand: Stand) -> None:
    """Method, query, content type and body; what is written the server gives up when we do."""
    api, body = stand.api, {"a": 1}
    assert await api.create("/x", body) == {"sent": body}
    assert await api.replace("/x/1", body) == {"sent": body}
    assert await api.replace("/x/1", body, dry_run=True) == {"sent": body}
    assert await api.patch("/x/1", body) == {"sent": body}
    assert await api.delete("/x/1") == {"sent": None}
    assert await api.delete("/x/1", uid="u") == {"sent": {"preconditions": {"uid": "u"}}}
    json_type = "application/json"
    assert [request[:3] for request in stand.requests] == [
        ("POST", "/x?timeout=10s", json_type),
        ("PUT", "/x/1?timeout=10s", json_type),
        ("PUT", "/x/1?dryRun=All&timeout=10s", json_type),
        ("PATCH", "/x/1?timeout=10s", MERGE_PATCH),
        ("DELETE", "/x/1?timeout=10s", json_type),
        ("DELETE", "/x/1?timeout=10s", json_type),
    ]


async def test_the_token_is_read_again(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept for a while, since kubelet replaces it long before its end; then read anew."""
    await stand.api.get("/x")
    stand.token_file.write_text("second-token")
    await stand.api.get("/x")
    monkeypatch.setattr(api_module, "TOKEN_SECONDS", -1.0)
    await stand.api.get("/x")
    assert [request[3] for request in stand.requests] == [
        "Bearer first-token",
        "Bearer first-token",
        "Bearer second-token",
    ]


async def test_a_list_is_read_page_by_page(stand: Stand) -> None:
    """Each page names the next; a selector goes with every page."""

    async def pages(request: web.Request) -> web.StreamResponse:
        page = int(request.query.get("continue", "0"))
        following: dict[str, Any] = {"continue": str(page + 1)} if page < 2 else {}
        return web.json_response({"items": [{"page": page}], "metadata": following})

    stand.answer = pages
    assert [item async for item in stand.api.pages("/x", label_selector="a=b")] == [
        {"page": 0},
        {"page": 1},
        {"page": 2},
    ]
    assert all(
        "labelSelector=a%3Db" in request[1] and "limit=500" in request[1] for request in stand.requests
    )


async def test_a_list_of_large_objects_has_small_pages(stand: Stand) -> None:
    """Each caller knows how large they may be."""
    stand.say(200, '{"items": null, "metadata": {}}')
    assert [item async for item in stand.api.pages("/x", size=50)] == []
    assert stand.requests[0][1].endswith("limit=50")


async def test_requests_in_flight_are_bounded(stand: Stand) -> None:
    """More would only queue inside the API server."""
    api = Api(Login(str(stand.server.make_url("")).rstrip("/"), ""), concurrency=2)
    now, most = 0, 0

    async def count(_: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return web.json_response({})

    stand.answer = count
    try:
        await asyncio.gather(*(api.get("/x") for _ in range(8)))
    finally:
        await api.close()
    assert most == 2
    assert stand.requests[0][3] == "", "no token, no header"


async def test_the_manager_is_named_in_the_user_agent(stand: Stand) -> None:
    """What is before the slash names the manager in managedFields."""
    agents: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        agents.append(request.headers["User-Agent"])
        return web.json_response({})

    stand.answer = note
    await stand.api.get("/x")
    assert agents == [USER_AGENT]
    assert USER_AGENT.split("/")[0] == "pilot-identity"
