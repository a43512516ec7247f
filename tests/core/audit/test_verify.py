"""The verifier against stored logs, each broken in the one way that its name tells."""

from __future__ import annotations

import ast
import base64
import copy
import inspect
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit import findings
from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner, LogVerifier
from pilot_identity.core.audit.findings import Flaw, Report
from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.parts import Part, Segment, StoredHead
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.reader import ConfigMapLog, TiledLog
from pilot_identity.core.audit.tiles import ENTRIES, Tile, decode_bundle
from pilot_identity.core.audit.verify import MAX_FINDINGS, Verification, verify

STORED = json.loads((Path(__file__).parent / "vectors" / "logs.json").read_text(encoding="utf-8"))
VERIFIER = LogVerifier.parse(STORED["verifier"])
FILES = {path: base64.b64decode(content) for path, content in STORED["files"].items()}
GROUPS: dict[str, dict[str, Any]] = STORED["groups"]
TILES: dict[str, dict[str, Any]] = STORED["tiles"]
BUNDLES: dict[str, dict[str, Any]] = STORED["bundles"]["cases"]
COPY = b"".join(
    entry + b"\n"
    for path in (Tile(ENTRIES, 0).path, Tile(ENTRIES, 1, 4).path)
    for entry in decode_bundle(FILES[path])
)
"""The log in tiles one entry a line, as an export has it beside them."""
SHELF = {path: base64.b64decode(content) for path, content in STORED["bundles"]["archive"].items()}


def in_groups(case: dict[str, Any]) -> Report:
    """What is found in a log in ConfigMaps."""
    items = [{"metadata": {"name": item["name"]}, "data": item["data"]} for item in case["items"]]
    seen = case.get("seen")
    head = Checkpoint(VERIFIER.name, seen["size"], base64.b64decode(seen["root"])) if seen else None
    return verify(ConfigMapLog(lambda: items), VERIFIER, head)[0]


def in_tiles(case: dict[str, Any]) -> Report:
    """What is found in a log in files."""
    files = dict(FILES)
    for edit in case["edits"]:
        was = files.pop(edit["path"], COPY)
        if "gone" not in edit:
            at, put = edit["at"], base64.b64decode(edit["put"])
            files[edit["path"]] = was[:at] + put + was[at + edit["take"] :]

    def fetch_all(paths: Iterable[str]) -> Iterator[bytes | None]:
        return map(files.get, paths)

    ndjson = files.pop("entries.ndjson", None)
    lines = io.BytesIO(ndjson) if ndjson is not None else None
    return verify(TiledLog(files.get, fetch_all, lines=lambda: lines), VERIFIER)[0]


def in_bundles(case: dict[str, Any]) -> Report:
    """What is found in a log in ConfigMaps of which some are bundles, read as it is listed: by the label."""
    items: dict[str, Any] = copy.deepcopy(STORED["bundles"]["items"]) | case["more"]
    for name, fields in case["edits"].items():
        if fields is None:
            del items[name]
            continue
        for field, values in fields.items():
            changed = items[name][field] | values
            items[name][field] = {key: value for key, value in changed.items() if value is not None}
    stored = {
        name: {
            "metadata": {"name": name, "labels": each["labels"], "annotations": each["annotations"]},
            "data": each["data"],
            "binaryData": each["binaryData"],
        }
        for name, each in sorted(items.items())
    }
    listed = [each for each in stored.values() if each["metadata"]["labels"]]

    def fetch_all(paths: Iterable[str]) -> Iterator[bytes | None]:
        return map(SHELF.get, paths)

    archive = TiledLog(SHELF.get, fetch_all) if case["read"] == "archive" else None
    return verify(ConfigMapLog(lambda: listed, archive, stored.get), VERIFIER)[0]


def found(report: Report) -> list[list[object]]:
    """The findings as the vectors have them."""
    return [[str(each.flaw), each.where, each.index] for each in report.findings]


@pytest.mark.parametrize("name", GROUPS)
def test_what_is_wrong_with_a_log_in_groups_is_named(name: str) -> None:
    """The flaw, the ConfigMap and the entry, and nothing else."""
    report = in_groups(GROUPS[name])
    assert found(report) == GROUPS[name]["found"]
    assert report.is_sound == name.startswith("good")


