from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import jwt
import pytest
from cryptography import x509

from pilot_identity.adapters import revocations as module
from pilot_identity.adapters.issuer import SecretIssuer
from pilot_identity.adapters.keys import KeySecrets
from pilot_identity.adapters.revocations import (
    BURST_BYTES,
    BYTES_PER_SECOND,
    REFRESH,
    WAIT_SECONDS,
    Budget,
    ConfigMapRevocations,
)
from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry
from pilot_identity.core.decisions.plan import KeyOrder, Owner
from pilot_identity.core.decisions.stage_keys import OLDEST
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.spiffe.ids import TrustDomain
from pilot_identity.core.spiffe.revocation import Revoked, RevokedCertificate, RevokedToken
from tests.fakes.clock import START, LoopClock
from tests.fakes.server import HOME, FakeApi, FakeServer

pytestmark = pytest.mark.looptime

STAGE = Owner(Key("StagePolicy", "", "sandbox"), "uid-of-sandbox")
HOUR = dt.timedelta(hours=1)


def keys_made(fingerprints: Mapping[str, str]) -> Entry:
    """What the log would be told; it is not asked here."""
    return Entry("keys", EntryType.STAGE_KEYS_MADE, str(STAGE.key), STAGE.uid, START, fingerprints)


class SlowApi(FakeApi):
    """Takes its time for each request, and in some namespaces until it is told to let go."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server)
        self.slow: set[str] = set()
        self.let_go = asyncio.Event()
        self.seconds = 0.0

    async def call(self, method: str, path: str, *args: Any, **options: Any) -> Any:
        """Wait where it is slow."""
        await asyncio.sleep(self.seconds)
        if any(f"/namespaces/{namespace}/" in path for namespace in self.slow):
            await self.let_go.wait()
        return await super().call(method, path, *args, **options)


class Desk:
    """The real adapter over a server in memory, with a stage that has keys."""

    def __init__(self, *namespaces: str) -> None:
        self.server = FakeServer(LoopClock())
        self.api = api = SlowApi(self.server)
        self.issuer = SecretIssuer(KeySecrets(api, HOME), self.server.clock)
        self.signing = OLDEST
        self.lists = ConfigMapRevocations(
            api, self.issuer, self.server.clock, namespaces, signing=lambda _: self.signing
        )

    async def make_keys(self, stage: str = "sandbox", *, generation: int = 1) -> None:
        """Give a stage its keys."""
        domain = TrustDomain.parse(f"{stage}.example.org")
        ends = START + 10_000 * HOUR
        order = KeyOrder(STAGE, stage, domain, START, ends, keys_made, generation=generation)
        self.issuer.draw_keys(order)
        await self.issuer.store_keys(order)
        await self.issuer.facts(stage)

    def revoked(self, number: int, *, namespace: str = "team-a", life: dt.timedelta = HOUR) -> Revoked:
        """One grant's certificate and token."""
        ends = self.server.clock() + life
        return Revoked(
            "sandbox",
            namespace,
            self.server.clock(),
            (RevokedCertificate(f"{number:x}", ends),),
            (RevokedToken(f"token-{number}", ends),),
        )

    def published(self, namespace: str = "team-a") -> tuple[set[int], set[str]]:
        """The serial numbers and token ids on the lists that stand in a namespace; both verified."""
        found = self.server.find("configmaps", "pilot-revoked-sandbox", namespace)
        if found is None:
            return set(), set()
        crl = x509.load_pem_x509_crl(found["data"]["revoked.crl"].encode())
        (keys,) = self.issuer._known["sandbox"].standing  # noqa: SLF001 - a verifier's half is in no port
        assert crl.is_signature_valid(keys.authority.certificate.public_key())  # type: ignore[arg-type]
        payload = jwt.decode(
            found["data"]["revoked-tokens.jws"],
            keys.jwt_key.public_key(),
            algorithms=["ES256"],
            issuer="spiffe://sandbox.example.org",
            options={"verify_exp": False, "verify_iat": False},
        )
        return {one.serial_number for one in crl}, set(payload["revoked"])

    def writes(self) -> list[str]:
        """Every write of a list so far."""
        return [
            str(one)
            for one in self.server.requests
            if one.place.plural == "configmaps" and one.method in {"PUT", "POST", "DELETE"}
        ]


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """A desk whose publisher runs while the context is open."""
    made = Desk()
    await made.make_keys()
    publisher = asyncio.create_task(made.lists.run())
    try:
        yield made
    finally:
        publisher.cancel()
        with suppress(asyncio.CancelledError):
            await publisher


