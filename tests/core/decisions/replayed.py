"""Logs that are replayed: what a decision's entries say must be enough to decide it again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pilot_identity.core.audit.entries import Entry, RecordedEntry, decode_entry, encode_entry
from pilot_identity.core.decisions.replaying import Replay, Replayed, Verdict


@dataclass
class Kept:
    """A shelf in memory."""

    definitions: dict[str, bytes] = field(default_factory=dict)

    def keep(self, digest: str, definition: bytes) -> None:
        """Keep a definition."""
        self.definitions.setdefault(digest, definition)

    def find(self, digest: str) -> bytes | None:
        """Return a definition."""
        return self.definitions.get(digest)


def recorded(entries: Iterable[Entry]) -> list[RecordedEntry]:
    """Entries as a log gives them back, each id once."""
    found = {entry.id: decode_entry(encode_entry(entry, "log")) for entry in reversed(list(entries))}
    return list(reversed(found.values()))


def replay(entries: Iterable[RecordedEntry], shelf: Kept | None = None) -> list[Replayed]:
    """Make all decisions of a log again."""
    reader = Replay(shelf or Kept())
    made: list[Replayed] = []
    for index, entry in enumerate(entries):
        reader.learn(entry)
        again = reader.again(index, entry)
        if again is not None:
            made.append(again)
    return made


def require_agreement(again: Replayed) -> None:
    """Hold a replay to what was decided, to the word: test and decision are of one version."""
    assert again.verdict is Verdict.AGREES, f"{again.entry.id}: {again.why}: {again.then} now {again.now}"
    assert again.now == again.then, f"{again.entry.id}: in other words: {again.then} now {again.now}"
