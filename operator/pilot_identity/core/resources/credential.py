"""What a status says of the credential that stands in a Secret."""

from __future__ import annotations

import datetime as dt

import msgspec

from pilot_identity.core.resources.metadata import View


class CredentialStatus(View, frozen=True):
    """The credential that stands in the Secret, as its audit entry says."""

    id: str
    issuance: int
    spiffe_id: str = msgspec.field(name="spiffeID")
    serial: str
    not_before: dt.datetime
    not_after: dt.datetime
    renew_at: dt.datetime
    secret_name: str
    secret_uid: str = msgspec.field(name="secretUID")
    audit_index: int
