"""The witness's endpoint: logs post their heads and get them back cosigned (C2SP tlog-witness.md).

Anybody may knock. What is cosigned only the log's key decides, together with what was cosigned before; so
nobody is authenticated, and what a stranger can cost is bounded: the body and the time for it, one request
of a log at a time, and no write but for a new head or once a minute.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web

from pilot_identity.core.audit.checkpoint import CheckpointError, LogVerifier, split_note
from pilot_identity.core.audit.cosignature import Cosigner
from pilot_identity.core.witness.judgement import Case, Refusal, Refused, Seen, judge, opened
from pilot_identity.core.witness.request import MAX_REQUEST_BYTES, AddCheckpoint, RequestError, origin_hash
from pilot_identity.endpoints.server import read_body
from pilot_identity.ports import Clock, Conflict, Cosigned, PortError, WitnessState

log = logging.getLogger(__name__)

ADD_PATH = "/add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
ANEW = dt.timedelta(minutes=1)
"""A head that was cosigned so lately is answered with the cosignature that there is."""
TELL_AGAIN = dt.timedelta(seconds=10)
"""Between two lines of the log about one of the logs that are watched."""
_NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)
ATTEMPTS = 3
"""Against other replicas of the same witness."""

STATUSES: Mapping[Refusal, HTTPStatus] = {
    Refusal.UNKNOWN_LOG: HTTPStatus.NOT_FOUND,
    Refusal.NOT_SIGNED: HTTPStatus.FORBIDDEN,
    Refusal.NOT_BEGUN: HTTPStatus.NOT_FOUND,
    Refusal.OLD_BEYOND: HTTPStatus.BAD_REQUEST,
    Refusal.NOT_THE_LAST: HTTPStatus.CONFLICT,
    Refusal.INCONSISTENT: HTTPStatus.UNPROCESSABLE_ENTITY,
    Refusal.CLOCK: HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(slots=True)
class Witnessing:
    """Takes heads.

    Attributes:
        logs: the keys of the logs that are watched, by their origins.
        may_begin: whether a log of which nothing is known may begin with what it is shown.
        cosigned: how many heads were cosigned.
        refused: how many requests were refused, by why.
    """

    cosigner: Cosigner
    logs: Mapping[str, LogVerifier]
    state: WitnessState
    clock: Clock
    may_begin: bool = False
    cosigned: int = 0
    refused: dict[Refusal, int] = field(default_factory=lambda: dict.fromkeys(Refusal, 0))
    _told_at: dict[str, dt.datetime] = field(default_factory=dict)
    _turns: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def application(self) -> web.Application:
        """Make the application."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.add_routes([web.post(ADD_PATH, self._add), web.get("/{log}/checkpoint", self._show)])
        return app

    async def _add(self, request: web.Request) -> web.Response:
        try:
            asked = AddCheckpoint.parse(await read_body(request, MAX_REQUEST_BYTES))
        except RequestError as error:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text=f"{error}\n")
        head = opened(asked, self.logs)
        if isinstance(head, Refused):
            return self._refuse(asked, head)
        try:
            async with self._turns[head.origin]:
                outcome = await self._cosign(asked)
        except PortError as error:
            log.warning("a head of %s cannot be cosigned now: %s", head.origin, error)
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="try again\n")
        if isinstance(outcome, Refused):
            return self._refuse(asked, outcome)
        return web.Response(text=outcome)

    async def _cosign(self, asked: AddCheckpoint) -> str | Refused:
        """Judge on what is kept, and keep the new head before its cosignature is returned."""
        for attempt in range(ATTEMPTS):
            head = opened(asked, self.logs)
            if isinstance(head, Refused):
                return head
            kept = await self.state.read(head.origin)
            seen, now = self._seen(head.origin, kept), self.clock()
            refused = judge(Case(asked, head, seen, now, self.may_begin))
            if refused is not None:
                return refused
            if seen is not None and now - seen.at < ANEW and _text(kept.note) == _text(asked.note):
                return self.cosigner.verifier().lines_of(kept.note)
            line = self.cosigner.cosign(asked.note, now)
            try:
                await self.state.replace(head.origin, kept, self.logs[head.origin].alone(asked.note) + line)
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            self.cosigned += 1
            return line
        raise AssertionError("the last attempt returns or raises")

    def _seen(self, origin: str, kept: Cosigned) -> Seen | None:
        """What is kept, believed only as far as both signatures on it go.

        Raises:
            PortError: something else is kept; it is not taken for nothing.
        """
        if not kept.note:
            return None
        try:
            checkpoint = self.logs[origin].open(kept.note)
            return Seen(checkpoint, self.cosigner.verifier().cosigned_at(kept.note))
        except CheckpointError as error:
            raise PortError(f"what is kept of {origin} was not cosigned by this witness: {error}") from error

    async def _show(self, request: web.Request) -> web.Response:
        """The newest head that was cosigned, for monitors."""
        wanted = request.match_info["log"]
        for origin in self.logs:
            if origin_hash(origin) == wanted:
                try:
                    async with self._turns[origin]:
                        kept = await self.state.read(origin)
                except PortError as error:
                    log.warning("what is kept of %s cannot be read now: %s", origin, error)
                    return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="try again\n")
                if kept.note:
                    return web.Response(text=kept.note)
        return web.Response(status=HTTPStatus.NOT_FOUND, text="no head of this log was cosigned\n")

    def _refuse(self, asked: AddCheckpoint, refused: Refused) -> web.Response:
        self.refused[refused.refusal] += 1
        if refused.refusal is Refusal.INCONSISTENT:
            self._tell(asked, refused)
        status = STATUSES[refused.refusal]
        if refused.refusal is Refusal.NOT_THE_LAST:
            return web.Response(status=status, body=f"{refused.size}\n".encode(), content_type=SIZE_TYPE)
        return web.Response(status=status, text=f"{refused.message}\n")

    def _tell(self, asked: AddCheckpoint, refused: Refused) -> None:
        """Tell of a head that the log signed and that does not go on; now and then: anybody may send it.

        Where it has the size of the one that is kept, the two signatures prove two histories.
        """
        origin, now = asked.note.split("\n", 1)[0], self.clock()
        if now - self._told_at.get(origin, _NEVER) >= TELL_AGAIN:
            self._told_at[origin] = now
            log.error("not cosigned: %s: %r", refused.message, self.logs[origin].alone(asked.note))


def _text(note: str) -> str:
    return split_note(note)[0]
