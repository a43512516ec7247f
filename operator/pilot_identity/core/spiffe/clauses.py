"""A standard as a table: one row for each clause, broken or kept.

Every validator of this package is an ordered tuple of `Clause` rows read over one subject. A row holds
vacuously where it has nothing to say (a keyUsage that is absent cannot also lack a bit), so that a document
with one defect is named by one clause.

Errors::

    ValueError
    ├── SpiffeIdError    a name breaks one rule of SPIFFE-ID.md: `.violation`
    └── SvidError        a document breaks clauses: `.violations`, never empty
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Violation:
    """One clause that was broken: its name (`X509-SVID §4.3 keyUsage-critical`) and the rule it states."""

    clause: str
    message: str

    def __str__(self) -> str:
        return f"{self.message} [{self.clause}]"


@dataclass(frozen=True, slots=True)
class Clause(Generic[Subject]):
    """One row: the clause's name, its rule in words, and the predicate that is true where it is kept."""

    name: str
    rule: str
    is_kept: Callable[[Subject], bool]

    @property
    def violation(self) -> Violation:
        """The value that stands for this clause being broken."""
        return Violation(self.name, self.rule)


class SpiffeIdError(ValueError):
    """A trust domain or SPIFFE ID breaks a rule; the message is the rule."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.message)
        self.violation = violation


class SvidError(ValueError):
    """An SVID, bundle or key set breaks one or more clauses; the message lists them all."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(map(str, self.violations)))


def broken(table: Iterable[Clause[Subject]], subject: Subject) -> tuple[Violation, ...]:
    """Every row of `table` that `subject` breaks, in the table's order."""
    return tuple(clause.violation for clause in table if not clause.is_kept(subject))


def first_broken(table: Iterable[Clause[Subject]], subject: Subject) -> Violation | None:
    """The first row of `table` that `subject` breaks; later rows may rely on the earlier ones."""
    return next((clause.violation for clause in table if not clause.is_kept(subject)), None)


def names(*tables: Iterable[Clause[Any]]) -> tuple[str, ...]:
    """The clauses' names, for the test that wants a broken vector of each."""
    return tuple(clause.name for table in tables for clause in table)
