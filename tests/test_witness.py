"""`pilot-identity witness` with its key and state in files, as it runs beside no cluster."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.__main__ import EXIT_FAILED
from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner
from pilot_identity.core.audit.cosignature import CosignatureVerifier
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.witness.request import AddCheckpoint

ROOT = Path(__file__).parent.parent
LOG = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
TREE = Tree(hashlib.sha256(bytes([number])).digest() for number in range(40))
_STARTED = re.compile(r"witness (\S+) takes heads of 1 logs on port (\d+)")


def asked(old: int, size: int) -> str:
    """A log's request to go from one size to another."""
    proof = TREE.consistency(old, size) if old else ()
    return str(AddCheckpoint(old, proof, LOG.sign(Checkpoint(LOG.name, size, TREE.root(size)))))


def command(home: Path, state: Path) -> list[str]:
    """The program, with its key in one directory and what it cosigned in another."""
    return [
        *(sys.executable, "-m", "pilot_identity", "witness", "--name=witness.example.org/w1"),
        *(f"--key-file={home / 'key.pem'}", f"--state-directory={state}", f"--log={LOG.verifier()}"),
        *("--port=0", "--http-port=0", "--log-format=text"),
    ]


def environment() -> dict[str, str]:
    """Nothing in it says where a cluster is."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT / "operator")}


@dataclass
class Run:
    """The program, running; where it listens and its key it says itself."""

    directory: Path
    first_use: bool
    process: subprocess.Popen[str] = field(init=False)
    vkey: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        """Start it and wait for its word."""
        options = ["--trust-on-first-use"] if self.first_use else []
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [*command(self.directory, self.directory), *options],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := _STARTED.search(line):
                self.vkey, self.port = found[1], int(found[2])
                return
        raise AssertionError("it ended before it listened")

    def post(self, body: str) -> tuple[int, str]:
        """Ask it for a cosignature."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/add-checkpoint", body.encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - of our own making
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def end(self, number: signal.Signals) -> int:
        """End it by a signal; returns its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where its key is, and nothing else yet."""
    key = Ed25519PrivateKey.generate()
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(encoded)
    return tmp_path


@pytest.fixture
def running() -> Iterator[list[Run]]:
    """What is running when the test ends is ended."""
    runs: list[Run] = []
    yield runs
    for run in runs:
        if run.process.poll() is None:
            run.end(signal.SIGKILL)


def test_a_witness_that_is_killed_knows_what_it_cosigned(directory: Path, running: list[Run]) -> None:
    """And one that is told to stop succeeds."""
    running.append(first := Run(directory, first_use=True))
    status, line = first.post(asked(0, 20))
    assert status == 200
    note = asked(0, 20).partition("\n\n")[2]
    assert CosignatureVerifier.parse(first.vkey).cosigned_at(note + line)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    running.append(second := Run(directory, first_use=False))
    assert second.vkey == first.vkey
    assert second.post(asked(0, 30)) == (409, "20\n")
    assert second.post(asked(20, 30))[0] == 200
    assert second.end(signal.SIGTERM) == 0


def test_a_witness_without_its_directory_does_not_start(directory: Path) -> None:
    """A volume that is not mounted is not an empty state."""
    ended = subprocess.run(  # noqa: S603 - our own program
        command(directory, directory / "volume"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == EXIT_FAILED
    assert "stops: FileNotFoundError" in ended.stderr
