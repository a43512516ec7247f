"""A witness: sees every change as it happens and writes down each promise that it breaks."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from typing import Any

from pilot_identity.core.audit.checkpoint import LogVerifier
from pilot_identity.core.audit.entries import RecordedEntry, decode_entry
from pilot_identity.core.audit.groups import Group, follow
from pilot_identity.core.audit.merkle import Frontier
from pilot_identity.core.decisions.replaying import Verdict
from pilot_identity.core.resources.metadata import FINALIZER, GROUP
from tests.core.decisions.replayed import replay
from tests.fakes.server import HOME, FakeServer, Object, Place

CREDENTIAL = f"{GROUP}/credential"


class Witness:
    """Watches a server from its beginning.

    Attributes:
        broken: what went wrong, in the order in which it was seen.
        released: the ids of the credentials that stood in a Secret, by subject UID and issuance.
        gone_at: when each credential Secret was deleted, by its owner's UID.
        grants: each grant as it was last seen, by name.
    """

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self.broken: list[str] = []
        self.released: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.gone_at: dict[str, dt.datetime] = {}
        self.grants: dict[str, Object] = {}
        self._decoded: dict[str, list[RecordedEntry]] = {}
        server.watchers.append(self._see)

    def entries(self) -> list[RecordedEntry]:
        """Every entry that is durable now."""
        return [entry for name in sorted(self._decoded) for entry in self._decoded[name]]

    def verify_log(self) -> None:
        """Follow the stored log from scratch, as a stranger would with its published key."""
        verifier_map = self._server.find("configmaps", "audit-verifier", HOME)
        if verifier_map is None:
            self.broken.append("the log's key is not published")
            return
        verifier = LogVerifier.parse(verifier_map["data"]["vkey"])
        frontier = Frontier()
        for body in self._server.all("configmaps"):
            name = body["metadata"]["name"]
            if name.startswith("audit-group-"):
                frontier = follow(frontier, Group.from_data(name, body["data"]), verifier)
        for entry_id, count in Counter(entry.id for entry in self.entries()).items():
            if count > 1:
                self.broken.append(f"{entry_id} is in the log {count} times")
        self._make_decisions_again()

    def _make_decisions_again(self) -> None:
        """Each decision agrees with the rest of the log, wherever the operator was killed."""
        for again in replay(self.entries()):
            if again.verdict is Verdict.DIFFERS:
                self.broken.append(f"{again.entry.id}: {again.mismatches}: {again.then}, now {again.now}")

    def account_for_announcements(self) -> None:
        """Each announced credential was released, or the log says that it was not."""
        released = set().union(*self.released.values()) if self.released else set()
        entries = self.entries()
        abandoned = {entry.data["abandoned"]["id"] for entry in entries if "abandoned" in entry.data}
        for entry in entries:
            if "credential" not in entry.data:
                continue
            identifier = entry.data["credential"]["id"]
            if (identifier in released) == (identifier in abandoned):
                told = "and abandoned" if identifier in abandoned else "nor abandoned"
                self.broken.append(
                    f"{entry.id} was released {told}".replace("released nor", "neither released nor")
                )

    def _see(self, place: Place, before: Object | None, after: Object | None) -> None:
        if place.name.startswith("audit-group-") and after is not None:
            self._decoded[place.name] = [decode_entry(line) for line in after["data"]["entries"].split("\n")]
        elif place.plural == "secrets" and place.namespace != HOME:
            self._see_secret(place, before, after)
        elif place.plural in {"taskgrants", "pilotidentities"}:
            self._see_owner(place, before, after)

    def _see_secret(self, place: Place, before: Object | None, after: Object | None) -> None:
        if after is None:
            if before is not None and CREDENTIAL in before["metadata"].get("annotations", {}):
                self.gone_at[_owner(before)] = self._server.clock()
            return
        identifier = after["metadata"].get("annotations", {}).get(CREDENTIAL)
        if identifier is None:
            return  # someone else's
        entry = next(
            (entry for entry in self.entries() if entry.data.get("credential", {}).get("id") == identifier),
            None,
        )
        if entry is None:
            self.broken.append(f"Secret {place.name} holds {identifier}, which no entry announces")
            return
        if entry.subject_uid != _owner(after):
            self.broken.append(f"Secret {place.name} holds a credential that was announced for another")
        issued = self.released[entry.subject_uid, entry.data["credential"]["issuance"]]
        issued.add(identifier)
        if len(issued) > 1:
            self.broken.append(f"{entry.id} was released as {sorted(issued)}")

    def _see_owner(self, place: Place, before: Object | None, after: Object | None) -> None:
        if place.plural == "taskgrants" and after is not None:
            self.grants[place.name] = after
        uid = (after or before or {})["metadata"]["uid"]
        secrets = [body for body in self._server.all("secrets") if uid in _owners(body)]
        held = [
            FINALIZER in (body or {"metadata": {}})["metadata"].get("finalizers", ())
            for body in (before, after)
        ]
        if held == [True, False] and secrets:
            self.broken.append(f"{place.plural}/{place.name} was let go with its Secret still there")
        status = (after or {}).get("status", {})
        credential = status.get("credential")
        if credential is not None:
            if credential.get("certificate"):
                # This write is what released it.
                self.released[uid, credential["issuance"]].add(credential["id"])
            self._see_claim(place, credential)
        if "closure" in status:
            self._see_end(place, uid, status)
        if status.get("phase") in {"Completed", "Expired", "Revoked"} and secrets:
            self.broken.append(f"{place.plural}/{place.name} says it ended with its Secret still there")

    def _see_end(self, place: Place, uid: str, status: dict[str, Any]) -> None:
        """A status says how its grant ended: as the log does, by the entry that it names."""
        claimed, entries = status["closure"], self.entries()
        index = claimed["auditIndex"]
        if index >= len(entries) or entries[index].id != f"{uid}/closed":
            self.broken.append(f"{place.name} names entry {index} for its end")
        said = [one.data["closure"] for one in entries if one.id in {f"{uid}/closed", f"{uid}/proven"}]
        if any(one["outcome"] != claimed["outcome"] for one in said):
            self.broken.append(f"{place.name} says {claimed['outcome']}, the log says {said}")
        if claimed.get("provenAt") is not None and said[-1].get("provenAt") != claimed["provenAt"]:
            self.broken.append(f"{place.name} says that it is shown, the log says {said}")

    def _see_claim(self, place: Place, credential: dict[str, Any]) -> None:
        """A status says that a credential is out."""
        entries = self.entries()
        index = credential["auditIndex"]
        found = entries[index].data.get("credential", {}).get("id") if index < len(entries) else None
        if found != credential["id"]:
            self.broken.append(f"{place.plural}/{place.name} names entry {index} for {credential['id']}")
        if not any(credential["id"] in ids for ids in self.released.values()):
            self.broken.append(f"{place.plural}/{place.name} claims {credential['id']}, which was never out")


def _owners(body: Object) -> list[str]:
    return [owner["uid"] for owner in body["metadata"].get("ownerReferences", ())]


def _owner(body: Object) -> str:
    return _owners(body)[0]
