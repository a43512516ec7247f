from __future__ import annotations

from pathlib import Path

import pytest

from e2e.controlplane.errors import PickError
from e2e.controlplane.pick import Choice, Circumstances, Source, assets_programs, choices

ALL_AT_ONCE = {
    "PILOT_IDENTITY_E2E_KUBECONFIG": "/purpose",
    "KUBECONFIG": "/plain",
    "KUBEBUILDER_ASSETS": "/assets",
}
ASSETS = {"KUBEBUILDER_ASSETS": "/assets"}


def picked(
    environment: dict[str, str],
    *,
    kubeconfig: Path | None = None,
    docker: bool = False,
    wanted: Source | None = None,
) -> list[Choice]:
    """The choices, in their order."""
    return list(choices(Circumstances(environment, kubeconfig, wanted, docker_answers=lambda: docker)))


def sources(found: list[Choice]) -> list[tuple[str, str | None]]:
    """Source and path of each."""
    return [(choice.source.value, str(choice.path) if choice.path else None) for choice in found]


@pytest.mark.parametrize(
    "environment, docker, expected",
    [
        pytest.param(ALL_AT_ONCE, True, [("given", "/purpose")], id="a kubeconfig of ours comes first"),
        pytest.param({"KUBECONFIG": "/plain"}, True, [("given", "/plain")], id="KUBECONFIG is on purpose"),
        pytest.param({}, True, [("kind", None), ("built", None)], id="Docker comes before a build"),
        pytest.param(ASSETS, True, [("kind", None), ("assets", "/assets")], id="Docker comes before assets"),
        pytest.param(ASSETS, False, [("assets", "/assets")], id="assets come before a build"),
        pytest.param({}, False, [("built", None)], id="with nothing at hand one is built"),
    ],
)
def test_the_order(
    environment: dict[str, str], *, docker: bool, expected: list[tuple[str, str | None]]
) -> None:
    """Purpose, kind, assets, build; what is on purpose has no successor."""
    assert sources(picked(environment, docker=docker)) == expected


def test_the_option_comes_before_the_environment() -> None:
    """--kubeconfig outranks each variable."""
    assert sources(picked(ALL_AT_ONCE, kubeconfig=Path("/option"))) == [("given", "/option")]


def test_docker_is_not_asked_where_purpose_decides() -> None:
    """A kubeconfig on purpose costs no question to Docker."""

    def asked() -> bool:
        raise AssertionError("asked Docker")

    assert list(choices(Circumstances({"KUBECONFIG": "/plain"}, docker_answers=asked)))


@pytest.mark.parametrize("wanted", [Source.KIND, Source.BUILT])
def test_a_source_can_be_asked_for(wanted: Source) -> None:
    """What is asked for by name is the only choice, whatever else there is."""
    assert sources(picked(ALL_AT_ONCE, wanted=wanted)) == [(wanted.value, None)]


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"PILOT_IDENTITY_E2E_CLUSTER": "given"}, "given was asked for: give --kubeconfig"),
        ({"PILOT_IDENTITY_E2E_CLUSTER": "assets"}, "assets was asked for: set KUBEBUILDER_ASSETS"),
        ({"PILOT_IDENTITY_E2E_CLUSTER": "minikube"}, "must be one of given, kind, assets, built"),
        ({"KUBECONFIG": "/a:/b"}, "must name one file"),
    ],
)
def test_what_cannot_be_had_is_an_error(environment: dict[str, str], message: str) -> None:
    """Nothing else is taken in silence."""
    with pytest.raises(PickError, match=message):
        picked(environment)


def test_assets_without_an_api_server_are_refused(tmp_path: Path) -> None:
    """KUBEBUILDER_ASSETS must hold what it is for; the error names what is missing."""
    (tmp_path / "etcd").write_text("#!/bin/sh\n")
    (tmp_path / "etcd").chmod(0o755)
    with pytest.raises(PickError, match="holds no kube-apiserver"):
        assets_programs(tmp_path, lambda _: None)
