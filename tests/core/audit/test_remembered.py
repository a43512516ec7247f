from __future__ import annotations

import tracemalloc

import pytest

from pilot_identity.core.audit import remembered as remembered_module
from pilot_identity.core.audit.recollection import Recollection
from pilot_identity.core.audit.remembered import FEW, RECENT, Kept, Remembered


def row(step: str, *, subject: str = "uid", issuance: int | None = None) -> Recollection:
    """What is kept of one step of a subject."""
    return Recollection(f"{subject}/{step}", subject, issuance)


def remembered(*steps: str) -> Remembered:
    """One that took in these steps of one subject, from index 0 on."""
    made = Remembered()
    for index, step in enumerate(steps):
        made.take_in(index, row(step))
    return made


def test_every_step_of_a_living_object_is_known() -> None:
    """However many came after it."""
    made = remembered("requested", *(f"decided/{number}" for number in range(3 * RECENT)), "closed")
    assert made.index_of("uid", "uid/requested") == 0
    assert made.index_of("uid", "uid/decided/0") == 1
    assert made.index_of("uid", "uid/closed") == 3 * RECENT + 1
    assert made.index_of("uid", "uid/else") is None
    assert made.index_of("other", "other/requested") is None


def test_an_id_that_does_not_begin_with_its_subject_is_known_too() -> None:
    """The log's own first entry is such a one; nor is it mixed up with a step of that name."""
    made = Remembered()
    made.take_in(0, Recollection("log/started", "operator"))
    made.take_in(1, Recollection("operator/log/started", "operator"))
    assert made.index_of("operator", "log/started") == 0
    assert made.index_of("operator", "operator/log/started") == 1


def test_of_credentials_the_newest_is_known() -> None:
    """An older number is answered with the newest's place, whatever the order in which they came."""
    made = Remembered()
    for index, number in ((7, 3), (5, 2), (9, 4)):
        made.take_in(index, row(f"credential/{number}", issuance=number))
    assert [made.index_of("uid", f"uid/credential/{number}") for number in (1, 2, 4, 5)] == [9, 9, 9, None]
    told = made.announced("uid")
    assert told is not None
    assert (told.index, told.issuance) == (9, 4)


def test_a_long_life_of_renewals_takes_no_room() -> None:
    """Of a year of half-hours one is kept."""
    assert len(remembered("registered", *(f"credential/{number}" for number in range(17_520)))) == 2


@pytest.mark.parametrize("step", ["access/aa.{}", "activity/drawn{}"])
def test_of_drawn_names_the_newest_are_known(step: str) -> None:
    """They come again only right after a write failed; months of use take no more room than an hour."""
    count = 2 * RECENT
    made = remembered(*(step.format(number) for number in range(count)))
    assert len(made) == RECENT
    assert made.index_of("uid", f"uid/{step.format(count - 1)}") == count - 1
    assert made.index_of("uid", f"uid/{step.format(count - RECENT)}") == count - RECENT
    assert made.index_of("uid", f"uid/{step.format(count - RECENT - 1)}") is None


def test_a_named_report_is_known_until_the_grant_is_closed() -> None:
    """However many others came; after that nobody may report for it."""
    made = remembered("activity/mine/0123", *(f"activity/r{number}/0123" for number in range(2 * RECENT)))
    assert made.index_of("uid", "uid/activity/mine/0123") == 0
    made.take_in(2 * RECENT + 1, row("closed"))
    assert made.index_of("uid", "uid/activity/mine/0123") is None
    assert len(made) == 1 + RECENT
    made.take_in(2 * RECENT + 2, row("activity/late/0123"))  # it was on its way
    assert made.index_of("uid", "uid/activity/late/0123") == 2 * RECENT + 2


def test_of_a_grant_so_many_reports_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are known may come again, reports without a name and other grants are not held up."""
    monkeypatch.setattr(remembered_module, "NAMED_OF_ONE", 100)
    made = remembered(*(f"activity/r{number}/0123" for number in range(99)))
    assert made.has_room("uid", "uid/activity/new/0123")
    made.take_in(99, row("activity/new/0123"))
    assert not made.has_room("uid", "uid/activity/newer/0123")
    for name in ("activity/new/0123", "activity/r0/0123", "activity/0123456789abcdef", "closed"):
        assert made.has_room("uid", f"uid/{name}")
    assert made.has_room("other", "other/activity/new/0123")


def test_of_all_grants_so_many_reports_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grant that is closed, or gone, makes room."""
    monkeypatch.setattr(remembered_module, "NAMED", 4)
    made = remembered("activity/a/0123", "activity/b/0123")
    for number in range(2):
        made.take_in(9 + number, row(f"activity/{number}/0123", subject="other"))
    assert not made.has_room("third", "third/activity/a/0123")
    made.take_in(20, row("closed"))
    assert made.has_room("third", "third/activity/a/0123")
    for number in range(2):
        made.take_in(21 + number, row(f"activity/{number}/0123", subject="third"))
    assert not made.has_room("third", "third/activity/c/0123")
    made.retain({"third"})
    assert made.has_room("third", "third/activity/c/0123")
    made.clear()
    made.take_in(0, row("activity/a/0123"))
    assert made.has_room("uid", "uid/activity/b/0123")


