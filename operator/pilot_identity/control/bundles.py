"""Bundles in namespaces: those who publish one and those who take it away do not cross.

A stage has one bundle in a namespace, and every pilot there uses it. A pass publishes it before it releases
anything; its pilot's status names it only afterwards. In between nobody else's decision can know of that, so
passes tell it here, and one at a time goes to the API server for one bundle.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakValueDictionary

from pilot_identity.core.decisions.plan import Preparation, PublishBundle

Place: TypeAlias = tuple[str, str]
"""A namespace and a stage."""


@dataclass(frozen=True, slots=True)
class Bundles:
    """What passes under way do with bundles."""

    _wanted: Counter[Place] = field(default_factory=Counter)
    _turns: WeakValueDictionary[Place, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    @contextmanager
    def wanted(self, preparations: Iterable[Preparation]) -> Iterator[None]:
        """Want the bundles that a pass publishes, until a status names them or the pass failed."""
        places = Counter((one.namespace, one.stage) for one in preparations if isinstance(one, PublishBundle))
        self._wanted.update(places)
        try:
            yield
        finally:
            self._wanted.subtract(places)
            for place in places:
                if not self._wanted[place]:
                    del self._wanted[place]

    def is_wanted(self, place: Place) -> bool:
        """Whether a pass under way publishes that bundle."""
        return place in self._wanted

    @asynccontextmanager
    async def turn(self, place: Place) -> AsyncIterator[None]:
        """Wait until nobody else writes or deletes that bundle."""
        lock = self._turns.setdefault(place, asyncio.Lock())
        async with lock:
            yield
