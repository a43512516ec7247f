"""The feeder: people who keep asking for grants, and end some of them, whatever happens."""

from __future__ import annotations

import http
import http.client
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Self

from e2e import manifests
from e2e.admin import Answer
from e2e.patience import TooLateError
from e2e.stories.play import Play

CONFLICT = 409
FORBIDDEN = 403
TOO_MANY = 429
AGAIN_S = 0.2
ANSWER_S = 60.0
"""How long the API server may be away."""
JOIN_S = ANSWER_S + 30.0
"""More than one answer takes, so that whoever joins learns why there was none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A grant that was asked for."""

    name: str
    uid: str


class Feeder:
    """Asks for short grants of one pilot, steadily in a thread and on demand in bursts.

    Some are completed, revoked or deleted soon after, drawn from `chance`. While the API server is away it
    asks again, as a client would.
    """

    def __init__(
        self, play: Play, pilot: str, chance: random.Random, *, every_s: float, duration: str
    ) -> None:
        self._play = play
        self._pilot = pilot
        self._chance = chance
        self._every_s = every_s
        self._duration = duration
        self._numbers = count()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._feed, name="feeder", daemon=True)
        self._failure: BaseException | None = None
        self.asked: list[Asked] = []

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking."""
        self.stop()

    def stop(self) -> None:
        """Stop asking; raises what went wrong, if something did."""
        self._stop.set()
        self._thread.join(JOIN_S)
        if self._failure is not None:
            raise self._failure
        if self._thread.is_alive():
            raise TooLateError(f"the feeder did not end within {JOIN_S:.0f} s")

    def burst(self, size: int) -> None:
        """Ask for several at once."""
        for _ in range(size):
            self._ask()

    def _feed(self) -> None:
        try:
            while not self._stop.wait(self._chance.uniform(0, 2 * self._every_s)):
                self._end(self._ask())
        except BaseException as error:  # noqa: BLE001 - told to the test by `stop`, in its own thread
            self._failure = error

    def _ask(self) -> Asked:
        name = f"fed-{next(self._numbers)}"
        document = manifests.grant(
            name, self._pilot, requested_by=self._play.admin.name, duration=self._duration
        )
        answer = next(self._answers("POST", self._play.grants(), document))
        if answer.code == CONFLICT:
            # An answer that was lost: the grant is there.
            answer = next(self._answers("GET", self._play.grants(name)))
        assert answer.is_good, answer.message
        asked = Asked(name, answer.body["metadata"]["uid"])
        with self._lock:
            self.asked.append(asked)
        return asked

    def _end(self, asked: Asked) -> None:
        """End about a third of them before their time, each way as likely as the others."""
        way = self._chance.choice(("complete", "revoke", "delete", *["let be"] * 6))
        path = self._play.grants(asked.name)
        by = {"reason": "drawn by lot", "by": self._play.admin.name}
        match way:
            case "complete":
                next(self._answers("PATCH", path, {"spec": {"completed": True}}))
            case "revoke":
                next(self._answers("PATCH", path, {"spec": {"revoke": by}}))
            case "delete":
                next(self._answers("DELETE", path))
            case _:
                return

    def _answers(self, method: str, path: str, body: object = None) -> Iterator[Answer]:
        """Ask until there is an answer that is not about the API server's own weather."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        deadline, instead = time.monotonic() + ANSWER_S, ""
        while time.monotonic() < deadline:
            try:
                answer = self._play.admin.ask(method, path, body, kind)
            except (OSError, http.client.HTTPException, ValueError) as error:
                instead = repr(error)
            else:
                if not _is_weather(answer):
                    yield answer
                    return
                instead = f"{answer.code} {answer.message}"
            time.sleep(
                AGAIN_S
            )  # between two tries; also when it is to stop, which takes effect after this one
        raise TooLateError(f"{method} {path}: no answer within {ANSWER_S:.0f} s but {instead}")


def _is_weather(answer: Answer) -> bool:
    """Whether an answer is about the API server itself: not ready yet, or too busy."""
    if answer.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR or answer.code == TOO_MANY:
        return True
    # For a moment after its start it knows no roles and no policies yet.
    return answer.code == FORBIDDEN and ("not yet ready" in answer.message or "RBAC:" in answer.message)
