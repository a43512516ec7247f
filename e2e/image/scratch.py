"""A scratch image: the Dockerfile's stages carried out under a directory in place of the root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from e2e.image.dockerfile import DockerfileError, Instruction

PREFIXES = ("/build", "/opt/pilot-identity")
"""What the Dockerfile makes; anything else that it names is the base image's."""
_OWN_PATH = re.compile(rf"(?<![\w./-])(?={'|'.join(PREFIXES)})(?:{'|'.join(PREFIXES)})(?![\w-])")


class ImageError(Exception):
    """What the Dockerfile makes is not as it must be; the message says what was run and what it said."""


@dataclass(slots=True)
class ScratchImage:
    """Both stages in one directory: the second copies the first's paths to the same paths.

    Attributes:
        context: the build context, the project's root.
        root: stands for the image's root directory.
        allowed: what .dockerignore lets through.
    """

    context: Path
    root: Path
    allowed: frozenset[str]
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    user: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def carry_out(self, instruction: Instruction) -> None:
        """Do what one instruction says.

        Raises:
            DockerfileError, ImageError: it is wrong, or it failed.
        """
        match instruction.verb:
            case "FROM":
                # Each stage begins with the base image's environment and nobody's directory.
                self.environment = {"PATH": f"{self._base_python()}{os.pathsep}{os.environ['PATH']}"}
            case "ENV":
                path = self.environment["PATH"]
                for name, value in instruction.pairs().items():
                    self.environment[name] = self.here(value).replace("${PATH}", path)
            case "WORKDIR":
                Path(self.here(instruction.text)).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(instruction)
            case "RUN":
                self._run(instruction)
            case "LABEL":
                self.labels |= instruction.pairs()
            case "USER":
                self.user = instruction.text
            case "ENTRYPOINT":
                self.entrypoint = [self.here(word) for word in instruction.words()]

    def here(self, text: str) -> str:
        """Put the scratch directory before each path that the Dockerfile makes."""
        return _OWN_PATH.sub(lambda match: f"{self.root}{match[0]}", text)

    def _base_python(self) -> Path:
        """A directory with `python`, as the base image has one."""
        directory = self.root / "base"
        directory.mkdir(exist_ok=True)
        link = directory / "python"
        if not link.exists():
            base = getattr(sys, "_base_executable", sys.executable)
            link.symlink_to(base)
        return directory

    def _copy(self, instruction: Instruction) -> None:
        *sources, target = instruction.words()
        if "from" in instruction.flags:
            if sources != [target]:
                raise DockerfileError(f"a virtual environment must not move: {instruction.text}")
            return
        for source in sources:
            if source not in self.allowed:
                raise DockerfileError(f".dockerignore keeps {source} out, which the Dockerfile copies")
            origin, place = self.context / source, Path(self.here(target))
            if origin.is_dir():
                leave = shutil.ignore_patterns("__pycache__")
                shutil.copytree(origin, place, ignore=leave, dirs_exist_ok=True)
            else:
                shutil.copy2(origin, place / source if target.endswith("/") else place)

    def _run(self, instruction: Instruction) -> None:
        started = time.monotonic()
        command = ["sh", "-c", self.here(instruction.text)]
        offline = instruction.flags.get("network") == "none"
        if offline and os.geteuid() == 0 and shutil.which("unshare"):
            command = ["unshare", "--net", *command]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            # pip's own settings of this machine (mirrors, proxies) still count, as they do in a build.
            env={**os.environ, **self.environment, "PYTHONPATH": ""},
            cwd=self.here("/build"),
        )
        if done.returncode != 0:
            raise ImageError(f"RUN {instruction.text}\n{done.stdout}{done.stderr}")
        note = " (without a network)" if command[0] == "unshare" else ""
        print(f"  RUN {instruction.text} … {time.monotonic() - started:.1f} s{note}", flush=True)
