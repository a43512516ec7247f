"""Receipts that were checked: by whose word, and what that leaves open."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from pilot_identity.cli.audit.printing import whole_entry
from pilot_identity.cli.audit.reading import KeyOrigin
from pilot_identity.cli.audit.witnesses import Demand
from pilot_identity.cli.output import say
from pilot_identity.cli.text import clock, plain
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogVerifier
from pilot_identity.core.audit.cosignature import CosignatureVerifier
from pilot_identity.core.audit.receipt import Receipt


@dataclass(frozen=True, slots=True)
class CheckedReceipt:
    """A receipt that the log's key stands for.

    Attributes:
        origin: where that key came from.
        head: the signed head over the entry.
        cosigned: of each witness that was given, when it cosigned that head; `None` where it did not.
    """

    receipt: Receipt
    verifier: LogVerifier
    origin: KeyOrigin
    head: Checkpoint
    demand: Demand
    cosigned: tuple[tuple[CosignatureVerifier, dt.datetime | None], ...]

    @classmethod
    def of(
        cls, receipt: Receipt, verifier: LogVerifier, origin: KeyOrigin, head: Checkpoint, demand: Demand
    ) -> CheckedReceipt:
        """Look which of the witnesses given cosigned the head of a receipt that was verified."""
        cosigned = tuple((each, _cosigned_at(each, receipt.note)) for each in demand.given)
        return cls(receipt, verifier, origin, head, demand, cosigned)

    @property
    def is_witnessed(self) -> bool:
        """Whether as many witnesses stand for it as were wanted."""
        return sum(at is not None for _, at in self.cosigned) >= self.demand.quorum

    def print(self) -> None:
        """Print it for people."""
        verdict = "valid" if self.is_witnessed else "NOT WITNESSED"
        told = f"entry {self.receipt.index} of the log {self.verifier.name}"
        say(f"{verdict}: {told}, by its head of {self.head.size} entries")
        say(f"key      {self.verifier} ({self.origin})")
        for witness, at in self.cosigned:
            word = f"cosigned this head on {clock(at)}" if at is not None else "did not cosign this head"
            say(plain(f"witness  {witness.name} (given): {word}"))
        typer.echo(whole_entry(self.receipt.entry))
        say("Not checked:")
        for line in self.not_checked():
            say(f"  - {line}")

    def data(self) -> Mapping[str, Any]:
        """The same for programs, but for the entry."""
        return {
            "log": self.verifier.name,
            "vkey": str(self.verifier),
            "vkeyFrom": str(self.origin),
            "head": {
                "size": self.head.size,
                "root": self.head.root.hex(),
                "note": self.receipt.note,
            },
            "witnesses": {
                "required": self.demand.quorum,
                "met": self.is_witnessed,
                "words": [
                    {
                        "name": witness.name,
                        "vkey": str(witness),
                        "time": at.isoformat() if at is not None else None,
                    }
                    for witness, at in self.cosigned
                ],
            },
            "notChecked": list(self.not_checked()),
        }

    def not_checked(self) -> Iterator[str]:
        """What a receipt leaves open."""
        yield "whether the log still goes on from there"
        yield "whether what the entry says is true"
        if not any(at is not None for _, at in self.cosigned):
            yield (
                "the word of any witness of yours (--witness): the log's key alone speaks, and whoever holds "
                "it can show others a log without this entry"
            )


def _cosigned_at(witness: CosignatureVerifier, note: str) -> dt.datetime | None:
    try:
        return witness.cosigned_at(note)
    except CheckpointError:
        return None
