"""What evaluating a rule can cost at most, worked out before it is ever evaluated.

The CEL runtime bounds iterations and nothing else: one regular expression over one long string can take
minutes. So each compiled expression is walked once, with the largest values that the API lets through in
the place of the request's, as the API server does it for the rules in CRDs (KEP-2876). A unit is about a
nanosecond. What may cost more than `MOST` is refused when the StagePolicy is looked at, not when a request
happens to be big.

The walk needs the syntax tree, which the library gives as a serialized `cel.expr.CheckedExpr`
(https://github.com/google/cel-spec/tree/master/proto/cel/expr), read here field by field.
"""

from __future__ import annotations

import re
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, reduce
from typing import Any, TypeAlias

from pilot_identity.core.resources.metadata import View
from pilot_identity.core.resources.pilot_identity import PilotIdentitySpec
from pilot_identity.core.resources.stage_policy import StagePolicySpec
from pilot_identity.core.resources.task_grant import TaskGrantSpec

MOST = 100_000_000
"""Units that one evaluation may cost: a tenth of a second. Tried on the largest request, contains, matches,
comparing and adding took 0.5 to 1.2 ns a unit."""
ITERATIONS = 10_000
"""What the runtime allows in all, however comprehensions are nested; then it gives up."""
STRING = 1024
"""Bytes of a string in a spec, at most (`maxLength` in the CRDs); a certificate request is not shown."""
LIST = 32
"""Elements of a list in a spec, at most (`maxItems` in the CRDs)."""
SCALAR = 64
"""Bytes of what is no string, list or object."""
STEP = 50
"""Units of one step of the runtime, whatever it does."""
COMPARED = 8
"""Bytes that are compared in a unit."""

_CONTINUES = 0x80
"""The bit of a varint's byte that says that another follows."""
_COUNTED = re.compile(r"\{(\d+)(?:,(\d*))?\}")


_Fields: TypeAlias = dict[int, list[bytes]]


@dataclass(frozen=True, slots=True)
class Shape:
    """The largest that a value can be.

    Attributes:
        size: bytes in all.
        length: elements, where it is a list or an object.
        hint: the type of the view that it is, where it is one.
        element: the largest of its elements; `None` where nothing is known of them but the whole.
        text: the value itself, where it is a literal string.
    """

    size: int = SCALAR
    length: int = 0
    hint: Any = None
    element: Shape | None = None
    text: str | None = None

    def part(self) -> Shape:
        """Any part of it: no larger than the whole."""
        return self.element or Shape(self.size, min(self.size, max(self.length, LIST)))

    def joined(self, other: Shape) -> Shape:
        """What may be the one or the other."""
        element = self.part() if self.size >= other.size else other.part()
        return Shape(max(self.size, other.size), max(self.length, other.length), element=element)


