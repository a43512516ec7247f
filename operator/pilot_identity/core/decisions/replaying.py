"""Replay: a decision of the log made again, from the log alone and with the code of today.

An entry with a decision has an observation (`grants.observing`); the definitions that it names stand in
earlier entries. Both together are what was decided upon, and `grants.deciding` decides it again. Nothing else
is asked, no cluster and no clock: whoever has the log can do it, years later.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.decisions.given import VERDICT
from pilot_identity.core.decisions.grants.deciding import decide
from pilot_identity.core.decisions.grants.observing import Observation, misnamed, request_from
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.resources import ResourceError
from pilot_identity.core.resources.digests import digest_json, grant_digest
from pilot_identity.core.resources.task_grant import CheckResult, DecisionStatus

DECIDING = frozenset({EntryType.GRANT_DECIDED, EntryType.GRANT_DENIED, EntryType.GRANT_ISSUED})
"""The entries that have a decision."""
_DEFINITION_IN: Mapping[str, str] = {
    EntryType.STAGE_POLICY_CHANGED: "policy",
    EntryType.PILOT_DEFINED: "definition",
    EntryType.GRANT_REQUESTED: "spec",
}


class Shelf(Protocol):
    """Keeps definitions by their digests; there are as many as a log has, so it need not be in memory."""

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
    """It decides otherwise, or what was looked at is not what the entry vouches for."""
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
        mismatches: the entry's fields that are not those of what was looked at.
    """

    index: int
    entry: RecordedEntry
    then: DecisionStatus
    now: DecisionStatus | None
    why: str = ""
    version: str = ""
    mismatches: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Whether both are the same decision, on what the entry is about.

        They are if they come to the same outcome, for the same reason, on the word of the same people, and no
        check that both asked answers otherwise. Words may differ, and a check may be new, or gone, that has
        nothing against it: that is another version of the program, and the same decision.
        """
        then, now = self.then, self.now
        if now is None:
            return Verdict.CANNOT
        outcome = (then.allowed, then.reason, then.approvals, then.owners)
        is_same = outcome == (now.allowed, now.reason, now.approvals, now.owners)
        is_other = any(compared.is_other for compared in self.checks())
        return Verdict.AGREES if is_same and not is_other and not self.mismatches else Verdict.DIFFERS

    def checks(self) -> Iterator[Comparison]:
        """The checks of both decisions, in the order of then; what is new comes last."""
        then = {check.name: check for check in self.then.checks}
        now = {check.name: check for check in self.now.checks} if self.now is not None else {}
        for name in dict.fromkeys((*then, *now)):
            yield Comparison(name, then.get(name), now.get(name))


class NotReplayableError(Exception):
    """A decision cannot be made again; the message says exactly why."""


class Replay:
    """Reads a log from its beginning, and makes the decisions in it again."""

    def __init__(self, shelf: Shelf) -> None:
        """Begin before the first entry."""
        self._shelf = shelf
        self._version = ""

    def learn(self, entry: RecordedEntry) -> None:
        """Take in what later decisions rest on; every entry is learned, in the log's order."""
        if entry.type == EntryType.OPERATOR_STARTED:
            self._version = str(entry.data.get("version", ""))
        if entry.type in {EntryType.APPROVAL_GIVEN, EntryType.APPROVAL_VOID}:
            self.keep({name: value for name, value in entry.data.items() if name not in VERDICT})
        field = _DEFINITION_IN.get(entry.type)
        told = entry.data.get(field) if field is not None else None
        if told is not None and not is_digest(told):
            self.keep(told)

    def keep(self, definition: Any) -> str:
        """Keep a definition, of the log or brought by whoever asks; returns its digest."""
        digest = digest_json(definition)
        self._shelf.keep(digest, msgspec.json.encode(definition))
        return digest

    def again(self, index: int, entry: RecordedEntry) -> Replayed | None:
        """Make the decision of an entry again; `None` where it has none.

        All entries before it were learned, and no other.
        """
        if entry.type not in DECIDING:
            return None
        try:
            then = msgspec.convert(entry.data.get("decision"), DecisionStatus)
        except msgspec.ValidationError as error:
            unknown, why = DecisionStatus(allowed=False), f"its decision cannot be read: {error}"
            return Replayed(index, entry, unknown, None, why, self._version)
        try:
            now, mismatches = self._decide(entry, then)
        except NotReplayableError as error:
            return Replayed(index, entry, then, None, str(error), self._version)
        return Replayed(index, entry, then, now, version=self._version, mismatches=mismatches)

    def _decide(self, entry: RecordedEntry, then: DecisionStatus) -> tuple[DecisionStatus, tuple[str, ...]]:
        """Decide again, and hold what was looked at to what the entry says of it."""
        if not then.checks:
            raise NotReplayableError(
                f"not checks decided this, but what was found after them: {then.message}"
            )
        told = entry.data.get("observation")
        if told is None:
            raise NotReplayableError("its version did not record what the checks looked at")
        if is_digest(told):
            raise NotReplayableError(
                f"what the checks looked at was too large for its entry, which has only the digest "
                f"sha256:{told['sha256']} of {told['bytes']} bytes"
            )
        if then.decided_at is None:
            raise NotReplayableError("it does not say when it was made")
        observation, request = self._request(told, then.decided_at)
        now = decide(request).status
        return now, (*misnamed(observation), *_mismatches(entry, request, then, now))

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


def _mismatches(
    entry: RecordedEntry, request: Request, then: DecisionStatus, now: DecisionStatus
) -> Iterator[str]:
    """The fields by which an entry says what it is about, where something else was looked at."""
    grant = request.grant
    fields = (
        ("subject", entry.subject, str(grant.key)),
        ("subjectuid", entry.subject_uid, grant.metadata.uid),
        ("grantDigest", entry.data.get("grantDigest"), grant_digest(grant)),
        ("decision.policyDigest", then.policy_digest, now.policy_digest),
        ("decision.pilotDigest", then.pilot_digest, now.pilot_digest),
    )
    for field, said, looked_at in fields:
        if said != looked_at:
            yield f"{field}: the entry says {said}, looked at was {looked_at}"


def is_digest(told: Any) -> bool:
    """Whether an entry has evidence by its digest only (`audit.entries.evidence`)."""
    return isinstance(told, dict) and told.keys() == {"sha256", "bytes"}
