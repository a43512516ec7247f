"""The activity endpoint: agents and tool gateways post what a grant is used for.

A report is answered when the log has it, with its entry's index. Who reports is known by the grant's own
credential (`core.activity.reporter`); what may be in a report, `core.activity.report` says.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from pilot_identity.control.sightings import Sightings, about
from pilot_identity.control.store import Store
from pilot_identity.core.activity.rate import Rate, cost
from pilot_identity.core.activity.report import MAX_REPORT_OCTETS, Report, ReportError, parse_report
from pilot_identity.core.activity.reporter import (
    Credential,
    NotAllowedError,
    NotAuthenticatedError,
    check_certificate,
    check_token,
    claimed_id,
    presented_id,
    require_standing,
)
from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.decisions.stages import is_ready
from pilot_identity.core.resources import TaskGrant
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.ids import SpiffeId, TrustDomain
from pilot_identity.endpoints.server import client_certificate, read_body
from pilot_identity.ports import AuditLog, Clock, Issuer, PortError

log = logging.getLogger(__name__)

PATH = "/v1/activities"
_SCHEME = "bearer "
_DRAWN_OCTETS = 16
_NO_ROOM = (
    "so many reports of this grant, or of all, have an id that no more are told apart; "
    "send it without an id, and only once"
)


@dataclass(slots=True)
class Activities:
    """Takes reports.

    Attributes:
        is_working: whether this replica leads and has read everything, and does not stop.
    """

    store: Store
    issuer: Issuer
    log: AuditLog
    sightings: Sightings
    clock: Clock
    is_working: Callable[[], bool]
    rate: Rate = field(default_factory=Rate)
    _bundles: dict[str, tuple[str, Bundle]] = field(default_factory=dict)

    def application(self) -> web.Application:
        """Make the application."""
        app = web.Application(client_max_size=MAX_REPORT_OCTETS)
        app.add_routes([web.post(PATH, self._take)])
        return app

    def authorities(self) -> str:
        """The authorities of all stages in PEM: whose certificates come through the handshake."""
        found: list[str] = []
        for name, stage in sorted(self.store.stages.items()):
            # Of a stage that this process has not looked at since it began, the keys are not here yet.
            with suppress(KeyError):
                found += [self.issuer.bundle(name)["bundle.pem"]] if is_ready(stage) else []
        return "".join(found)

    async def _take(self, request: web.Request) -> web.Response:
        if not self.is_working():
            return _another_works()
        try:
            credential = await self._credential(request)
            grant = self._require_standing(credential)
            body = await read_body(request, MAX_REPORT_OCTETS)
            report = parse_report(body, self.clock())
        except NotAuthenticatedError as error:
            challenge = {"WWW-Authenticate": 'Bearer realm="pilot-identity"'}
            return _refusal(401, str(error), challenge, hang_up=True)
        except NotAllowedError as error:
            return _refusal(403, str(error), hang_up=True)
        except ReportError as error:
            return _refusal(400, str(error))
        price = cost(len(report.activities), len(body))
        wait = self.rate.take(grant.metadata.uid, price, self.clock())
        if wait:
            after = {"Retry-After": str(math.ceil(wait))}
            return _refusal(429, "too much at once; send it again later", after)
        return await self._record(credential, report)

    async def _record(self, credential: Credential, report: Report) -> web.Response:
        # Again: while the body came, this replica may have begun to stop, and the grant may have ended. From
        # here to the log nothing waits.
        if not self.is_working():
            return _another_works()
        try:
            grant = self._require_standing(credential)
        except (NotAllowedError, NotAuthenticatedError) as error:
            return _refusal(403, str(error))
        entry = self._entry(credential, grant, report)
        if not self.log.has_room(entry):
            return _refusal(429, _NO_ROOM)
        try:
            index = await self.log.commit([entry])
        except PortError as error:
            log.warning("%s: an activity is not recorded: %s", grant.key, error)
            return _refusal(503, "the log cannot be written now; send it again", {"Retry-After": "1"})
        self.sightings.reported(grant, len(report.activities), entry.time)
        return web.json_response({"index": index, "id": entry.id}, status=201)

    def _require_standing(self, credential: Credential) -> TaskGrant:
        return require_standing(credential, self.store.grant(credential.grant), self.clock())

    def _entry(self, credential: Credential, grant: TaskGrant, report: Report) -> Entry:
        data: dict[str, Any] = {
            **about(grant, self.store),
            "authentication": dict(credential.told),
            "activities": [activity.data() for activity in report.activities],
        }
        if report.id:
            data["reportID"] = report.id
        return Entry(
            id=f"{grant.metadata.uid}/{report.step(secrets.token_hex(_DRAWN_OCTETS))}",
            type=EntryType.ACTIVITY_RECORDED,
            subject=str(grant.key),
            subject_uid=grant.metadata.uid,
            time=self.clock(),
            data=data,
        )

    async def _credential(self, request: web.Request) -> Credential:
        """Find out who asks: a token counts before the certificate, which it then must be bound to."""
        certificate = client_certificate(request)
        authorization = request.headers.get("Authorization", "")
        if authorization:
            scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :].strip()
            if scheme.lower() != _SCHEME:
                raise NotAuthenticatedError("Authorization must be: Bearer and the grant's JWT-SVID")
            bundle = await self._bundle(claimed_id(token))
            return check_token(token, bundle, self.clock(), certificate)
        if certificate is None:
            raise NotAuthenticatedError("show the grant's JWT-SVID as Bearer, or its X.509-SVID in TLS")
        return check_certificate(certificate, await self._bundle(presented_id(certificate)), self.clock())

    async def _bundle(self, identity: SpiffeId) -> Bundle:
        """The keys of the stage that a SPIFFE ID says it is of."""
        domain = identity.trust_domain.name
        for name, stage in self.store.stages.items():
            if stage.spec.trust_domain != domain:
                continue
            try:
                facts = await self.issuer.facts(name)
            except PortError as error:
                raise web.HTTPServiceUnavailable(
                    text='{"error": "the keys of the stage cannot be read now; send it again"}\n',
                    content_type="application/json",
                    headers={"Retry-After": "1"},
                ) from error
            if facts is not None and facts.trust_domain == domain:
                return self._parsed(name, domain, self.issuer.bundle(name)["bundle.json"])
        raise NotAuthenticatedError("the credential is of no stage here")

    def _parsed(self, stage: str, domain: str, text: str) -> Bundle:
        known = self._bundles.get(stage)
        if known is None or known[0] != text:
            known = self._bundles[stage] = (text, Bundle.parse_spiffe_json(text, TrustDomain.parse(domain)))
        return known[1]


def _another_works() -> web.Response:
    return _refusal(503, "another replica works", {"Retry-After": "1"}, hang_up=True)


def _refusal(
    status: int, message: str, headers: dict[str, str] | None = None, *, hang_up: bool = False
) -> web.Response:
    response = web.Response(
        status=status,
        text=json.dumps({"error": message}) + "\n",
        content_type="application/json",
        headers=headers,
    )
    if hang_up:
        response.force_close()
    return response
