from __future__ import annotations

import ast
import datetime as dt
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pilot_identity
from pilot_identity.core.resources import conditions
from pilot_identity.core.resources.conditions import (
    MESSAGE_LIMIT,
    Condition,
    ConditionType,
    Finding,
    Reason,
    find,
    settle,
)
from pilot_identity.core.resources.parsing import encode
from tests.core.builders import NOW
from tests.core.schema import misfits, schema_of

LATER = NOW + dt.timedelta(hours=1)


def finding(
    *,
    status: bool = True,
    reason: Reason = Reason.ISSUED,
    message: str = "",
    kind: ConditionType | None = None,
) -> Finding:
    """A finding about Ready unless the case names another type."""
    return Finding(kind or ConditionType.READY, status=status, reason=reason, message=message)


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    """Another reason or message is no transition."""
    (first,) = settle([], [finding(reason=Reason.ISSUED)], generation=1, now=NOW)
    (second,) = settle([first], [finding(reason=Reason.RENEWED, message="x")], generation=2, now=LATER)
    assert second.last_transition_time == first.last_transition_time == "2026-06-01T12:00:00.250Z"
    assert (second.reason, second.message, second.observed_generation) == ("Renewed", "x", 2)


def test_a_condition_takes_a_new_time_when_its_status_turns() -> None:
    """A transition is dated when it is found."""
    before = settle([], [finding(status=True)], generation=1, now=NOW)
    (after,) = settle(before, [finding(status=False)], generation=1, now=LATER)
    assert after.last_transition_time == "2026-06-01T13:00:00.250Z"


def test_a_condition_without_a_time_gets_one() -> None:
    """One that was stored without its required time is put right."""
    stored = [Condition("Ready", "True", "Issued")]
    (after,) = settle(stored, [finding()], generation=1, now=NOW)
    assert after.last_transition_time == "2026-06-01T12:00:00.250Z"


def test_a_type_that_is_not_found_any_more_is_dropped() -> None:
    """`Stalled` goes with its cause."""
    before = settle([], [finding(status=False), finding(kind=ConditionType.STALLED)], generation=1, now=NOW)
    after = settle(before, [finding()], generation=2, now=LATER)
    assert [condition.type for condition in after] == ["Ready"]


def test_times_do_not_mix_between_types() -> None:
    """Each type keeps its own time."""
    before = settle([], [finding(status=False)], generation=1, now=NOW)
    ready, promoted = settle(
        before,
        [finding(status=False), finding(kind=ConditionType.PROMOTED, status=False)],
        generation=1,
        now=LATER,
    )
    assert ready.last_transition_time < promoted.last_transition_time


def test_a_message_is_bounded() -> None:
    """What a user wrote cannot grow a status without bound."""
    (settled,) = settle([], [finding(message="x" * 5_000)], generation=1, now=NOW)
    assert len(settled.message) == MESSAGE_LIMIT


findings = st.lists(
    st.builds(
        Finding,
        st.sampled_from(ConditionType),
        st.booleans(),
        st.sampled_from(Reason),
        st.text(max_size=2_000),
    ),
    unique_by=lambda found: found.type,
)


@given(findings, findings)
def test_settling_again_changes_nothing(first: list[Finding], second: list[Finding]) -> None:
    """Whatever stood before, the same findings an hour later leave the conditions as they are."""
    settled = settle(settle([], first, generation=1, now=NOW), second, generation=2, now=NOW)
    assert settle(settled, second, generation=2, now=LATER) == settled


@given(findings)
def test_what_is_settled_fits_the_crd(found: list[Finding]) -> None:
    """The API server takes every condition that can be made of a reason."""
    schema = schema_of("taskgrants")["properties"]["status"]["properties"]["conditions"]
    assert list(misfits(schema, encode(settle([], found, generation=1, now=NOW)))) == []


def test_a_condition_is_found_by_its_type() -> None:
    """The first of the type, or nothing."""
    settled = settle([], [finding()], generation=1, now=NOW)
    assert find(settled, ConditionType.READY) == settled[0]
    assert find(settled, ConditionType.STALLED) is None


def constants(name: str) -> Iterator[tuple[str, str]]:
    """Each constant of an enumeration in the module's source, and the docstring below it."""
    tree = ast.parse(inspect.getsource(conditions))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = str(following.value.value)
            yield statement.targets[0].id, text


@pytest.mark.parametrize("enumeration", [Reason, ConditionType])
def test_each_constant_is_documented(enumeration: type[Reason | ConditionType]) -> None:
    """A reason that a person may read has a sentence that says what it means."""
    documented = dict(constants(enumeration.__name__))
    assert documented.keys() == set(enumeration.__members__)
    assert [name for name, text in documented.items() if not text.strip().endswith(".")] == []


def test_reasons_are_spelt_as_kubernetes_asks() -> None:
    """A reason is one CamelCase word, unique in value, so that programs can match on it."""
    assert all(reason.value.isalpha() and reason.value[0].isupper() for reason in Reason)
    assert len({reason.value for reason in Reason}) == len(Reason.__members__)


def test_each_reason_is_given_by_some_part_of_the_operator() -> None:
    """A documented reason that nothing returns is a promise that nobody keeps; reading is not giving."""
    folder = Path(inspect.getsourcefile(pilot_identity) or "").parent
    named = {
        node.attr
        for path in folder.rglob("*.py")
        if path.relative_to(folder).parts[0] != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }
    assert named == set(Reason.__members__)
