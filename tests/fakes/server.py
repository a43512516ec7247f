"""An API server in memory, as far as the operator's adapters use one, that can fail on demand.

It keeps the rules on which the operator's correctness rests: a name exists once, a version is replaced
once, a UID precondition holds, finalizers hold, and the chart's admission policies for the operator's own
account (compare-and-swap of credential Secrets without a read; an append-only namespace of its own). What
it answers is JSON that went over no wire, but through the same encoder.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from pilot_identity.adapters.kubernetes.api import JSON, METADATA_LIST, METADATA_ONLY, Api, Invalid, NotFound
from pilot_identity.core.resources import KINDS
from pilot_identity.core.resources.metadata import FINALIZER, GROUP
from pilot_identity.ports import Clock, Conflict, Refused, Unavailable
from tests.fakes import access

HOME = "pilot-identity-system"
WITNESS_HOME = "pilot-identity-witness"
"""Where a witness's account works, which the operator's walls do not hold."""
CREDENTIAL_TYPE = f"{GROUP}/credential"
LATENCY = 0.001
"""Seconds, before and after the effect of a request: where requests of several tasks interleave."""

Object = dict[str, Any]
CUSTOM = {kind.plural: kind.name for kind in KINDS.values()}
_PATH = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?P<part>/status|/token)?"
)


class Place(NamedTuple):
    """Where an object is; no name for a collection, no namespace for all of them."""

    plural: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived."""

    method: str
    place: Place
    is_status: bool
    is_dry: bool
    body: Object
    query: Mapping[str, str]

    @classmethod
    def parse(cls, method: str, path: str, body: Any, query: Mapping[str, str] | None) -> Request:
        """Read a request off its path; the body is copied as JSON would."""
        match = _PATH.fullmatch(path)
        if match is None:
            raise ValueError(f"no such path: {path}")
        plural = "tokens" if match["part"] == "/token" else match["plural"]
        place = Place(plural, match["namespace"] or "", match["name"] or "")
        query = dict(query or {})
        return cls(
            method,
            place,
            match["part"] == "/status",
            query.get("dryRun") == "All",
            copy(dict(body or {})),
            query,
        )

    def __str__(self) -> str:
        """As in a server's log: `PATCH taskgrants/triage/status`."""
        where = "/".join(part for part in (self.place.plural, self.place.name) if part)
        return f"{self.method} {where}{'/status' * self.is_status}{' (dry run)' * self.is_dry}"


@dataclass(slots=True)
class Fault:
    """What goes wrong at the `at`-th request, counted from 0.

    Attributes:
        after_effect: whether the request was carried out.
        kills: whether the process dies; otherwise it is told that nobody answered.
        struck: the request that was hit, once it was.
    """

    at: int
    after_effect: bool
    kills: bool
    struck: Request | None = None


@dataclass(slots=True)
class Process:
    """A process of the operator; one that died asks for nothing more and hears nothing more."""

    died: asyncio.Event = field(default_factory=asyncio.Event)

    async def go_on(self) -> None:
        """Return if alive, else never."""
        if self.died.is_set():
            await asyncio.Event().wait()


Change = Callable[[Place, Object | None, Object | None], None]
"""Is told of a place what stood there before and what stands there now."""


