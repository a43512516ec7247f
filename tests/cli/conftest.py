from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pilot_identity.cli.main import app
from tests.cli import things
from tests.cli.api import FakeApi, serving

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of times is told from now, not from when pytest read these files."""
    monkeypatch.setattr(things, "NOW", dt.datetime.now(dt.UTC))


@pytest.fixture
def api() -> FakeApi:
    """The API server."""
    return FakeApi()


@pytest.fixture
def url(api: FakeApi) -> Iterator[str]:
    """Where it listens."""
    with serving(api) as url:
        yield url


@pytest.fixture
def kubeconfig(url: str, tmp_path: Path) -> Path:
    """Alice's, for namespace team-a, with a second context for team-b."""
    contexts = [
        {"name": name, "context": {"cluster": "here", "user": "alice", "namespace": name}}
        for name in ("team-a", "team-b")
    ]
    config = {
        "kind": "Config",
        "current-context": "team-a",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "alice", "user": {"token": "alices-own-token"}}],
        "contexts": contexts,
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def run(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program as alice."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def run_it(*arguments: str, stdin: str | bytes = "") -> Result:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run_it
