"""A stage's rules: what they see, what they answer, and what they may cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pilot_identity.core.decisions.rule_cost import LIST, MOST, STRING, cost_of
from pilot_identity.core.decisions.rules import RuleError, compile_rule, holds, variables_of
from tests.core.builders import grant, ready_pilot, stage
from tests.core.schema import schema_of

REQUEST = variables_of(grant(), ready_pilot(), stage())

ANSWERS: Mapping[str, bool] = {
    "grant.spec.pilot == 'triage' && grant.metadata.namespace == 'team-a'": True,
    "grant.spec.duration == '15m' && duration(grant.spec.duration) <= duration('1h')": True,
    "has(grant.spec.parent)": False,
    "has(grant.spec.task.description)": False,
    "grant.spec.emergency": False,
    "grant.spec.task.id.matches('^TICKET-[0-9]+$')": True,
    "pilot.spec.owners.business == 'ana' && pilot.status.stage == 'sandbox'": True,
    "pilot.spec.access.all(entry, entry.sensitivity == 'low')": True,
    "stage.metadata.name == 'sandbox' && stage.spec.rank == 0": True,
    "!has(stage.metadata.namespace) && !has(grant.status)": True,
    "grant.spec.access.all(g, pilot.spec.access.exists(p, p.name == g.name && 'w' in p.tool.actions))": False,
}


@pytest.mark.parametrize("expression, answer", ANSWERS.items(), ids=ANSWERS)
def test_a_rule_sees_the_manifests(expression: str, answer: bool) -> None:
    """What is left out is absent, unless the API gives it a default; of statuses only the pilot's stage."""
    assert holds(expression, REQUEST) is answer


def test_a_certificate_request_is_only_seen_to_be_there() -> None:
    """Its kilobytes of PEM tell a rule nothing, and would cost it much."""
    seen = variables_of(grant(certificateRequest="-----BEGIN" + "A" * 8000), ready_pilot(), stage())
    assert seen["grant"]["spec"]["certificateRequest"] == "given"


SILENT: Mapping[str, str] = {
    "grant.spec.parent == 'x'": 'Key not found in map : "parent"',
    "grant.spec.pilot": "it gave string, and must give true or false",
    "1 / int(grant.metadata.name.size() - 6) == 1": "divide by zero",
    "grant.spec.access[1].name == 'x'": "index",
}


@pytest.mark.parametrize("expression, says", SILENT.items(), ids=SILENT)
def test_no_answer_is_an_error(expression: str, says: str) -> None:
    """Whoever asks must treat it as a no."""
    with pytest.raises(RuleError) as told:
        holds(expression, REQUEST)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_the_runtime_gives_up_after_its_iterations() -> None:
    """However comprehensions are nested."""
    names = [{"name": str(number)} for number in range(16)]
    wide = variables_of(grant(access=names), ready_pilot(), stage())
    nested = "true"
    for depth in range(4):
        nested = f"grant.spec.access.all(v{depth}, {nested})"
    with pytest.raises(RuleError, match="Iteration budget exceeded"):
        holds(nested, wide)


NO_RULES: Mapping[str, str] = {
    "grant.spec.": "Syntax error",
    "": "Syntax error",
    "grants.spec == 1": "undeclared reference to 'grants",
    "1 + 1": "it gives int, and must give true or false",
    "[true]": "it gives list<bool>, and must give true or false",
    "'a' == 1": "no matching overload",
    "(" * 500 + "true" + ")" * 500: "recursion limit exceeded",
    "grant" + ".a" * 500 + " == 1": "Exceeded max recursion depth of 32",
}


@pytest.mark.parametrize("expression, says", NO_RULES.items(), ids=[text[:20] for text in NO_RULES])
def test_what_can_never_answer_does_not_compile(expression: str, says: str) -> None:
    """The message is the compiler's, in one line."""
    with pytest.raises(RuleError) as told:
        compile_rule(expression)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_a_rule_is_compiled_once() -> None:
    """The stage is looked at, and then thousands of requests are."""
    assert compile_rule("grant.spec.emergency") is compile_rule("grant.spec.emergency")


TEXT = "grant.spec.task.description"
EACH = "pilot.spec.access.all(a, a.tool.resources.all(b, {}))"
TOO_COSTLY: Mapping[str, str] = {
    "a counted repetition in a loop": EACH.format(f"!{TEXT}.matches('(x{{0,30}}x{{0,30}}){{0,30}}y')"),
    "a pattern that comes with the request": EACH.format(f"!{TEXT}.matches({TEXT})"),
    "a long text added up in a loop": EACH.format("+".join([TEXT] * 20) + " != b"),
    "searching a long text in a loop": EACH.format("!(" + "+".join([TEXT] * 20) + ").contains('y')"),
    "comparing whole pilots in a loop": EACH.format("pilot == pilot"),
    "looking for the pilot in its access in a loop": EACH.format("!(pilot in pilot.spec.access)"),
    "gathering the pilot again and again": "[1, 2, 3].map(a, pilot.spec.access.map(b, pilot)) == []",
    "comparing what was gathered": (
        "[pilot.spec.access.map(a, pilot)].all(m, pilot.spec.access.all(a, m == m))"
    ),
    "gathered in an object": "[{'all': pilot.spec.access.map(a, pilot)}].all(m, "
    + EACH.format("m == m")
    + ")",
}


@pytest.mark.parametrize("expression", TOO_COSTLY.values(), ids=TOO_COSTLY)
def test_what_could_take_long_does_not_compile(expression: str) -> None:
    """Said when the stage is looked at, and not when a request happens to be big.

    The first of these took 154 s on the largest request, in one evaluation.
    """
    assert len(expression) <= 1024
    with pytest.raises(RuleError, match=r"it could cost [0-9.]+ times what a rule may"):
        compile_rule(expression)


@pytest.mark.parametrize("expression", ANSWERS, ids=ANSWERS)
def test_what_people_write_is_far_from_the_bound(expression: str) -> None:
    """With the largest request that the API lets through."""
    assert cost_of(compile_rule(expression).serialize()) < MOST


def test_cost_grows_with_what_is_looped_over() -> None:
    """The product of the loops, up to the runtime's own bound on iterations."""
    nested, costs = "true", []
    for name in "abcd":
        nested = f"grant.spec.access.all({name}, {nested})"
        costs.append(cost_of(compile_rule(nested).serialize()))
    one, two, three, four = costs
    assert LIST / 2 < two / one < LIST * 2
    assert three > two * 5
    assert four < three * 3


def test_the_largest_request_is_no_larger_than_reckoned_with() -> None:
    """Whoever widens the API must widen what rules are reckoned with."""

    def bounds(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, int]]:
        for bound in ("maxLength", "maxItems"):
            if bound in schema:
                yield path, bound, schema[bound]
        for name, inner in schema.get("properties", {}).items():
            yield from bounds(inner, f"{path}.{name}")
        if "items" in schema:
            yield from bounds(schema["items"], f"{path}[]")

    unseen = {"grant.spec.certificateRequest"}
    for name, plural in (
        ("grant", "taskgrants"),
        ("pilot", "pilotidentities"),
        ("stage", "stagepolicies"),
    ):
        spec = schema_of(plural)["properties"]["spec"]
        for path, bound, value in bounds(spec, f"{name}.spec"):
            most = STRING if bound == "maxLength" else LIST
            assert value <= most or path in unseen, f"{path} has {bound} {value}"
