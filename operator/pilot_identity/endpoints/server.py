"""HTTPS for the API server and for agents: one listener for each, because each trusts other certificates.

Who connects is a stranger until a certificate or a token says otherwise. So what a stranger can cost is
bounded before that: connections, the time until a request is there, its body, and nothing is unpacked.
Certificates are read anew when their files change (a mounted Secret that was renewed), and so are the
authorities of clients, without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""Of one listener."""
IDLE_SECONDS = 10.0
"""Until the first request is there, and for the handshake before it."""
BODY_SECONDS = 20.0
"""Until the whole body is there."""
KEEPALIVE_SECONDS = 75.0
CLOSE_SECONDS = 1.0
"""For what is being answered when the operator ends."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Where a server's certificate chain and its key are (PEM)."""

    chain: Path
    key: Path

    def stamp(self) -> tuple[int, int]:
        """When the files changed; another value means that they are to be read again."""
        return self.chain.stat().st_mtime_ns, self.key.stat().st_mtime_ns


class Tls:
    """Makes the TLS context for each new connection: the same until a file or the authorities change.

    Args:
        certificate: the server's.
        authorities: whose client certificates are let through the handshake, in PEM; asked each time. Whom
            the certificate speaks of, and whether that is enough, is for the handlers to judge.
    """

    def __init__(self, certificate: Certificate, authorities: Callable[[], str]) -> None:
        self._certificate = certificate
        self._authorities = authorities
        self._made_of: tuple[tuple[int, int], str] | None = None
        self._current = self._make(authorities())

    @property
    def context(self) -> ssl.SSLContext:
        """The context to listen with."""
        listening = self._current
        listening.sni_callback = self._choose
        return listening

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        """Take the newest certificate for a connection; called in each handshake, with or without a name."""
        fresh = self._fresh()
        if connection.context is not fresh:
            connection.context = fresh

    def _fresh(self) -> ssl.SSLContext:
        authorities = self._authorities()
        try:
            if self._made_of != (self._certificate.stamp(), authorities):
                self._current = self._make(authorities)
        except (OSError, ssl.SSLError) as error:
            # For example while one of two files is there already and the other is not.
            log.warning("goes on with the certificate as it was: %s", error)
        return self._current

    def _make(self, authorities: str) -> ssl.SSLContext:
        """Make a context.

        Raises:
            OSError, ssl.SSLError: a file is not there or is no certificate or key, or they do not fit.
        """
        stamp = self._certificate.stamp()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate.chain, self._certificate.key)
        # Asked for even while there are no authorities: a listening context cannot start to ask later.
        context.verify_mode = ssl.CERT_OPTIONAL
        if authorities:
            context.load_verify_locations(cadata=authorities)
        context.set_alpn_protocols(["http/1.1"])
        self._made_of = (stamp, authorities)
        return context


def client_certificate(request: web.Request) -> bytes | None:
    """The certificate (DER) whose key the client has shown in the handshake, if it showed one."""
    connection = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    return connection.getpeercert(binary_form=True) if connection is not None else None


async def read_body(request: web.Request, limit: int) -> bytes:
    """Read a body of at most `limit` bytes.

    Raises:
        HTTPRequestEntityTooLarge, HTTPUnsupportedMediaType, HTTPRequestTimeout: as their names say.
    """
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise web.HTTPUnsupportedMediaType(text="send the body as it is, not compressed\n")
    if request.content_length is not None and request.content_length > limit:
        raise web.HTTPRequestEntityTooLarge(limit, request.content_length)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise web.HTTPRequestEntityTooLarge(limit, len(body))
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body must be there within {BODY_SECONDS:.0f} s\n") from None
    return bytes(body)


class _Refusal(asyncio.Protocol):
    """Takes a connection that is one too many, and closes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


class _Door:
    """Lets connections in: so many at a time, and only as long as they are used."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._unused: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}

    def __call__(self) -> asyncio.BaseProtocol:
        """Make the protocol of a new connection."""
        if len(self._server.connections) >= MAX_CONNECTIONS:
            return _Refusal()
        protocol = self._server()
        loop = asyncio.get_running_loop()
        self._unused[protocol] = loop.call_later(IDLE_SECONDS, self._shut, protocol)
        return protocol

    def mark(self, request: web.Request) -> None:
        """A request is there."""
        timer = self._unused.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()

    def _shut(self, protocol: asyncio.BaseProtocol) -> None:
        del self._unused[protocol]
        if isinstance(protocol, web.RequestHandler):
            protocol.force_close()

    def close(self) -> None:
        """Forget those that wait."""
        for timer in self._unused.values():
            timer.cancel()


@asynccontextmanager
async def listen(app: web.Application, port: int, tls: Tls | None) -> AsyncIterator[int]:
    """Serve `app` while the context is open; yields the port, which the system chooses for 0.

    Over HTTPS, but for what carries its own signatures and has no secrets: without `tls` it is plain HTTP.
    """
    doors: list[_Door] = []

    @web.middleware
    async def mark(request: web.Request, handler: Handler) -> web.StreamResponse:
        doors[0].mark(request)
        return await handler(request)

    app.middlewares.append(mark)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_SECONDS,
        shutdown_timeout=CLOSE_SECONDS,
    )
    await runner.setup()
    if runner.server is None:
        raise RuntimeError("a runner that is set up has a server")
    doors.append(_Door(runner.server))
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    served = await asyncio.get_running_loop().create_server(
        doors[0],
        sock=listener,
        ssl=tls.context if tls is not None else None,
        ssl_handshake_timeout=IDLE_SECONDS if tls is not None else None,
        ssl_shutdown_timeout=CLOSE_SECONDS if tls is not None else None,
    )
    try:
        yield listener.getsockname()[1]
    finally:
        served.close()
        doors[0].close()
        await runner.cleanup()
