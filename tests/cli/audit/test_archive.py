"""The verbs on a log in a cluster whose beginning is archived; `e2e/stories/archive` tells the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import Result

from pilot_identity.core.audit.archived import Archived
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.compacted import Compacted, compact
from pilot_identity.core.audit.groups import Group, extend
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.shelf import Shelf
from pilot_identity.core.audit.tiles import WIDTH
from tests.cli.api import FakeApi, serving
from tests.cli.audit.conftest import Run
from tests.cli.audit.test_commands import entry

NAME = "pilots.example.org/log"
SIGNER = LogSigner(NAME, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
NAMESPACE = "pilot-identity-system"
SIZE, CUT = 5 * WIDTH, 3 * WIDTH
LABELS = {"audit-archived": "archived", "audit-group": "group", "audit-tile": "tile"}


def bundles() -> list[Compacted]:
    """The log, all of it in bundles."""
    made: list[Compacted] = []
    edge: tuple[bytes, ...] = ()
    for first in range(0, SIZE, WIDTH):
        made.append(compact(first, edge, [entry(at) for at in range(first, first + WIDTH)], SIGNER))
        edge = made[-1].edge
    return made


def newest(size: int) -> Group:
    """The newest group, which stands though all of it is in a bundle."""
    frontier = Frontier()
    for at in range(size - 5):
        frontier.append(leaf_hash(entry(at)))
    return extend(frontier, [entry(at) for at in range(size - 5, size)], SIGNER)[0]


BUNDLES = bundles()
Ask = Callable[..., Result]


def store(api: FakeApi, first: int, size: int = SIZE) -> None:
    """The cluster's part of the log as it was at `size`, where what is before `first` left it."""
    api.objects.clear()
    key = {"name": "audit-verifier", "namespace": NAMESPACE}
    api.put("configmaps", {"metadata": key, "data": {"vkey": str(SIGNER.verifier())}})
    parts = [part for one in BUNDLES if first <= one.first < size for part in one.config_maps()]
    if first:
        last = BUNDLES[first // WIDTH - 1]
        parts += list(Archived(first, last.edge, last.note).sealed(SIGNER).config_maps())  # type: ignore[arg-type]
    group = newest(size)
    parts.append((group.name, group.data(), {}))  # type: ignore[arg-type]
    for name, data, binary in parts:
        labels = {"pilotidentity.dev/audit": LABELS["-".join(str(name).split("-")[:2])]}
        metadata = {"name": str(name), "namespace": NAMESPACE, "labels": labels}
        api.put("configmaps", {"metadata": metadata, "data": data, "binaryData": binary})


@pytest.fixture
def api() -> FakeApi:
    """A cluster from which three bundles have left."""
    api = FakeApi()
    store(api, CUT)
    return api


@pytest.fixture
def ask(api: FakeApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """A verb on the log in the cluster."""
    with serving(api) as url:
        config = {
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": {"server": url}}],
            "users": [{"name": "it", "user": {"token": "t"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield run


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """Where they are."""
    for path, content in Shelf(0).put(BUNDLES[: CUT // WIDTH], SIGNER.verifier())[1].items():
        file = tmp_path / "archive" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return str(tmp_path / "archive")


def test_a_part_is_called_a_part(ask: Ask) -> None:
    """By the exit code, by the verdict, and by what was not checked."""
    told = ask("verify")
    assert told.exit_code == 4
    assert f"verdict  sound from entry {CUT} on; the archive was not read" in told.stdout
    assert f"{SIZE - CUT} entries in " in told.stdout
    assert f"that no index is missing between entry {CUT} and the signed head" in told.stdout
    assert f"entries 0 to {CUT - 1} are archived and were not read: give --archive" in told.stdout
    data = json.loads(ask("verify", "-o", "json").stdout)
    assert (data["sound"], data["whole"], data["first"], data["entries"]) == (True, False, CUT, SIZE)


def test_with_the_archive_it_is_whole(ask: Ask, archive: str, tmp_path: Path) -> None:
    """Every verb sees all of it."""
    assert ask("verify", "--archive", archive).exit_code == 0
    assert json.loads(ask("show", "5", "--archive", archive).stdout) == json.loads(entry(5))
    by_pilot = ask("for", "pilot", "pilot-1", "--archive", archive, "-o", "json").stdout.splitlines()
    assert len(by_pilot) == len(range(1, SIZE, 3))
    receipt = tmp_path / "receipt"
    receipt.write_text(ask("receipt", "5", "--archive", archive).stdout)
    assert ask("check-receipt", str(receipt)).exit_code == 0
    assert ask("export", str(tmp_path / "export"), "--archive", archive).exit_code == 0


def test_without_it_what_is_archived_is_asked_for_in_vain(ask: Ask, tmp_path: Path) -> None:
    """It is said why; what is there is told, with a warning on stderr."""
    for index, code in ((5, 1), (CUT, 0)):
        done = ask("show", str(index))
        assert done.exit_code == code
        assert "are archived and were not read" in done.stderr
    assert "entry 5 is archived" in ask("receipt", "5").stderr
    assert ask("check-receipt", "-", stdin=ask("receipt", str(CUT)).stdout).exit_code == 0
    assert [json.loads(line)["index"] for line in ask("tail", "-o", "json").stdout.splitlines()][
        -1
    ] == SIZE - 1
    refused = ask("export", str(tmp_path / "export"))
    assert (refused.exit_code, "this needs the whole log" in refused.stderr) == (1, True)
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    "verb, code",
    [(("reconcile", "-A"), 4), (("replay", "--all"), 0)],
    ids=["reconcile, which cannot read what these entries issue", "replay"],
)
def test_what_judges_all_of_it_needs_all_of_it(
    ask: Ask, archive: str, verb: tuple[str, ...], code: int
) -> None:
    """Sound records must not be called strangers, nor decisions be left out, because they are archived."""
    refused = ask(*verb)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "error: this needs the whole log\nhint: give --archive DIR or URL" in refused.stderr
    done = ask(*verb, "--archive", archive)
    assert (done.exit_code, f"{SIZE} entries" in done.stdout) == (code, True)


def test_a_head_that_is_archived_stays_the_one_that_is_remembered(
    ask: Ask, api: FakeApi, archive: str, state: Path
) -> None:
    """Whoever rewrote the beginning must not be believed because it was archived meanwhile."""
    store(api, 0, 2 * WIDTH)
    assert ask("verify").exit_code == 0
    (remembered,) = state.glob("head-*")
    before = remembered.read_text()
    store(api, CUT)
    told = ask("verify")
    assert told.exit_code == 4
    assert "whether it goes on from the head of 512 entries that was seen before" in told.stdout
    assert remembered.read_text() == before
    assert ask("verify", "--archive", archive).exit_code == 0
    assert remembered.read_text() != before


def test_what_from_names_is_whole_by_itself(ask: Ask, archive: str) -> None:
    """The two do not go together."""
    done = ask("verify", "--from", archive, "--archive", archive)
    assert (done.exit_code, "--archive goes with the log in a cluster" in done.stderr) == (2, True)
