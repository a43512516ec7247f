"""Replay: a decision of the log made again, from the log alone and with the code of today.

An entry with a decision has an observation (`grants.observing`); the definitions that it names stand in
earlier entries. Both together are what was decided upon, and `grants.deciding` decides it again. What was
looked at, and what was given, is held to the entries before it (`consistency`). Nothing else is asked, no
cluster and no clock: whoever has the log can do it, years later.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.decisions.consistency import Remade, Told, contradictions_of, mismatches_of
from pilot_identity.core.decisions.given import VERDICT
from pilot_identity.core.decisions.grants.deciding import decide
from pilot_identity.core.decisions.grants.observing import Observation, request_from
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.history import History, Notes
from pilot_identity.core.resources import ResourceError
from pilot_identity.core.resources.digests import digest_json
from pilot_identity.core.resources.task_grant import CheckResult, DecisionStatus

DECIDING = frozenset({EntryType.GRANT_DECIDED, EntryType.GRANT_DENIED, EntryType.GRANT_ISSUED})
"""The entries that have a decision."""
_DEFINITION_IN: Mapping[str, str] = {
    EntryType.STAGE_POLICY_CHANGED: "policy",
    EntryType.PILOT_DEFINED: "definition",
    EntryType.GRANT_REQUESTED: "spec",
}


class Shelf(Notes, Protocol):
    """Keeps definitions by their digests, and notes; as many as a log has, so they need not be in memory."""

    def keep(self, digest: str, definition: bytes) -> None:
        """Keep a definition, JSON; one that is there already stays."""
        ...

    def find(self, digest: str) -> bytes | None:
        """Return a definition that was kept."""
        ...


class Verdict(StrEnum):
    """What came of a replay."""

    AGREES = "agrees"
    """Today's code decides the same."""
    DIFFERS = "differs"
    """It decides otherwise, or what was looked at or given is not what the log says, or what follows."""
    CANNOT = "cannot be replayed"
    """The log does not have all that was decided upon."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One check, as it answered then and as it answers now; `None` where it was not asked."""

    name: str
    then: CheckResult | None
    now: CheckResult | None

    @property
    def is_other(self) -> bool:
        """Whether it was asked both times and answers otherwise."""
        return self.then is not None and self.now is not None and self.then.passed != self.now.passed


@dataclass(frozen=True, slots=True)
class Replayed:
    """A decision of the log beside the one that would be made today.

    Attributes:
        index: of its entry.
        now: `None` where it cannot be made again; `why` says exactly why not then.
        version: of the operator that decided, as far as the log says.
        mismatches: the entry's fields that do not agree with what was looked at, the entries before it, or
            what follows from its decision.
        is_unfounded: whether it issued something and does not say on which checks, or at what they looked.
    """

    index: int
    entry: RecordedEntry
    then: DecisionStatus
    now: DecisionStatus | None
    why: str = ""
    version: str = ""
    mismatches: tuple[str, ...] = ()
    is_unfounded: bool = False

    @property
    def verdict(self) -> Verdict:
        """Whether both are the same decision, on what the log says."""
        if self.mismatches or self.is_other:
            return Verdict.DIFFERS
        return Verdict.CANNOT if self.now is None else Verdict.AGREES

    @property
    def is_other(self) -> bool:
        """Whether it was made again, and is another decision.

        It is the same if it comes to the same outcome, for the same reason, on the word of the same people,
        and no check that both asked answers otherwise. Words may differ, and a check may be new, or gone,
        that has nothing against it: that is another version of the program, and the same decision.
        """
        then, now = self.then, self.now
        if now is None:
            return False
        outcome = (then.allowed, then.reason, then.approvals, then.owners)
        is_same = outcome == (now.allowed, now.reason, now.approvals, now.owners)
        return not is_same or any(compared.is_other for compared in self.checks())

    def checks(self) -> Iterator[Comparison]:
        """The checks of both decisions, in the order of then; what is new comes last."""
        then = {check.name: check for check in self.then.checks}
        now = {check.name: check for check in self.now.checks} if self.now is not None else {}
        for name in dict.fromkeys((*then, *now)):
            yield Comparison(name, then.get(name), now.get(name))


class NotReplayableError(Exception):
    """A decision cannot be made again; the message says exactly why."""