@pytest.mark.parametrize("name", TILES)
def test_what_is_wrong_with_a_log_in_tiles_is_named(name: str) -> None:
    """The flaw, the file and the entry, and nothing else."""
    report = in_tiles(TILES[name])
    assert found(report) == TILES[name]["found"]
    assert report.is_sound == name.startswith("good")


@pytest.mark.parametrize("name", BUNDLES)
def test_what_is_wrong_with_a_log_in_bundles_is_named(name: str) -> None:
    """The flaw, the ConfigMap or file and the entry, and nothing else."""
    report = in_bundles(BUNDLES[name])
    assert found(report) == BUNDLES[name]["found"]
    assert report.is_sound == name.startswith("good")


@given(st.data())
def test_no_changed_byte_of_a_file_goes_unseen(data: st.DataObject) -> None:
    """Any one byte of any one file of the tiled log, turned into any other."""
    path = data.draw(st.sampled_from(sorted(FILES)))
    at = data.draw(st.integers(0, len(FILES[path]) - 1))
    put = data.draw(st.integers(0, 255).filter(lambda value: value != FILES[path][at]))
    report = in_tiles({"edits": [{"path": path, "at": at, "take": 1, "put": base64.b64encode(bytes([put]))}]})
    if path == "checkpoint" and report.is_sound:
        # Base64 of a signature ends with bits that say nothing.
        assert at >= len(FILES[path]) - 4
    else:
        assert not report.is_sound


@given(st.data())
def test_no_changed_character_of_a_group_goes_unseen(data: st.DataObject) -> None:
    """Any one character of any one entry in a ConfigMap, turned into any other printable one."""
    case = copy.deepcopy(GROUPS["good"])
    stored = data.draw(st.sampled_from(case["items"]))["data"]
    text = stored["entries"]
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda it: it != text[at]))
    stored["entries"] = text[:at] + put + text[at + 1 :]
    assert not in_groups(case).is_sound


@given(st.integers(1, 10), st.integers(0, 10))
def test_a_log_goes_on_from_every_head_that_it_had(size: int, cut: int) -> None:
    """Seen at any size, it is consistent with that; cut shorter than what was seen, it is truncated."""
    tree = Tree(
        leaf_hash(entry.encode())
        for item in GROUPS["good"]["items"]
        for entry in item["data"]["entries"].split("\n")
    )
    case = copy.deepcopy(GROUPS["good"])
    case["seen"] = {"size": size, "root": base64.b64encode(tree.root(size)).decode()}
    case["items"] = [item for item in case["items"] if int(item["name"][-16:]) < cut]
    left = sum(len(item["data"]["entries"].split("\n")) for item in case["items"])
    report = in_groups(case)
    if left < size:
        assert [finding.flaw for finding in report.findings] == [Flaw.TAIL_TRUNCATED]
        assert report.goes_on is None
    else:
        assert (report.findings, report.goes_on) == ((), True)


def test_a_hostile_log_cannot_fill_the_memory_with_findings() -> None:
    """They are counted no further than anybody reads."""
    items = [{"name": f"audit-group-{at:016d}", "data": {}} for at in range(MAX_FINDINGS * 2)]
    assert len(in_groups({"items": items}).findings) <= MAX_FINDINGS + 1


def test_no_log_at_all_is_not_sound() -> None:
    """Nothing that is there was not signed, but nothing is proven either."""
    report = in_groups({"items": []})
    assert [finding.flaw for finding in report.findings] == [Flaw.NO_LOG]
    assert not report.is_sound


def test_an_unproven_end_is_told() -> None:
    """Entries whose only head is not ours are counted as under no signed head."""
    case = copy.deepcopy(GROUPS["good"])
    case["items"][-1]["data"]["checkpoint"] = GROUPS["foreign key"]["items"][1]["data"]["checkpoint"]
    report = in_groups(case)
    assert [finding.flaw for finding in report.findings] == [Flaw.FOREIGN_KEY]
    assert (report.entries, report.unproven_from, report.is_sound) == (10, 8, False)


def test_every_flaw_has_a_meaning_in_words() -> None:
    """They are what a reader of a report looks up."""
    tree = ast.parse(inspect.getsource(findings))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Flaw")
    meanings = [node for node in body[1:] if isinstance(node, ast.Expr)]
    assert len(meanings) == len(Flaw)


