"""Objections: what an ordered chain of checks has against a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pilot_identity.core.resources.conditions import Reason

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Objection:
    """Why not, and what to change.

    Attributes:
        is_final: whether the request is refused for good; otherwise it waits until the cause is gone.
    """

    reason: Reason
    message: str
    is_final: bool = True


@dataclass(frozen=True, slots=True)
class Check(Generic[Seen]):
    """One named question; `None` is a yes.

    Attributes:
        remark: what is to be said of a yes, where it is not a plain one.
    """

    name: str
    ask: Callable[[Seen], Objection | None]
    remark: Callable[[Seen], str] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A check and what it said."""

    name: str
    objection: Objection | None
    remark: str = ""


def ask_all(checks: Sequence[Check[Seen]], seen: Seen) -> tuple[Answer, ...]:
    """Ask in order, up to the first objection: later checks may rest on earlier ones."""
    answers: list[Answer] = []
    for check in checks:
        objection = check.ask(seen)
        remark = check.remark(seen) if objection is None and check.remark is not None else ""
        answers.append(Answer(check.name, objection, remark))
        if objection is not None:
            break
    return tuple(answers)
