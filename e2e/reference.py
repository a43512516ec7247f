"""`python -m e2e.reference [--check]`: writes docs/reference from the docstrings in the code.

A constant's documentation is the string below it, so that it stands where the constant is made; this turns
it into tables. With `--check` nothing is written, and stale pages are named.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = ROOT / "operator" / "pilot_identity" / "core"
PAGES = ROOT / "docs" / "reference"
NOTE = "<!-- Written by `python -m e2e.reference` from the docstrings in {source}; change them there. -->"

CONDITIONS = """# Conditions

`kubectl get` and `kubectl wait` read these, and so do GitOps tools (kstatus). Look at `Ready` first: its
`reason` is one of the words below, its `message` says what to change. An ended grant is `Ready` = True: it
did its work, and what it waited for does not come any more. A denied one is `Ready` = False and `Stalled`.
"""
ENTRIES = """# Entries of the audit log

Each entry is a CloudEvent 1.0 in canonical JSON (RFC 8785), one line in a ConfigMap `audit-group-…` (later
in a tile `audit-tile-…`) of the
operator's namespace. Its position in the log is its index; Events and statuses name it.

| Attribute | Meaning |
|---|---|
| `specversion`, `datacontenttype` | `1.0` and `application/json` |
| `id` | Unique in the log, and the same when a step is decided again after a crash |
| `source` | The log's origin, as in its checkpoints |
| `type` | One of those below |
| `subject`, `subjectuid` | The object as `Kind namespace/name`, and its UID |
| `time` | When it was decided |
| `data` | The particulars; never a key or a token |

An entry with a `decision` says what its checks looked at in `observation`, so that it can be made again
([replay](../how-to/replay.md)). What is larger than 16 KiB is there by `sha256` and `bytes`.

Drills are not in this version, so no entry tells of one.
"""


@dataclass(frozen=True, slots=True)
class Constant:
    """A member of an enumeration, with the comment that its group stands under and its docstring."""

    group: str
    value: str
    text: str


def constants(path: Path, name: str) -> Iterator[Constant]:
    """Read the members of the enumeration `name`, in the order of the source."""
    source = path.read_text()
    lines = source.splitlines()
    (enumeration,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name
    )
    group = ""
    for member, text in zip(enumeration.body, enumeration.body[1:], strict=False):
        if not isinstance(member, ast.Assign):
            continue
        above = re.fullmatch(r"    # (.+?)\.?", lines[member.lineno - 2])
        group = above[1] if above else group
        yield Constant(group, ast.literal_eval(member.value), " ".join(_docstring(text).split()))


def _docstring(node: ast.stmt) -> str:
    match node:
        case ast.Expr(ast.Constant(str(text))):
            return text
        case _:
            raise ValueError(f"line {node.lineno}: a constant has its documentation below it")


def _table(head: str, rows: list[Constant]) -> str:
    lines = [f"| {head} | Meaning |", "|---|---|"]
    lines += [f"| `{row.value}` | {row.text.replace('|', chr(92) + '|')} |" for row in rows]
    return "\n".join(lines) + "\n"


def conditions() -> str:
    """The page on conditions."""
    path = CORE / "resources" / "conditions.py"
    parts = [NOTE.format(source=path.relative_to(ROOT)), CONDITIONS]
    parts += ["## Types\n", _table("Type", list(constants(path, "ConditionType")))]
    reasons = list(constants(path, "Reason"))
    for group in dict.fromkeys(reason.group for reason in reasons):
        parts += [f"## {group}\n", _table("Reason", [reason for reason in reasons if reason.group == group])]
    return "\n".join(parts)


def audit_entries() -> str:
    """The page on the log's entries."""
    path = CORE / "audit" / "entries.py"
    parts = [NOTE.format(source=path.relative_to(ROOT)), ENTRIES]
    return "\n".join([*parts, "## Types\n", _table("Type", list(constants(path, "EntryType")))])


def main() -> int:
    """Run the program; returns its exit code: 1 where `--check` finds a stale page."""
    parser = argparse.ArgumentParser(prog="python -m e2e.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, name stale pages")
    chosen = parser.parse_args()
    stale = False
    for name, text in (("conditions.md", conditions()), ("audit-entries.md", audit_entries())):
        page = PAGES / name
        if page.exists() and page.read_text() == text:
            continue
        stale = True
        if chosen.check:
            print(f"{page.relative_to(ROOT)} is stale: run python -m e2e.reference")
        else:
            page.write_text(text)
            print(f"wrote {page.relative_to(ROOT)}")
    return int(stale and chosen.check)


if __name__ == "__main__":
    sys.exit(main())
