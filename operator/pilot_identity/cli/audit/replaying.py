"""Replaying: the decisions of a log made again with this program's code, and both shown side by side."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from pilot_identity import __version__
from pilot_identity.cli.audit.printing import short_type
from pilot_identity.cli.audit.reading import OpenLog, decoded
from pilot_identity.cli.failures import ExitCode, UsageError
from pilot_identity.cli.files import read_bounded
from pilot_identity.cli.output import say, show_table, tell
from pilot_identity.cli.text import clock, plain
from pilot_identity.core.audit.entries import RecordedEntry
from pilot_identity.core.decisions.definitions import asked
from pilot_identity.core.decisions.replaying import Replay, Replayed, Verdict
from pilot_identity.core.resources import KINDS, ResourceError, TaskGrant, parse
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import CheckResult, DecisionStatus

MAX_EVIDENCE_FILE_BYTES = 2 * 1024 * 1024
"""More than an object of the API may have."""
MOST_SHOWN = 100
"""Decisions that are shown; what goes beyond is counted."""
PROGRESS_EVERY = 10_000
"""Entries between two lines that say how far it is."""


class TemporaryShelf:
    """Definitions in a private file that goes with the process, so that no log is too long for memory."""

    def __init__(self) -> None:
        """Make the file; SQLite keeps it where temporary files are, without a name."""
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("CREATE TABLE kept (digest TEXT PRIMARY KEY, definition BLOB) WITHOUT ROWID")
        self._file.execute("CREATE TABLE notes (name TEXT PRIMARY KEY, note BLOB) WITHOUT ROWID")
        self._brought: dict[str, Path] = {}

    def keep(self, digest: str, definition: bytes) -> None:
        """Keep a definition; one that is there already stays."""
        self._file.execute("INSERT OR IGNORE INTO kept VALUES (?, ?)", (digest, definition))

    def find(self, digest: str) -> bytes | None:
        """Return a definition that was kept."""
        self._brought.pop(digest, None)
        found = self._file.execute("SELECT definition FROM kept WHERE digest = ?", (digest,)).fetchone()
        return found[0] if found is not None else None

    def note(self, name: str, note: bytes) -> None:
        """Note something, in the place of what was noted under that name."""
        self._file.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, note))

    def noted(self, name: str) -> bytes | None:
        """Return what was noted last."""
        found = self._file.execute("SELECT note FROM notes WHERE name = ?", (name,)).fetchone()
        return found[0] if found is not None else None

    def bring(self, digest: str, file: Path) -> None:
        """Note that a definition came from a file, not from the log."""
        self._brought[digest] = file

    def unused(self) -> Mapping[str, Path]:
        """What was brought and never asked for."""
        return self._brought

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decisions are to be made again: one entry's, a grant's, or all."""

    index: int | None = None
    namespace: str = ""
    name: str = ""

    @classmethod
    def parse(cls, what: str, *, every: bool) -> Wanted:
        """Read INDEX, or [NAMESPACE/]GRANT, or that it is all.

        Raises:
            UsageError: neither or both are given.
        """
        if what and every:
            raise UsageError(f"--all is every decision, {what} is one: give one of the two")
        if not what and not every:
            raise UsageError("give an entry's INDEX or a GRANT's name, or --all")
        if what.isdecimal():
            return cls(index=int(what))
        namespace, _, name = what.rpartition("/")
        return cls(namespace=namespace, name=name)

    @property
    def is_all(self) -> bool:
        """Whether no decision is left out."""
        return self.index is None and not self.name

    def takes(self, index: int, entry: RecordedEntry) -> bool:
        """Whether the decision of an entry is wanted."""
        if self.is_all or self.index is not None:
            return self.index in {None, index}
        kind, namespace, name = Key.parse(entry.subject)
        return (kind, name) == ("TaskGrant", self.name) and self.namespace in {"", namespace}


@dataclass(slots=True)
class Replays:
    """What came of it.

    Attributes:
        shown: every decision that was wanted, or of all of them those that do not agree; the first ones.
        counts: how often each verdict was given.
        unfounded: how many issued something and do not say upon what it was decided.
        end: how many entries the log has.
        instead: what the entry that was wanted is, where it is no decision.
    """

    shown: list[Replayed] = field(default_factory=list)
    counts: Counter[Verdict] = field(default_factory=Counter)
    unfounded: int = 0
    end: int = 0
    instead: str = ""

    def take(self, again: Replayed, *, is_shown: bool) -> None:
        """Count a decision, and keep it if it is to be shown and there is room."""
        self.counts[again.verdict] += 1
        self.unfounded += again.is_unfounded
        if is_shown and len(self.shown) < MOST_SHOWN:
            self.shown.append(again)

    @property
    def total(self) -> int:
        """How many decisions were looked at."""
        return self.counts.total()

    def exit_code(self, *, is_all: bool) -> ExitCode:
        """What the process ends with; who asks for one decision wants an answer on that one."""
        could_not = self.counts[Verdict.CANNOT]
        if self.counts[Verdict.DIFFERS] or self.unfounded or (could_not and not is_all):
            return ExitCode.REFUSED
        return ExitCode.PARTLY if could_not else ExitCode.DONE


