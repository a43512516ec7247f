"""What the binary is made of, and the name under which it is therefore cached."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.controlplane.errors import BuildError

SOURCE = Path(__file__).parent / "build"
INGREDIENTS = ("main.go", "go.mod", "go.sum")
VERSION_PACKAGE = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Recipe:
    """One binary: the same recipe always gives the same file name, another recipe another."""

    go: str
    go_version: str
    kubernetes_version: str
    link_flags: str
    file_name: str


def cache_directory() -> Path:
    """Where binaries and the state of a lasting cluster live: `$PILOT_IDENTITY_CACHE`, else XDG's place."""
    if chosen := os.environ.get("PILOT_IDENTITY_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pilot-identity"


def required_kubernetes_version(go_mod: str) -> str:
    """The version that go.mod requires of k8s.io/kubernetes, such as `v1.36.3`: the only place it is told."""
    found = re.search(r"^\s*(?:require\s+)?k8s\.io/kubernetes\s+(v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise BuildError("go.mod must require k8s.io/kubernetes: that is the version of the control plane")
    return found[1]


def required_go_version(go_mod: str) -> str:
    """The lowest Go that go.mod allows, such as `1.26.0`."""
    found = re.search(r"^go\s+(\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise BuildError("go.mod must name the lowest Go version in a `go` line")
    return found[1]


def link_flags(kubernetes_version: str) -> str:
    """Strip symbols, and stamp the version that a release build would be stamped with.

    Without the stamp the API server calls itself v0.0.0-master, and feature gates, the chart's
    kubeVersion and kubectl's skew warning would go by that.
    """
    major, minor = kubernetes_version.removeprefix("v").split(".")[:2]
    stamps = {
        "gitVersion": kubernetes_version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    return " ".join(["-s -w", *(f"-X {VERSION_PACKAGE}.{name}={value}" for name, value in stamps.items())])


def digest(parts: Sequence[bytes]) -> str:
    """A short digest of an ordered list; lengths are part of it, so no two lists run together."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big") + part)
    return state.hexdigest()[:16]


def is_older(version: str, required: str) -> bool:
    """Whether Go `version` (`go1.25.3`, `go1.27rc1`) comes before `required` (`1.26.0`)."""

    def numbers(text: str) -> tuple[int, int, int]:
        found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", text.removeprefix("go"))
        if found is None:  # a development build names a commit; it is newer than any release
            return (2**31, 0, 0)
        return (int(found[1]), int(found[2] or 0), int(found[3] or 0))

    return numbers(version) < numbers(required)


def recipe(source: Path = SOURCE) -> Recipe:
    """Read what the binary would be built from, here and now.

    Raises:
        BuildError: Go is missing, or older than go.mod allows.
    """
    contents = [(source / name).read_bytes() for name in INGREDIENTS]
    go_mod = contents[INGREDIENTS.index("go.mod")].decode()
    required = required_go_version(go_mod)
    kubernetes = required_kubernetes_version(go_mod)
    go = shutil.which("go")
    if go is None:
        raise BuildError(f"no `go` on PATH: install Go {required} or newer, or give a cluster by KUBECONFIG")
    answer = subprocess.run(
        [go, "env", "-json", "GOVERSION", "GOOS", "GOARCH"],
        cwd=source,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:  # with GOTOOLCHAIN=local an old Go refuses go.mod before it answers
        raise BuildError(f"Go {required} or newer is needed; {go} says: {answer.stderr.strip()}")
    platform: dict[str, str] = json.loads(answer.stdout)
    if is_older(platform["GOVERSION"], required):
        raise BuildError(f"Go {required} or newer is needed; {go} is {platform['GOVERSION']}")
    flags = link_flags(kubernetes)
    key = digest([*contents, flags.encode(), *(platform[name].encode() for name in sorted(platform))])
    return Recipe(
        go=go,
        go_version=platform["GOVERSION"],
        kubernetes_version=kubernetes,
        link_flags=flags,
        file_name=f"controlplane-{kubernetes}-{key}",
    )


def environment() -> dict[str, str]:
    """The environment of every `go` that runs here: static binaries, and no workspace of the user's."""
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
