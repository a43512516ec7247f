"""Witnesses: whose cosignatures a reader wants to see, and what they say of the log that was read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3

from pilot_identity import __version__
from pilot_identity.cli.failures import CliError, UsageError
from pilot_identity.cli.files import read_bounded
from pilot_identity.cli.text import ago, clock
from pilot_identity.core.audit.arrivals import Arrivals, Overdue
from pilot_identity.core.audit.checkpoint import CheckpointError, LogVerifier
from pilot_identity.core.audit.cosignature import CosignatureVerifier, split_notes
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.witnessed import Word, hear, told_by
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.witness.request import origin_hash

COSIGNED_FILE = "cosigned"
VKEYS_FILE = "witnesses"
COSIGNED_CONFIG_MAP = "audit-cosigned"
MAX_NOTE_BYTES = 65_536
_MAX_VKEY_BYTES = 4096
_MOST = 64
"""Witnesses, and heads that they cosigned; nobody has so many, and each is looked at by each."""
_ANSWER = urllib3.Timeout(connect=5.0, read=30.0)


@dataclass(frozen=True, slots=True)
class Published:
    """What stands beside a log; whoever keeps the log wrote it.

    Attributes:
        notes: heads, each with where it was found.
        vkeys: of the witnesses that the operator asks.
        unread: what is there but cannot be read as either.
    """

    notes: tuple[tuple[str, str], ...] = ()
    vkeys: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @classmethod
    def in_config_map(cls, data: Mapping[str, str]) -> Published:
        """As the operator publishes it: the vkeys, and each witness's newest head under its key's id."""
        notes = [(f"{COSIGNED_CONFIG_MAP}/{name}", text) for name, text in data.items() if name != VKEYS_FILE]
        return cls(tuple(notes[:_MOST]), tuple(data.get(VKEYS_FILE, "").splitlines()[:_MOST]))

    @classmethod
    def in_files(cls, cosigned: bytes | None, vkeys: bytes | None) -> Published:
        """As an export has it."""
        lines = tuple((vkeys or b"").decode(errors="replace").splitlines()[:_MOST])
        try:
            notes = split_notes((cosigned or b"").decode(errors="replace"))
        except CheckpointError as error:
            return cls((), lines, (f"{COSIGNED_FILE}: {error}",))
        return cls(tuple((COSIGNED_FILE, note) for note in notes[:_MOST]), lines)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a reader wants to see.

    Attributes:
        given: witnesses by the keys that the reader brought.
        urls: where witnesses tell what they cosigned last; asked before the log is read.
        quorum: how many of the given must have cosigned a head of this very log.
        within: what is in the log for longer must be under a head that was cosigned no longer ago; `None`
            where that does not matter.
    """

    given: tuple[CosignatureVerifier, ...] = ()
    urls: tuple[str, ...] = ()
    quorum: int = 0
    within: Duration | None = None

    @classmethod
    def of_options(cls, vkeys: Sequence[str], urls: Sequence[str], quorum: int | None, within: str) -> Demand:
        """Read the options; without a number every witness that is given is required.

        Raises:
            UsageError: they cannot be meant.
        """
        given = tuple({str(each): each for each in map(_read_vkey, vkeys)}.values())
        wanted = len(given) if quorum is None else quorum
        if wanted > len(given):
            raise UsageError(
                f"--require-witness {wanted}: {len(given)} witnesses are given",
                "give each with --witness; keys that are published beside the log do not count",
            )
        try:
            span = Duration.parse(within) if within else None
        except ValueError as error:
            raise UsageError(f"--witnessed-within: {error}") from error
        if span is not None and not given:
            raise UsageError(
                f"--witnessed-within {within}: no witness is given",
                "give each with --witness; keys that are published beside the log do not count",
            )
        return cls(given, tuple(urls), wanted, span)

    def ask(self, verifier: LogVerifier) -> tuple[tuple[str, str], ...]:
        """Ask the witnesses themselves for the head of a log that they cosigned last; by URL, what each told.

        Raises:
            CliError: one does not answer; what it would have said is not left out silently.
        """
        return tuple((url, _newest(url, verifier.name)) for url in self.urls)


