"""Whether the tokens that a grant asks for can be made at all.

A token says all that was granted, and by whom it was delegated. Verifiers read only so much of one, and the
program issues nothing that one of them may refuse. So this is asked before anybody is asked to approve.
"""

from __future__ import annotations

from pilot_identity.core.decisions.credentials import grant_order
from pilot_identity.core.decisions.delegation import told_chain
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.spiffe.jwt_svid import token_octets
from pilot_identity.core.spiffe.jwt_token import MAX_TOKEN_OCTETS

_NONCE_DIGITS = 32
"""Of `Moment.nonce`: 128 bits in hex."""


def _too_large(request: Request) -> Objection | None:
    if request.grant.spec.certificate_request:
        return None
    order = grant_order(
        request.grant,
        request.pilot,
        request.stage,
        expires_at=request.now + request.grant.spec.duration,
        ca_not_after=request.ca_not_after,
        # Of the randomness only its length is in question.
        moment=Moment(request.now, "0" * _NONCE_DIGITS, serial=1, jitter=0.0),
        chain=told_chain(request.seen.ancestors),
    )
    for token in order.tokens:
        octets = token_octets(order.spiffe_id, token.audience, token.expires_at, token.token_id, token.claims)
        if octets > MAX_TOKEN_OCTETS:
            return Objection(
                Reason.TOKEN_TOO_LARGE,
                f"the token for audience {token.audience!r} would have {octets} bytes, and verifiers read at "
                f"most {MAX_TOKEN_OCTETS}; ask for fewer entries of that audience in one grant, or for fewer "
                "actions and resources of them",
            )
    return None


TOKENS = (
    # Make sure that nobody approves what cannot be issued, and that nothing is tried in vain for ever.
    Check("tokens-fit", _too_large),
)
