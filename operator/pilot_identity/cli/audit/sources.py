"""Sources: where a stored log is read from. Everything read is bounded, nothing of it is believed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import urllib3

from pilot_identity import __version__
from pilot_identity.cli.audit.witnesses import COSIGNED_CONFIG_MAP, COSIGNED_FILE, VKEYS_FILE, Published
from pilot_identity.cli.failures import AnswerError, CliError, UsageError
from pilot_identity.cli.session import Session, core
from pilot_identity.core.audit.archived import NAME_PREFIX as ARCHIVED_PREFIX
from pilot_identity.core.audit.archived import ArchivedName
from pilot_identity.core.audit.entries import MAX_ENTRY_BYTES
from pilot_identity.core.audit.parts import LogSource
from pilot_identity.core.audit.reader import NDJSON, ConfigMapLog, TiledLog
from pilot_identity.core.audit.shelf import VKEY
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.resources.metadata import GROUP

VERIFIER_CONFIG_MAP = "audit-verifier"
SELECTOR = f"{GROUP}/audit in (group,tile,archived)"
PAGE = 50
"""ConfigMaps in one answer: each may have 1 MiB."""
RELISTS = 3
MAX_FILE_BYTES = WIDTH * (MAX_ENTRY_BYTES + 2)
"""A full bundle of the largest entries; no other file is larger."""
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
AHEAD = 16
"""Files that are asked for at a time, because a web server's answers are slow but independent."""


@dataclass(frozen=True, slots=True)
class Place:
    """A log in its place.

    Attributes:
        name: the place, in one form, so that it can be recognised.
        source: its parts.
        published_key: the vkey as it is published beside the log; empty where none is.
        witnessed: what is published of witnesses; read before the log, so that the log has all of it.
        is_copy: whether it is a directory, such as an export, which may be older than what was seen.
        has_lines: whether `entries.ndjson` is there, which is compared; `None` where it is not looked for.
    """

    name: str
    source: LogSource
    published_key: str
    witnessed: Published = field(default_factory=Published)
    is_copy: bool = False
    has_lines: bool | None = None


class ClusterLog:
    """The ConfigMaps of the operator's namespace.

    Attributes:
        revision: where a watch takes over, once all was listed.
    """

    def __init__(self, session: Session, namespace: str) -> None:
        self.session = session
        self.path = core(namespace, "configmaps")
        self.revision = ""

    def items(self) -> Iterator[Mapping[str, Any]]:
        """Yield all in the order of their names, as they were at one moment.

        Raises:
            AnswerError: with 410, where reading took longer than the server remembers that moment.
        """
        query = {"limit": str(PAGE), "labelSelector": SELECTOR}
        while True:
            page = self.session.call("GET", self.path, query=query)
            yield from page["items"]
            self.revision = page["metadata"]["resourceVersion"]
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    def archived(self) -> Iterator[ArchivedName]:
        """Yield the names of what tells that entries are archived; no watch is moved on by it.

        Raises:
            BrokenLogError: one has the prefix and is none.
        """
        query = {"labelSelector": f"{GROUP}/audit=archived"}
        for item in self.session.call("GET", self.path, query=query)["items"]:
            if str(item["metadata"]["name"]).startswith(ARCHIVED_PREFIX):  # anyone may set a label
                yield ArchivedName.parse(item["metadata"]["name"])

    def find(self, name: str) -> Mapping[str, Any] | None:
        """Read one by its name; `None` where there is none."""
        return self.session.find(f"{self.path}/{name}")


def in_cluster(session: Session, namespace: str, archive: str = "") -> tuple[Place, ClusterLog]:
    """The log in a cluster; `archive` is the directory or URL that has its oldest part, where it is named."""
    log = ClusterLog(session, namespace)
    verifier = session.find(core(namespace, "configmaps", VERIFIER_CONFIG_MAP)) or {}
    published = str((verifier.get("data") or {}).get("vkey", "")).strip()
    cosigned = session.find(core(namespace, "configmaps", COSIGNED_CONFIG_MAP)) or {}
    name = f"{session.server}/namespaces/{namespace}"
    witnessed = Published.in_config_map(cosigned.get("data") or {})
    source = ConfigMapLog(log.items, _files(archive)[1] if archive else None, log.find)
    return Place(name, source, published, witnessed), log


