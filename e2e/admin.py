"""The admin: bare HTTPS to the API server by a kubeconfig, so that a test sees each answer."""

from __future__ import annotations

import base64
import http
import http.client
import json
import select
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from e2e.controlplane.cluster import Cluster

TIMEOUT_S = 10.0
MOST_RETRIES = 10
"""As in client-go: the API server answers 429 while it prepares the storage of a changed kind."""
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

Document = dict[str, Any]


class AnswerError(Exception):
    """The API server refused; the message is its own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said: the HTTP status, and the object or Status."""

    code: int
    body: Document

    @property
    def is_good(self) -> bool:
        """Whether it did what was asked."""
        return self.code < 300

    @property
    def message(self) -> str:
        """The message of a Status; empty where an object came back."""
        return str(self.body.get("message", "")) if self.body.get("kind") == "Status" else ""


class Stream:
    """The events of a watch, until it ends or is closed."""

    def __init__(self, connection: http.client.HTTPSConnection, answer: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._answer = answer
        # A collection in which nothing happens is silent.
        connection.sock.settimeout(None)

    def __iter__(self) -> Iterator[Document]:
        """Yield each event; raises `OSError` or `http.client.HTTPException` where the stream broke."""
        for line in self._answer:
            yield json.loads(line)

    def end(self) -> None:
        """Let whoever reads in another thread come to the end."""
        with suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; for whoever reads."""
        self._answer.close()
        self._connection.close()


class Admin:
    """Speaks to one cluster as its admin. Threads may share it: each has a connection of its own."""

    def __init__(self, cluster: Cluster) -> None:
        flat = cluster.kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json")
        config = json.loads(flat)
        section, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._host = urlsplit(section["server"]).netloc
        self._trust = ssl.create_default_context(cadata=_decoded(section["certificate-authority-data"]))
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        if "client-certificate-data" in user:
            _show_certificate(self._trust, user)
        self._own = threading.local()
        self._connections: list[http.client.HTTPSConnection] = []
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        told = self.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        self.name: str = told["status"]["userInfo"]["username"]

    def close(self) -> None:
        """Close every thread's connection; one that is used again opens again."""
        for connection in self._connections:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Answer:
        """Send one request; the body goes out as JSON. What is answered "too early" is asked again.

        Raises:
            OSError, http.client.HTTPException: the API server did not answer.
        """
        for _ in range(MOST_RETRIES):
            answer, wait_s = self._ask_once(method, path, body, content_type)
            if answer.code != http.HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(wait_s)  # that long the API server wants to be left alone
        return answer

    def _ask_once(self, method: str, path: str, body: Any, content_type: str) -> tuple[Answer, float]:
        """Send one request; returns also the seconds to wait before it is sent again (RFC 9110, 10.2.3)."""
        connection = self._connection()
        if _was_hung_up(connection):
            connection.close()
        headers = {**self._headers, "Content-Type": content_type}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            wait_s = float(response.headers.get("Retry-After") or 1)
            return Answer(response.status, json.loads(response.read())), wait_s
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            raise

    def get(self, path: str) -> Document:
        """Read an object or a collection."""
        return self._demand("GET", path)

    def find(self, path: str) -> Document | None:
        """Read an object; `None` where there is none."""
        answer = self.ask("GET", path)
        if answer.code == http.HTTPStatus.NOT_FOUND:
            return None
        return _good(answer, "GET", path)

    def create(self, path: str, body: Mapping[str, Any]) -> Document:
        """Create an object in the collection at `path`."""
        return self._demand("POST", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Document:
        """Merge `body` into an object (RFC 7386)."""
        return self._demand("PATCH", path, body, MERGE_PATCH)

    def apply(self, path: str, body: Mapping[str, Any]) -> Document:
        """Create an object, or make it what `body` says, which names its kind (server-side apply)."""
        return self._demand("PATCH", f"{path}?fieldManager=e2e&force=true", body, APPLY_PATCH)

    def delete(self, path: str) -> None:
        """Delete an object; one that is gone is gone."""
        answer = self.ask("DELETE", path)
        if answer.code != http.HTTPStatus.NOT_FOUND:
            _good(answer, "DELETE", path)

    def watch(self, path: str, revision: str) -> Stream:
        """Follow a collection from a revision on.

        Raises:
            OSError, http.client.HTTPException: the API server did not answer.
        """
        connection = http.client.HTTPSConnection(self._host, context=self._trust, timeout=TIMEOUT_S)
        query = f"watch=true&resourceVersion={revision}&allowWatchBookmarks=true&timeoutSeconds=3000"
        try:
            connection.request("GET", f"{path}{'&' if '?' in path else '?'}{query}", headers=self._headers)
            return Stream(connection, connection.getresponse())
        except (OSError, http.client.HTTPException):
            connection.close()
            raise

    def _demand(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Document:
        return _good(self.ask(method, path, body, content_type), method, path)

    def _connection(self) -> http.client.HTTPSConnection:
        if not hasattr(self._own, "connection"):
            self._own.connection = http.client.HTTPSConnection(
                self._host, context=self._trust, timeout=TIMEOUT_S
            )
            self._connections.append(self._own.connection)
        connection: http.client.HTTPSConnection = self._own.connection
        return connection


def _was_hung_up(connection: http.client.HTTPSConnection) -> bool:
    """Whether the API server closed the connection while it was idle, as it does after 90 s.

    Nothing is owed on an idle connection, so one that has something to read has come to its end.
    """
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _good(answer: Answer, method: str, path: str) -> Document:
    if not answer.is_good:
        raise AnswerError(f"{method} {path}: {answer.code}: {answer.message}")
    return answer.body


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()


def _show_certificate(trust: ssl.SSLContext, user: Mapping[str, str]) -> None:
    """Let `trust` show the user's client certificate; the ssl module reads it from files only."""
    with tempfile.TemporaryDirectory() as directory:
        certificate, key = (Path(directory) / name for name in ("client-certificate", "client-key"))
        for path in (certificate, key):
            path.write_text(_decoded(user[f"{path.name}-data"]))
        trust.load_cert_chain(certificate, key)
