"""The log leaves etcd for an archive: in order, whole, and through SIGKILL at any moment.

A log of forty bundles is there already. An operator that archives what is older than a second takes it up; a
file of somebody else is in its way at first, and then it is killed again and again while it works. After each
blow cluster and archive together must be the whole log; in the end only the newest bundles are in etcd.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import random
import secrets as randomness
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e import places
from e2e.admin import Admin
from e2e.audit_format.judges import Judges
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, ROOT, Installation
from e2e.patience import until
from pilot_identity.core.audit.tiles import WIDTH

KILLS = int(os.environ.get("PILOT_IDENTITY_ARCHIVE_KILLS", "2"))
BUNDLES = 40
NEWEST = 2
LEFT = (BUNDLES - NEWEST) * WIDTH
PARTLY = 4
SECONDS = 60.0


class Auditor:
    """One with a laptop, and a memory of each place."""

    def __init__(self, cluster: Cluster, archive: Path, home: Path) -> None:
        self._cluster = cluster
        self._home = home
        self.archive = ("--archive", str(archive))

    def run(
        self, *arguments: str, place: tuple[str, ...] = ("-n", NAMESPACE)
    ) -> subprocess.CompletedProcess[str]:
        """`kubectl pilot audit …`."""
        return subprocess.run(
            [sys.executable, "-m", "pilot_identity.cli", "audit", *arguments, *place],
            env=self._cluster.environment(self._cluster.kubeconfig)
            | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}", "XDG_STATE_HOME": str(self._home)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def verify(self, *options: str, expects: int = 0) -> dict[str, Any]:
        """The verdict, which must come with this exit code."""
        done = self.run("verify", "-o", "json", *options)
        assert done.returncode == expects, f"{done.stdout}{done.stderr}"
        told: dict[str, Any] = json.loads(done.stdout)
        return told


@pytest.fixture
def auditor(cluster: Cluster, archive: Path, tmp_path: Path) -> Auditor:
    """Has seen nothing yet."""
    return Auditor(cluster, archive, tmp_path)


def stored(admin: Admin, prefix: str) -> list[int]:
    """The numbers in the names of the log's ConfigMaps of one kind."""
    names = [str(item["metadata"]["name"]) for item in admin.get(places.core("configmaps"))["items"]]
    return [int(name.removeprefix(prefix)) for name in names if name.startswith(prefix)]


def read(auditor: Auditor, directory: Path, *options: str) -> list[bytes]:
    """Every entry, as exported."""
    done = auditor.run("export", str(directory), *options)
    assert done.returncode == 0, done.stderr
    return (directory / "entries.ndjson").read_bytes().splitlines()


def test_what_stands_in_the_way_is_told_and_nothing_leaves(
    operator: Installation, admin: Admin, archive: Path, auditor: Auditor
) -> None:
    """Another file under the name of a bundle: a metric and a line of the log, and etcd keeps all."""
    foreign = archive / "tile" / "entries" / "003"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"not the log's")
    replica = operator.start_operator()
    until(
        lambda: operator.metrics(replica)["pilot_identity_log_archiving_blocked"] == 1.0,
        "the operator says that it cannot archive",
    )
    assert "the audit log cannot be archived" in replica.log.read_text()
    assert "tile/entries/003 has another content than the log" in replica.log.read_text()
    assert foreign.read_bytes() == b"not the log's"
    assert len(stored(admin, "audit-tile-")) == BUNDLES
    assert auditor.verify()["whole"]
    replica.kill()
    foreign.unlink()


