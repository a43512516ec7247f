from __future__ import annotations

from pilot_identity.adapters.keys import LOG_KEY_SECRET, KeySecrets, log_signer
from pilot_identity.core.audit.checkpoint import Checkpoint, LogVerifier
from tests.fakes.clock import SetClock
from tests.fakes.server import HOME, FakeApi, FakeServer


async def test_the_log_has_one_signer_for_good() -> None:
    """Two processes, or a later one, sign as the same; the public half is published."""
    server = FakeServer(SetClock())
    first, second = [await log_signer(FakeApi(server), HOME, log_id) for log_id in ("aaaa", "bbbb")]
    assert str(first.verifier()) == str(second.verifier())
    published = server.find("configmaps", "audit-verifier", HOME)
    assert published is not None
    head = Checkpoint(first.name, 0, bytes(32))
    assert LogVerifier.parse(published["data"]["vkey"]).open(second.sign(head)) == head
    assert server.find("secrets", LOG_KEY_SECRET, HOME) is not None


async def test_a_secret_is_created_once_and_never_changed() -> None:
    """Whoever comes second is told, and finds what the first wrote."""
    server = FakeServer(SetClock())
    secrets = KeySecrets(FakeApi(server), HOME)
    assert await secrets.read("stage-keys-x") is None
    assert await secrets.create("stage-keys-x", "pilotidentity.dev/stage-keys", {"a": b"1"})
    assert not await secrets.create("stage-keys-x", "pilotidentity.dev/stage-keys", {"a": b"2"})
    assert await secrets.read("stage-keys-x") == {"a": b"1"}


async def test_a_secret_is_deleted_only_as_it_was_read() -> None:
    """What somebody put in its place, in the meantime, stays."""
    server = FakeServer(SetClock())
    secrets = KeySecrets(FakeApi(server), HOME)
    await secrets.create("stage-keys-x", "pilotidentity.dev/stage-keys", {"a": b"1"})
    await secrets.delete("stage-keys-x", {"a": b"2"})
    assert await secrets.read("stage-keys-x") == {"a": b"1"}
    for _ in range(2):
        await secrets.delete("stage-keys-x", {"a": b"1"})
        assert await secrets.read("stage-keys-x") is None