class FakeServer:
    """The objects, and every request that was made."""

    def __init__(self, clock: Clock, *, stamps_finalizer: bool = False, page: int = 500) -> None:
        self.clock = clock
        self.objects: dict[Place, Object] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.watchers: list[Change] = []
        self.refused: set[str] = set()
        self.bindable: set[tuple[str, str]] = set()
        self.missing_namespaces: set[str] = set()
        self.tokens: dict[str, str] = {}
        self.believed: set[str] = set()
        self.remembered: list[Object] = []
        self._stamps_finalizer = stamps_finalizer
        self._page = page
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)

    def find(self, plural: str, name: str, namespace: str = "team-a") -> Object | None:
        """Return a copy of an object, by name."""
        found = self.objects.get(Place(plural, namespace, name))
        return copy(found) if found is not None else None

    def all(self, plural: str) -> list[Object]:
        """Every object of a kind, by name."""
        return [copy(body) for place, body in sorted(self.objects.items()) if place.plural == plural]

    def apply(self, body: Object) -> Object:
        """Create or change one of our kinds as a user would: the spec, and nothing else."""
        kind = KINDS[body["kind"]]
        place = Place(kind.plural, body["metadata"].get("namespace", ""), body["metadata"]["name"])
        before = self.objects.get(place)
        if before is None:
            return self._create(Request("POST", place._replace(name=""), False, False, copy(body), {}))
        after = copy(before) | {"spec": copy(body["spec"])}
        if after != before:
            after["metadata"]["generation"] += 1
            self._store(place, after)
        return copy(self.objects[place])

    def ask_to_delete(self, plural: str, name: str, namespace: str = "team-a") -> None:
        """Delete one of our kinds as a user would."""
        self._delete(Request("DELETE", Place(plural, namespace, name), False, False, {}, {}))

    def plant(self, place: tuple[str, str, str], body: Object) -> None:
        """Put an object there as an admin would, past every policy."""
        planted = copy(body)
        planted["metadata"].setdefault("uid", f"planted-{next(self._uids)}")
        planted["metadata"].setdefault("creationTimestamp", self._now())
        self._store(Place(*place), planted)

    def lose(self, plural: str, name: str, namespace: str = "team-a") -> None:
        """Take an object away as an admin would."""
        self._remove(Place(plural, namespace, name))

    def answer(self, request: Request) -> Object:  # noqa: PLR0911 - one for each verb
        """Carry out a request."""
        if request.place.plural in self.refused:
            raise Refused(f"{request}: 403")
        review = _REVIEWS.get(request.place.plural)
        if review is not None:
            return review(self, request)
        match request.method:
            case "GET" if request.place.name:
                return self._existing(request)
            case "GET":
                return self._list(request)
            case "POST":
                return self._create(request)
            case "PUT":
                return self._replace(request)
            case "PATCH":
                return self._patch(request)
            case "DELETE":
                return self._delete(request)
            case _:
                raise ValueError(f"no such method: {request.method}")

    def _existing(self, request: Request) -> Object:
        found = self.objects.get(request.place)
        if found is None:
            raise NotFound(f"{request}: 404")
        return copy(found)

    def _list(self, request: Request) -> Object:
        wanted = dict(pair.split("=") for pair in request.query.get("labelSelector", "").split(",") if pair)
        places = [
            place
            for place, body in sorted(self.objects.items())
            if place.plural == request.place.plural
            and request.place.namespace in {"", place.namespace}
            and wanted.items() <= body["metadata"].get("labels", {}).items()
        ]
        start = int(request.query.get("continue", 0))
        end = start + min(self._page, int(request.query.get("limit", self._page)))
        items = [copy(self.objects[place]) for place in places[start:end]]
        for item in items:
            item.pop("kind", None)
        return {"items": items, "metadata": {"continue": str(end) if end < len(places) else ""}}

    def _create(self, request: Request) -> Object:
        body = request.body
        place = request.place._replace(name=body["metadata"]["name"])
        if place.plural == "rolebindings":
            access.require_bindable(self, request)
        if place in self.objects:
            raise Conflict(f"{request}: 409: {place.name} exists")
        _admit(place, None, body)
        metadata = body["metadata"]
        if request.is_dry:
            return body
        metadata["uid"] = f"{place.plural}-{next(self._uids)}"
        metadata["creationTimestamp"] = self._now()
        if place.plural in CUSTOM:
            metadata["generation"] = 1
            if self._stamps_finalizer and place.plural in {"pilotidentities", "taskgrants"}:
                metadata["finalizers"] = [FINALIZER]
        return self._store(place, body)

    def _replace(self, request: Request) -> Object:
        before, body = self._existing(request), request.body
        version = body["metadata"].get("resourceVersion")
        if version not in {None, before["metadata"]["resourceVersion"]}:
            raise Conflict(f"{request}: 409: changed since")
        _admit(request.place, before, body)
        for name in ("uid", "creationTimestamp"):
            body["metadata"][name] = before["metadata"][name]
        return body if request.is_dry else self._store(request.place, body)

    def _patch(self, request: Request) -> Object:
        before = self._existing(request)
        conditions = request.body.get("metadata", {})
        for name in ("uid", "resourceVersion"):
            if conditions.get(name, before["metadata"][name]) != before["metadata"][name]:
                raise Conflict(f"{request}: 409: {name} is {before['metadata'][name]}")
        if request.is_status:
            after = before | {"status": _merged(before.get("status", {}), request.body["status"])}
        else:
            after = before | {"metadata": _merged(before["metadata"], request.body["metadata"])}
        if after == before:
            return before
        if "deletionTimestamp" in after["metadata"] and not after["metadata"].get("finalizers"):
            self._remove(request.place)
            return after
        return self._store(request.place, after)

    def _delete(self, request: Request) -> Object:
        before = self._existing(request)
        wanted = request.body.get("preconditions", {}).get("uid", before["metadata"]["uid"])
        if wanted != before["metadata"]["uid"]:
            raise Conflict(f"{request}: 409: UID is {before['metadata']['uid']}")
        if request.place.plural not in CUSTOM:
            _admit(request.place, before, None)
        if before["metadata"].get("finalizers"):
            if "deletionTimestamp" not in before["metadata"]:
                before["metadata"]["deletionTimestamp"] = self._now()
                before["metadata"]["generation"] += 1
                self._store(request.place, before)
        else:
            self._remove(request.place)
        return before

    def _store(self, place: Place, body: Object) -> Object:
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        before = self.objects.get(place)
        self.objects[place] = copy(body)
        self._tell(place, before, body)
        return copy(body)

    def _remove(self, place: Place) -> None:
        before = self.objects.pop(place)
        before["metadata"]["resourceVersion"] = str(next(self._versions))
        self._tell(place, before, None)

    def _tell(self, place: Place, before: Object | None, after: Object | None) -> None:
        for watcher in tuple(self.watchers):
            watcher(place, copy(before) if before else None, copy(after) if after else None)

    def _now(self) -> str:
        return self.clock().astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FakeApi(Api):
    """The real client's verbs over a `FakeServer`: all but the connection is the real code."""

    def __init__(self, server: FakeServer, process: Process | None = None) -> None:
        self._server = server
        self._process = process or Process()

    async def close(self) -> None:
        """Nothing is open."""

    async def call(  # noqa: PLR0913 - the signature of what it stands for
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Any:
        """Make one request, and be hit by the fault that waits for it."""
        if (method == "PATCH") != content_type.startswith("application/merge-patch"):
            raise AssertionError(f"{method} with {content_type}")
        request = Request.parse(method, path, body, query)
        await self._process.go_on()
        await asyncio.sleep(LATENCY)
        await self._process.go_on()
        number = len(self._server.requests)
        self._server.requests.append(request)
        fault = next((fault for fault in self._server.faults if fault.at == number), None)
        if fault is not None and not fault.after_effect:
            await self._strike(fault, request)
        try:
            answer = self._server.answer(request)
        finally:
            if fault is not None and fault.after_effect:
                await self._strike(fault, request)
        await asyncio.sleep(LATENCY)
        await self._process.go_on()
        return _without_contents(answer) if accept in {METADATA_ONLY, METADATA_LIST} else answer

    async def _strike(self, fault: Fault, request: Request) -> None:
        fault.struck = request
        if fault.kills:
            self._process.died.set()
        await self._process.go_on()
        raise Unavailable(f"{request}: no answer")


def _without_contents(answer: Object) -> Object:
    if "items" in answer:
        return answer | {"items": [_without_contents(item) for item in answer["items"]]}
    return {"metadata": answer["metadata"]}


def copy(value: Object) -> Object:
    """As it would come out of a wire."""
    return msgspec.json.decode(msgspec.json.encode(value), type=Object)


def _merged(before: Object, patch: Object) -> Object:
    """RFC 7386."""
    after = dict(before)
    for name, value in patch.items():
        if value is None:
            after.pop(name, None)
        elif isinstance(value, dict):
            known = after.get(name)
            after[name] = _merged(known if isinstance(known, dict) else {}, value)
        else:
            after[name] = value
    return after


def _admit(place: Place, before: Object | None, after: Object | None) -> None:
    """Apply the chart's policies for the operator's account; each rule yields what is wrong."""
    rules = _RULES.get(place.plural) if place.namespace != WITNESS_HOME else None
    broken = next(rules(place, before, after), None) if rules is not None else None
    if broken is not None:
        raise Invalid(f"{place.plural}/{place.name}: 422: {broken}")


def _secret_rules(place: Place, before: Object | None, after: Object | None) -> Iterator[str]:
    if place.namespace == HOME:
        if before is not None and (after is not None or not place.name.startswith("stage-keys-")):
            yield "keys are made once"
        return
    if after is not None and after.get("type") != CREDENTIAL_TYPE:
        yield "only credentials are written"
    if after is not None and not _annotation(after, "credential"):
        yield "a credential Secret names its credential"
    if before is not None and before.get("type") != CREDENTIAL_TYPE:
        yield "someone else's"
    if before is not None and after is not None:
        if _owners(before) != _owners(after):
            yield "belongs to another object"
        if _annotation(after, "replaces") != _annotation(before, "credential"):
            yield "holds another credential"


_DELETABLE = ("audit-group-", "audit-tile-", "audit-archived-")
"""In the operator's namespace, where the chart is told to archive."""


def _config_map_rules(place: Place, before: Object | None, after: Object | None) -> Iterator[str]:
    if place.namespace == HOME:
        if place.name == "audit-cosigned" and after is not None:
            return
        if before is not None and (after is not None or not place.name.startswith(_DELETABLE)):
            yield "the audit log is append-only"
        if after is not None and not after.get("immutable"):
            yield "an audit group is written once"
        return
    for body in (before, after):
        ours = place.name.startswith(("pilot-bundle-", "pilot-revoked-"))
        if body is not None and not (ours and _is_managed(body)):
            yield "only bundles and revocation lists are written"


def _account_rules(place: Place, before: Object | None, after: Object | None) -> Iterator[str]:
    if before is not None and (after is not None or not _is_a_grants(place, before)):
        yield "accounts are created and left alone, but for grants' own"
    if after is not None and not _is_managed(after):
        yield "accounts have our label"


def _binding_rules(place: Place, before: Object | None, after: Object | None) -> Iterator[str]:
    for body in (before, after):
        if body is not None and not _is_a_grants(place, body):
            yield "only grants' bindings are written"
    if before is not None and after is not None:
        yield "bindings are never changed"


_RULES: Mapping[str, Callable[[Place, Object | None, Object | None], Iterator[str]]] = {
    "secrets": _secret_rules,
    "configmaps": _config_map_rules,
    "serviceaccounts": _account_rules,
    "rolebindings": _binding_rules,
}

_REVIEWS: Mapping[str, Callable[[FakeServer, Request], Object]] = {
    "tokens": access.token,
    "tokenreviews": access.token_review,
    "subjectaccessreviews": access.access_review,
}


def _is_a_grants(place: Place, body: Object) -> bool:
    return place.name.startswith("pilot-grant-") and _is_managed(body)


def _annotation(body: Object, name: str) -> str:
    return str(body["metadata"].get("annotations", {}).get(f"{GROUP}/{name}", ""))


def _owners(body: Object) -> list[str]:
    return [owner["uid"] for owner in body["metadata"].get("ownerReferences", ())]


def _is_managed(body: Object) -> bool:
    managed: bool = body["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "pilot-identity"
    return managed