def in_files(place: str) -> Place:
    """A log in the layout of tlog-tiles: in a directory, or where a web server has it."""
    name, log = _files(place)
    published = (log.fetch(VKEY) or b"").decode(errors="replace").strip()
    witnessed = Published.in_files(log.fetch(COSIGNED_FILE), log.fetch(VKEYS_FILE))
    is_directory = "://" not in place
    has_lines = (Path(place) / NDJSON).is_file() if is_directory else None
    return Place(name, log, published, witnessed, is_copy=is_directory, has_lines=has_lines)


def _files(place: str) -> tuple[str, TiledLog]:
    return _at_url(place) if "://" in place else _in_directory(Path(place))


def _in_directory(directory: Path) -> tuple[str, TiledLog]:
    if not directory.is_dir():
        raise UsageError(
            f"{directory}: there is no such directory", "give a directory, or a URL with http(s)://"
        )
    root = directory.resolve()

    def fetch(path: str) -> bytes | None:
        try:
            with (root / path).open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CliError(f"{root / path} cannot be read: {error.strerror}") from error
        return _bounded(content, f"{root / path}")

    def lines() -> BinaryIO | None:
        try:
            return (root / NDJSON).open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CliError(f"{root / NDJSON} cannot be read: {error.strerror}") from error

    return root.as_uri(), TiledLog(fetch, lambda paths: map(fetch, paths), lines=lines)


def _at_url(url: str) -> tuple[str, TiledLog]:
    prefix = url.rstrip("/")
    if urlsplit(prefix).scheme not in {"http", "https"} or not urlsplit(prefix).hostname:
        raise UsageError(f"{url}: a URL begins with http:// or https://")
    pool = urllib3.PoolManager(
        maxsize=AHEAD,
        block=True,
        retries=urllib3.Retry(total=2, redirect=2, status=0, backoff_factor=0.2),
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
        headers={"User-Agent": f"kubectl-pilot/{__version__}", "Accept-Encoding": "gzip"},
    )

    def fetch(path: str) -> bytes | None:
        try:
            answer = pool.request("GET", f"{prefix}/{path}", preload_content=False)
            try:
                content = answer.read(MAX_FILE_BYTES + 1, decode_content=True)
            finally:
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise CliError(
                f"{prefix}/{path} cannot be read: {why(error)}", "check the URL and the network"
            ) from error
        if answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            return None
        if answer.status != HTTPStatus.OK:
            raise CliError(f"{prefix}/{path}: the server answers {answer.status}")
        return _bounded(content, f"{prefix}/{path}")

    def fetch_all(paths: Iterable[str]) -> Iterator[bytes | None]:
        coming = iter(paths)
        with ThreadPoolExecutor(AHEAD) as threads:
            asked: deque[Future[bytes | None]] = deque(
                threads.submit(fetch, path) for path in islice(coming, AHEAD)
            )
            while asked:
                yield asked.popleft().result()
                asked.extend(threads.submit(fetch, path) for path in islice(coming, 1))

    return prefix, TiledLog(fetch, fetch_all)


def why(error: BaseException) -> str:
    """The reason that a request failed, without the connection that a library's message names."""
    reason = error
    while isinstance(reason, urllib3.exceptions.MaxRetryError) and reason.reason is not None:
        reason = reason.reason
    return str(reason).rpartition("): ")[2] or type(reason).__name__


def _bounded(content: bytes, where: str) -> bytes:
    if len(content) > MAX_FILE_BYTES:
        raise CliError(f"{where} has more than {MAX_FILE_BYTES} bytes; no file of a log is that large")
    return content


def whole(read: Callable[[], Any]) -> Any:
    """Read a log, and once more from the beginning where the cluster's memory was too short for it."""
    for attempt in range(RELISTS):
        try:
            return read()
        except AnswerError as error:
            if error.status != HTTPStatus.GONE or attempt == RELISTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")