def test_every_flaw_has_a_stored_log() -> None:
    """Each way of breaking a log is in the vectors."""
    told = {
        each[0] for case in (*GROUPS.values(), *TILES.values(), *BUNDLES.values()) for each in case["found"]
    }
    assert told == set(map(str, Flaw))


def judged(*parts: Part) -> list[tuple[Flaw, str]]:
    """What is found in these parts."""
    verification = Verification(VERIFIER)
    for part in parts:
        verification.absorb(part)
    return [(finding.flaw, finding.where) for finding in verification.report().findings]


class TestRareLogs:
    """What takes more than one hand to break."""

    SIGNER = LogSigner(VERIFIER.name, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))

    def note(self, size: int, root: bytes) -> str:
        """A head that the log's own key signed."""
        return self.SIGNER.sign(Checkpoint(VERIFIER.name, size, root))

    def test_two_signed_heads_of_one_size_are_a_fork(self) -> None:
        """Whatever entries there are: the key's holder told two people two things."""
        heads = [StoredHead(name, self.note(5, bytes([at] * 32))) for at, name in enumerate(("one", "other"))]
        assert judged(*heads) == [(Flaw.HEAD_FORKED, "other"), (Flaw.TAIL_TRUNCATED, "one")]

    def test_a_signed_head_of_what_was_before_is_held_against_that(self) -> None:
        """An old head that comes late is compared all the same."""
        entries = tuple(GROUPS["good"]["items"][1]["data"]["entries"].encode().split(b"\n"))
        tree = Tree(map(leaf_hash, entries))
        whole = Segment("all", 0, entries, note=self.note(len(entries), tree.root()))
        assert judged(whole, StoredHead("late", self.note(2, tree.root(2)))) == []
        forked = StoredHead("late", self.note(2, bytes(32)))
        assert judged(whole, forked) == [(Flaw.HEAD_FORKED, "late")]

    def test_entries_and_tile_may_both_be_wrong(self) -> None:
        """Then both are named, and neither is taken for what was logged."""
        entries = (b"a", b"b")
        head = StoredHead("head", self.note(2, Tree(map(leaf_hash, (b"c", b"d"))).root()))
        bundle = Segment("bundle", 0, entries, (leaf_hash(b"a"), leaf_hash(b"x")), "tile")
        flaws = [each for each in judged(head, bundle) if each[0] is not Flaw.ENTRY_MALFORMED]
        assert flaws == [
            (Flaw.ENTRY_CHANGED, "bundle"),
            (Flaw.TILE_REPLACED, "tile"),
            (Flaw.ROOT_MISMATCH, "head"),
        ]

    @pytest.mark.parametrize("entry", [b"[" * 20_000 + b"]" * 20_000, b'{"a":' * 9_000 + b"1" + b"}" * 9_000])
    def test_an_entry_that_is_nested_beyond_measure_is_told(self, entry: bytes) -> None:
        """A hostile log ends no verification."""
        assert judged(Segment("group", 0, (entry,)))[:1] == [(Flaw.ENTRY_MALFORMED, "group")]

    def test_without_a_head_nobody_knows_which_is_wrong(self) -> None:
        """That they differ is told, and no more."""
        bundle = Segment("bundle", 0, (b"a",), (leaf_hash(b"x"),), "tile")
        flaws = [each for each in judged(bundle) if each[0] is not Flaw.ENTRY_MALFORMED]
        assert flaws == [(Flaw.ENTRY_CHANGED, "bundle")]

    def test_a_forged_head_does_not_make_us_ask_for_millions_of_files(self) -> None:
        """Its size is not believed before its signature, nor for long."""
        asked = list[str]()

        def fetch(path: str) -> bytes | None:
            asked.append(path)
            return self.note(90_000_000, bytes(32)).encode() if path == "checkpoint" else None

        report, _ = verify(TiledLog(fetch, lambda paths: map(fetch, paths)), VERIFIER)
        assert not report.is_sound
        assert len(asked) < 3000
        assert len(asked) > 16

    def test_a_head_beyond_all_measure_is_not_followed(self) -> None:
        """Nor is a size that no log of ours can have."""
        note = self.note(10**17, bytes(32)).encode()
        report, _ = verify(TiledLog({"checkpoint": note}.get, lambda _: iter(())), VERIFIER)
        assert (Flaw.UNREADABLE, "checkpoint") in {(each.flaw, each.where) for each in report.findings}
