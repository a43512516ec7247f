"""A Dockerfile, read: just the instructions that ours has."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_KNOWN = frozenset(
    {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "LABEL", "RUN", "USER", "WORKDIR"}
)
_FLAG = re.compile(r"--([a-z]+)=(\S+)\s+")


class DockerfileError(Exception):
    """The Dockerfile says something that the check does not understand, or that is wrong."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        verb: in capitals, for example `RUN`.
        flags: such as `{"network": "none"}`.
        text: the rest, continuation lines joined.
    """

    verb: str
    flags: dict[str, str]
    text: str

    def words(self) -> list[str]:
        """The text as a list: in the form of JSON, else split as a shell does."""
        if self.text.startswith("["):
            words: list[str] = json.loads(self.text)
            return words
        return shlex.split(self.text)

    def pairs(self) -> dict[str, str]:
        """The text as `name=value` pairs."""
        return dict(word.split("=", 1) for word in self.words())


def parse(text: str) -> tuple[Instruction, ...]:
    """Read a Dockerfile.

    Raises:
        DockerfileError: an instruction is of another kind than ours are.
    """
    return tuple(map(_instruction, _lines(text)))


def _lines(text: str) -> Iterator[str]:
    """Lines with their continuations; comments and empty lines are passed over."""
    whole = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not (whole or line.strip()):
            continue
        whole += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield " ".join(whole.split())
            whole = ""


def _instruction(line: str) -> Instruction:
    verb, _, rest = line.partition(" ")
    if verb not in _KNOWN:
        raise DockerfileError(f"the check does not know how to carry out {verb}: {line}")
    flags = {}
    while match := _FLAG.match(rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(verb, flags, rest)


def let_through(ignore: Path) -> frozenset[str]:
    """The names that a .dockerignore lets through which ignores all others.

    Raises:
        DockerfileError: it does not begin by ignoring everything.
    """
    lines = [line for line in ignore.read_text().splitlines() if line and not line.startswith("#")]
    if lines[:1] != ["*"]:
        raise DockerfileError(f"{ignore.name} must ignore everything first, then let through what is copied")
    return frozenset(line.removeprefix("!") for line in lines if line.startswith("!"))