async def test_what_is_revoked_is_published_in_its_namespace() -> None:
    """Both lists name it, and the adapter says so only when they do."""
    async with desk() as here:
        one = here.revoked(1)
        here.lists.revoke(one)
        told = await here.lists.published(one)
        assert (told.is_done, told.message) == (True, "2 on the stage's lists")
        assert here.published() == ({1}, {"token-1"})


async def test_what_arrives_during_a_write_goes_out_with_the_next() -> None:
    """A hundred revocations at once cost a few writes, not a hundred."""
    async with desk() as here:
        many = [here.revoked(number) for number in range(1, 101)]
        for one in many:
            here.lists.revoke(one)
        assert all([(await here.lists.published(one)).is_done for one in many])
        assert here.published()[0] == set(range(1, 101))
        assert len(here.writes()) <= 4


async def test_a_list_is_complete_for_its_stage() -> None:
    """Each copy names what was revoked elsewhere too, when it is next written."""
    async with desk() as here:
        first, second = here.revoked(1), here.revoked(2, namespace="team-b")
        here.lists.revoke(first)
        await here.lists.published(first)
        here.lists.revoke(second)
        await here.lists.published(second)
        assert here.published("team-b")[0] == {1, 2}
        assert here.published()[0] == {1}
        await asyncio.sleep(REFRESH.total_seconds() + 1)
        assert here.published()[0] == {1, 2}


async def test_revoking_again_writes_nothing() -> None:
    """A pass that is made again asks for what is there."""
    async with desk() as here:
        one = here.revoked(1)
        for _ in range(5):
            here.lists.revoke(one)
            assert (await here.lists.published(one)).is_done
        assert len(here.writes()) == 2, "the first finds none there, and makes it"


async def test_what_has_lapsed_is_dropped_after_one_list_more_and_then_the_list() -> None:
    """RFC 5280 §3.3: an entry appears on one list beyond the certificate's life."""
    async with desk() as here:
        one = here.revoked(1, life=dt.timedelta(minutes=15))
        here.lists.revoke(one)
        await here.lists.published(one)
        await asyncio.sleep(16 * 60)
        assert here.published()[0] == {1}
        await asyncio.sleep(5 * 60)
        assert here.published()[0] == {1}, "the list made at 20 minutes is beyond its life"
        await asyncio.sleep(10 * 60)
        assert here.server.find("configmaps", "pilot-revoked-sandbox") is None
        assert len(here.lists) == 0
        quiet = len(here.server.requests)
        await asyncio.sleep(3600)
        assert len(here.server.requests) == quiet, "an empty list costs nothing"


async def test_nothing_is_published_of_what_has_lapsed() -> None:
    """There is nothing to take back."""
    async with desk() as here:
        one = here.revoked(1, life=dt.timedelta())
        here.lists.revoke(one)
        assert (await here.lists.published(one)).is_done
        assert here.writes() == []


