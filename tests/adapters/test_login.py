from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilot_identity.adapters.kubernetes.login import DIRECTORY_VARIABLE, Login, LoginError, find_login

SECRET = "a-token-that-nobody-must-see"


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a kubeconfig nor a pod."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "serviceaccount"))


def kubeconfig(path: Path, user: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    """Write a kubeconfig of one context; returns what it says."""
    config: dict[str, Any] = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(config))
    return config


@pytest.fixture
def config_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where KUBECONFIG points."""
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def test_a_pod_uses_its_service_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The mounted token, read as it is at the time, and the mounted CA."""
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    (directory / "token").write_text(f"{SECRET}\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    login = find_login()
    assert login == Login("https://10.0.0.1:443", f"{directory}/ca.crt", token_file=f"{directory}/token")
    assert login.token() == SECRET
    (directory / "token").write_text("another")
    assert login.token() == "another"


def test_an_ipv6_server_is_put_in_brackets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """RFC 3986 §3.2.2."""
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    (directory / "token").write_text(SECRET)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert find_login().server == "https://[fd00::1]:443"


def test_nowhere_to_log_in_says_what_was_looked_at() -> None:
    """Both ways are named."""
    with pytest.raises(LoginError, match=r"KUBECONFIG.*KUBERNETES_SERVICE_HOST.*token"):
        find_login()


def test_a_kubeconfig_names_files(config_path: Path) -> None:
    """Paths count from where the kubeconfig is."""
    user = {"client-certificate": "u.crt", "client-key": "/keys/u.key"}
    kubeconfig(config_path, user, **{"certificate-authority": "ca.crt"})
    login = find_login()
    assert login.ca_file == str(config_path.parent / "ca.crt")
    assert login.certificate_file == str(config_path.parent / "u.crt")
    assert login.key_file == "/keys/u.key"
    assert login.token() == ""


def test_inline_data_goes_to_files_for_the_owner_only(config_path: Path) -> None:
    """The TLS library reads files."""
    data = base64.b64encode(SECRET.encode()).decode()
    kubeconfig(
        config_path,
        {"client-certificate-data": data, "client-key-data": data},
        **{"certificate-authority-data": data},
    )
    login = find_login()
    for name in (login.ca_file, login.certificate_file, login.key_file):
        assert Path(name).read_text() == SECRET
        assert Path(name).stat().st_mode & 0o077 == 0


def test_a_token_file_counts_from_where_the_kubeconfig_is(config_path: Path) -> None:
    """As every other file that a kubeconfig names."""
    (config_path.parent / "token").write_text(SECRET)
    kubeconfig(config_path, {"tokenFile": "token"})
    assert find_login().token() == SECRET


def test_a_token_in_the_kubeconfig_is_used(config_path: Path) -> None:
    """It is the commonest form of all; without it the operator would be nobody."""
    kubeconfig(config_path, {"token": SECRET})
    assert find_login().token() == SECRET


def test_credentials_that_it_cannot_use_are_an_error(config_path: Path) -> None:
    """Rather than asking as nobody."""
    kubeconfig(config_path, {"exec": {"command": "get-token"}})
    with pytest.raises(LoginError):
        find_login()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="no YAML"),
        pytest.param("[]", id="a list"),
        pytest.param(
            "current-context: here\ncontexts: []\nclusters: []\nusers: []", id="a context that is not there"
        ),
        pytest.param("contexts: []", id="no current context"),
    ],
)
def test_what_is_no_kubeconfig_is_an_error(config_path: Path, text: str) -> None:
    """That names the file."""
    config_path.write_text(text)
    with pytest.raises(LoginError, match="is no kubeconfig with a current context"):
        find_login()


def test_a_kubeconfig_that_is_not_there_is_an_error(config_path: Path) -> None:
    """That names the file."""
    with pytest.raises(LoginError, match=config_path.name):
        find_login()


def test_a_kubeconfig_without_server_is_an_error(config_path: Path) -> None:
    """That names the file."""
    config = kubeconfig(config_path, {})
    del config["clusters"][0]["cluster"]["server"]
    config_path.write_text(yaml.safe_dump(config))
    with pytest.raises(LoginError):
        find_login()


def test_a_login_never_shows_a_token(tmp_path: Path) -> None:
    """Its text form has paths only."""
    token = tmp_path / "token"
    token.write_text(SECRET)
    login = Login("https://127.0.0.1", "", token_file=str(token))
    login.token()
    assert SECRET not in f"{login!r} {login}"
