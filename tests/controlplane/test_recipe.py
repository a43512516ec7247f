from __future__ import annotations

import pytest

from e2e.controlplane.errors import BuildError
from e2e.controlplane.recipe import (
    SOURCE,
    cache_directory,
    digest,
    is_older,
    link_flags,
    recipe,
    required_go_version,
    required_kubernetes_version,
)

GO_MOD = "module x\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/kubectl v0.36.3\n\tk8s.io/kubernetes v1.36.3\n)\n"


def test_versions_come_from_go_mod() -> None:
    """go.mod alone tells which Kubernetes is built, and how old Go may be."""
    assert required_kubernetes_version(GO_MOD) == "v1.36.3"
    assert required_go_version(GO_MOD) == "1.26.0"


def test_a_one_line_requirement_counts() -> None:
    """A `require` outside a block is read too."""
    assert required_kubernetes_version("require k8s.io/kubernetes v1.37.0-rc.1\n") == "v1.37.0-rc.1"


@pytest.mark.parametrize("read", [required_kubernetes_version, required_go_version])
def test_a_go_mod_without_versions_is_refused(read: object) -> None:
    """Nothing is assumed where go.mod is silent."""
    assert callable(read)
    with pytest.raises(BuildError, match=r"go\.mod must"):
        read("module x\n")


def test_the_link_flags_stamp_the_version() -> None:
    """The API server calls itself what a release build would."""
    flags = link_flags("v1.36.3")
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "version.gitMajor=1" in flags
    assert "version.gitMinor=36" in flags


@pytest.mark.parametrize(
    "version, required, older",
    [
        ("go1.25.9", "1.26.0", True),
        ("go1.26.0", "1.26.0", False),
        ("go1.26", "1.26.0", False),
        ("go1.27rc1", "1.26.0", False),
        ("go2.0", "1.26.0", False),
        ("devel go1.27-abcdef", "1.26.0", False),
    ],
)
def test_go_versions_are_compared_by_number(version: str, required: str, *, older: bool) -> None:
    """1.9 is older than 1.26, and a development build is as new as can be."""
    assert is_older(version, required) is older


def test_a_digest_tells_where_parts_end() -> None:
    """Two lists whose bytes run together the same are two lists."""
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])
    assert digest([b"ab", b"c"]) == digest([b"ab", b"c"])


def test_without_go_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Go on PATH: the version to install is told, and the way around."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BuildError, match=r"install Go 1\.\d+\.\d+ or newer.*KUBECONFIG"):
        recipe(SOURCE)


def test_the_cache_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """PILOT_IDENTITY_CACHE comes before XDG_CACHE_HOME."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv("PILOT_IDENTITY_CACHE", raising=False)
    assert str(cache_directory()) == "/xdg/pilot-identity"
    monkeypatch.setenv("PILOT_IDENTITY_CACHE", "/mine")
    assert str(cache_directory()) == "/mine"
