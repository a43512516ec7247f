"""Following: the log as it grows, each new group verified before it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from pilot_identity.cli.audit.reading import OpenLog, tell_findings
from pilot_identity.cli.audit.sources import SELECTOR, ClusterLog, whole
from pilot_identity.cli.failures import AnswerError, CliError
from pilot_identity.cli.waiting import AGAIN_SECONDS, SILENCE_SECONDS
from pilot_identity.core.audit.compacted import NAME_PREFIX as TILE_PREFIX
from pilot_identity.core.audit.compacted import TileName
from pilot_identity.core.audit.groups import NAME_PREFIX, BrokenLogError, Group
from pilot_identity.core.audit.parts import Part
from pilot_identity.core.audit.reader import group_part
from pilot_identity.core.audit.tiles import WIDTH


def follow(log: OpenLog, cluster: ClusterLog, show: Callable[[int, bytes], None]) -> None:
    """Watch the cluster's log and show every entry that comes, until it is broken or the user leaves.

    A watch that ends is taken up where it was. Where the server has forgotten that moment, all is listed and
    verified again, held to the head so far: what was deleted meanwhile is missing then.

    Raises:
        CliError: the log is broken.
    """
    while True:
        started = time.monotonic()
        try:
            _watch(log, cluster, show)
        except AnswerError as error:
            if error.status != HTTPStatus.GONE:
                raise
            _read_on(log, show)
        if time.monotonic() - started < AGAIN_SECONDS:
            time.sleep(AGAIN_SECONDS)


def _watch(log: OpenLog, cluster: ClusterLog, show: Callable[[int, bytes], None]) -> None:
    query = {"labelSelector": SELECTOR, "resourceVersion": cluster.revision}
    with cluster.session.watch(cluster.path, query, seconds=SILENCE_SECONDS) as events:
        for event in events:
            item = event["object"]
            if event["type"] == "ERROR":
                raise AnswerError(
                    str(item.get("message", "the watch ended")), status=int(item.get("code", 0))
                )
            cluster.revision = item["metadata"]["resourceVersion"]
            if event["type"] == "ADDED" and _is_group(item):
                _absorb(log, group_part(item), show)
            elif event["type"] == "MODIFIED" and _is_group(item):
                # A group never changes; whoever turned its data into other data is found by reading it again.
                _absorb(log, group_part(item), show)
            elif event["type"] == "DELETED" and _is_group(item):
                _require_compacted(cluster, item)
            elif event["type"] == "DELETED" and _name(item).startswith(TILE_PREFIX):
                _require_archived(cluster, item)
            elif event["type"] == "MODIFIED":
                # Neither does a bundle, nor the record of what is archived.
                _read_on(log, show)


def _read_on(log: OpenLog, show: Callable[[int, bytes], None]) -> None:
    known = log.verification.report().entries
    whole(lambda: log.read_on(known, show))


def _name(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])


def _is_group(item: Mapping[str, Any]) -> bool:
    """Whether it brings entries; what is compacted brought them as groups before."""
    return _name(item).startswith(NAME_PREFIX)


def _require_compacted(cluster: ClusterLog, item: Mapping[str, Any]) -> None:
    """A group goes only when the bundles that have all of its entries are there."""
    try:
        group = Group.from_data(item["metadata"]["name"], item.get("data") or {})
    except BrokenLogError as error:
        raise CliError(f"what was deleted is no group: {error}") from error
    for first in range(group.extends // WIDTH * WIDTH, group.size, WIDTH):
        if cluster.session.find(f"{cluster.path}/{TileName(first)}") is None:
            raise CliError(f"{group.name} was deleted, and its entries are nowhere else: the log is broken")


def _require_archived(cluster: ClusterLog, item: Mapping[str, Any]) -> None:
    """A bundle goes only after a record says that it is archived."""
    try:
        first = TileName.parse(_name(item)).first
        named = list(cluster.archived())
    except BrokenLogError as error:
        raise CliError(f"the log is broken: {error}") from error
    if not any(name.size > first and not name.part for name in named):
        raise CliError(f"{_name(item)} was deleted, and is not archived: the log is broken")


def _absorb(log: OpenLog, part: Part, show: Callable[[int, bytes], None]) -> None:
    new = log.verification.absorb(part)
    report = log.verification.report()
    if not report.is_sound:
        tell_findings(report)
        raise CliError("the log does not verify any more", "see `kubectl pilot audit verify`")
    for index, entry in new:
        show(index, entry)
    log.remember(report)
