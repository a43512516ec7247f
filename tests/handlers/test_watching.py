from __future__ import annotations

import datetime as dt
import logging
from typing import Any

import kopf
import pytest

from pilot_identity.core.resources import KINDS, Resource
from pilot_identity.core.resources.metadata import FINALIZER, Key
from pilot_identity.core.resources.parsing import read_as
from pilot_identity.handlers import watching
from tests.fakes import manifests
from tests.fakes.clock import SetClock
from tests.fakes.server import FakeServer, Object

GRANT = Key("TaskGrant", "team-a", "task-1")


class FakeIntake:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.known: Resource | None = None

    def held(self, key: Key, version: int) -> Resource | None:
        """The object, where just this version is known."""
        known = self.known
        return known if known is not None and (known.key, known.metadata.version) == (key, version) else None

    def seen(self, resource: Resource) -> None:
        """An object as it is now."""
        self.told.append(("seen", resource.key, resource.metadata.version))

    def gone(self, key: Key, version: int) -> None:
        """An object was deleted."""
        self.told.append(("gone", key, version))

    def listed_again(self) -> None:
        """A watch had to list anew."""
        self.told.append(("listed again",))


def login() -> kopf.ConnectionInfo:
    """Where nothing is."""
    return kopf.ConnectionInfo(server="https://127.0.0.1:1", expiration=watching.expiration())


async def on_stop() -> None:
    """Nothing to give back."""


class Watch:
    """Kopf's registry with our handlers in it, driven as Kopf's watcher would."""

    def __init__(self) -> None:
        self.intake = FakeIntake()
        self.registry = watching.registry(self.intake, login, on_stop)

    async def tell(self, event_type: str | None, body: Object, kind: str = "TaskGrant") -> None:
        """Hand an event to the handler of its kind."""
        handlers = {str(handler.id): handler for handler in self.handlers()}
        event = {"type": event_type, "object": body}
        result = await handlers[f"watch-{KINDS[kind].plural}"].fn(event=event)
        assert result is None, "a result would be stored on the object"

    def handlers(self) -> list[Any]:
        """All registered event handlers."""
        return list(self.registry._watching.get_all_handlers())  # noqa: SLF001 - Kopf offers no public list


@pytest.fixture
def watch() -> Watch:
    """The handlers on a fake intake."""
    return Watch()


def body(version: int = 7, **spec: Any) -> Object:
    """A grant as the API server tells it."""
    server = FakeServer(SetClock())
    made = server.apply(manifests.grant(**spec))
    made["metadata"]["resourceVersion"] = str(version)
    return made


async def test_every_kind_is_watched(watch: Watch) -> None:
    """Each by a low-level handler that keeps no state on the object."""
    assert {str(handler.id) for handler in watch.handlers()} == {
        f"watch-{kind.plural}" for kind in KINDS.values()
    }


@pytest.mark.parametrize("event_type", [None, "ADDED", "MODIFIED"])
async def test_what_is_there_is_told(watch: Watch, event_type: str | None) -> None:
    """Listed, added or changed makes no difference."""
    await watch.tell(event_type, body(7))
    assert watch.intake.told == [("seen", GRANT, 7)]


async def test_what_is_known_is_not_read_again(watch: Watch) -> None:
    """Our own write's answer comes back by the watch; here it would not even parse."""
    known = watch.intake.known = read_as(body(7), KINDS["TaskGrant"])
    again = body(7)
    again["status"] = "not one"
    await watch.tell("MODIFIED", again)
    assert watch.intake.told == [("seen", GRANT, 7)]
    assert known.metadata.version == 7


async def test_another_version_is_read(watch: Watch) -> None:
    """What is held is not what is told."""
    watch.intake.known = read_as(body(7), KINDS["TaskGrant"])
    await watch.tell("MODIFIED", body(8))
    assert watch.intake.told == [("seen", GRANT, 8)]


async def test_what_is_gone_is_told_with_its_version(watch: Watch) -> None:
    """So that an older deletion does not take a newer object."""
    await watch.tell("DELETED", body(9))
    assert watch.intake.told == [("gone", GRANT, 9)]


async def test_a_deleted_object_need_not_parse(watch: Watch) -> None:
    """Its name is enough."""
    await watch.tell("DELETED", body(9, duration="a while"))
    assert watch.intake.told == [("gone", GRANT, 9)]


async def test_a_cluster_scoped_object_has_no_namespace(watch: Watch) -> None:
    """Stages."""
    stage = FakeServer(SetClock()).apply(manifests.stage())
    await watch.tell("DELETED", stage, "StagePolicy")
    assert watch.intake.told == [("gone", Key("StagePolicy", "", "sandbox"), 1)]


async def test_the_first_list_asks_for_nothing_more(watch: Watch) -> None:
    """A leader sweeps before it begins anyway."""
    for version in (1, 2, 3):
        await watch.tell(None, body(version))
    assert ("listed again",) not in watch.intake.told


async def test_a_list_after_events_asks_for_one_sweep(watch: Watch) -> None:
    """The watch was lost, and what was deleted meanwhile is not told; each time anew."""
    for _ in range(2):
        await watch.tell("MODIFIED", body())
        for _ in range(3):
            await watch.tell(None, body())
    assert watch.intake.told.count(("listed again",)) == 2


async def test_each_kinds_watch_is_its_own(watch: Watch) -> None:
    """Events of one kind say nothing about the list of another."""
    await watch.tell("MODIFIED", body())
    await watch.tell(None, FakeServer(SetClock()).apply(manifests.stage()), "StagePolicy")
    assert ("listed again",) not in watch.intake.told


async def test_an_object_that_does_not_parse_is_logged_and_not_touched(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """A status is the operator's own; the message names the object and the field; the watch goes on."""
    with caplog.at_level(logging.ERROR):
        await watch.tell("ADDED", body() | {"status": {"phase": "Gone"}})
    assert watch.intake.told == []
    assert "TaskGrant team-a/task-1" in caplog.text
    assert "status.phase" in caplog.text


async def test_a_spec_that_does_not_parse_is_logged_and_told_as_stopped(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else whoever writes it keeps what he has: the object as it was before would stay in force."""
    with caplog.at_level(logging.ERROR):
        await watch.tell("MODIFIED", body(9, duration="a while"))
    assert watch.intake.told == [("seen", GRANT, 9)]
    assert "spec.duration" in caplog.text


def test_making_handlers_changes_nothing_elsewhere() -> None:
    """Kopf's global registry stays empty."""
    Watch()
    assert not list(kopf.get_default_registry()._watching.get_all_handlers())  # noqa: SLF001 - as above


def test_kopf_is_kept_to_watching() -> None:
    """No peering, no scanning, no Events, and a finalizer that is not ours."""
    chosen = watching.settings()
    assert chosen.scanning.disabled
    assert chosen.peering.standalone
    assert not chosen.posting.enabled
    assert chosen.persistence.finalizer != FINALIZER
    assert chosen.queueing.worker_limit is None


def test_a_login_is_asked_for_again_before_long() -> None:
    """A 401 that is answered by the same login would end the operator."""
    left = watching.expiration() - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=5) < left <= dt.timedelta(seconds=watching.LOGIN_SECONDS)
