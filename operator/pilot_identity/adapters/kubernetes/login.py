"""Login: where the API server is and who the operator is there.

In a pod that is the mounted service account; a person may set KUBECONFIG instead. The token is read again
from its file now and then, because kubelet replaces it long before it expires.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT_DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DIRECTORY_VARIABLE = "PILOT_IDENTITY_SERVICE_ACCOUNT_DIR"
"""Names another directory of the same layout, for an operator that runs outside a pod."""


class LoginError(Exception):
    """No usable credentials were found; the message says what was looked at."""


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach the API server. The text form never shows the token or key.

    Attributes:
        server: its base URL.
        ca_file: path of the certificates that it must be signed by.
        token_file: path of a bearer token, empty where a client certificate is used.
        certificate_file: path of a client certificate, with its `key_file`.
    """

    server: str
    ca_file: str
    token_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    def token(self) -> str:
        """Read the token as it is now."""
        return Path(self.token_file).read_text(encoding="utf-8").strip() if self.token_file else ""


def find_login() -> Login:
    """Find out how to reach the API server: KUBECONFIG if set, else the pod's service account.

    Raises:
        LoginError: neither is there.
    """
    kubeconfig = os.environ.get("KUBECONFIG")
    if kubeconfig:
        return _from_kubeconfig(Path(kubeconfig))
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    directory = Path(os.environ.get(DIRECTORY_VARIABLE) or SERVICE_ACCOUNT_DIRECTORY)
    if not host or not port or not (directory / "token").is_file():
        raise LoginError(
            "found no API server: set KUBECONFIG, or run in a pod "
            f"(KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT and {directory}/token)"
        )
    if ":" in host:
        host = f"[{host}]"
    return Login(f"https://{host}:{port}", str(directory / "ca.crt"), token_file=str(directory / "token"))


def _from_kubeconfig(path: Path) -> Login:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"] or {}
        server = cluster["server"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, LookupError) as error:
        raise LoginError(f"{path} is no kubeconfig with a current context: {error!r}") from error
    unusable = user.keys() & {"exec", "auth-provider", "username", "password"}
    if unusable:
        raise LoginError(
            f"{path}: cannot log in by {', '.join(sorted(unusable))}; use a token or a certificate"
        )
    return Login(
        server,
        _file_of(path, cluster, "certificate-authority"),
        token_file=_token_file(path, user),
        certificate_file=_file_of(path, user, "client-certificate"),
        key_file=_file_of(path, user, "client-key"),
    )


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for item in items:
        if item["name"] == name:
            return item
    raise LookupError(f"nothing is named {name!r}")


def _token_file(kubeconfig: Path, user: dict[str, Any]) -> str:
    """Return the path that `tokenFile` names; an inline token goes to a file beside, owner-only."""
    if "tokenFile" in user:
        return str(kubeconfig.parent / user["tokenFile"])
    if "token" not in user:
        return ""
    path = kubeconfig.with_name(f".{kubeconfig.name}.token")
    path.touch(mode=0o600)
    path.write_text(user["token"], encoding="utf-8")
    return str(path)


def _file_of(kubeconfig: Path, section: dict[str, Any], field: str) -> str:
    """Return the path that `field` names; inline data goes to a file beside the kubeconfig, owner-only."""
    if field in section:
        return str(kubeconfig.parent / section[field])
    data = section.get(f"{field}-data")
    if data is None:
        return ""
    path = kubeconfig.with_name(f".{kubeconfig.name}.{field}")
    path.touch(mode=0o600)
    path.write_bytes(base64.b64decode(data))
    return str(path)
