import doctest
import importlib

import pytest

from pilot_identity import __version__
from pilot_identity.cli import completion
from tests.cli import things
from tests.cli.api import FakeApi
from tests.cli.conftest import Run

VERBS = (
    "request",
    "approve",
    "deny",
    "review",
    "complete",
    "revoke",
    "suspend",
    "resume",
    "grants",
    "trace",
)


def kubectl_asks(
    *words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What kubectl gets for `kubectl pilot <words><TAB>`."""
    for name in (completion._VARIABLE, "COMP_WORDS", "COMP_CWORD"):  # noqa: SLF001 - to have it put back
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("sys.argv", ["kubectl_complete-pilot", *words])
    completion.main()
    *found, directive = capsys.readouterr().out.splitlines()
    assert directive == ":0"
    return [each for each in found if each]


def test_kubectl_completes_verbs_options_and_names(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In cobra's form, which kubectl reads; names come from the cluster and context that is asked for."""
    del run  # its kubeconfig is used
    api.put("taskgrants", things.grant("task-of-a", uid="1"))
    api.put("taskgrants", things.grant("task-of-b", uid="2", namespace="team-b"))
    api.put("pilotidentities", things.pilot())

    def asks(*words: str) -> list[str]:
        return kubectl_asks(*words, capsys=capsys, monkeypatch=monkeypatch)

    assert asks("re") == ["request", "review", "revoke", "resume"]
    assert asks("grants", "-o", "j") == ["json"]
    assert asks("revoke", "ta") == ["task-of-a"]
    assert asks("revoke", "-n", "team-b", "") == ["task-of-b"]
    assert asks("suspend", "") == ["triage"]
    api.forbidden = "."
    assert asks("revoke", "ta") == [], "and no error in the middle of a line"


def test_every_verb_explains_itself(run: Run) -> None:
    """With the options that all have."""
    for verb in VERBS:
        told = run(verb, "--help").stdout
        for option in ("--namespace", "--output", "--context", "--kubeconfig"):
            assert option in told, (verb, option)
    told = run("--help").stdout
    assert all(verb in told for verb in VERBS)
    assert "Exit codes" in told
    assert run("--version").stdout == f"kubectl-pilot {__version__}\n"
    assert run("no-such-verb").exit_code == 2


@pytest.mark.parametrize("module", ["access", "text", "clues", "audit.reconciling"])
def test_doctests(module: str) -> None:
    """The examples in the docstrings are true."""
    done = doctest.testmod(importlib.import_module(f"pilot_identity.cli.{module}"))
    assert done.failed == 0
    assert done.attempted > 0