class UnfoundedError(NotReplayableError):
    """Its entry does not say at all upon what it was decided."""


class Replay:
    """Reads a log from its beginning, and makes the decisions in it again."""

    def __init__(self, shelf: Shelf) -> None:
        """Begin before the first entry."""
        self._shelf = shelf
        self._history = History(shelf)

    def learn(self, index: int, entry: RecordedEntry) -> None:
        """Take in what later decisions rest on; every entry is learned, in the log's order."""
        self._history.take(index, entry, self._keep_told(entry))

    def _keep_told(self, entry: RecordedEntry) -> str:
        """Keep the definition that an entry has; returns its digest, empty where the entry has none."""
        if entry.type in {EntryType.APPROVAL_GIVEN, EntryType.APPROVAL_VOID}:
            return self.keep({name: value for name, value in entry.data.items() if name not in VERDICT})
        field = _DEFINITION_IN.get(entry.type)
        told = entry.data.get(field) if field is not None else None
        if told is None:
            return ""
        return f"sha256:{told['sha256']}" if is_digest(told) else self.keep(told)

    def keep(self, definition: Any) -> str:
        """Keep a definition, of the log or brought by whoever asks; returns its digest."""
        digest = digest_json(definition)
        self._shelf.keep(digest, msgspec.json.encode(definition))
        return digest

    def again(self, index: int, entry: RecordedEntry) -> Replayed | None:
        """Make the decision of an entry again; `None` where it has none.

        All entries before it were learned, and no other: not the entry itself.
        """
        if entry.type not in DECIDING:
            return None
        try:
            then = msgspec.convert(entry.data.get("decision"), DecisionStatus)
        except msgspec.ValidationError as error:
            unknown, why = DecisionStatus(allowed=False), f"its decision cannot be read: {error}"
            is_unfounded = entry.type == EntryType.GRANT_ISSUED
            return Replayed(
                index, entry, unknown, None, why, self._history.version, is_unfounded=is_unfounded
            )
        told = Told(entry, then, self._history)
        wrong = tuple(contradictions_of(told))
        try:
            now, mismatches = self._decide(told)
        except NotReplayableError as error:
            is_unfounded = entry.type == EntryType.GRANT_ISSUED and isinstance(error, UnfoundedError)
            return Replayed(index, entry, then, None, str(error), self._history.version, wrong, is_unfounded)
        return Replayed(
            index, entry, then, now, version=self._history.version, mismatches=(*wrong, *mismatches)
        )

    def _decide(self, told: Told) -> tuple[DecisionStatus, tuple[str, ...]]:
        """Decide again, and hold what was looked at and given to what the log says of it."""
        then, observed = told.then, told.entry.data.get("observation")
        if not then.checks:
            raise UnfoundedError(f"not checks decided this, but what was found after them: {then.message}")
        if observed is None:
            raise UnfoundedError("its version did not record what the checks looked at")
        if is_digest(observed):
            raise NotReplayableError(
                f"what the checks looked at was too large for its entry, which has only the digest "
                f"sha256:{observed['sha256']} of {observed['bytes']} bytes"
            )
        if then.decided_at is None:
            raise NotReplayableError("it does not say when it was made")
        observation, request = self._request(observed, then.decided_at)
        try:
            now = decide(request)
            return now.status, tuple(mismatches_of(Remade(told, observation, request, now)))
        except (TypeError, ValueError) as error:
            raise NotReplayableError(f"what the checks looked at cannot have been so: {error}") from error

    def _request(self, told: Any, now: dt.datetime) -> tuple[Observation, Request]:
        try:
            observation = msgspec.convert(told, Observation)
            return observation, request_from(observation, now, self._definition)
        except (msgspec.ValidationError, ResourceError, KeyError) as error:
            raise NotReplayableError(f"what the checks looked at cannot be read: {error}") from error

    def _definition(self, digest: str) -> Any:
        found = self._shelf.find(digest)
        if found is None:
            raise NotReplayableError(f"no entry before it has the definition {digest} in full")
        return msgspec.json.decode(found)


def is_digest(told: Any) -> bool:
    """Whether an entry has evidence by its digest only (`audit.entries.evidence`)."""
    return isinstance(told, dict) and told.keys() == {"sha256", "bytes"}