@cache
def shape_of(hint: Any) -> Shape:
    """The largest value that the API lets through for a field of that type."""
    if isinstance(hint, types.UnionType):
        (hint,) = (arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        element = shape_of(typing.get_args(hint)[0])
        return Shape(LIST * element.size, LIST, element=element)
    if isinstance(hint, type) and issubclass(hint, View):
        fields = _fields(hint)
        return Shape(sum(shape_of(inner).size for inner in fields.values()), len(fields), hint)
    return Shape(STRING) if isinstance(hint, type) and issubclass(hint, str) else Shape()


@cache
def _fields(view: type[View]) -> dict[str, Any]:
    hints = typing.get_type_hints(view)
    return {view.__struct_encode_fields__[n]: hints[name] for n, name in enumerate(view.__struct_fields__)}


def _object(**fields: Any) -> Shape:
    return Shape(sum(shape_of(hint).size for hint in fields.values()), len(fields), fields)


VARIABLES: Mapping[str, Shape] = {
    "grant": _object(metadata=tuple[str, ...], spec=TaskGrantSpec),
    "pilot": _object(metadata=tuple[str, ...], spec=PilotIdentitySpec, status=tuple[str, ...]),
    "stage": _object(metadata=tuple[str, ...], spec=StagePolicySpec),
}
"""The largest request. Of `metadata` and `status` two names are shown: a list of strings is larger."""


_Scope: TypeAlias = dict[str, Shape]


def cost_of(serialized: bytes) -> int:
    """Work out the units that evaluating a serialized checked expression can take at most.

    >>> cost_of(b"")
    0
    """
    checked = _message(serialized).get(2)
    expression = _message(checked[0]).get(4) if checked else None
    if not expression:
        return 0
    walk = _Walk()
    walk.shape(expression[0], dict(VARIABLES), 1)
    return walk.cost


class _Walk:
    """One walk over a syntax tree, adding up. The parser lets none be deeper than 32."""

    def __init__(self) -> None:
        self.cost = 0

    def shape(self, node: bytes, scope: _Scope, times: int) -> Shape:
        """Add what `node` costs where it is evaluated so often; returns the largest that it can give."""
        self.cost += STEP * times
        expression = _message(node)
        number = next((number for number in expression if number in _NODES), None)
        if number is None:
            return Shape()
        return _NODES[number](self, _message(expression[number][0]), scope, times)

    def literal(self, constant: _Fields, _: _Scope, __: int) -> Shape:
        """Constant: strings are field 6, bytes field 7."""
        text = next((constant[number][0] for number in (6, 7) if number in constant), None)
        return Shape() if text is None else Shape(len(text), text=text.decode(errors="replace"))

    def name(self, ident: _Fields, scope: _Scope, _: int) -> Shape:
        """Ident."""
        return scope.get(_text(ident, 1), Shape())

    def select(self, select: _Fields, scope: _Scope, times: int) -> Shape:
        """Select; with field 3 it is `has()`."""
        whole = self.shape(select[1][0], scope, times)
        is_test = 3 in select  # noqa: PLR2004 - the field's number
        return Shape() if is_test else _part(whole, _text(select, 2))

    def collection(self, created: _Fields, scope: _Scope, times: int) -> Shape:
        """CreateList: field 1 are the elements."""
        return _collected([self.shape(element, scope, times) for element in created.get(1, [])])

    def mapping(self, created: _Fields, scope: _Scope, times: int) -> Shape:
        """CreateStruct: field 2 are the entries, whose fields 3 and 4 are key and value."""
        entries = [_message(entry) for entry in created.get(2, [])]
        parts = [part for entry in entries for number in (3, 4) for part in entry.get(number, [])]
        return _collected([self.shape(part, scope, times) for part in parts])

    def call(self, call: _Fields, scope: _Scope, times: int) -> Shape:
        """Call: field 1 is the target of a method, field 3 are the arguments."""
        arguments = [self.shape(node, scope, times) for node in (*call.get(1, []), *call.get(3, []))]
        units, given = _called(_text(call, 2), arguments)
        self.cost += units * times
        return given

    def comprehension(self, loop: _Fields, scope: _Scope, times: int) -> Shape:
        """A macro's loop. What it gathers grows by the same each time: no expression can name it."""
        over = self.shape(loop[2][0], scope, times)
        gathered = self.shape(loop[4][0], scope, times)
        inside = {**scope, _text(loop, 1): over.part(), _text(loop, 3): gathered}
        often = min(ITERATIONS, times * over.length)
        once = _Walk().shape(loop[6][0], inside, 1)
        grown = replace(
            once,
            size=gathered.size + over.length * max(0, once.size - gathered.size),
            length=gathered.length + over.length * max(0, once.length - gathered.length),
        )
        inside[_text(loop, 3)] = grown
        for node in (loop[5][0], loop[6][0]):
            self.shape(node, inside, often)
        self.shape(loop[7][0], inside, times)
        return grown


_NODES: Mapping[int, Callable[[_Walk, _Fields, _Scope, int], Shape]] = {
    3: _Walk.literal,
    4: _Walk.name,
    5: _Walk.select,
    6: _Walk.call,
    7: _Walk.collection,
    8: _Walk.mapping,
    9: _Walk.comprehension,
}
"""What to do for each kind of `cel.expr.Expr`, by the number of its field."""


def _called(function: str, arguments: list[Shape]) -> tuple[int, Shape]:
    """The units that one call costs beside its arguments, and the largest that it gives."""
    sizes = [argument.size for argument in arguments]
    units, given = 0, Shape()
    match function, arguments:
        case ("_&&_" | "_||_" | "!_" | "@not_strictly_false", _):
            pass
        case ("_?_:_", [_, one, other]):
            given = one.joined(other)
        case ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_", [_, _]):
            units = min(sizes) // COMPARED
        case ("@in", [one, container]):
            often = max(container.length, 1)
            units = often * STEP + min(container.size, often * one.size) // COMPARED
        case ("_+_", [one, other]):
            units = sum(sizes)
            given = replace(one.joined(other), size=units, length=one.length + other.length)
        case ("_[_]", [whole, key]):
            given = _part(whole, key.text or "")
        case ("matches", [text, pattern]):
            units = text.size * _pattern_cost(pattern)
        case ("contains", [text, wanted]):
            units = text.size * (1 + wanted.size // COMPARED)
        case ("size", [_]):
            units = sum(sizes)
        case _:
            units = sum(sizes)
            given = Shape(max(SCALAR, units), sum(argument.length for argument in arguments))
    return units, given


def _part(whole: Shape, name: str) -> Shape:
    """The named field of a value, or any part of it where nothing is known of its fields."""
    if isinstance(whole.hint, Mapping) and name in whole.hint:
        return shape_of(whole.hint[name])
    if isinstance(whole.hint, type):
        fields = _fields(whole.hint)
        return shape_of(fields[name]) if name in fields else Shape()
    return whole.part()


def _collected(parts: list[Shape]) -> Shape:
    largest = reduce(Shape.joined, parts) if parts else Shape()
    return Shape(sum(part.size for part in parts), len(parts), element=largest if parts else None)


def _pattern_cost(pattern: Shape) -> int:
    """Units for each byte of text: the size of the automaton. RE2 writes counted repetitions out."""
    if pattern.text is None:
        # RE2 takes no counted repetition above 1,000.
        return pattern.size * 1000
    cost = len(pattern.text) + 1
    for low, high in _COUNTED.findall(pattern.text):
        cost *= max(int(low), int(high or 0), 1)
    return cost


def _text(message: _Fields, number: int) -> str:
    return message[number][0].decode() if number in message else ""


def _message(encoded: bytes) -> _Fields:
    """A message's fields by number (https://protobuf.dev/programming-guides/encoding/)."""
    fields: _Fields = defaultdict(list)
    for number, value in _wire(encoded):
        fields[number].append(value)
    return dict(fields)


def _wire(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(encoded):
        tag, at = _varint(encoded, at)
        match tag & 7:
            case 0:
                start, (_, at) = at, _varint(encoded, at)
            case 1:
                start, at = at, at + 8
            case 5:
                start, at = at, at + 4
            case _:
                length, start = _varint(encoded, at)
                at = start + length
        yield tag >> 3, encoded[start:at]


def _varint(encoded: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = encoded[at]
        value |= (byte & ~_CONTINUES) << shift
        at, shift = at + 1, shift + 7
        if byte < _CONTINUES:
            return value, at
