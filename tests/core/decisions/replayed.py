"""Logs that are replayed: what a decision's entries say must be enough to decide it again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pilot_identity.core.audit.entries import Entry, RecordedEntry, decode_entry, encode_entry
from pilot_identity.core.decisions.plan import AccountFacts, Plan
from pilot_identity.core.decisions.replaying import Replay, Replayed, Verdict
from pilot_identity.core.spiffe.keys import spki_sha256
from tests.core.builders import NOW


@dataclass
class Kept:
    """A shelf in memory."""

    definitions: dict[str, bytes] = field(default_factory=dict)
    notes: dict[str, bytes] = field(default_factory=dict)

    def keep(self, digest: str, definition: bytes) -> None:
        """Keep a definition."""
        self.definitions.setdefault(digest, definition)

    def find(self, digest: str) -> bytes | None:
        """Return a definition."""
        return self.definitions.get(digest)

    def note(self, name: str, note: bytes) -> None:
        """Note something."""
        self.notes[name] = note

    def noted(self, name: str) -> bytes | None:
        """Return what was noted last."""
        return self.notes.get(name)


def recorded(entries: Iterable[Entry]) -> list[RecordedEntry]:
    """Entries as a log gives them back, each id once."""
    found = {entry.id: decode_entry(encode_entry(entry, "log")) for entry in reversed(list(entries))}
    return list(reversed(found.values()))


def announced(plan: Plan) -> tuple[Entry, ...]:
    """What a plan announces, of the key that was asked for, and of the account that was made."""
    if plan.release is None:
        return ()
    order = plan.release.order
    key = spki_sha256(order.public_key) if order.public_key is not None else "ab" * 32
    facts = None
    if order.kubernetes is not None:
        facts = AccountFacts("uid-of-account", "jti-1", NOW + order.kubernetes.lifetime)
    return (plan.release.announce(key, facts),)


def replay(entries: Iterable[RecordedEntry], shelf: Kept | None = None, *, first: int = 0) -> list[Replayed]:
    """Make all decisions of a log again; of one whose older entries were not read, from `first` on."""
    reader = Replay(shelf or Kept())
    made: list[Replayed] = []
    for index, entry in enumerate(entries, start=first):
        again = reader.again(index, entry)
        reader.learn(index, entry)
        if again is not None:
            made.append(again)
    return made


def require_agreement(again: Replayed) -> None:
    """Hold a replay to what was decided, to the word: test and decision are of one version."""
    why = (again.why, *again.mismatches)
    assert again.verdict is Verdict.AGREES, f"{again.entry.id}: {why}: {again.then} now {again.now}"
    assert again.now == again.then, f"{again.entry.id}: in other words: {again.then} now {again.now}"
