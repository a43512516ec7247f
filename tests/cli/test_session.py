import json
from pathlib import Path

import pytest

from pilot_identity.cli import session
from tests.cli import things
from tests.cli.api import FakeApi
from tests.cli.conftest import Run


def test_the_namespace_is_the_options_then_the_contexts(api: FakeApi, run: Run) -> None:
    """As with kubectl."""
    for namespace in ("team-a", "team-b", "team-c"):
        api.put("taskgrants", things.grant(f"of-{namespace}", namespace=namespace, uid=namespace))
    for arguments, name in (
        ((), "of-team-a"),
        (("--context", "team-b"), "of-team-b"),
        (("-n", "team-c"), "of-team-c"),
    ):
        assert f"/{name}\n" in run("grants", "-o", "name", *arguments).stdout


def test_kubeconfig_may_be_several_files(
    api: FakeApi, run: Run, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that names a current context wins, as with kubectl."""
    api.put("taskgrants", things.grant())
    empty = tmp_path / "second"
    empty.write_text(json.dumps({"kind": "Config", "clusters": [], "users": [], "contexts": []}))
    monkeypatch.setenv("KUBECONFIG", f"{kubeconfig}:{empty}")
    assert run("grants").exit_code == 0


@pytest.mark.parametrize(
    "content, because",
    [
        ("", "kubeconfig"),
        ("{not: [yaml", "kubeconfig"),
        ("just text", "kubeconfig"),
        (json.dumps({"contexts": [], "clusters": [], "users": []}), "kubeconfig"),
        (None, "kubeconfig"),
    ],
)
def test_an_unusable_kubeconfig_is_told_with_what_to_do(
    run: Run, tmp_path: Path, content: str | None, because: str
) -> None:
    """Exit code 1, no traceback."""
    path = tmp_path / "broken"
    if content is not None:
        path.write_text(content)
    result = run("grants", "--kubeconfig", str(path))
    assert result.exit_code == 1
    assert because in result.stderr
    assert "hint:" in result.stderr


def test_a_kubeconfig_that_acts_as_another_is_followed(api: FakeApi, run: Run, kubeconfig: Path) -> None:
    """What is asked, and recorded, is asked by whom kubectl would ask as: not by the stronger of the two."""
    _act_as(
        kubeconfig,
        {
            "as": "audrey@example.org",
            "as-uid": "7",
            "as-groups": ["auditors", "team-b"],
            "as-user-extra": {"example.org/why%": ["drill"]},
        },
    )
    assert run("grants").exit_code == 0
    assert [(name, value) for name, value in api.headers if name.lower().startswith("impersonate")] == [
        ("Impersonate-User", "audrey@example.org"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "auditors"),
        ("Impersonate-Group", "team-b"),
        ("Impersonate-Extra-example.org%2Fwhy%25", "drill"),
    ]


@pytest.mark.parametrize("part", [{"as-groups": ["system:masters"]}, {"as-uid": "7"}])
def test_a_kubeconfig_that_acts_as_nobody_is_refused(
    run: Run, kubeconfig: Path, part: dict[str, object]
) -> None:
    """As kubectl refuses it."""
    _act_as(kubeconfig, part)
    result = run("grants")
    assert result.exit_code == 1
    assert "no `as`" in result.stderr


def _act_as(kubeconfig: Path, part: dict[str, object]) -> None:
    config = json.loads(kubeconfig.read_text())
    config["users"][0]["user"] |= part
    kubeconfig.write_text(json.dumps(config))


def test_an_unknown_context_is_named(run: Run) -> None:
    """So that a typing error is seen."""
    result = run("grants", "--context", "nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.stderr


def test_a_server_that_is_not_there(run: Run, kubeconfig: Path) -> None:
    """Is told in a sentence, at once."""
    config = json.loads(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    kubeconfig.write_text(json.dumps(config))
    result = run("grants")
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr


def test_a_server_that_says_nothing(api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request has an end."""
    monkeypatch.setattr(session, "ANSWER_SECONDS", 0.2)
    api.silent = True
    result = run("grants")
    assert result.exit_code == 1
    assert "did not answer in time" in result.stderr


@pytest.mark.parametrize("raw", [b"<html>", b"[]", b"\xff"])
def test_an_answer_that_is_none(api: FakeApi, run: Run, raw: bytes) -> None:
    """A proxy's page is not parsed into nonsense."""
    api.raw = raw
    result = run("grants")
    assert result.exit_code == 1
    assert "no JSON object" in result.stderr


def test_an_answer_beyond_all_bounds(api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not read to its end."""
    monkeypatch.setattr(session, "MAX_ANSWER_BYTES", 10)
    api.put("taskgrants", things.grant())
    assert "larger than 10 bytes" in run("grants").stderr


def test_a_redirect_is_not_followed(api: FakeApi, run: Run) -> None:
    """It would carry the user's token to wherever it points."""
    api.status = 302
    result = run("grants")
    assert result.exit_code == 1
    assert len(api.requests) == 1


def test_a_login_that_has_lapsed(api: FakeApi, run: Run) -> None:
    """401 says to log in again."""
    api.status, api.raw = 401, json.dumps({"message": "Unauthorized"}).encode()
    assert "log in again" in run("grants").stderr


def test_an_object_of_another_version_is_told_as_that(api: FakeApi, run: Run) -> None:
    """Not as a traceback about a field."""
    api.put("taskgrants", things.grant(spec={"duration": "for ever"}))
    result = run("grants")
    assert result.exit_code == 1
    assert "update it" in result.stderr


def test_a_name_cannot_lead_elsewhere(api: FakeApi, run: Run) -> None:
    """A slash in a name is part of the name."""
    run("complete", "../../secrets/x")
    assert all("%2F" in path or path.endswith("selfsubjectreviews") for _, path, _ in api.requests)


def test_in_a_pod_the_service_account_is_who_asks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no kubeconfig is; one whose files are missing is told, not guessed around."""
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    result = run("grants")
    assert result.exit_code == 1
    assert "the pod's service account cannot be used" in result.stderr
