"""The CRDs as they are in `crds/`, and what their structural schemas say of a value."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CRDS = Path(__file__).parents[2] / "crds"
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
}


@functools.cache
def definition(plural: str) -> dict[str, Any]:
    """The whole CustomResourceDefinition."""
    loaded: dict[str, Any] = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    return loaded


@functools.cache
def schema_of(plural: str) -> dict[str, Any]:
    """The OpenAPI schema of the one version."""
    (version,) = definition(plural)["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def misfits(schema: Mapping[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """Where `value` breaks `schema`, as the API server would refuse it; CEL rules are left to e2e."""
    wanted = schema["type"]
    if not _is_of(wanted, value):
        yield f"{path}: a {wanted}, got {value!r}"
        return
    match wanted:
        case "string":
            yield from _misfits_of_string(schema, value, path)
        case "integer":
            if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
                yield f"{path}: {value} is out of bounds"
        case "array":
            yield from _misfits_of_array(schema, value, path)
        case "object" if "properties" in schema:
            yield from _misfits_of_object(schema, value, path)


def _is_of(wanted: str, value: Any) -> bool:
    return isinstance(value, _TYPES[wanted]) and not (wanted == "integer" and isinstance(value, bool))


def _misfits_of_object(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from (f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value)
    for name, inner in value.items():
        if name not in schema["properties"]:
            yield f"{path}.{name}: unknown, and so dropped by the API server"
        else:
            yield from misfits(schema["properties"][name], inner, f"{path}.{name}")


def _misfits_of_string(schema: Mapping[str, Any], value: str, path: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} characters are out of bounds"
    if value not in schema.get("enum", (value,)):
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if re.search(schema.get("pattern", ""), value) is None:
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if schema.get("format") == "date-time":
        try:
            aware = dt.datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            aware = False
        if not aware:
            yield f"{path}: {value!r} is no date-time"


def _misfits_of_array(schema: Mapping[str, Any], value: list[Any], path: str) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{path}: {len(value)} items are out of bounds"
    for number, item in enumerate(value):
        yield from misfits(schema["items"], item, f"{path}[{number}]")
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys is not None:
        seen = [tuple(item[key] for key in keys) for item in value]
        if len(set(seen)) != len(seen):
            yield f"{path}: two items share {keys}"
