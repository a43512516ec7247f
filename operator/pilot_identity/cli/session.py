"""The session: requests to one API server as the user whom the kubeconfig names.

Login (certificates, tokens, exec plugins, contexts, `KUBECONFIG` with several files) and TLS are the official
client's; bodies are plain JSON, as in the operator. Each request is bounded in time and size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import urllib3
import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, kube_config, load_incluster_config, load_kube_config

from pilot_identity import __version__
from pilot_identity.cli.failures import AnswerError, CliError, SilenceError
from pilot_identity.core.resources.metadata import API_VERSION, GROUP
from pilot_identity.core.resources.parsing import KINDS

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
PAGE = 500
MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""Far more than a page of the largest objects; an answer beyond it is no API server's."""
RELISTS = 3
MERGE_PATCH = "application/merge-patch+json"
_FIELD_NAME = "!#$&'*+-.^_`|~"
"""Beside letters and digits, what a header's name may have (RFC 9110, section 5.6.2), but for `%`."""
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class User:
    """Who the API server says is asking."""

    name: str
    groups: tuple[str, ...]


class Session:
    """Speaks to one API server as one user.

    Attributes:
        namespace: where the user works when no `-n` says otherwise.
    """

    def __init__(
        self, configuration: Configuration, namespace: str, acting_as: Iterable[tuple[str, str]] = ()
    ) -> None:
        # The client would try a silent server three times more, each for the whole timeout.
        configuration.retries = False
        self.namespace = namespace
        self._acting_as = tuple(acting_as)
        self._client = ApiClient(configuration)
        self._user: User | None = None

    @classmethod
    def open(cls, *, kubeconfig: str = "", context: str = "", namespace: str = "") -> Session:
        """Log in as kubectl would; the arguments are its options of the same names.

        Raises:
            CliError: no usable kubeconfig, or no such context.
        """
        configuration = Configuration()
        default = Path("~/.kube/config").expanduser()
        path = kubeconfig or os.environ.get("KUBECONFIG", "")
        if not path and not context and not default.exists() and "KUBERNETES_SERVICE_HOST" in os.environ:
            return _in_pod(configuration, namespace)
        path = path or str(default)
        try:
            load_kube_config(  # type: ignore[no-untyped-call]
                path, context or None, client_configuration=configuration
            )
            merged = kube_config.KubeConfigMerger(path).config.value  # type: ignore[no-untyped-call]
            wanted = context or merged["current-context"]
            chosen = next(
                each.value["context"] for each in merged["contexts"] if each.value["name"] == wanted
            )
            user = next(
                (each.value["user"] for each in merged["users"] if each.value["name"] == chosen["user"]), None
            )
            acting_as = tuple(_impersonation(user or {}))
        except (ConfigException, OSError, yaml.YAMLError, TypeError, AttributeError, KeyError) as error:
            raise _unusable(error, context) from error
        return cls(configuration, namespace or chosen.get("namespace") or "default", acting_as)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._client.configuration.host)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()  # type: ignore[no-untyped-call]

    def user(self) -> User:
        """Who we are, by the API server's own word; asked once."""
        if self._user is None:
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            told = self.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
            info = told["status"]["userInfo"]
            self._user = User(info["username"], tuple(info.get("groups", ())))
        return self._user

    def get(self, path: str) -> Document:
        """Read an object."""
        return self.call("GET", path)

    def find(self, path: str) -> Document | None:
        """Read an object; `None` where there is none."""
        try:
            return self.get(path)
        except AnswerError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    def create(self, path: str, body: Mapping[str, Any]) -> Document:
        """Create an object in the collection at `path`."""
        return self.call("POST", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Document:
        """Merge `body` into an object (RFC 7386)."""
        return self.call("PATCH", path, body, content_type=MERGE_PATCH)

    def pages(self, path: str, *, labels: str = "", size: int = PAGE) -> Iterator[list[Document]]:
        """Yield a collection page by page.

        Raises:
            AnswerError: among others with 410, where the pages took so long that the rest is gone.
        """
        query = {"limit": str(size), **({"labelSelector": labels} if labels else {})}
        while True:
            page = self.call("GET", path, query=query)
            yield page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    def listed(self, path: str) -> Iterator[Document]:
        """Yield a whole collection's items; starts again where it took longer than the server remembers.

        So an item may come twice; whoever counts does so by UID.
        """
        for attempt in range(RELISTS):
            try:
                for page in self.pages(path):
                    yield from page
            except AnswerError as error:
                if error.status != HTTPStatus.GONE or attempt == RELISTS - 1:
                    raise
            else:
                return

    @contextmanager
    def watch(self, path: str, query: Mapping[str, str], *, seconds: float) -> Iterator[Iterator[Document]]:
        """Follow a collection; the events end with the server's stream or after so long a silence."""
        url = f"{path}?{urlencode({**query, 'watch': 'true', 'allowWatchBookmarks': 'true'})}"
        answer = self._send("GET", url, None, "application/json", silence=seconds)
        try:
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise _refusal(answer.status, answer.read(MAX_ANSWER_BYTES), f"GET {path}")
            yield _events(answer)
        finally:
            answer.close()

    def call(  # noqa: PLR0913 - an HTTP request's own parts
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Document:
        """Make one request and return the decoded answer.

        Raises:
            AnswerError: the API server refused.
            SilenceError: it did not answer, or not in JSON.
        """
        url = f"{path}?{urlencode(query)}" if query else path
        answer = self._send(method, url, body, content_type, silence=ANSWER_SECONDS, accept=accept)
        with _translated(f"{method} {path}"):
            try:
                content = answer.read(MAX_ANSWER_BYTES + 1)
            finally:
                answer.release_conn()
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise _refusal(answer.status, content, f"{method} {path}")
        if len(content) > MAX_ANSWER_BYTES:
            raise SilenceError(f"{method} {path}: the answer is larger than {MAX_ANSWER_BYTES} bytes")
        try:
            decoded: Document = msgspec.json.decode(content, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise SilenceError(f"{method} {path}: the answer is no JSON object") from error
        return decoded

    def _send(  # noqa: PLR0913 - an HTTP request's own parts
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None,
        content_type: str,
        *,
        silence: float,
        accept: str = "application/json",
    ) -> urllib3.BaseHTTPResponse:
        headers = urllib3.HTTPHeaderDict(self._acting_as)
        headers["Content-Type"] = content_type
        headers["Accept"] = accept
        headers["User-Agent"] = f"kubectl-pilot/{__version__}"
        with _translated(f"{method} {url.partition('?')[0]}"):
            settings = self._client.configuration.auth_settings()
            for setting in settings.values():
                headers[setting["key"]] = setting["value"]
            answer: urllib3.BaseHTTPResponse = self._client.rest_client.pool_manager.request(
                method,
                f"{self._client.configuration.host}{url}",
                body=msgspec.json.encode(body) if body is not None else None,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=silence),
                preload_content=False,
            )
        return answer


def _impersonation(user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The headers by which a kubeconfig acts as another (`as`, `as-uid`, `as-groups`, `as-user-extra`).

    The official client passes them over. Then the request would be made, and recorded, as somebody else: the
    stronger of the two. See "User impersonation" in Kubernetes' reference on authentication.

    Raises:
        ConfigException: what is there names nobody.
    """
    name, uid = user.get("as") or "", user.get("as-uid") or ""
    groups, extra = user.get("as-groups") or (), user.get("as-user-extra") or {}
    if not name:
        if uid or groups or extra:
            raise ConfigException("its user has as-uid, as-groups or as-user-extra, but no `as`")
        return
    yield "Impersonate-User", str(name)
    if uid:
        yield "Impersonate-Uid", str(uid)
    for group in groups:
        yield "Impersonate-Group", str(group)
    for key, values in extra.items():
        for value in values:
            # As client-go does: what no header name may have is percent-encoded.
            yield f"Impersonate-Extra-{quote(str(key), safe=_FIELD_NAME)}", str(value)


def _in_pod(configuration: Configuration, namespace: str) -> Session:
    """Log in as the service account of the pod that this runs in."""
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return Session(configuration, namespace or POD_NAMESPACE.read_text(encoding="utf-8").strip())
    except (ConfigException, OSError) as error:
        raise CliError("no kubeconfig, and the pod's service account cannot be used") from error


def _unusable(error: Exception, context: str) -> CliError:
    hint = "set KUBECONFIG or --kubeconfig to one that works with kubectl; try `kubectl config get-contexts`"
    # The client's own messages name files, contexts and users, never what the fields hold.
    told = str(error) if isinstance(error, (ConfigException, OSError)) else "it is no kubeconfig"
    return CliError(
        f"the kubeconfig cannot be used{f' with context {context}' if context else ''}: {told}", hint
    )


def _events(answer: urllib3.BaseHTTPResponse) -> Iterator[Document]:
    """Yield the JSON lines of a watch; a stream that breaks or falls silent ends."""
    rest = b""
    try:
        for chunk in answer.stream(65_536, decode_content=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line, type=dict[str, Any])
            if len(rest) > MAX_ANSWER_BYTES:
                return
    except (urllib3.exceptions.HTTPError, msgspec.DecodeError, OSError):
        return


@contextmanager
def _translated(request: str) -> Iterator[None]:
    """Turn the client's errors into ours, here and nowhere else."""
    try:
        yield
    except urllib3.exceptions.SSLError as error:
        raise SilenceError(
            "the API server's certificate is not the one that the kubeconfig vouches for",
            "check certificate-authority and server in the kubeconfig",
        ) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        # What cannot be connected to at all counts as a timeout with this library.
        is_late = isinstance(error, urllib3.exceptions.TimeoutError)
        if is_late and not isinstance(error, urllib3.exceptions.NewConnectionError):
            told, hint = "did not answer in time", "try again; is the cluster overloaded, or the network cut?"
        else:
            told, hint = "cannot be reached", "check server in the kubeconfig, and the network"
        raise SilenceError(f"{request}: the API server {told}", hint) from error
    except (ApiException, ConfigException) as error:
        raise CliError(
            f"{request}: the login of the kubeconfig failed", "log in again as for kubectl"
        ) from error


def _refusal(status: int, content: bytes, request: str) -> AnswerError:
    """The API server's answer as an error; its messages never contain what was sent."""
    try:
        message = str(msgspec.json.decode(content).get("message", ""))
    except (msgspec.DecodeError, AttributeError):
        message = ""
    return AnswerError(message or f"{request}: {status}", _HINTS.get(status, ""), status=status)


_HINTS: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "log in again, as for kubectl: the API server does not know this user",
    HTTPStatus.TOO_MANY_REQUESTS: "the API server is busy; try again in a moment",
}


def collection(kind: str, namespace: str = "") -> str:
    """The path of one of our kinds' collections, in a namespace or in all."""
    where = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"/apis/{API_VERSION}{where}/{KINDS[kind].plural}"


def one(kind: str, namespace: str, name: str) -> str:
    """The path of one object of our kinds; a name cannot lead elsewhere."""
    return f"{collection(kind, namespace)}/{quote(name, safe='')}"


def core(namespace: str, plural: str, name: str = "") -> str:
    """The path of a collection or object of the core group."""
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/{plural}"
    return f"{path}/{quote(name, safe='')}" if name else path


def reference(kind: str, name: str) -> str:
    """As kubectl's `-o name` writes it, for example `taskgrant.pilotidentity.dev/triage-42`."""
    return f"{kind.lower()}.{GROUP}/{name}"
