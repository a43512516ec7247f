"""Credentials: what is to be in them, for whom and for how long."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.key_steps import CLOCK_SKEW
from pilot_identity.core.decisions.plan import CredentialOrder, TokenOrder
from pilot_identity.core.resources import PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.pilot_identity import AccessEntry
from pilot_identity.core.resources.task_grant import AskedAccess
from pilot_identity.core.spiffe.certificate_request import requested_key
from pilot_identity.core.spiffe.ids import SpiffeId, TrustDomain, pilot_id, task_id

CLAIMS = "https://pilotidentity.dev/claims"
"""The namespaced claim that holds ours (JWT-SVID.md §3: further claims should be collision-resistant)."""
ACCESS_TYPE = "https://pilotidentity.dev/access/tool"
"""The `type` of our authorization details (RFC 9396 §2.1)."""


def identity_of(pilot: PilotIdentity, stage: StagePolicy) -> SpiffeId:
    """The SPIFFE ID of a pilot in a stage."""
    domain = TrustDomain.parse(stage.spec.trust_domain)
    return pilot_id(domain, pilot.metadata.namespace, pilot.metadata.name)


def pilot_order(
    pilot: PilotIdentity, stage: StagePolicy, ca_not_after: dt.datetime, moment: Moment
) -> CredentialOrder:
    """Order the pilot's own SVID: who it is, and no access."""
    start = moment.second
    return CredentialOrder(
        id=moment.nonce,
        stage=stage.name,
        spiffe_id=identity_of(pilot, stage),
        serial=moment.serial,
        not_before=start - CLOCK_SKEW,
        not_after=min(start + stage.spec.credentials.x509_ttl, ca_not_after),
        generation=stage.status.signing,
    )


def grant_order(  # noqa: PLR0913 - each is one fact of the grant; a parameter object would only rename them
    grant: TaskGrant,
    pilot: PilotIdentity,
    stage: StagePolicy,
    *,
    expires_at: dt.datetime,
    ca_not_after: dt.datetime,
    moment: Moment,
    chain: Sequence[Mapping[str, Any]] = (),
) -> CredentialOrder:
    """Order a task's credentials: an X.509-SVID, and a JWT-SVID for each audience.

    None outlives `expires_at`, the end of the task. A grant with a certificate request gets the certificate
    alone: a token would lie in the status, where everyone who may read grants could take it. `chain` is what
    the tokens tell of the grants that this one was delegated by, first ancestor first.

    Raises:
        CertificateRequestError: the certificate request cannot be signed; the checks say so beforehand.
    """
    domain = TrustDomain.parse(stage.spec.trust_domain)
    start = moment.second
    end = min(expires_at, ca_not_after)
    lifetimes = stage.spec.credentials
    pem = grant.spec.certificate_request
    token_end = min(start + lifetimes.jwt_ttl, end)
    return CredentialOrder(
        id=moment.nonce,
        stage=stage.name,
        spiffe_id=task_id(domain, grant.metadata.namespace, grant.spec.pilot, grant.metadata.name),
        serial=moment.serial,
        not_before=start - CLOCK_SKEW,
        not_after=min(start + lifetimes.x509_ttl, end),
        tokens=() if pem else _tokens(grant, pilot, stage, token_end, moment, chain),
        public_key=requested_key(pem) if pem else None,
        generation=stage.status.signing,
    )


def granted_access(grant: TaskGrant, pilot: PilotIdentity) -> tuple[tuple[AskedAccess, AccessEntry], ...]:
    """Pair each entry that the grant asks for with the pilot's entry of that name; unknown names drop out."""
    ceiling = {entry.name: entry for entry in pilot.spec.access}
    return tuple((asked, ceiling[asked.name]) for asked in grant.spec.access if asked.name in ceiling)


def audiences(grant: TaskGrant, pilot: PilotIdentity) -> tuple[str, ...]:
    """The audiences that get a token, in the order in which the grant names their entries."""
    named = dict.fromkeys(entry.tool.audience for _, entry in granted_access(grant, pilot) if entry.tool)
    wanted = grant.spec.audience
    return tuple(audience for audience in named if not wanted or audience in wanted)


def _tokens(  # noqa: PLR0913, PLR0917 - as above
    grant: TaskGrant,
    pilot: PilotIdentity,
    stage: StagePolicy,
    expires_at: dt.datetime,
    moment: Moment,
    chain: Sequence[Mapping[str, Any]],
) -> tuple[TokenOrder, ...]:
    """One token for each audience: `token.jwt`, or `<entry>.jwt` where there are several."""
    pairs = granted_access(grant, pilot)
    orders: list[TokenOrder] = []
    every = audiences(grant, pilot)
    for number, audience in enumerate(every):
        of_audience = [
            (asked, entry) for asked, entry in pairs if entry.tool and entry.tool.audience == audience
        ]
        claims = {
            CLAIMS: {
                "stage": stage.name,
                "pilot": {"name": pilot.metadata.name, "uid": pilot.metadata.uid},
                "grant": {
                    "namespace": grant.metadata.namespace,
                    "name": grant.metadata.name,
                    "uid": grant.metadata.uid,
                },
                "task": grant.spec.task.id,
                "delegation": list(chain),
            },
            "authorization_details": [_authorization_detail(asked, entry) for asked, entry in of_audience],
        }
        files = ["token.jwt"] if len(every) == 1 else [f"{asked.name}.jwt" for asked, _ in of_audience]
        orders.extend(
            TokenOrder(file, audience, f"{moment.nonce}.{number}", expires_at, claims) for file in files
        )
    return tuple(orders)


def _authorization_detail(asked: AskedAccess, entry: AccessEntry) -> dict[str, object]:
    """The access granted, in the shape of RFC 9396 §2, so that a tool can enforce it offline."""
    if entry.tool is None:
        raise ValueError(f"access {entry.name!r} is no tool")
    return {
        "type": ACCESS_TYPE,
        "identifier": entry.name,
        "locations": [entry.tool.audience],
        "actions": list(asked.actions or entry.tool.actions),
        "resources": list(asked.resources or entry.tool.resources),
        "datatypes": [entry.data_class],
    }