def replay_log(log: OpenLog, wanted: Wanted, evidence: Sequence[Path]) -> Replays:
    """Make the wanted decisions again, in one reading of the log.

    Raises:
        CliError: the log does not verify, or all of it is wanted and its oldest part is archived and was not
            named; nothing of it is replayed then.
    """
    shelf, replays = TemporaryShelf(), Replays()
    try:
        replay = Replay(shelf)
        for file in evidence:
            for definition in _definitions(file):
                shelf.bring(replay.keep(definition), file)

        def observe(index: int, encoded: bytes) -> None:
            replays.end = index + 1
            if wanted.is_all and replays.end % PROGRESS_EVERY == 0:
                tell(f"{replays.end} entries read, {replays.total} decisions made again")
            entry = decoded(index, encoded)
            if entry is None:
                return
            again = replay.again(index, entry) if wanted.takes(index, entry) else None
            if again is None and index == wanted.index:
                replays.instead = f"entry {index} is {short_type(entry)} of {entry.subject}"
            replay.learn(index, entry)
            if again is not None:
                is_shown = not wanted.is_all or again.verdict is not Verdict.AGREES
                replays.take(again, is_shown=is_shown)

        # One decision says by itself whether it can be made again; of all of them none may be left out.
        read = log.read_whole if wanted.is_all else log.read_sound
        read(observe)
        for digest, file in shelf.unused().items():
            tell(f"warning: no decision asked for {digest}, which is of {file}")
    finally:
        shelf.close()
    return replays


def _definitions(file: Path) -> Iterable[Any]:
    """The definition that a file has: a spec as it stands in entries, or an object as kubectl prints it."""
    text = read_bounded(file, MAX_EVIDENCE_FILE_BYTES, "--evidence")
    try:
        told = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--evidence {file}: it is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise UsageError(f"--evidence {file}: a definition is a JSON object")
    if told.get("kind") not in KINDS:
        return (told,)
    try:
        found = parse(told)
    except ResourceError as error:
        raise UsageError(f"--evidence {file}: {error}") from error
    return (encode(asked(found)) if isinstance(found, TaskGrant) else encode(found.spec),)


def print_replays(replays: Replays, *, is_all: bool) -> None:
    """Print what came of it for people."""
    for number, again in enumerate(replays.shown):
        if number:
            typer.echo()
        _print_one(again)
    unshown = replays.total - len(replays.shown) - (replays.counts[Verdict.AGREES] if is_all else 0)
    if replays.shown and (unshown or is_all):
        typer.echo()
    if unshown:
        say(f"… and {unshown} more")
    if is_all:
        counts = replays.counts
        say(
            f"{replays.total} decisions in {replays.end} entries: {counts[Verdict.AGREES]} agree, "
            f"{counts[Verdict.DIFFERS]} differ, {counts[Verdict.CANNOT]} cannot be replayed"
        )
        if replays.unfounded:
            say(f"{replays.unfounded} issued something and do not say upon what it was decided")


def _print_one(again: Replayed) -> None:
    entry = again.entry
    what = ".".join(entry.type.split(".")[2:-1])
    say(f"entry {again.index}, {clock(entry.time)}: {what} of {entry.subject}")
    if again.now is not None:
        _print_both(again, again.now)
    for mismatch in again.mismatches:
        say(f"mismatch: {plain(mismatch)}")
    if again.now is None:
        say(f"cannot be replayed: {plain(again.why)}")
        if again.is_unfounded:
            say("UNFOUNDED: it was issued, and its entry does not say upon what")
    if again.verdict is Verdict.AGREES:
        say("agrees: the same is decided today")
    elif again.is_other:
        say("DIFFERS: something else is decided today")
    elif again.mismatches:
        say("DIFFERS: it does not agree with what the log says besides, or with what follows from it")


def _print_both(again: Replayed, now: DecisionStatus) -> None:
    rows = [(one.name, _answer(one.then), _answer(one.now)) for one in again.checks()]
    rows.append(("on the word of", _approvers(again.then), _approvers(now)))
    rows.append(("outcome", _outcome(again.then), _outcome(now)))
    show_table(("CHECK", f"THEN{_by(again.version)}", f"NOW{_by(__version__)}"), rows)
    for when, decision in (("then", again.then), ("now", now)):
        if decision.message:
            say(f"{when}: {decision.message}")


def _by(version: str) -> str:
    return f" ({version})" if version else ""


def _answer(check: CheckResult | None) -> str:
    if check is None:
        return "not asked"
    return "passed" if check.passed else "failed"


def _approvers(decision: DecisionStatus) -> str:
    return ", ".join(word.approver for word in decision.approvals)


def _outcome(decision: DecisionStatus) -> str:
    return "allowed" if decision.allowed else f"not allowed: {decision.reason}"


def replays_data(replays: Replays, *, is_all: bool) -> Iterable[Mapping[str, Any]]:
    """What came of it for programs: an object for each decision that is shown, and of all the counts."""
    for again in replays.shown:
        yield {
            "index": again.index,
            "subject": again.entry.subject,
            "type": again.entry.type,
            "verdict": str(again.verdict),
            "why": again.why,
            "decidedBy": again.version,
            "mismatches": list(again.mismatches),
            "unfounded": again.is_unfounded,
            "then": encode(again.then),
            "now": encode(again.now) if again.now is not None else None,
        }
    if is_all:
        yield {
            "entries": replays.end,
            "decisions": replays.total,
            "agree": replays.counts[Verdict.AGREES],
            "differ": replays.counts[Verdict.DIFFERS],
            "cannot": replays.counts[Verdict.CANNOT],
            "unfounded": replays.unfounded,
        }
