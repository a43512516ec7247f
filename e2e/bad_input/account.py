"""One account's way to the API server: bare HTTPS with its bearer token, so that a test sees each answer."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from e2e.controlplane.cluster import Cluster

TIMEOUT_S = 10


@dataclass(frozen=True)
class Answer:
    """What the API server said: the HTTP status, and the object or Status."""

    code: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        """The message of a Status; empty where an object came back."""
        return str(self.body.get("message", "")) if self.body.get("kind") == "Status" else ""


@dataclass(frozen=True)
class Account:
    """Speaks as the holder of `token` to the cluster of a kubeconfig."""

    host: str
    trust: ssl.SSLContext
    token: str

    def ask(self, verb: str, path: str, body: Any = None, content_type: str = "application/json") -> Answer:
        """Send one request; the body goes out as JSON."""
        connection = http.client.HTTPSConnection(self.host, context=self.trust, timeout=TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        try:
            connection.request(verb, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return Answer(answer.status, json.loads(answer.read()))
        finally:
            connection.close()


def account(cluster: Cluster, token: str) -> Account:
    """Speak to `cluster` as the holder of `token`."""
    trust = ssl.create_default_context(cafile=cluster.ca)
    return Account(urlsplit(cluster.server).netloc, trust, token)