async def test_a_list_that_cannot_be_written_is_told_and_tried_again() -> None:
    """The wait is bounded; once the API server takes it, it is there."""
    async with desk() as here:
        here.server.refused.add("configmaps")
        one = here.revoked(1)
        here.lists.revoke(one)
        began = asyncio.get_running_loop().time()
        told = await here.lists.published(one)
        assert asyncio.get_running_loop().time() - began <= WAIT_SECONDS
        assert not told.is_done
        assert "could not be written" in told.message
        here.server.refused.clear()
        await asyncio.sleep(60)
        assert (await here.lists.published(one)).is_done
        assert here.published()[0] == {1}


async def test_somebody_elses_config_map_is_left_alone() -> None:
    """It is not ours, so nothing is published there, and nothing is said to be."""
    async with desk() as here:
        place = ("configmaps", "team-a", "pilot-revoked-sandbox")
        here.server.plant(place, {"metadata": {"name": "pilot-revoked-sandbox"}, "data": {"mine": "yes"}})
        one = here.revoked(1)
        here.lists.revoke(one)
        assert not (await here.lists.published(one)).is_done
        found = here.server.find("configmaps", "pilot-revoked-sandbox")
        assert found is not None
        assert found["data"] == {"mine": "yes"}


async def test_the_log_tells_a_new_process_what_was_revoked() -> None:
    """What lapsed since is left out; what lives is published again, under a larger number."""
    async with desk() as here:
        first = here.revoked(1)
        here.lists.revoke(first)
        await here.lists.published(first)
        before = number_of(here)
        again = Desk()
        again.server.objects, again.server.clock = here.server.objects, here.server.clock
        await again.issuer.facts("sandbox")
        short = here.revoked(2, life=dt.timedelta(seconds=5))
        await asyncio.sleep(10)
        for revoked in (first, short):
            data = {"revoked": encode(revoked)}
            again.lists.remember(RecordedEntry("i", EntryType.GRANT_CLOSED, "s", "u", START, data))
        again.lists.remember(RecordedEntry("i", EntryType.GRANT_CLOSED, "s", "u", START, {}))
        publisher = asyncio.create_task(again.lists.run())
        assert (await again.lists.published(first)).is_done
        publisher.cancel()
        assert again.published()[0] == {1}
        assert number_of(again) > before


async def test_a_namespace_that_is_not_served_is_left_alone() -> None:
    """The log tells of all that were ever served; a narrower process has no rights in the others."""
    here = Desk("team-a")
    await here.make_keys()
    for number, namespace in enumerate(("team-a", "team-b"), start=1):
        data = {"revoked": encode(here.revoked(number, namespace=namespace))}
        here.lists.remember(RecordedEntry("i", EntryType.GRANT_CLOSED, "s", "u", START, data))
    certificate_and_token = 2
    assert len(here.lists) == certificate_and_token


def number_of(here: Desk) -> int:
    """The number of the CRL that stands in team-a."""
    found = here.server.find("configmaps", "pilot-revoked-sandbox")
    assert found is not None
    crl = x509.load_pem_x509_crl(found["data"]["revoked.crl"].encode())
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert found["metadata"]["annotations"]["pilotidentity.dev/number"] == str(number)
    return number


