"""Waiting: by watching one object, never by asking again and again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

from pilot_identity.cli.failures import AnswerError, CliError, LateError
from pilot_identity.cli.session import Document, Session, collection
from pilot_identity.core.resources.durations import Duration, format_duration

SILENCE_SECONDS = 90.0
"""The API server sends a bookmark about every minute; what is silent longer is dead."""
AGAIN_SECONDS = 1.0
"""Between two watches that ended at once, so that a server in trouble is not stormed."""


@dataclass(frozen=True, slots=True)
class Target:
    """One object that is watched."""

    kind: str
    namespace: str
    name: str


def wait_for(
    session: Session,
    target: Target,
    *,
    is_so: Callable[[Document | None], bool],
    what: Callable[[], str],
    timeout: Duration,
) -> Document | None:
    """Watch one object until it is so; returns it as it was then, `None` where it was gone.

    Args:
        session: speaks to the API server.
        target: the object.
        is_so: gets each version of it, or `None` where there is none; may tell what it saw.
        what: tells what is waited for, when it is too late.
        timeout: how long at most.

    Raises:
        LateError: it was not so in time.
        CliError: the user may not watch.
    """
    try:
        for seen in _versions(session, target, time.monotonic() + timeout.total_seconds()):
            if is_so(seen):
                return seen
    except AnswerError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        hint = "it was asked for all the same; use --no-wait, and look later"
        raise CliError(f"you may not watch it: {error}", hint) from error
    raise LateError(f"not within {format_duration(timeout)}: {what()}", "it goes on; look again later")


def _versions(session: Session, target: Target, deadline: float) -> Iterator[Document | None]:
    """Yield the object as it is and each later version, until the deadline; `None` where it is not there."""
    path = collection(target.kind, target.namespace)
    selector = {"fieldSelector": f"metadata.name={target.name}"}
    while True:
        started = time.monotonic()
        listed = session.call("GET", path, query=selector)
        yield next(iter(listed["items"]), None)
        left = deadline - time.monotonic()
        if left <= 0:
            return
        since = {
            "resourceVersion": listed["metadata"]["resourceVersion"],
            "timeoutSeconds": str(math.ceil(left)),
        }
        with session.watch(path, selector | since, seconds=min(left, SILENCE_SECONDS)) as events:
            for event in events:
                if event["type"] in {"ADDED", "MODIFIED", "DELETED"}:
                    yield None if event["type"] == "DELETED" else event["object"]
                # An ERROR, such as 410 for a version that was compacted, is the stream's last event.
                if event["type"] == "ERROR" or time.monotonic() >= deadline:
                    break
        if time.monotonic() - started < AGAIN_SECONDS:
            time.sleep(max(min(AGAIN_SECONDS, deadline - time.monotonic()), 0))
