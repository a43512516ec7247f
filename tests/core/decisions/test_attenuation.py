"""Promise 4 over thousands of random trees: what a child gets, its ancestors have.

What a credential allows is read off the claims that would be signed, and weighed by which points of a small
world match, not by `covers`: the check under test and its judge share no code.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pilot_identity.core.decisions.credentials import CLAIMS
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.plan import CredentialOrder, Outcome, Plan
from pilot_identity.core.resources import PilotIdentity, TaskGrant
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from tests.core.builders import CA_END, NOW, grant, moment, ready_pilot, stage

pytestmark = pytest.mark.no_cover  # thousands of runs over lines that other tests run once

AUDIENCES = ("https://a.example.org", "https://b.example.org")
ACTIONS = ("read", "comment", "close")
CLASSES = ("synthetic", "internal")
NAMESPACES = ("", "team-a", "team-b")
SEGMENTS = ("x", "y")
PLACES = tuple("/".join(path) for length in (1, 2, 3) for path in itertools.product(SEGMENTS, repeat=length))
"""Every resource of the small world."""
MOST = 6
"""Levels of a chain."""
CHANGE, STRAY = 0.5, 0.1
"""How often a piece is asked for instead of the whole, and how often something is not as it should be."""
LATER = NOW + dt.timedelta(minutes=3)
"""When the tokens of all are to be renewed."""
POLICY = stage(dataClasses=list(CLASSES), limits={"activeGrants": 100, "requestsPerMinute": 100})

Point = tuple[str, ...]


@cache
def is_matched(pattern: str, place: str) -> bool:
    """What a pattern's words say, by a regular expression; the small world has few of either."""
    rest = pattern == "**" or pattern.endswith("/**")
    fixed = pattern.removesuffix("**").removesuffix("/")
    said = "/".join("[^/]+" if part == "*" else re.escape(part) for part in fixed.split("/")) if fixed else ""
    if not rest:
        return re.fullmatch(said, place) is not None
    return re.fullmatch(f"{said}(/.*)?" if said else ".*", place) is not None


def reached(audience: str, data_class: str, actions: Sequence[str], resources: Sequence[str]) -> set[Point]:
    """Every single thing that may be done at a tool."""
    return {
        ("tool", audience, data_class, action, place)
        for action in ACTIONS
        for place in PLACES
        if {action, "*"} & set(actions) and any(is_matched(pattern, place) for pattern in resources)
    }


def allowed(order: CredentialOrder) -> set[Point]:
    """Every single thing that a credential's claims and bindings let its holder do."""
    points: set[Point] = set()
    for token in order.tokens:
        for detail in token.claims["authorization_details"]:
            assert detail["locations"] == [token.audience]
            (data_class,) = detail["datatypes"]
            points |= reached(token.audience, data_class, detail["actions"], detail["resources"])
    if order.kubernetes is not None:
        points |= {
            ("kubernetes", one.namespace, one.role_ref.kind, one.role_ref.name)
            for one in order.kubernetes.bindings
        }
    return points


def ceiling_of(pilot: PilotIdentity) -> set[Point]:
    """Every single thing that a pilot may ever do."""
    points: set[Point] = set()
    for entry in pilot.spec.access:
        if entry.tool is not None:
            tool = entry.tool
            points |= reached(tool.audience, entry.data_class, tool.actions, tool.resources)
        if entry.kubernetes is not None:
            role, place = entry.kubernetes.role_ref, entry.kubernetes.namespace or pilot.metadata.namespace
            points.add(("kubernetes", place, role.kind, role.name))
    return points


Entry = dict[str, Any]


def some_pattern(draw: Random) -> str:
    """Any pattern of up to three segments."""
    parts = [draw.choice([*SEGMENTS, "*"]) for _ in range(draw.randint(0, 2))]
    return "/".join([*parts, draw.choice([*SEGMENTS, "*", "**", "**"])])


def narrower_pattern(draw: Random, pattern: str) -> str:
    """A pattern that lies within another."""
    parts = [
        draw.choice(SEGMENTS) if part == "*" and draw.random() < CHANGE else part
        for part in pattern.split("/")
    ]
    if parts[-1] == "**" and draw.random() < CHANGE:
        parts[-1:] = [draw.choice([*SEGMENTS, "*"]), *draw.choice([[], ["**"]])]
    return "/".join(parts)


