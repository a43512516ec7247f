"""A small API server over plain HTTP: enough to list, read, write and watch, and to be refused."""

from __future__ import annotations

import json
import queue
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

Object = dict[str, Any]
_PATH = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?"
)


class FakeApi:
    """Objects by (plural, namespace, name), and what is to go wrong.

    Attributes:
        requests: each request as (method, path, query).
        forbidden: answers 403 where a request's "METHOD path" matches.
        gone: how many continued pages are still answered with 410.
        scripts: what watches get, in order: events, or None to end the stream.
        headers: those of the last request.
        silent: lets requests hang until `release` is set.
    """

    user: ClassVar[Object] = {"username": "alice@example.org", "groups": ["team-a", "system:authenticated"]}

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.headers: list[tuple[str, str]] = []
        self.forbidden: str = "never"
        self.gone = 0
        self.scripts: queue.Queue[Object | None] = queue.Queue()
        self.silent = False
        self.release = threading.Event()
        self.raw: bytes | None = None
        self.status = 0

    def put(self, plural: str, body: Object) -> Object:
        """Store an object as it is."""
        metadata = body["metadata"]
        metadata.setdefault("uid", str(uuid.uuid4()))
        self.objects[plural, metadata.get("namespace", ""), metadata["name"]] = body
        return body

    def asked(self, method: str) -> list[tuple[str, str]]:
        """The requests of a method: paths and their limits."""
        return [(path, query.get("limit", "")) for verb, path, query in self.requests if verb == method]

    def of(self, plural: str) -> list[Object]:
        """All objects of a kind."""
        return [body for (kind, _, _), body in sorted(self.objects.items()) if kind == plural]

    def answer(  # noqa: PLR0911 - an answer for each kind of request
        self, method: str, path: str, query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        """One request's status and answer."""
        self.requests.append((method, path, query))
        if re.search(self.forbidden, f"{method} {path}"):
            return 403, _status(403, f"{path} is forbidden: no rule for alice\x1b[31m")
        if path.endswith("/selfsubjectreviews"):
            return 201, {"status": {"userInfo": self.user}}
        found = _PATH.fullmatch(path)
        if found is None:
            return 404, _status(404, "no such path")
        plural, namespace, name = (unquote(found[key] or "") for key in ("plural", "namespace", "name"))
        if method == "GET" and not name:
            return self._list(plural, namespace, query)
        if method == "POST":
            metadata = body["metadata"]
            metadata.setdefault("name", metadata.get("generateName", "") + "abcde")
            metadata["namespace"] = namespace
            if (plural, namespace, metadata["name"]) in self.objects:
                return 409, _status(409, "already exists")
            return 201, self.put(plural, body)
        key = (plural, namespace, name)
        if key not in self.objects:
            return 404, _status(404, f'{plural} "{name}" not found')
        if method == "PATCH":
            _merge(self.objects[key], body)
        return 200, self.objects[key]

    def _list(self, plural: str, namespace: str, query: dict[str, str]) -> tuple[int, Any]:
        start = int(query.get("continue", "0"))
        if start and self.gone:
            self.gone -= 1
            return 410, _status(410, "the continue token is too old")
        items = [
            body
            for (kind, where, _), body in sorted(self.objects.items())
            if kind == plural and namespace in {"", where} and _is_selected(body, query)
        ]
        end = start + int(query.get("limit", len(items) or 1))
        more = {"continue": str(end)} if end < len(items) else {}
        return 200, {"items": items[start:end], "metadata": {"resourceVersion": "7", **more}}


def _status(code: int, message: str) -> Object:
    return {"kind": "Status", "code": code, "message": message}


def _is_selected(body: Object, query: dict[str, str]) -> bool:
    """Whether it has the name, type and label that are asked for."""
    of, _, wanted = query.get("fieldSelector", "").partition("=")
    label, _, value = query.get("labelSelector", "").partition("=")
    metadata = body["metadata"]
    has_field = wanted in {"", metadata["name"] if of == "metadata.name" else body.get(of)}
    return has_field and value in {"", metadata.get("labels", {}).get(label)}


def _merge(target: Object, change: Object) -> None:
    for key, value in change.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


@contextmanager
def serving(api: FakeApi) -> Iterator[str]:
    """Serve on loopback; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            api.headers = self.headers.items()
            split = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(split.query).items()}
            if api.silent:
                api.release.wait(10)
                return
            if query.get("watch") and not re.search(api.forbidden, f"WATCH {split.path}"):
                self._watch()
                return
            method = "WATCH" if query.get("watch") else self.command
            code, answer = api.answer(method, split.path, query, body)
            content = api.raw if api.raw is not None else json.dumps(answer).encode()
            self.send_response(api.status or code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _watch(self) -> None:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            with suppress(queue.Empty, OSError):
                while (event := api.scripts.get(timeout=0.3)) is not None:
                    self.wfile.write(json.dumps(event).encode() + b"\n")
                    self.wfile.flush()
                    if event["type"] == "ERROR":
                        break
            self.close_connection = True

        do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        api.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
