"""Asks a component on loopback whether it is ready."""

from __future__ import annotations

import ssl
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

PATIENCE = 2.0  # seconds for one answer; loopback answers in milliseconds, a starting server perhaps never


class Probe:
    """GETs as one client, from servers of one CA.

    Args:
        authority: The CA's certificate.
        certificate: The client's certificate.
        key: The client's key.
    """

    def __init__(self, authority: Path, certificate: Path, key: Path) -> None:
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._tls.load_cert_chain(certificate, key)

    def is_ok(self, port: int, path: str, telling: bytes = b"") -> bool:
        """Whether the server on this port of loopback answers 200 and tells this; an absent one does not."""
        connection = HTTPSConnection("127.0.0.1", port, context=self._tls, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status == HTTPStatus.OK and telling in answer.read()
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
