"""Output: tables as kubectl prints them, or JSON, YAML and names for programs.

What a program reads goes to stdout and nothing else does. JSON and YAML are written in ASCII, so that no
terminal is led astray by what others wrote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TextIO

import typer
import yaml

from pilot_identity.cli.text import legible, plain

GAP = "   "


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"

    @property
    def is_for_people(self) -> bool:
        """Whether sentences may stand beside the result."""
        return self in {Format.TABLE, Format.WIDE}


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns on stdout."""
    cells = [tuple(headers), *(tuple(plain(cell) or "-" for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(line.rstrip())


def show_data(value: Any, chosen: Format) -> None:
    """Print plain values as JSON or YAML."""
    if chosen is Format.JSON:
        json.dump(value, sys.stdout, indent=2)
        typer.echo()
    else:
        yaml.safe_dump(value, sys.stdout, sort_keys=False)


def show_objects(objects: Sequence[Mapping[str, Any]], chosen: Format) -> None:
    """Print objects of the API server as `kubectl get` does: one as it is, several as a List."""
    bare = [_bare(each) for each in objects]
    show_data(bare[0] if len(bare) == 1 else {"apiVersion": "v1", "kind": "List", "items": bare}, chosen)


def say(text: str) -> None:
    """Print a sentence of the result on stdout."""
    typer.echo(legible(plain(text), encoding_of(sys.stdout)))


def tell(text: str) -> None:
    """Print what is no result on stderr: progress, warnings, hints."""
    typer.echo(legible(plain(text), encoding_of(sys.stderr)), err=True)


def encoding_of(stream: TextIO) -> str:
    """What a stream says that its reader reads: ASCII in the locale C, or as PYTHONIOENCODING says."""
    return stream.encoding or "ascii"


def _bare(body: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out who manages which field, as kubectl does."""
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key != "managedFields"}
    return {**body, "metadata": metadata}