def test_it_is_killed_at_any_moment_and_every_entry_is_somewhere(
    operator: Installation, admin: Admin, auditor: Auditor
) -> None:
    """Cluster and archive together are sound and whole after each kill; in the end only the newest stay."""
    seed = os.environ.get("PILOT_IDENTITY_CRASH_SEED") or randomness.token_hex(4)
    print(f"PILOT_IDENTITY_CRASH_SEED={seed}")
    chance = random.Random(seed)  # noqa: S311 - moments of a test, not keys
    replica = operator.operator
    replica.stop()
    for number in range(KILLS):
        before = len(stored(admin, "audit-tile-"))
        replica.launch()
        # The moment is drawn from when it is at work; where nothing is left to do, it ends as it is.
        until(
            lambda before=before: len(stored(admin, "audit-tile-")) < max(before, NEWEST + 1),  # type: ignore[misc]
            "bundles leave",
        )
        threading.Event().wait(chance.uniform(0.0, 0.2))
        replica.kill()
        told = auditor.verify(*auditor.archive)
        print(f"kill {number}: {len(stored(admin, 'audit-tile-'))} bundles in etcd of {BUNDLES}")
        assert told["whole"]
    operator.start_operator()
    until(
        lambda: operator.metrics(replica)["pilot_identity_log_archived_entries"] == LEFT,
        "all but the newest bundles are archived",
    )
    until(lambda: len(stored(admin, "audit-tile-")) == NEWEST, "they left etcd")
    until(lambda: stored(admin, "audit-archived-") == [LEFT], "one record says so")
    assert operator.metrics(replica)["pilot_identity_log_archiving_blocked"] == 0.0


def test_a_reader_of_the_cluster_proves_what_is_there_and_names_what_is_not(auditor: Auditor) -> None:
    """From the signed edge on; the exit code says that it is a part."""
    told = auditor.verify(expects=PARTLY)
    assert (told["sound"], told["whole"], told["first"]) == (True, False, LEFT)
    assert any(f"entries 0 to {LEFT - 1} are archived" in line for line in told["notChecked"])
    gone = auditor.run("show", "5")
    assert (gone.returncode, "entry 5 is archived" in gone.stderr, "--archive" in gone.stderr) == (
        1,
        True,
        True,
    )
    there = auditor.run("show", str(LEFT), "-o", "json")
    assert (there.returncode, json.loads(there.stdout)["index"]) == (0, LEFT)
    part = auditor.run("for", "grant", "team-a/task-7", "-o", "json")
    assert [json.loads(line)["index"] for line in part.stdout.splitlines()] == [10_007]
    assert "are archived and were not read" in part.stderr


def test_with_the_archive_it_is_the_whole_log(  # noqa: PLR0913, PLR0917 - the cast
    auditor: Auditor,
    entries: Sequence[bytes],
    archive: Path,
    admin: Admin,
    cluster: Cluster,
    tmp_path: Path,
    foreign: Judges,
) -> None:
    """Every entry stands where it stood; foreign tools accept the whole, and the archive by itself."""
    told = read(auditor, tmp_path / "export", *auditor.archive)
    assert told[: len(entries)] == list(entries)
    shown = auditor.run("show", "5", *auditor.archive, "-o", "json")
    assert json.loads(shown.stdout)["entry"] == json.loads(entries[5])
    receipt = tmp_path / "5.tlog-proof"
    receipt.write_text(auditor.run("receipt", "5", *auditor.archive).stdout)
    assert auditor.run("check-receipt", str(receipt), place=()).returncode == 0
    cut = auditor.run("verify", place=("--from", str(archive)))
    assert (cut.returncode, "sound, but older than the head of" in cut.stdout) == (4, True), (
        "who saw more is not content with it"
    )
    fresh = Auditor(cluster, archive, tmp_path / "nobody")
    assert fresh.run("verify", place=("--from", str(archive))).returncode == 0
    assert foreign.fsck_objection(archive) == ""
    with served(archive) as url:
        assert auditor.verify("--archive", url)["whole"]
    bundle = archive / "tile" / "entries" / "007"
    whole = bundle.read_bytes()
    bundle.write_bytes(whole.replace(b"alice", b"mallo", 1))
    broken = auditor.verify(*auditor.archive, expects=1)
    bundle.write_bytes(whole)
    assert [(one["flaw"], one["where"]) for one in broken["findings"]] == [
        ("entry-changed", "tile/entries/007")
    ]
    assert admin.get(places.core("configmaps", name=f"audit-archived-{LEFT:016d}"))["immutable"]


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The archive as any web server would have it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
