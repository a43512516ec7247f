"""The client: one request at a time to the API server, bounded in time and number, errors translated once.

TLS and connection pooling are aiohttp's, which Kopf brings; bodies are plain JSON.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from pilot_identity import __version__
from pilot_identity.adapters.kubernetes.login import Login
from pilot_identity.ports import Conflict, PortError, Refused, Unavailable

MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""What to accept of an object, or of a collection, so that the API server sends nothing but metadata."""
CONCURRENCY = 32
"""Requests in flight: more only queue inside the API server, where we could not put a revocation first."""
REQUEST_SECONDS = 10.0
"""For an answer; a write is given up by the API server after the same time.

Else it would go on for up to a minute, and what was given up here would still happen there.
"""
TOKEN_SECONDS = 60.0
PAGE = 500
USER_AGENT = f"pilot-identity/{__version__}"
"""What is before the slash is the manager's name in an object's managedFields."""


class NotFound(PortError):  # noqa: N818 - as in `ports`
    """There is no such object."""


class Invalid(PortError):  # noqa: N818
    """The API server's validation, or an admission policy, refuses this content."""


class Api:
    """Speaks JSON to the API server as the operator's own account."""

    def __init__(self, login: Login, *, concurrency: int = CONCURRENCY) -> None:
        self._login = login
        tls = ssl.create_default_context(cafile=login.ca_file or None)
        if login.certificate_file:
            tls.load_cert_chain(login.certificate_file, login.key_file)
        # Not trust_env: with it aiohttp reads ~/.netrc and the proxy variables in a thread for every request.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency, ssl=tls))
        self._slots = asyncio.Semaphore(concurrency)
        self._token = ""
        self._token_read_at = float("-inf")
        self._encoder = msgspec.json.Encoder()

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def get(self, path: str) -> Any:
        """Read an object."""
        return await self.call("GET", path)

    async def create(
        self, path: str, body: Mapping[str, Any], *, dry_run: bool = False, accept: str = JSON
    ) -> Any:
        """Create an object; raises `Conflict` where one of that name exists.

        Args:
            path: the collection's.
            body: the object.
            dry_run: whether it is only tried.
            accept: what of the stored object is answered.
        """
        query = {"dryRun": "All"} if dry_run else None
        return await self.call("POST", path, body, query=query, accept=accept)

    async def replace(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Any:
        """Replace an object."""
        return await self.call("PUT", path, body, query={"dryRun": "All"} if dry_run else None)

    async def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Merge `body` into an object (RFC 7386)."""
        return await self.call("PATCH", path, body, content_type=MERGE_PATCH)

    async def delete(self, path: str, *, uid: str = "", version: str = "") -> Any:
        """Delete an object, if it has that UID and that version; raises `Conflict` otherwise."""
        conditions = {name: value for name, value in (("uid", uid), ("resourceVersion", version)) if value}
        return await self.call("DELETE", path, {"preconditions": conditions} if conditions else None)

    async def pages(
        self, path: str, *, label_selector: str = "", accept: str = JSON, size: int = PAGE
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield a collection's items, page by page; raises `Conflict` where a page's snapshot is gone.

        No page is held beside the next: its items are let go as they are yielded.
        """
        query = {"limit": str(size)}
        if label_selector:
            query["labelSelector"] = label_selector
        while True:
            page = await self.call("GET", path, query=query, accept=accept)
            items = page["items"] or []
            items.reverse()
            while items:
                yield items.pop()
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def call(  # noqa: PLR0913 - an HTTP request's own parts
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Any:
        """Make one request and return the decoded answer.

        Raises:
            NotFound, Conflict, Invalid, Refused, Unavailable: by what the API server answered.
        """
        headers = {"Content-Type": content_type, "Accept": accept, "User-Agent": USER_AGENT}
        token = self._bearer()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = f"{self._login.server}{path}"
        if method != "GET":
            query = {**(query or {}), "timeout": f"{REQUEST_SECONDS:.0f}s"}
        if query:
            url = f"{url}?{urlencode(query)}"
        data = self._encoder.encode(body) if body is not None else None
        async with self._slots:
            try:
                async with (
                    asyncio.timeout(REQUEST_SECONDS),
                    self._session.request(method, url, data=data, headers=headers) as response,
                ):
                    content = await response.read()
                    status = response.status
            except TimeoutError as error:
                raise Unavailable(f"{method} {path}: no answer within {REQUEST_SECONDS:.0f} s") from error
            except aiohttp.ClientError as error:
                raise Unavailable(f"{method} {path}: {error}") from error
        if status >= HTTPStatus.BAD_REQUEST:
            raise _translate(status, content, f"{method} {path}")
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{method} {path}: {status} with an answer that is no JSON: {error}") from error

    def _bearer(self) -> str:
        now = time.monotonic()
        if now - self._token_read_at > TOKEN_SECONDS:
            self._token, self._token_read_at = self._login.token(), now
        return self._token


_ERRORS: Mapping[int, type[PortError]] = {
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.UNAUTHORIZED: Refused,
    HTTPStatus.FORBIDDEN: Refused,
}


def _translate(status: int, content: bytes, request: str) -> PortError:
    """Turn an error answer into one of ours; the API server's messages never contain what we sent."""
    try:
        message = str(msgspec.json.decode(content).get("message", ""))[:512]
    except (msgspec.DecodeError, AttributeError):
        message = "no explanation"
    kind = _ERRORS.get(status)
    if kind is None:
        kind = (
            Unavailable if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _CLIENT_ERRORS.get(status, Refused)
        )
    return kind(f"{request}: {status}: {message}")


_CLIENT_ERRORS: Mapping[int, type[PortError]] = {
    HTTPStatus.TOO_MANY_REQUESTS: Unavailable,
    HTTPStatus.REQUEST_TIMEOUT: Unavailable,
    HTTPStatus.GONE: Conflict,
}
