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
    "PilotIdentity.status.reviewDue": "reviews are asked for by a later issue",
    "PilotIdentity.status.grants": "counts are served as metrics until a later issue writes them",
    "PilotIdentity.status.lastUsed": "last use is written by a later issue",
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
