"""The CRDs and the typed views of them tell one story."""

from __future__ import annotations

import datetime as dt
import re
import types
import typing
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Literal

import msgspec
import pytest

from pilot_identity.core.resources import KINDS, Kind, Phase
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.metadata import GROUP, VERSION, View
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.stage_policy import CredentialLifetimes
from tests.core.schema import CRDS, definition, schema_of

LATER: Mapping[str, str] = {
    "PilotIdentity.status.approvedDigest": "approvals are counted by a later issue",
    "PilotIdentity.status.evidence": "promotion by evidence is decided by a later issue",
    "TaskGrant.status.credential.renewals": "`issuance` counts them; a later issue tells them apart",
}
"""Fields of the API that no view reads yet, each with its reason."""

REQUIRED_BY_THE_VIEW_ALONE = re.compile(r"\.status\.")
"""A status is written by the operator alone: what a view demands of it the operator always writes."""


def fields_of(view: type[msgspec.Struct]) -> dict[str, tuple[msgspec.structs.FieldInfo, Any]]:
    """A view's fields by their name in JSON, each with its resolved type."""
    hints = typing.get_type_hints(view)
    return {field.encode_name: (field, hints[field.name]) for field in msgspec.structs.fields(view)}


def bare(hint: Any) -> Any:
    """The type without `None`."""
    if isinstance(hint, types.UnionType):
        (hint,) = (arm for arm in typing.get_args(hint) if arm is not type(None))
    return hint


def pairs(kind: Kind) -> Iterator[tuple[str, type[msgspec.Struct], dict[str, Any]]]:
    """Each struct within a kind's view, its path and the object schema of the same path."""

    def below(path: str, hint: Any, schema: dict[str, Any]) -> Iterator[Any]:
        hint = bare(hint)
        if typing.get_origin(hint) is tuple:
            yield from below(path, typing.get_args(hint)[0], schema["items"])
        elif isinstance(hint, type) and issubclass(hint, View):
            yield path, hint, schema
            for name, (_, inner) in fields_of(hint).items():
                if name in schema["properties"]:
                    yield from below(f"{path}.{name}", inner, schema["properties"][name])

    top = schema_of(kind.plural)["properties"]
    for part in ("spec", "status"):
        yield from below(f"{kind.name}.{part}", fields_of(kind.view)[part][1], top[part])


PAIRS = [pair for kind in KINDS.values() for pair in pairs(kind)]
STRUCTS = pytest.mark.parametrize("path, view, schema", PAIRS, ids=[path for path, _, _ in PAIRS])