def narrower_actions(draw: Random, actions: Sequence[str]) -> list[str]:
    """Actions that are among others."""
    every = ACTIONS if "*" in actions else tuple(actions)
    return list(actions) if draw.random() > CHANGE else draw.sample(every, draw.randint(1, len(every)))


def narrower(draw: Random, entry: Entry) -> Entry:
    """What may be asked of an entry: the whole of it, or a piece."""
    asked: Entry = {"name": entry["name"]}
    if "tool" in entry and draw.random() < CHANGE:
        asked["actions"] = narrower_actions(draw, entry["tool"]["actions"])
    if "tool" in entry and draw.random() < CHANGE:
        within = {narrower_pattern(draw, pattern) for pattern in entry["tool"]["resources"]}
        asked["resources"] = sorted(within)
    return asked


def given_by(asked: Entry, entry: Entry) -> Entry:
    """What a pilot's entry gives to whoever asks so."""
    narrow = {name: asked[name] for name in ("actions", "resources") if name in asked}
    return {**entry, "tool": {**entry["tool"], **narrow}} if "tool" in entry else entry


def an_entry(draw: Random, name: str) -> Entry:
    """Any entry of a ceiling."""
    entry: Entry = {"name": name, "dataClass": draw.choice(CLASSES)}
    if draw.random() < 0.25:
        role = {"kind": "Role", "name": draw.choice(["view", "edit"])}
        return {**entry, "kubernetes": {"roleRef": role, "namespace": draw.choice(NAMESPACES)}}
    actions = draw.choice([["*"], draw.sample(ACTIONS, draw.randint(1, 3))])
    resources = sorted({some_pattern(draw) for _ in range(draw.randint(1, 2))})
    return {**entry, "tool": {"audience": draw.choice(AUDIENCES), "actions": actions, "resources": resources}}


def shifted(draw: Random, entry: Entry) -> Entry:
    """The entry with one thing about it other than it was: maybe wider, maybe elsewhere."""
    other = an_entry(draw, entry["name"])
    if "tool" not in entry or "tool" not in other:
        return draw.choice([other, {**entry, "dataClass": other["dataClass"]}])
    part = draw.choice(["audience", "actions", "resources", "dataClass"])
    if part == "dataClass":
        return {**entry, part: other[part]}
    return {**entry, "tool": {**entry["tool"], part: other["tool"][part]}}


def a_ceiling(draw: Random, above: Sequence[Entry]) -> list[Entry]:
    """What a pilot may ever reach: often what its parent has, under other names, and sometimes not quite."""
    if not above or draw.random() < STRAY:
        return [an_entry(draw, f"e{number}") for number in range(draw.randint(1, 3))]
    named = [{**entry, "name": f"e{number}"} for number, entry in enumerate(above)]
    return [shifted(draw, entry) if draw.random() < STRAY else entry for entry in named]


def a_wish(draw: Random, ceiling: Sequence[Entry]) -> Entry:
    """What a grant asks for of a ceiling."""
    some = draw.sample(list(ceiling), draw.randint(1, len(ceiling)))
    audiences = [entry["tool"]["audience"] for entry in some if "tool" in entry]
    return {
        "access": [narrower(draw, entry) for entry in some],
        "audience": audiences[:1] if draw.random() < STRAY else [],
        "duration": draw.choice(["20m", "20m", "15m", "10m", "30m"]),
    }


@dataclass(frozen=True)
class Level:
    """One grant of a chain, as it was issued: what stands, and what it allows."""

    grant: TaskGrant
    pilot: PilotIdentity
    order: CredentialOrder


def known(asked: TaskGrant, pilot: PilotIdentity, above: Sequence[Level]) -> GrantSeen:
    """A grant below others."""
    return GrantSeen(
        asked,
        pilot,
        POLICY,
        ca_not_after=CA_END,
        ancestors=tuple(level.grant for level in above),
        ancestor_pilots=tuple(level.pilot for level in above),
    )


def issued(asked: TaskGrant, plan: Plan) -> TaskGrant:
    """The grant once its plan was carried out, as it is read back."""
    assert plan.status is not None
    status = plan.status(Outcome(1, "uid-of-secret"))
    assert isinstance(status, TaskGrantStatus)
    standing = grant(status=encode(status)).status
    return msgspec.structs.replace(asked, status=standing)


