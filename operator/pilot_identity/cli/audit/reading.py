"""Reading: a whole log, verified against what was seen before, as every verb here begins."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from pilot_identity.cli.audit.memory import EarlierHead, Memory
from pilot_identity.cli.audit.sources import ClusterLog, Place, in_cluster, in_files
from pilot_identity.cli.audit.witnesses import Demand, Testimony, testimony
from pilot_identity.cli.failures import CliError, UsageError
from pilot_identity.cli.files import read_bounded
from pilot_identity.cli.output import tell
from pilot_identity.cli.session import Session
from pilot_identity.core.audit.arrivals import Arrivals
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogVerifier
from pilot_identity.core.audit.entries import EntryError, RecordedEntry, decode_entry
from pilot_identity.core.audit.findings import Finding, Flaw, Report
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.verify import Verification

DEFAULT_NAMESPACE = "pilot-identity-system"
_MAX_VKEY_BYTES = 4096
_SHOWN_FINDINGS = 20


class KeyOrigin(StrEnum):
    """Where the verifier key came from, which is how far the whole verification can be trusted."""

    GIVEN = "given"
    """On the command line."""
    REMEMBERED = "remembered"
    """From an earlier verification of the same place."""
    PUBLISHED = "published"
    """From beside the log itself: whoever could replace the log could replace it, too."""


@dataclass(frozen=True, slots=True)
class Where:
    """What the common options say."""

    place: str
    namespace: str
    context: str
    kubeconfig: str
    vkey: str
    archive: str = ""


@dataclass(slots=True)
class OpenLog:
    """A log that can be read, and what is known of it beforehand.

    Attributes:
        seen: the newest head that was seen, and its note.
        cluster: its ConfigMaps, where it is in a cluster.
        demand: which witnesses are to stand for it.
        testimony: what witnesses said of it, once it was read.
        held: the heads seen before the newest that it was found to go on from, by size.
    """

    place: Place
    verifier: LogVerifier
    key_origin: KeyOrigin
    memory: Memory
    seen: tuple[Checkpoint, str] | None
    cluster: ClusterLog | None = None
    demand: Demand = field(default_factory=Demand)
    verification: Verification = field(init=False)
    testimony: Testimony = field(init=False)
    held: dict[int, EarlierHead] = field(default_factory=dict)
    _is_continuous: bool = True

    def __post_init__(self) -> None:
        """Begin a verification that holds the log to what was seen."""
        self.verification = self._begin()

    def _begin(self) -> Verification:
        seen = self.seen[0] if self.seen is not None else None
        return Verification(self.verifier, seen, may_be_older=self.place.is_copy)

    def read(self, observe: Callable[[int, bytes], None] = lambda _index, _entry: None) -> Report:
        """Verify all of it, and remember its head where nothing is wrong.

        It is held to every head that a witness cosigned, given or published. `observe` gets each entry once
        and in order, before the log is known to be sound.
        """
        asked = self.demand.ask(self.verifier)
        self.verification = self._begin()
        arrivals = Arrivals(self.memory.sightings(self.verifier))
        for part in self.place.source.parts():
            for index, entry in self.verification.absorb(part):
                if self.demand.within is not None:
                    arrivals.take(index, entry)
                observe(index, entry)
        report = self._hold_to_memory(self._hear(self.verification.report(), asked, arrivals))
        self.remember(report)
        return report

    def read_on(self, known: int, observe: Callable[[int, bytes], None]) -> Report:
        """Verify all of it again, held to the head so far; `observe` gets the entries from `known` on.

        Raises:
            CliError: it does not verify any more; none of its entries is passed on.
        """
        came: list[tuple[int, bytes]] = []

        def keep(index: int, entry: bytes) -> None:
            if index >= known:
                came.append((index, entry))

        report = self.read(keep)
        if not report.is_sound:
            tell_findings(report)
            raise CliError("the log does not verify any more", "see `kubectl pilot audit verify`")
        for index, entry in came:
            observe(index, entry)
        return report

    def _hold_to_memory(self, report: Report) -> Report:
        """Hold what was read to the earlier heads that were seen, and a copy to what it was itself."""
        findings = list(report.findings)
        self.held = {}
        for head, earlier in self.memory.earlier(self.verifier):
            if not self.tree.start <= head.size <= self.tree.size:
                continue
            root = self.tree.root(head.size)
            if root == head.root:
                self.held[head.size] = earlier
                continue
            message = (
                f"{head.size} entries had root {head.root.hex()} on {earlier.at}, now they make {root.hex()}"
            )
            findings.append(Finding(Flaw.HEAD_FORKED, "a head that was seen before", -1, message))
        before = self.memory.size_at(self.place.name, self.verifier)
        if self.place.is_copy and before > report.entries:
            message = f"there were {before} entries in this place, now there are {report.entries}"
            where = "the copy that was seen before"
            findings.append(Finding(Flaw.TAIL_TRUNCATED, where, report.entries, message))
        return replace(report, findings=tuple(findings))

    def _hear(self, report: Report, asked: Sequence[tuple[str, str]], arrivals: Arrivals) -> Report:
        """Hold what was read to what witnesses cosigned."""
        self.testimony = testimony(
            self.demand,
            self.place.witnessed,
            asked,
            self.verifier,
            self.tree,
            self.tree.size == report.entries,
            arrivals,
            dt.datetime.now(dt.UTC),
        )
        findings = [finding for word in self.testimony.words for finding in word.findings]
        return replace(report, findings=(*report.findings, *findings))

    def read_sound(self, observe: Callable[[int, bytes], None] = lambda _index, _entry: None) -> Report:
        """Verify all of it.

        Raises:
            CliError: something is wrong with it; nothing that it says is passed on as its word.
        """
        report = self.read(observe)
        if not report.is_sound:
            tell_findings(report)
            raise CliError("the log does not verify", "see `kubectl pilot audit verify`")
        if not report.is_whole:
            tell(f"warning: {archived(report)}")
        if report.is_older:
            tell(f"warning: this is {older(report, self)}")
        return report

    def read_whole(self, observe: Callable[[int, bytes], None] = lambda _index, _entry: None) -> Report:
        """Verify all of it, for what is nothing without its first entry.

        Raises:
            CliError: something is wrong with it, or its oldest part is archived and was not named.
        """
        report = self.read_sound(observe)
        if not report.is_whole:
            raise CliError("this needs the whole log", "give --archive DIR or URL")
        return report

    def remember(self, report: Report) -> None:
        """Take down the head of a log that verified, and that as many witnesses stand for as were wanted.

        Not where a head was seen before and it could not be told whether the log goes on from there; then
        what is read after this is held to it all the same.
        """
        if not report.is_sound or not self.testimony.is_enough:
            return
        if not report.is_older and report.head is not None:
            self._is_continuous &= report.seen is None or bool(report.goes_on)
            self.seen = report.head, report.note
        if self._is_continuous:
            now = dt.datetime.now(dt.UTC)
            self.memory.remember(self.place.name, self.verifier, report.note, now, self.held.keys())

    def keep(self, report: Report) -> None:
        """Keep the head of a log of which a copy was made, so that the copy is known again when it is old."""
        self.memory.keep(self.verifier, report.note, dt.datetime.now(dt.UTC), is_proven=True)

    @property
    def tree(self) -> Tree:
        """The tree of the entries that were read."""
        return self.verification.tree


@contextmanager
def opened(where: Where) -> Iterator[OpenLog]:
    """Open the log that the options name.

    Raises:
        CliError: it is not reachable, or there is no key to verify it with.
    """
    if where.place:
        if where.archive:
            raise UsageError("--archive goes with the log in a cluster; what --from names is whole by itself")
        yield _keyed(in_files(where.place), where)
        return
    namespace = where.namespace or DEFAULT_NAMESPACE
    session = Session.open(kubeconfig=where.kubeconfig, context=where.context, namespace=namespace)
    try:
        place, cluster = in_cluster(session, namespace, where.archive)
        log = _keyed(place, where)
        log.cluster = cluster
        yield log
    finally:
        session.close()


def decoded(index: int, encoded: bytes) -> RecordedEntry | None:
    """Decode an entry, or warn that it cannot be."""
    try:
        return decode_entry(encoded)
    except EntryError as error:
        tell(f"warning: entry {index} is of a kind that this kubectl-pilot does not know: {error}")
        return None


def archived(report: Report) -> str:
    """What was not read because it is archived, in a sentence."""
    return (
        f"entries 0 to {report.first - 1} are archived and were not read: give --archive DIR or URL; "
        "that the later ones go on from them is signed"
    )


def older(report: Report, log: OpenLog) -> str:
    """That a copy is older than what was seen, in some words."""
    size = report.seen.size if report.seen is not None else 0
    at = log.memory.seen_at(log.verifier)
    return f"older than the head of {size} entries that was seen {f'on {at[:19]}Z' if at else 'before'}"


def wrong(report: Report) -> Iterator[str]:
    """What is wrong, a line each; the first of many."""
    yield from map(str, report.findings[:_SHOWN_FINDINGS])
    if len(report.findings) > _SHOWN_FINDINGS:
        yield f"… and {len(report.findings) - _SHOWN_FINDINGS} more"
    if report.unproven_from < report.entries:
        yield f"entries {report.unproven_from} to {report.entries - 1} are under no signed head that verified"


def tell_findings(report: Report) -> None:
    """Print what is wrong on stderr."""
    for line in wrong(report):
        tell(line)


def read_vkey(given: str) -> LogVerifier:
    """A vkey, or the file that holds it.

    Raises:
        UsageError: it is neither.
    """
    path = Path(given)
    text = read_bounded(path, _MAX_VKEY_BYTES, "--vkey") if "+" not in given or path.is_file() else given
    try:
        return LogVerifier.parse(text)
    except CheckpointError as error:
        raise UsageError(f"--vkey: {error}") from error


def _keyed(place: Place, where: Where) -> OpenLog:
    memory = Memory.of_user()
    remembered = memory.key_at(place.name)
    if where.vkey:
        verifier, origin = read_vkey(where.vkey), KeyOrigin.GIVEN
    elif remembered:
        verifier, origin = LogVerifier.parse(remembered), KeyOrigin.REMEMBERED
    elif place.published_key:
        try:
            verifier, origin = LogVerifier.parse(place.published_key), KeyOrigin.PUBLISHED
        except CheckpointError as error:
            raise CliError(
                f"the key published in {place.name} is none: {error}", "give one with --vkey"
            ) from error
    else:
        raise CliError(
            f"{place.name} has no log, or does not publish its key, or you may not read it",
            "name the directory or URL that has the files checkpoint and vkey, or give the key with --vkey"
            if where.place
            else "give the key with --vkey, and the operator's namespace with -n",
        )
    if place.published_key and place.published_key != str(verifier):
        tell(
            f"warning: the key published in {place.name} is {place.published_key}, "
            f"verified is with the one {origin}: {verifier}; "
            "should the new one be right, give it once with --vkey"
        )
    return OpenLog(place, verifier, origin, memory, memory.head(verifier))
