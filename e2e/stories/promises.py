"""Promises: what must be true of credentials and log, whatever happened to the operator."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from e2e.audit import ISSUING, Line, Trail
from e2e.credential import Credential, is_credential
from e2e.sightings import Sighting
from pilot_identity.core.audit.entries import EntryType


def credentials(seen: Iterable[Sighting]) -> list[Credential]:
    """Every credential that ever stood in a Secret."""
    return [
        Credential.of(one.object) for one in seen if one.change != "DELETED" and is_credential(one.object)
    ]


def announced_first(seen: Sequence[Sighting], trail: Trail) -> None:
    """No credential without a durable audit entry before it (promise 1).

    `trail` must have been read after the last of `seen`.
    """
    for credential in credentials(seen):
        line = trail.announcing(credential.id)
        assert line is not None, f"credential {credential.id} has no entry"
        assert line.revision < credential.revision, f"entry {line.index} came after its credential"
        assert line.entry.subject_uid == credential.owner_uid


def issued_once(seen: Sequence[Sighting], trail: Trail) -> None:
    """No second credential for the same issuance, and what is called abandoned is (promise 6)."""
    ids: dict[tuple[str, int], set[str]] = defaultdict(set)
    for line in trail:
        if line.kind in ISSUING:
            ids[line.entry.subject_uid, line.issuance].add(line.credential_id)
    twice = {number: found for number, found in ids.items() if len(found) > 1}
    assert not twice, f"announced twice under one number: {twice}"
    for line in trail:
        if line.kind is EntryType.CREDENTIAL_ABANDONED:
            _abandoned_truly(line, seen, trail)


def _abandoned_truly(line: Line, seen: Sequence[Sighting], trail: Trail) -> None:
    """What the log calls abandoned was never in a Secret."""
    abandoned, uid = str(line.entry.data["abandoned"]["id"]), line.entry.subject_uid
    held = [one for one in seen if credential_of(one) == abandoned]
    told = f"entry {line.index} calls {abandoned} abandoned, which was out:\n{story_of(uid, seen, trail)}"
    assert not held, told


def credential_of(one: Sighting) -> str:
    """The id of the credential that a Secret held when it was seen; empty where it held none."""
    annotations = one.object["metadata"].get("annotations", {})
    return str(annotations.get("pilotidentity.dev/credential", ""))


def story_of(uid: str, seen: Sequence[Sighting], trail: Trail) -> str:
    """What log and Secrets tell of one grant, in etcd's order."""
    told = [(line.revision, f"entry {line.index} {line.kind}") for line in trail.of(uid)]
    told += [
        (one.revision, f"Secret {one.name} {one.change}")
        for one in seen
        if any(owner["uid"] == uid for owner in one.object["metadata"].get("ownerReferences", ()))
    ]
    return "\n".join(f"{revision} {what}" for revision, what in sorted(told))


def each_entry_once(trail: Trail) -> None:
    """A step is recorded once, however often it was taken."""
    counted = Counter(line.entry.id for line in trail)
    twice = [identifier for identifier, count in counted.items() if count > 1]
    assert not twice, f"recorded twice: {twice}"


def issuances(trail: Trail, grant_uid: str) -> list[str]:
    """The ids of a grant's credentials that were announced and not abandoned."""
    lines = trail.of(grant_uid)
    abandoned = {line.issuance for line in lines if line.kind is EntryType.CREDENTIAL_ABANDONED}
    return [line.credential_id for line in lines if line.kind in ISSUING and line.issuance not in abandoned]


def hold(seen: Sequence[Sighting], trail: Trail) -> None:
    """Everything of the above that holds at any moment."""
    announced_first(seen, trail)
    issued_once(seen, trail)
    each_entry_once(trail)
