"""Sightings: what a watch saw of one collection, noted down with etcd's own order and the wall clock."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from e2e.admin import Admin, AnswerError, Document, Stream
from e2e.patience import WITHIN_S, TooLateError

AGAIN_S = 0.2
"""Before the API server is asked again, while it is away."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One change as the watch told it.

    Attributes:
        at: when it was told, in seconds of the wall clock.
        change: ADDED, MODIFIED or DELETED.
        revision: etcd's; of two changes the smaller came first, whatever kinds they are of.
        is_exact: whether that is the revision of the change; else it was found later, by listing again.
    """

    at: float
    change: str
    revision: int
    object: Document
    is_exact: bool = True

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.object["metadata"]["name"])


class Sightings:
    """Watches a collection in a thread, through losses of the API server.

    After a loss it lists again: what was changed meanwhile is told as one change, what is gone as deleted.
    """

    def __init__(self, admin: Admin, path: str) -> None:
        self._admin = admin
        self._path = path
        self._seen: list[Sighting] = []
        self._present: dict[str, Document] = {}
        self._changed = threading.Condition()
        self._listed = threading.Event()
        self._stop = threading.Event()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._follow, name=f"watch {path}", daemon=True)

    def __enter__(self) -> Self:
        """Return once everything that exists was told."""
        self._thread.start()
        if not self._listed.wait(WITHIN_S):
            raise TooLateError(f"{self._path} cannot be listed")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._stop.set()
        if self._stream is not None:
            self._stream.end()
        self._thread.join(WITHIN_S)

    def all(self) -> tuple[Sighting, ...]:
        """Everything so far, in order."""
        with self._changed:
            return tuple(self._seen)

    def of(self, name: str) -> tuple[Sighting, ...]:
        """What was seen of one object."""
        return tuple(seen for seen in self.all() if seen.name == name)

    def present(self) -> dict[str, Document]:
        """The objects that are there now, by name, as last told."""
        with self._changed:
            return dict(self._present)

    def wait_for(
        self, is_it: Callable[[Sighting], bool], what: str, *, seconds: float = WITHIN_S
    ) -> Sighting:
        """Wait until something was seen; returns the first such sighting.

        Raises:
            TooLateError: it was not seen in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: any(map(is_it, self._seen)), seconds):
                raise TooLateError(f"not seen within {seconds:.0f} s: {what}")
            return next(filter(is_it, self._seen))

    def wait_until(self, is_so: Callable[[dict[str, Document]], bool], what: str, *, seconds: float) -> None:
        """Wait until it is so of the objects that are there.

        Raises:
            TooLateError: it was not so in time; names some objects that are there.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: is_so(self._present), seconds):
                raise TooLateError(f"not within {seconds:.0f} s: {what}; there: {sorted(self._present)[:10]}")

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch(self._list())
            except (OSError, http.client.HTTPException, ValueError, AnswerError):
                # The API server is away, or forgot the revision: list again.
                self._stop.wait(AGAIN_S)

    def _list(self) -> str:
        listed = self._admin.get(self._path)
        revision = str(listed["metadata"]["resourceVersion"])
        found = {str(item["metadata"]["name"]): item for item in listed["items"]}
        for name, known in self.present().items():
            if name not in found or found[name]["metadata"]["uid"] != known["metadata"]["uid"]:
                self._note("DELETED", known, int(revision))
        for name, item in found.items():
            known_version = self._present.get(name, {}).get("metadata", {}).get("resourceVersion")
            if item["metadata"]["resourceVersion"] != known_version:
                self._note("MODIFIED" if known_version else "ADDED", item)
        self._listed.set()
        return revision

    def _watch(self, revision: str) -> None:
        self._stream = self._admin.watch(self._path, revision)
        try:
            for event in self._stream:
                if self._stop.is_set() or event["type"] == "ERROR":
                    return
                if event["type"] != "BOOKMARK":
                    self._note(event["type"], event["object"])
        finally:
            self._stream.close()

    def _note(self, change: str, document: Document, revision: int = 0) -> None:
        told = revision or int(document["metadata"]["resourceVersion"])
        with self._changed:
            self._seen.append(Sighting(time.time(), change, told, document, is_exact=not revision))
            if change == "DELETED":
                self._present.pop(str(document["metadata"]["name"]), None)
            else:
                self._present[str(document["metadata"]["name"])] = document
            self._changed.notify_all()