@dataclass(frozen=True, slots=True)
class Testimony:
    """What was heard of a log that was read.

    Attributes:
        arrivals: since when entries are in the log.
        unread: what is published beside the log and cannot be read.
        silent: the URLs that told no head which both the log and a witness of the reader's own signed.
        unasked: the witnesses of the reader's own that no URL told of.
    """

    words: tuple[Word, ...]
    demand: Demand
    now: dt.datetime
    arrivals: Arrivals
    unread: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()

    @property
    def good(self) -> int:
        """How many witnesses of the reader's own stand for it."""
        return sum(word.is_given and self._counts(word) for word in self.words)

    @property
    def is_enough(self) -> bool:
        """Whether that is as many as were wanted."""
        return self.good >= self.demand.quorum

    @property
    def overdue(self) -> Overdue | None:
        """The oldest entry that not as many witnesses saw in time as were wanted; `None` where all are."""
        if self.demand.within is None or not self.demand.quorum:
            return None
        covered = sorted((word.covered for word in self.words if word.is_given), reverse=True)
        return self.arrivals.overdue(covered[self.demand.quorum - 1], self.now, self.demand.within)

    def _counts(self, word: Word) -> bool:
        return word.is_good(self.now, self.demand.within, self.arrivals)

    def lines(self, entries: int) -> Iterator[str]:
        """A line for each witness."""
        for word in self.words:
            origin = "given" if word.is_given else "published beside the log"
            if word.head is None or word.at is None:
                yield f"{word.witness.name} ({origin}): cosigned no head that was found"
                continue
            told = f"{word.witness.name} ({origin}): {word.head.size} entries"
            when = f"on {clock(word.at)}, {ago(word.at, self.now)} ago"
            if word.findings or word.stands is False:
                yield f"{told}, {when}; THIS LOG IS NOT THE ONE THAT IT SAW"
            elif word.stands is None:
                yield f"{told}, {when}; it cannot be told whether this log goes on from there"
            else:
                yield f"{told}, {when}; {entries - word.head.size} entries came since{self._late(word)}"

    def _late(self, word: Word) -> str:
        """What is wrong with the time of a word that stands; empty where nothing is."""
        if self._counts(word):
            return ""
        if word.is_fresh(self.now, self.demand.within):
            return ", NOT ALL OF THEM LATELY"
        is_ahead = word.at is not None and word.at > self.now
        return "; ITS CLOCK IS AHEAD OF THIS MACHINE'S" if is_ahead else "; TOO LONG AGO"

    def lateness(self) -> str:
        """Which entry is the oldest that should have been witnessed by now, in a sentence; empty for none."""
        found = self.overdue
        if found is None:
            return ""
        many = self.demand.quorum
        who = "no witness" if many == 1 else f"fewer than {many} witnesses"
        told = f"entry {found.index} is the oldest that {who} saw in time"
        if found.since is None:
            return f"{told}: nothing shows that it is new, for {found.because}"
        span = ago(found.since, self.now)
        return f"{told}: it is in the log since {clock(found.since)} or longer, {span} ago, {found.because}"

    def data(self, entries: int) -> Mapping[str, Any]:
        """The same for programs."""
        return {
            "required": self.demand.quorum,
            "cosigned": self.good,
            "met": self.is_enough,
            "within": str(self.demand.within) if self.demand.within is not None else None,
            "overdue": _overdue_data(self.overdue),
            "silent": list(self.silent),
            "words": [
                {
                    "name": word.witness.name,
                    "vkey": str(word.witness),
                    "given": word.is_given,
                    "size": word.head.size if word.head is not None else None,
                    "time": word.at.isoformat() if word.at is not None else None,
                    "beyond": entries - word.head.size if word.head is not None else None,
                    "stands": word.stands if not word.findings else False,
                    "counts": word.is_given and self._counts(word),
                }
                for word in self.words
            ],
        }


def testimony(  # noqa: PLR0913, PLR0917 - what was read, and what is wanted of it
    demand: Demand,
    published: Published,
    asked: Sequence[tuple[str, str]],
    verifier: LogVerifier,
    tree: Tree,
    is_whole: bool,
    arrivals: Arrivals,
    now: dt.datetime,
) -> Testimony:
    """Hear every witness that is given, and those that are published beside the log."""
    witnesses = {str(each): (each, True) for each in demand.given}
    unread = list(published.unread)
    for vkey in published.vkeys:
        try:
            witnesses.setdefault(vkey, (CosignatureVerifier.parse(vkey), False))
        except CheckpointError as error:
            unread.append(f"{vkey!r}: {error}")
    notes = [*asked, *published.notes]
    words = [
        hear(witness, notes, verifier, tree, is_given=is_given, is_whole=is_whole)
        for witness, is_given in witnesses.values()
    ]
    told = {url: told_by(note, demand.given, verifier) for url, note in asked}
    heard = frozenset().union(*told.values())
    return Testimony(
        tuple(words),
        demand,
        now,
        arrivals,
        tuple(unread),
        silent=tuple(url for url, by in told.items() if not by),
        unasked=tuple(each.name for each in demand.given if str(each) not in heard),
    )


def _overdue_data(found: Overdue | None) -> Mapping[str, Any] | None:
    if found is None:
        return None
    since = found.since.isoformat() if found.since is not None else None
    return {"index": found.index, "since": since, "because": found.because}


def _read_vkey(given: str) -> CosignatureVerifier:
    """A witness's vkey, or the file that holds it."""
    path = Path(given)
    text = read_bounded(path, _MAX_VKEY_BYTES, "--witness") if "+" not in given or path.is_file() else given
    try:
        return CosignatureVerifier.parse(text)
    except CheckpointError as error:
        raise UsageError(f"--witness: {error}") from error


def _newest(url: str, origin: str) -> str:
    """What a witness cosigned last, by its own word (tlog-witness.md); empty where it knows no such log."""
    path = f"{url.rstrip('/')}/{origin_hash(origin)}/checkpoint"
    headers = {"User-Agent": f"kubectl-pilot/{__version__}"}
    try:
        with urllib3.PoolManager(retries=urllib3.Retry(total=2, redirect=2), timeout=_ANSWER) as pool:
            answer = pool.request("GET", path, headers=headers, preload_content=False)
            try:
                content = answer.read(MAX_NOTE_BYTES, decode_content=True)
            finally:
                answer.close()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise CliError(f"{path} cannot be read", "check the URL and the network") from error
    if answer.status == HTTPStatus.NOT_FOUND:
        return ""
    if answer.status != HTTPStatus.OK:
        raise CliError(f"{path}: the witness answers {answer.status}")
    return content.decode(errors="replace")