def check(level: Level, above: Sequence[Level]) -> None:
    """Nothing is gained on the way down: no access, no audience, no time; and the way is told."""
    expires_at = level.grant.status.expires_at
    assert expires_at is not None
    for ancestor in above:
        ends = ancestor.grant.status.expires_at
        assert ends is not None
        assert allowed(level.order) <= allowed(ancestor.order)
        mine, theirs = ({token.audience for token in one.order.tokens} for one in (level, ancestor))
        assert mine <= theirs
        assert expires_at <= ends
        assert level.order.not_after <= ends
        assert all(token.expires_at <= ends for token in level.order.tokens)
    for number, ancestor in enumerate(above):
        assert ancestor.pilot.spec.delegation.max_depth >= len(above) - number
    if above:
        assert {level.pilot.metadata.name, "*"} & {
            above[-1].pilot.metadata.name,
            *above[-1].pilot.spec.delegation.to,
        }
    for token in level.order.tokens:
        told = [(one["grant"], one["uid"]) for one in token.claims[CLAIMS]["delegation"]]
        assert told == [(one.grant.metadata.name, one.grant.metadata.uid) for one in above]


def a_pilot(draw: Random, number: int, ceiling: Sequence[Entry]) -> PilotIdentity:
    """A pilot that lets most others have children of its grants."""
    names = [f"pilot-{other}" for other in range(MOST)]
    to = names[:2] if draw.random() < STRAY else names
    depth = draw.choice([0, 1, 2]) if draw.random() < STRAY else 8
    return ready_pilot(f"pilot-{number}", access=list(ceiling), delegation={"to": to, "maxDepth": depth})


def issue_chain(draw: Random) -> tuple[Level, ...]:
    """Ask for grant below grant for as long as each is issued; each that is, is checked."""
    chain: tuple[Level, ...] = ()
    above: list[Entry] = []
    for number in range(MOST):
        ceiling = a_ceiling(draw, above)
        pilot, wish = a_pilot(draw, number, ceiling), a_wish(draw, ceiling)
        if chain:
            wish["parent"] = chain[-1].grant.metadata.name
        asked = grant(f"grant-{number}", pilot=pilot.metadata.name, **wish)
        plan = decide_grant(known(asked, pilot, chain), moment(number=number))
        if plan.release is None:
            event(f"refused below {number}")
            return chain
        level = Level(issued(asked, plan), pilot, plan.release.order)
        check(level, chain)
        chain = (*chain, level)
        by_name = {entry["name"]: entry for entry in ceiling}
        above = [given_by(one, by_name[one["name"]]) for one in wish["access"]]
    return chain


@settings(max_examples=4_000, deadline=None)
@given(st.integers(min_value=0))
def test_a_child_never_exceeds_an_ancestor(seed: int) -> None:
    """Whatever the pilots allow and whoever asks: access, audience, time and depth only shrink."""
    event(f"a chain of {len(issue_chain(Random(seed)))}")  # noqa: S311 - a case, not a secret


@settings(max_examples=1_000, deadline=None)
@given(st.integers(min_value=0))
def test_a_renewal_never_exceeds_what_an_ancestor_would_be_renewed_with(seed: int) -> None:
    """A pilot changes while the tree runs: what is renewed after that lies within what is above it now."""
    draw = Random(seed)  # noqa: S311
    chain = issue_chain(draw)
    if not chain:
        return
    at = draw.randrange(len(chain))
    ceiling = [
        shifted(draw, entry) if draw.random() < CHANGE else entry
        for entry in encode(chain[at].pilot.spec.access)
    ]
    changed = replace(chain[at], pilot=a_pilot(draw, at, ceiling))
    chain = (*chain[:at], changed, *chain[at + 1 :])
    above: list[Level] = []
    for number, level in enumerate(chain):
        plan = decide_grant(known(level.grant, level.pilot, chain[:number]), moment(LATER, 100 + number))
        if plan.release is None:
            continue
        renewed = replace(level, order=plan.release.order)
        # The parent may not have been told yet that it is not renewed: even so nothing is gained.
        for ancestor in chain[:number]:
            assert allowed(renewed.order) <= ceiling_of(ancestor.pilot)
        for ancestor in above:
            assert allowed(renewed.order) <= allowed(ancestor.order)
        above.append(renewed)
        event("renewed below the change" if number > at else "renewed")
