"""Rules: CEL expressions of a stage over one request (https://cel.dev).

An expression sees three variables: `grant`, `pilot` and `stage`, plain objects as in their manifests, with
`metadata` (name, namespace) and `spec`; of a status nothing but `pilot.status.stage`. What a manifest leaves
out is absent (`has(grant.spec.parent)` is false) unless the API gives it a default, such as `duration`.

Its cost is bounded three times: the API takes 1,024 characters of expression and bounded lists and strings;
`rule_cost` refuses what could take long on the largest request; and the runtime gives up after 10,000
iterations in all, however comprehensions are nested.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import msgspec
from cel_expr_python import cel

from pilot_identity.core.decisions.rule_cost import MOST, cost_of
from pilot_identity.core.resources import PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.metadata import Metadata, View

COMPILED = 1024
"""Compiled expressions that are kept: more than all the stages of a cluster have."""

_VARIABLES: Mapping[str, cel.Type] = dict.fromkeys(("grant", "pilot", "stage"), cel.Type.DYN)
_ENVIRONMENT = cel.NewEnv(variables=_VARIABLES)
_ANSWERS = frozenset({"BOOL", "DYN"})
"""The types, as far as they are known before there is a request, of an expression that may give a bool."""
_CERTIFICATE_REQUEST = "given"


class RuleError(ValueError):
    """An expression that gives no answer; the message says why."""


@lru_cache(maxsize=COMPILED)
def compile_rule(expression: str) -> cel.Expression:
    """Compile an expression, once.

    Raises:
        RuleError: it is no expression, one that can never be true or false, or one that could cost too much.
    """
    try:
        compiled = _ENVIRONMENT.compile(expression)
    except RuntimeError as error:
        raise RuleError(_told(str(error))) from error
    given = compiled.return_type().name()
    if given not in _ANSWERS:
        raise RuleError(f"it gives {given.lower()}, and must give true or false")
    cost = cost_of(compiled.serialize())
    if cost > MOST:
        raise RuleError(
            f"it could cost {cost / MOST:.1f} times what a rule may, with the largest request that the API "
            "lets through; nest fewer loops, or compare, match and add less in them"
        )
    return compiled


def holds(expression: str, variables: Mapping[str, Any]) -> bool:
    """Evaluate an expression over `variables_of` a request.

    Raises:
        RuleError: it does not compile, runs into an error or its bound, or gives no bool.
    """
    compiled = compile_rule(expression)
    try:
        value = compiled.eval(data=variables)
    except RuntimeError as error:
        raise RuleError(_told(str(error))) from error
    answer = value.plain_value()
    if isinstance(answer, bool):
        return answer
    if value.type() == cel.Type.ERROR:
        raise RuleError(_told(str(answer)))
    raise RuleError(f"it gave {value.type().name().lower()}, and must give true or false")


def variables_of(grant: TaskGrant, pilot: PilotIdentity, stage: StagePolicy) -> dict[str, Any]:
    """What an expression sees of a request."""
    asked = _plain(grant.spec)
    if "certificateRequest" in asked:
        # 16 KiB of PEM, of which no rule can tell anything: that it is there is what a rule may ask.
        asked["certificateRequest"] = _CERTIFICATE_REQUEST
    return {
        "grant": {"metadata": _named(grant.metadata), "spec": asked},
        "pilot": {
            "metadata": _named(pilot.metadata),
            "spec": _plain(pilot.spec),
            "status": {"stage": pilot.status.stage},
        },
        "stage": {"metadata": _named(stage.metadata), "spec": _plain(stage.spec)},
    }


def _named(metadata: Metadata) -> dict[str, str]:
    named = {"name": metadata.name, "namespace": metadata.namespace}
    return {field: value for field, value in named.items() if value}


def _plain(value: object) -> Any:
    """A spec as its manifest has it once the API server has put the defaults in: what is empty is absent."""
    match value:
        case View():
            fields = {told: getattr(value, name) for told, name in _fields_of(type(value))}
            return {name: _plain(inner) for name, inner in fields.items() if inner not in ("", (), None)}
        case tuple():
            return [_plain(inner) for inner in value]
        case Duration():
            return str(value)
        case bool() | int() | str():
            return value
        case _:
            return msgspec.to_builtins(value)


@cache
def _fields_of(kind: type[View]) -> tuple[tuple[str, str], ...]:
    """A view's fields, as a manifest names them and as Python does; asked once, since asking takes long."""
    return tuple((field.encode_name, field.name) for field in msgspec.structs.fields(kind))


def _told(message: str) -> str:
    """The runtime's message in one line, without its code."""
    lines = [line.strip() for line in message.splitlines() if not line.lstrip().startswith("|")]
    told = " ".join(line for line in lines if line)
    for noise in ("INVALID_ARGUMENT: ", "INTERNAL: ", "NOT_FOUND: ", "ERROR: "):
        told = told.replace(noise, "")
    return told.removesuffix("]").rpartition(" [")[0] if told.endswith("]") and " [" in told else told
