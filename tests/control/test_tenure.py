"""What the log is told of a leader's time."""

from __future__ import annotations

import datetime as dt

from pilot_identity.control.tenure import Tenure
from pilot_identity.core.audit.entries import EntryType, decode_entry, encode_entry
from tests.core.builders import NOW


def tenure(name: str) -> Tenure:
    """A replica's time as the leader."""
    return Tenure(name, "pilot-system", "operator-0", "0.1.0", "3.12.3")


def test_both_ends_say_who_and_which_version() -> None:
    """The start also what it runs on, the stop also why."""
    started = decode_entry(encode_entry(tenure("a").started(NOW), "log"))
    stopped = decode_entry(encode_entry(tenure("a").stopped("it was asked to", NOW + dt.timedelta(1)), "log"))
    assert (started.type, stopped.type) == (EntryType.OPERATOR_STARTED, EntryType.OPERATOR_STOPPED)
    assert started.data == {"identity": "operator-0", "version": "0.1.0", "python": "3.12.3"}
    assert stopped.data == {"identity": "operator-0", "version": "0.1.0", "why": "it was asked to"}
    assert started.subject == stopped.subject == "Namespace pilot-system"


def test_each_tenure_is_told_once_and_by_itself() -> None:
    """Of one replica, too, that leads again: the log takes an id once."""
    ids = [entry.id for name in "ab" for entry in (tenure(name).started(NOW), tenure(name).stopped("x", NOW))]
    assert len(set(ids)) == len(ids)
    assert tenure("a").started(NOW).id == tenure("a").started(NOW + dt.timedelta(1)).id