def test_named_reports_take_little_room() -> None:
    """However long their names are; each is found again after another process took them in, too."""
    ids = [f"{'n' * 58}{number:06}/{number:016x}" for number in range(25_000)]
    tracemalloc.start()
    made = remembered(*(f"activity/{name}" for name in ids))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(ids) < 40
    again = Remembered()
    again.defer_kept(tuple(made.kept(before=len(ids))))
    for known in (made, again):
        assert len(known) == len(ids)
        assert [known.index_of("uid", f"uid/activity/{name}") for name in ids] == list(range(len(ids)))
        assert known.index_of("uid", f"uid/activity/{ids[0]}0") is None
        known.take_in(len(ids), row("closed"))
        assert known.index_of("uid", f"uid/activity/{ids[-1]}") == len(ids) - 1
        assert len(known) == 1 + RECENT


def test_a_report_just_before_the_end_is_known_after_it() -> None:
    """It may come again: its answer was lost, or its group has the end too."""
    made = remembered("activity/mine/0123", "closed")
    assert made.index_of("uid", "uid/activity/mine/0123") == 0


def test_what_was_told_last_of_an_object_that_is_gone_is_known_for_a_while() -> None:
    """What is owed to the log is tried again, and a sweep may come between."""
    made = remembered("requested", "access/aa.1", "closed", "tombstone")
    made.retain(set())
    names = ("requested", "access/aa.1", "closed", "tombstone")
    assert [made.index_of("uid", f"uid/{name}") for name in names] == [None, 1, 2, 3]


def test_what_is_kept_can_be_taken_in_again() -> None:
    """By another process, of all that is before an index; later entries it reads itself."""
    made = remembered("requested", "approved", "activity/mine/0123", "access/aa.1")
    made.take_in(4, row("credential/1", issuance=1))
    made.take_in(5, row("closed", subject="gone"))
    made.take_in(600, row("decided/later"))
    made.retain({"uid"})
    again = Remembered()
    again.defer_kept(tuple(made.kept(before=512)))
    known = {
        name: again.index_of("uid", f"uid/{name}")
        for name in ("requested", "approved", "activity/mine/0123", "credential/1", "decided/later")
    }
    assert known == {
        "requested": 0,
        "approved": 1,
        "activity/mine/0123": 2,
        "credential/1": 4,
        "decided/later": None,
    }
    told = again.announced("uid")
    assert told is not None
    assert (told.index, told.issuance, told.encoded) == (4, 1, None)
    assert again.index_of("gone", "gone/closed") is None


def test_what_was_settled_is_not_announced_again() -> None:
    """Its id stays known all the same."""
    made = Remembered()
    made.take_in(4, row("credential/1", issuance=1))
    made.settle("uid", 4)
    again = Remembered()
    again.defer_kept(tuple(made.kept(before=512)))
    assert again.announced("uid") is None
    assert again.index_of("uid", "uid/credential/1") == 4


def test_deferred_bundles_are_taken_in_of_the_living_alone() -> None:
    """Once these are known; else, when somebody asks, of all."""
    rows = [row("requested", subject=f"uid-{number}") for number in range(256)]
    made = Remembered()
    made.defer(512, rows)
    made.retain({"uid-3"})
    assert len(made) == 1
    other = Remembered()
    other.defer(512, rows)
    assert other.index_of("uid-4", "uid-4/requested") == 516


def test_who_is_asked_for_before_the_living_are_known_is_looked_up_alone() -> None:
    """The others of a log stay packed, or a start would hold all of them; nothing is known less by it."""
    rows = [row("requested", subject=f"uid-{number}") for number in range(256)]
    made = Remembered()
    made.defer(512, rows)
    made.defer_kept(tuple(Kept(number, row("credential/1", subject="uid-7", issuance=1)) for number in (3,)))
    assert made.index_of("uid-7", "uid-7/requested") == 519
    assert made.index_of("uid-7", "uid-7/credential/1") == 3
    assert made.index_of("started", "started/1") is None
    made.retain({"uid-7"})
    assert len(made) == 2, "of no other was anything taken in"
    told = made.announced("uid-7")
    assert told is not None
    assert (told.index, told.issuance) == (3, 1)


def test_everybody_who_is_asked_for_before_the_living_are_known_is_found() -> None:
    """However many they are."""
    made = Remembered()
    made.defer(512, [row("requested", subject=f"uid-{number}") for number in range(256)])
    for number in range(2 * FEW):
        assert made.index_of(f"uid-{number}", f"uid-{number}/requested") == 512 + number
    made.defer(256, [row("requested", subject=f"old-{number}") for number in range(256)])
    assert made.index_of("old-1", "old-1/requested") == 257


def test_the_steps_of_a_subject_are_told() -> None:
    """All that are kept by name, and the newest credential."""
    made = remembered("requested", "credential/1", "abandoned/1", "credential/2", "activity/1")
    assert made.steps_of("uid") == {"requested": 0, "abandoned/1": 2, "credential/2": 3}
    assert made.steps_of("other") == {}