async def test_a_list_that_is_full_says_what_it_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lapses first is left out first, and is not said to be published."""
    monkeypatch.setattr(module, "LARGEST_BYTES", 3_000)
    async with desk() as here:
        brief = here.revoked(1, life=dt.timedelta(minutes=5))
        here.lists.revoke(brief)
        rest = [*(here.revoked(number) for number in range(2, 60)), here.revoked(60, life=2 * HOUR)]
        for one in rest:
            here.lists.revoke(one)
        told = await here.lists.published(brief)
        assert (told.is_done, "full" in told.message) == (False, True)
        found: Any = here.server.find("configmaps", "pilot-revoked-sandbox")
        assert sum(map(len, found["data"].values())) <= 3_000
        assert (await here.lists.published(rest[-1])).is_done


async def seconds_until_published(here: Desk, revoked: Revoked) -> float:
    """Revoke it, as passes do that come back until it is published."""
    began = asyncio.get_running_loop().time()
    here.lists.revoke(revoked)
    while not (told := await here.lists.published(revoked)).is_done:
        assert asyncio.get_running_loop().time() - began < 100, told
        await asyncio.sleep(0.1)
    return asyncio.get_running_loop().time() - began


async def test_one_namespace_cannot_fill_the_list_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sheds its own; a victim's is there at once, though it lapses long before all of the attacker's."""
    monkeypatch.setattr(module, "LARGEST_BYTES", 60_000)
    async with desk() as here:
        attack = [here.revoked(number, namespace="attacker") for number in range(2, 1_400)]
        for one in attack:
            here.lists.revoke(one)
        await asyncio.sleep(6)
        victim = here.revoked(1, life=HOUR / 2)
        assert await seconds_until_published(here, victim) < 1
        serials, tokens = here.published()
        assert 1 in serials
        assert "token-1" in tokens
        assert len(serials) > 300, "the room is used"
        told = [await here.lists.published(one) for one in attack]
        assert {one.is_done for one in told} == {True, False}


async def test_room_is_shared_equally_and_what_one_leaves_is_the_others() -> None:
    """Two that want all get a half each of what a third leaves them."""
    items = [
        module._Item(f"{namespace}-{number:08}", namespace, START + number * HOUR, START)  # noqa: SLF001
        for namespace, many in (("a", 1_000), ("b", 1_000), ("c", 10))
        for number in range(many)
    ]
    kept = module._shared_out(items, 210 * items[0].size)  # noqa: SLF001
    counts = {name: [one.namespace for one in kept].count(name) for name in "abc"}
    assert counts == {"a": 100, "b": 100, "c": 10}
    assert min(one.not_after for one in kept if one.namespace == "a") == START + 900 * HOUR
    assert module._shared_out(items, 10_000 * items[0].size) == items  # noqa: SLF001


async def test_what_is_fresh_goes_before_what_is_refreshed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart the log names sixty namespaces whose lists cost more than there is to spend."""
    shrink_budget(monkeypatch)
    async with desk() as here:
        for number in range(1, 181):
            entry = {"revoked": encode(here.revoked(number, namespace=f"team-{number % 60}"))}
            here.lists.remember(RecordedEntry("i", EntryType.GRANT_CLOSED, "s", "u", START, entry))
        await asyncio.sleep(1.5)
        assert here.published("team-59") == (set(), set()), "they are not all written by now"
        victim = here.revoked(1_000)
        assert await seconds_until_published(here, victim) < 1
        await asyncio.sleep(600)
        assert 179 in here.published("team-59")[0], "they come to their turn"


async def test_what_is_fresh_overtakes_a_queue_of_refreshes() -> None:
    """Sixty lists are due, half a second each; it waits for the end of one write at most."""
    async with desk() as here:
        for number in range(60):
            here.lists.revoke(here.revoked(number + 1, namespace=f"team-{number}"))
        await asyncio.sleep(REFRESH.total_seconds() / 2)
        assert await seconds_until_published(here, here.revoked(100)) < 1
        here.api.seconds = 0.5
        await asyncio.sleep(REFRESH.total_seconds() / 2 + 1)
        assert await seconds_until_published(here, here.revoked(101)) < 1.1
        assert not {100, 101} & here.published("team-59")[0], "that one still waits for its turn"


async def test_a_busy_namespace_leaves_room_for_a_quiet_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that revokes all the time spends half of the budget, never the whole."""
    shrink_budget(monkeypatch)
    async with desk() as here:
        for number in range(2, 502):
            here.lists.revoke(here.revoked(number, namespace="attacker"))
            await asyncio.sleep(0.1)
        victim = here.revoked(1)
        assert await seconds_until_published(here, victim) < 1
        assert 1 in here.published()[0]


