from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilot_identity import __main__ as program
from pilot_identity import __version__, logs, wiring
from pilot_identity.control.elector import LostLeadershipError

ROOT = Path(__file__).parent.parent


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a person would, with nothing in its environment that says where it is."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "pilot_identity", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT / "operator"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_program_tells_its_version() -> None:
    """As a person starts it."""
    told = run("--version")
    assert (told.returncode, told.stdout) == (0, f"pilot-identity {__version__}\n")


@pytest.mark.parametrize(
    "arguments, told",
    [
        pytest.param(["--help"], ["run", "--version"], id="the program"),
        pytest.param(
            ["run", "--help"],
            ["--cluster-wide", "--operator-namespace", "--issuer", "--log-level"],
            id="the command",
        ),
    ],
)
def test_help_is_told(arguments: list[str], told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And succeeds, with every option in it."""
    with pytest.raises(SystemExit) as stopped:
        program.main(arguments)
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert [option for option in told if option not in shown] == []


@pytest.mark.parametrize(
    "arguments, told",
    [
        pytest.param([], "COMMAND", id="no command"),
        pytest.param(["run"], "--cluster-wide", id="neither one namespace nor all"),
        pytest.param(
            ["run", "--cluster-wide", "--namespace", "a", "--operator-namespace", "x"],
            "not allowed",
            id="both",
        ),
        pytest.param(["run", "--cluster-wide"], "--operator-namespace or POD_NAMESPACE", id="no home"),
        pytest.param(
            ["run", "--cluster-wide", "--operator-namespace", "x", "--issuer", "none"],
            "invalid choice",
            id="an unknown issuer",
        ),
    ],
)
def test_what_cannot_be_meant_is_told(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and the message says what to change."""
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    with pytest.raises(SystemExit) as stopped:
        program.main(arguments)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_a_start_without_api_server_fails_and_says_why() -> None:
    """Exit code 1, one line of JSON, no trace."""
    ended = run("run", "--cluster-wide", POD_NAMESPACE="pilot-identity-system", POD_NAME="replica-0")
    assert ended.returncode == program.EXIT_FAILED
    told = json.loads(ended.stderr.splitlines()[-1])
    assert told["level"] == "critical"
    assert told["message"].startswith("stops: LoginError: found no API server: set KUBECONFIG")
    assert "exception" not in told


def run_apart(*arguments: str) -> int:
    """Run the program in a thread of its own: its event loop must not take the place of pytest's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(program.main, ["run", *arguments]).result(timeout=60)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[wiring.Options]:
    """What the program asks of the wiring, which does nothing here; and no log is set up."""
    options: list[wiring.Options] = []

    async def note(chosen: wiring.Options) -> None:
        await asyncio.sleep(0)
        options.append(chosen)

    monkeypatch.setattr(wiring, "run", note)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    return options


def test_a_replica_that_is_stopped_succeeds(asked: list[wiring.Options]) -> None:
    """Its options are what was asked for."""
    given = ["--namespace", "a", "--namespace", "b", "--operator-namespace", "home", "--identity", "me"]
    assert run_apart(*given, "--http-port", "0") == 0
    assert asked == [wiring.Options("home", "me", ("a", "b"), 0, "secret")]


def test_a_replica_that_lost_its_lease_fails(
    monkeypatch: pytest.MonkeyPatch, asked: list[wiring.Options], caplog: pytest.LogCaptureFixture
) -> None:
    """Kubelet starts it again."""

    async def lose(chosen: wiring.Options) -> None:
        asked.append(chosen)
        await asyncio.sleep(0)
        raise LostLeadershipError("another replica took the lease")

    monkeypatch.setattr(wiring, "run", lose)
    assert run_apart("--cluster-wide", "--operator-namespace", "home") == program.EXIT_FAILED
    assert "LostLeadershipError: another replica took the lease" in caplog.text
    assert asked[0].namespaces == ()


def test_the_operator_imports_no_client_that_it_does_not_use() -> None:
    """Kopf would. The command line needs its own and still finds it."""
    script = """
import sys
from pilot_identity import __main__ as program
with program._hidden(*program.UNUSED_CLIENTS):
    from pilot_identity import wiring
assert not {"kubernetes", "pykube", "requests"} & sys.modules.keys()
import kubernetes
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "operator")}
    command = [sys.executable, "-c", script]
    subprocess.run(command, check=True, env=environment, timeout=60)  # noqa: S603 - our own program
