"""A credential Secret, decoded: what a workload finds in its files."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography import x509

CREDENTIAL_TYPE = "pilotidentity.dev/credential"


@dataclass(frozen=True, slots=True)
class Credential:
    """One credential Secret.

    Attributes:
        id: the credential's, by which the log announces it.
        replaces: the id of the one that it replaced.
        revision: etcd's, of this version of the Secret.
        files: the Secret's data, decoded.
    """

    id: str
    replaces: str
    uid: str
    revision: int
    owner_uid: str
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, secret: Mapping[str, Any]) -> Credential:
        """Decode a Secret."""
        metadata = secret["metadata"]
        annotations = metadata["annotations"]
        return cls(
            id=annotations["pilotidentity.dev/credential"],
            replaces=annotations.get("pilotidentity.dev/replaces", ""),
            uid=metadata["uid"],
            revision=int(metadata["resourceVersion"]),
            owner_uid=metadata["ownerReferences"][0]["uid"],
            files={name: base64.b64decode(text) for name, text in secret["data"].items()},
        )

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf."""
        return x509.load_pem_x509_certificate(self.files["tls.crt"])

    @property
    def serial(self) -> str:
        """The leaf's serial number, as statuses write it."""
        return f"{self.certificate.serial_number:x}"

    def token(self, file: str = "token.jwt") -> str:
        """A token as it is presented."""
        return self.files[file].decode()

    def claims(self, file: str = "token.jwt") -> dict[str, Any]:
        """A token's claims, believed without a look: verifying is `foreign`'s work."""
        claims: dict[str, Any] = jwt.decode(self.token(file), options={"verify_signature": False})
        return claims


def is_credential(secret: Mapping[str, Any]) -> bool:
    """Whether a Secret is of our type."""
    return secret.get("type") == CREDENTIAL_TYPE
