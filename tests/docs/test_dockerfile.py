import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+) \\$", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    """What a lock pins, by name."""
    return dict(PIN.findall((ROOT / name).read_text()))


def test_image_version_is_the_projects() -> None:
    """The image's default version label is the version of pyproject.toml."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()


def test_build_tools_are_those_of_development() -> None:
    """The lock of the build tools pins the same versions as the lock of the development tools."""
    build, development = pins("requirements-build.lock"), pins("requirements-dev.lock")
    assert "hatchling" in build
    assert build == {name: development[name] for name in build}


def test_no_digest_is_made_up() -> None:
    """The base image is an argument: whoever builds pins it by the digest that their registry tells."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert set(bases) == {"${PYTHON_IMAGE}"}
    assert "@sha256:…" in dockerfile