def fits(hint: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a field of that type takes every value that the schema lets through."""
    hint = bare(hint)
    wanted = schema["type"]
    if typing.get_origin(hint) is tuple:
        return wanted == "array" and fits(typing.get_args(hint)[0], schema["items"])
    if typing.get_origin(hint) is Literal:
        return wanted == "string" and set(schema["enum"]) == set(typing.get_args(hint))
    return _fits_plainly(hint, schema, wanted)


def _fits_plainly(hint: Any, schema: Mapping[str, Any], wanted: str) -> bool:
    if hint is dt.datetime:
        return wanted == "string" and schema.get("format") == "date-time"
    if hint is Duration:
        return wanted == "string" and "pattern" in schema
    if isinstance(hint, type) and issubclass(hint, View):
        return bool(wanted == "object" and "properties" in schema)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return wanted == "string" and schema["enum"] == [str(value) for value in hint]
    return {str: "string", int: "integer", bool: "boolean"}[hint] == wanted


def resolves(schema: Mapping[str, Any], path: str) -> bool:
    """Whether a printer column's path leads to a field."""
    path = re.sub(r"\[\?\(@\.(\w+)==\"\w+\"\)\]", "[]", path)
    here: Mapping[str, Any] = schema
    for step in path.removeprefix(".").split("."):
        name, is_list = step.removesuffix("[]"), step.endswith("[]")
        here = here.get("properties", {}).get(name, {})
        if is_list:
            here = here.get("items", {})
    return "type" in here


def test_each_kind_has_its_crd() -> None:
    """The folder holds one CRD for each kind, under the names that the operator uses."""
    assert {path.stem for path in CRDS.glob("*.yaml")} == {kind.plural for kind in KINDS.values()}
    for kind in KINDS.values():
        spec = definition(kind.plural)["spec"]
        assert (spec["group"], spec["names"]["kind"], spec["names"]["plural"]) == (
            GROUP,
            kind.name,
            kind.plural,
        )
        assert [version["name"] for version in spec["versions"]] == [VERSION]
        assert (spec["scope"] == "Namespaced") is kind.is_namespaced
        assert "status" in spec["versions"][0]["subresources"]


@STRUCTS
def test_each_field_of_a_view_is_in_the_crd(
    path: str, view: type[msgspec.Struct], schema: dict[str, Any]
) -> None:
    """A view reads nothing that the API server would have dropped, and reads it as what it is."""
    for name, (_, hint) in fields_of(view).items():
        assert name in schema["properties"], f"{path}.{name} is not in the CRD"
        assert fits(hint, schema["properties"][name]), f"{path}.{name}: {hint} against its schema"


@STRUCTS
def test_each_field_of_the_crd_is_read_or_said_to_be_left(
    path: str, view: type[msgspec.Struct], schema: dict[str, Any]
) -> None:
    """What the API offers is read, or listed above with the reason why not yet."""
    unread = {f"{path}.{name}" for name in schema["properties"].keys() - fields_of(view).keys()}
    assert unread <= LATER.keys(), unread - LATER.keys()


def test_each_field_that_is_left_for_later_is_still_there() -> None:
    """The list above has no stale line."""
    offered = {f"{path}.{name}" for path, _, schema in PAIRS for name in schema["properties"]}
    read = {f"{path}.{name}" for path, view, _ in PAIRS for name in fields_of(view)}
    assert LATER.keys() <= offered - read


@STRUCTS
def test_a_view_demands_no_more_than_the_crd(
    path: str, view: type[msgspec.Struct], schema: dict[str, Any]
) -> None:
    """Whatever the API server lets through can be parsed: a field without default is required there."""
    if REQUIRED_BY_THE_VIEW_ALONE.search(path) and not path.endswith("conditions"):
        return
    demanded = {name for name, (field, _) in fields_of(view).items() if field.required}
    assert demanded <= set(schema.get("required", ())), path


@STRUCTS
def test_defaults_are_the_same(path: str, view: type[msgspec.Struct], schema: dict[str, Any]) -> None:
    """What the API server fills in is what the view would have assumed."""
    for name, (field, hint) in fields_of(view).items():
        declared = schema["properties"][name]
        if "default" not in declared:
            continue
        wanted = field.default
        if isinstance(wanted, msgspec.Struct):
            assert declared["default"] == {}, f"{path}.{name}"
            assert wanted == type(wanted)(), f"{path}.{name}"
        else:
            plain = str(wanted) if bare(hint) is Duration else encode(wanted)
            parsed = (
                str(Duration.parse(declared["default"])) if bare(hint) is Duration else declared["default"]
            )
            assert parsed == plain, f"{path}.{name}"


@STRUCTS
def test_an_assumption_of_a_view_is_a_default_of_the_crd(
    path: str, view: type[msgspec.Struct], schema: dict[str, Any]
) -> None:
    """A default in a spec that is more than "nothing" is written out by the API server for all to see."""
    if ".status" in path:
        return
    for name, (field, _) in fields_of(view).items():
        assumed = field.default
        if assumed in ("", (), None, False, msgspec.NODEFAULT) or isinstance(assumed, msgspec.Struct):
            continue
        assert "default" in schema["properties"][name], f"{path}.{name} assumes {assumed!r} in silence"


@STRUCTS
def test_each_field_is_described(path: str, view: type[msgspec.Struct], schema: dict[str, Any]) -> None:
    """`kubectl explain` says something of every field, and so does the view's docstring."""
    assert view.__doc__
    for name, declared in schema["properties"].items():
        assert declared.get("description") or declared.get("items"), f"{path}.{name}"


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_printer_columns_lead_to_fields(kind: Kind) -> None:
    """Each column of `kubectl get` shows a field that exists."""
    (version,) = definition(kind.plural)["spec"]["versions"]
    schema = schema_of(kind.plural)
    for column in version["additionalPrinterColumns"]:
        if column["jsonPath"] != ".metadata.creationTimestamp":
            assert resolves(schema, column["jsonPath"]), column["name"]


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_each_list_and_text_is_bounded(kind: Kind) -> None:
    """No list, and no text that is not one of a few, can grow without bound."""

    def unbounded(path: str, schema: Mapping[str, Any]) -> Iterator[str]:
        if schema["type"] == "array":
            if "maxItems" not in schema:
                yield path
            yield from unbounded(f"{path}[]", schema["items"])
        if schema["type"] == "string" and not schema.keys() & {"maxLength", "enum", "format"}:
            yield path
        for name, inner in schema.get("properties", {}).items():
            yield from unbounded(f"{path}.{name}", inner)

    top = schema_of(kind.plural)["properties"]
    assert [*unbounded("spec", top["spec"]), *unbounded("status", top["status"])] == []


def test_phases_are_those_of_the_crd() -> None:
    """A grant's phase is one of the same eight words on both sides."""
    status = schema_of("taskgrants")["properties"]["status"]["properties"]
    assert status["phase"]["enum"] == [phase.value for phase in Phase]


@pytest.mark.parametrize("field", ["x509TTL", "jwtTTL", "kubernetesTTL", "maxTaskDuration"])
def test_a_policy_without_lifetimes_gets_the_same_as_one_that_names_none(field: str) -> None:
    """`credentials: {}` is filled in by the API server with what the view assumes."""
    spec = schema_of("stagepolicies")["properties"]["spec"]["properties"]
    assumed = fields_of(CredentialLifetimes)[field][0].default
    assert Duration.parse(spec["credentials"]["properties"][field]["default"]) == assumed


def leaves(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every field below a schema that holds a plain value, by its path."""
    for name, inner in schema.get("properties", {}).items():
        yield from leaves(f"{path}.{name}", inner)
    if schema["type"] == "array":
        yield from leaves(f"{path}[]", schema["items"])
    if schema["type"] not in {"array", "object"}:
        yield path, schema


SPEC_FIELDS = [
    leaf
    for kind in KINDS.values()
    for leaf in leaves(kind.name, schema_of(kind.plural)["properties"]["spec"])
]
TIMES = [schema for _, schema in SPEC_FIELDS if schema.get("format") == "date-time"]
DURATIONS = {schema["pattern"] for _, schema in SPEC_FIELDS if "[0-9]{1,6}h" in schema.get("pattern", "")}


def test_a_format_alone_is_no_check() -> None:
    """The API server's date-time lets through what is no time; whatever has a format has a pattern too."""
    assert TIMES
    formats = {schema["format"] for _, schema in SPEC_FIELDS if "format" in schema}
    assert formats <= {"date-time", "int64", "int32"}
    assert all("pattern" in schema for schema in TIMES)


def test_each_number_of_a_spec_has_bounds_that_the_view_reads() -> None:
    """Beyond 2**53 a JSON number may come as one with an exponent, which no view reads as an integer."""
    numbers = [(path, schema) for path, schema in SPEC_FIELDS if schema["type"] == "integer"]
    assert numbers
    assert [path for path, schema in numbers if not {"minimum", "maximum"} <= schema.keys()] == []
    assert {schema["type"] for _, schema in SPEC_FIELDS} == {"string", "integer", "boolean"}


@pytest.mark.parametrize("zone", ["Z", "+00:00", "-00:00", "+23:59", "-23:59"])
@pytest.mark.parametrize("fraction", ["", ".5", ".123456789"])
@pytest.mark.parametrize("date", ["2000-01-01", "2024-02-29", "2999-12-31"])
@pytest.mark.parametrize("time", ["00:00:00", "23:59:59"])
def test_a_time_that_the_pattern_lets_through_is_read(date: str, time: str, fraction: str, zone: str) -> None:
    """On the edges of what it says; whether the day exists is the format's part."""
    text = f"{date}T{time}{fraction}{zone}"
    for schema in TIMES:
        assert re.search(schema["pattern"], text)
    assert msgspec.convert(text, dt.datetime).tzinfo is not None


@pytest.mark.parametrize(
    "text",
    [
        "0000-01-01T00:00:00Z",
        "2030-01-01T00:00:00,5Z",
        "2030-01-01T00:00:00X5Z",
        "2030-01-01T00:00:00+99:99",
        "2030-01-01T24:00:00Z",
        "2030-01-01T00:00:60Z",
        "2030-01-01T00:00:00",
        "2030-01-01T00:00:00.Z",
        "2030-01-01 00:00:00Z",
    ],
)
def test_a_time_that_no_view_reads_is_refused(text: str) -> None:
    """By the API server already, so that whoever writes it is told."""
    for schema in TIMES:
        assert re.search(schema["pattern"], text) is None


@pytest.mark.parametrize("pattern", sorted(DURATIONS))
@pytest.mark.parametrize("text", ["1s", "999999s", "999999m", "999999h999999m999999s", "0h0m1s", "00001h"])
def test_a_duration_that_the_pattern_lets_through_is_read(pattern: str, text: str) -> None:
    """On the edges of what it says; that it is longer than zero is a rule beside it."""
    assert re.search(pattern, text)
    assert Duration.parse(text) > dt.timedelta()


def test_each_duration_is_longer_than_zero() -> None:
    """Zero fits the pattern, and no view reads it."""
    found = [schema for _, schema in SPEC_FIELDS if schema.get("pattern") in DURATIONS]
    assert found
    for schema in found:
        rules = [rule["rule"] for rule in schema["x-kubernetes-validations"]]
        assert any(re.match(r"duration\(self\) >=? duration\('", rule) for rule in rules)
        assert not any("duration(self) >= duration('0s')" in rule for rule in rules)