def shrink_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of some lists of this test's size, and one in many seconds after it."""
    monkeypatch.setattr(module, "BURST_BYTES", 400_000)
    monkeypatch.setattr(module, "RESERVE_BYTES", 200_000)
    monkeypatch.setattr(module, "BYTES_PER_SECOND", 2_000)


async def test_a_slow_namespace_holds_up_no_other() -> None:
    """Nobody waits for a batch; what comes in a write's time to the same namespace goes out after it."""
    async with desk() as here:
        here.api.slow = {"slow-0", "slow-1"}
        for number in range(2):
            here.lists.revoke(here.revoked(number + 10, namespace=f"slow-{number}"))
        await asyncio.sleep(0.1)
        assert await seconds_until_published(here, here.revoked(1)) < 0.1
        late = here.revoked(20, namespace="slow-0")
        here.lists.revoke(late)
        assert not (await here.lists.published(late)).is_done
        here.api.let_go.set()
        for number in range(30, 60):
            here.lists.revoke(here.revoked(number, namespace=f"team-{number}"))
        assert (await here.lists.published(late)).is_done
        assert {10, 20} <= here.published("slow-0")[0]


async def test_what_is_revoked_while_an_empty_list_is_removed_is_published() -> None:
    """The place is wanted again before the removal is through."""
    async with desk() as here:
        assert await seconds_until_published(here, here.revoked(1, life=dt.timedelta(minutes=15))) < 1
        await asyncio.sleep(29 * 60)
        here.api.slow = {"team-a"}
        await asyncio.sleep(3 * 60)
        assert len(here.lists) == 0
        again = here.revoked(2)
        here.lists.revoke(again)
        here.api.let_go.set()
        assert (await here.lists.published(again)).is_done
        assert here.published()[0] == {2}


async def test_the_budget_spends_its_burst_and_then_so_much_a_second() -> None:
    """Large lists are written less often; nothing waits while there is some left."""
    budget = Budget(BURST_BYTES, BYTES_PER_SECOND)
    assert budget.take(BURST_BYTES) == 0
    assert budget.take(BYTES_PER_SECOND) == pytest.approx(1)
    assert budget.wait_for(BYTES_PER_SECOND) == pytest.approx(2)
    assert budget.wait_for(BYTES_PER_SECOND, above=BYTES_PER_SECOND) == pytest.approx(3)
    assert budget.wait_for(2 * BURST_BYTES) == budget.wait_for(BURST_BYTES), "a full burst is all there is"
    await asyncio.sleep(2)
    assert budget.take(BYTES_PER_SECOND) == pytest.approx(0, abs=1e-6)
    await asyncio.sleep(3600)
    assert budget.take(BURST_BYTES) == 0
    assert budget.take(1) > 0


async def test_lists_are_signed_again_when_the_stages_keys_change() -> None:
    """At once and not at the next refresh; until then their namespaces are behind. What was proven stays."""
    async with desk() as here:
        one = here.revoked(1)
        here.lists.revoke(one)
        await here.lists.published(one)
        keys = await here.issuer.facts("sandbox")
        assert keys is not None
        assert here.lists.behind("sandbox", keys) == frozenset()
        await here.make_keys(generation=2)
        here.signing = 2
        keys = await here.issuer.facts("sandbox", 2)
        assert keys is not None
        assert here.lists.behind("sandbox", keys) == {"team-a"}
        assert here.lists.behind("pilot", keys) == frozenset()
        assert (await here.lists.published(one)).is_done
        await asyncio.sleep(1)
        assert here.lists.behind("sandbox", keys) == frozenset()
        found = here.server.find("configmaps", "pilot-revoked-sandbox", "team-a")
        assert found is not None
        assert found["data"]["revoked.crl"].count("BEGIN X509 CRL") == 2
        assert jwt.get_unverified_header(found["data"]["revoked-tokens.jws"])["kid"] == keys.jwt_key_id
        writes = len(here.writes())
        await asyncio.sleep(60)
        assert len(here.writes()) == writes, "once"
