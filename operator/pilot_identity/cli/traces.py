"""Traces: the grants that clues lead to, how sure that is, and what belongs to them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from pilot_identity.cli import trail
from pilot_identity.cli.clues import Clue, normal_serial
from pilot_identity.cli.failures import AnswerError
from pilot_identity.cli.options import Place
from pilot_identity.cli.output import tell
from pilot_identity.cli.reading import find_pilot
from pilot_identity.cli.reading import grants as read_grants
from pilot_identity.cli.reading import pilots as read_pilots
from pilot_identity.cli.vouching import is_signed
from pilot_identity.core.resources.pilot_identity import PilotIdentity
from pilot_identity.core.resources.task_grant import Phase, TaskGrant

_ACCOUNT_UID_LENGTH = 20


class Ground(StrEnum):
    """Why a grant is thought to be what the credential belongs to."""

    RECORDED = "the cluster's records have exactly this"
    SIGNED = "the stage signed it, for this grant"
    UNCHECKED = "it says so itself; nothing that you may read confirms or refutes it"
    FORGED = "it says so itself, but the stage did not sign it"

    @property
    def is_sure(self) -> bool:
        """Whether a grant may be ended on it."""
        return self in {Ground.RECORDED, Ground.SIGNED}


@dataclass(frozen=True, slots=True)
class Trace:
    """One grant that something leads to.

    Attributes:
        clue: what led there.
        is_current: whether it is the credential that the grant has now.
        siblings: the other grants of the namespace, among them parents and children.
        pilot: None where it is gone or may not be seen.
    """

    grant: TaskGrant
    clue: Clue
    ground: Ground
    is_current: bool
    siblings: Mapping[str, TaskGrant]
    pilot: PilotIdentity | None

    @property
    def is_alive(self) -> bool:
        """Whether the grant still gives access."""
        return self.grant.status.phase in {Phase.ACTIVE, Phase.CLOSING}

    def parents(self) -> tuple[str, ...]:
        """Names of the ancestors, the first first."""
        status, spec = self.grant.status, self.grant.spec
        return status.chain or ((spec.parent,) if spec.parent else ())

    def children(self) -> Iterator[tuple[int, TaskGrant]]:
        """Every descendant with its generation, children before their own children."""
        yield from _descendants(self.grant, self.siblings.values(), 1, {self.grant.metadata.uid})


def _descendants(
    parent: TaskGrant, among: Iterable[TaskGrant], depth: int, seen: set[str]
) -> Iterator[tuple[int, TaskGrant]]:
    for grant in among:
        named = grant.spec.parent == parent.metadata.name
        # A namesake made later is not the parent; before the operator looked, only the name is there.
        is_child = named and grant.status.parent_uid in {"", parent.metadata.uid}
        if is_child and grant.metadata.uid not in seen:
            seen.add(grant.metadata.uid)
            yield depth, grant
            yield from _descendants(grant, among, depth + 1, seen)


@dataclass(frozen=True, slots=True)
class Result:
    """What was found of everything that was given.

    Attributes:
        pilots: those whose own certificate it is.
        entries: what the audit log says, where it was read.
        refused: why the log could not be read.
        ended: the grants that were revoked, as they are now, by UID.
    """

    clues: Sequence[Clue]
    traces: Sequence[Trace]
    pilots: Sequence[PilotIdentity]
    entries: Sequence[trail.Found] = ()
    refused: str = ""
    ended: Mapping[str, TaskGrant] | None = None

    @property
    def is_found(self) -> bool:
        """Whether anything at all is known."""
        return bool(self.traces or self.pilots or self.entries)


class View:
    """The grants and pilots that the user may see, read once for each namespace.

    Attributes:
        saw_all: whether every namespace was looked at.
    """

    def __init__(self, place: Place) -> None:
        self.session = place.session
        self.saw_all = not place.is_named
        self._scope = place.namespace if place.is_named else ""
        self._own = place.namespace
        self._grants: dict[str, Mapping[str, TaskGrant]] = {}
        self._pilots: dict[str, tuple[PilotIdentity, ...]] = {}

    def grants(self, namespace: str) -> Mapping[str, TaskGrant]:
        """By UID, of a namespace, or without one of all that the user may list."""
        scope = namespace or self._scope
        if scope not in self._grants:
            try:
                self._grants[scope] = read_grants(self.session, scope)
            except AnswerError as error:
                if scope or error.status != HTTPStatus.FORBIDDEN:
                    raise
                self._narrow()
                return self.grants("")
        return self._grants[scope]

    def pilots(self, namespace: str) -> tuple[PilotIdentity, ...]:
        """Of a namespace, or without one of all that the user may list; none where they may not."""
        scope = namespace or self._scope
        if scope not in self._pilots:
            try:
                self._pilots[scope] = tuple(read_pilots(self.session, scope))
            except AnswerError as error:
                if error.status != HTTPStatus.FORBIDDEN:
                    raise
                self._pilots[scope] = ()
        return self._pilots[scope]

    def _narrow(self) -> None:
        tell(f"you may not list grants in all namespaces; looks only in namespace {self._own} (or use -n)")
        self._scope, self.saw_all = self._own, False


def look(view: View, clues: Sequence[Clue], operator_namespace: str) -> Result:
    """Look in the state of the cluster, and where that does not know what was given, in the audit log."""
    traces = [each for clue in clues for each in _traces(view, clue)]
    pilots = [] if traces else [each for clue in clues for each in _pilots(view, clue)]
    if pilots or any(each.ground is Ground.RECORDED for each in traces):
        return Result(clues, _best(traces), pilots)
    wanted = frozenset().union(*(clue.identifiers for clue in clues))
    uid = next((clue.grant_uid for clue in clues if clue.grant_uid), "")
    searched = trail.search(view.session, operator_namespace, wanted, uid)
    recorded = [each for found in searched.found for each in _recorded(view, found, clues)]
    return Result(clues, _best([*recorded, *traces]), pilots, searched.found, searched.refused)


def _traces(view: View, clue: Clue) -> Iterator[Trace]:
    among = view.grants(clue.namespace)
    found = [grant for grant in among.values() if _is_recorded(clue, grant)]
    if not found and clue.secret:
        found = _latest([grant for grant in among.values() if _has_had_secret(clue, grant)])
    if found:
        for grant in found:
            yield _trace(view, grant, clue, Ground.RECORDED, is_current=True)
        return
    for grant in among.values():
        if _is_claimed(clue, grant):
            ground = _GROUNDS[is_signed(view.session, clue, grant)]
            yield _trace(view, grant, clue, ground, is_current=False)


_GROUNDS = {True: Ground.SIGNED, False: Ground.FORGED, None: Ground.UNCHECKED}


def _recorded(view: View, found: trail.Found, clues: Sequence[Clue]) -> Iterator[Trace]:
    """The grant of an entry, if it is still an object, and the entry names what was given."""
    namespace, _ = found.place
    if not namespace:
        return
    try:
        grant = view.grants(namespace).get(found.entry.subject_uid)
    except AnswerError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        return
    for clue in clues if grant is not None else ():
        if grant is not None and found.names(clue.identifiers):
            yield _trace(view, grant, clue, Ground.RECORDED, is_current=False)


def _trace(view: View, grant: TaskGrant, clue: Clue, ground: Ground, *, is_current: bool) -> Trace:
    namespace = grant.metadata.namespace
    pilot = find_pilot(view.session, namespace, grant.spec.pilot)
    return Trace(grant, clue, ground, is_current, view.grants(namespace), pilot)


def _best(traces: Iterable[Trace]) -> list[Trace]:
    """Each grant once, on its best ground."""
    order = list(Ground)
    best: dict[str, Trace] = {}
    for each in traces:
        uid = each.grant.metadata.uid
        if uid not in best or order.index(each.ground) < order.index(best[uid].ground):
            best[uid] = each
    return list(best.values())


def _is_recorded(clue: Clue, grant: TaskGrant) -> bool:
    """Whether the operator's own status has what was given, or a person named the grant."""
    if clue.is_literal and clue.grant:
        return clue.grant == grant.metadata.name
    credential = grant.status.credential
    if credential is None:
        return False
    if clue.serial and clue.serial == normal_serial(credential.serial):
        return True
    jtis = {token.jti for token in credential.tokens}
    if credential.kubernetes is not None:
        jtis.add(credential.kubernetes.credential_id.removeprefix("JTI="))
    return bool(clue.jti) and clue.jti.removeprefix("JTI=") in jtis


def _has_had_secret(clue: Clue, grant: TaskGrant) -> bool:
    return clue.secret == grant.secret and grant.status.credential is not None


def _is_claimed(clue: Clue, grant: TaskGrant) -> bool:
    """Whether what was given says itself that it is of this grant."""
    metadata = grant.metadata
    if clue.grant_uid:
        return clue.grant_uid == metadata.uid
    if clue.account:
        account = f"pilot-grant-{metadata.uid.replace('-', '')[:_ACCOUNT_UID_LENGTH]}"
        return (clue.namespace, clue.account) == (metadata.namespace, account)
    named = (clue.namespace, clue.grant, clue.pilot)
    return bool(clue.grant) and named == (metadata.namespace, metadata.name, grant.spec.pilot)


def _latest(grants: list[TaskGrant]) -> list[TaskGrant]:
    """Of the grants that have had a Secret of one name: those that have it now, else the last ones."""
    alive = [grant for grant in grants if not grant.status.phase.is_terminal]
    if alive or not grants:
        return alive
    newest = max(map(_created, grants))
    return [grant for grant in grants if _created(grant) == newest]


def _created(grant: TaskGrant) -> dt.datetime:
    return grant.metadata.creation_timestamp or dt.datetime.min.replace(tzinfo=dt.UTC)


def _pilots(view: View, clue: Clue) -> Iterator[PilotIdentity]:
    """Pilots whose own certificate, which gives no access, this is."""
    for pilot in view.pilots(clue.namespace) if not clue.grant and not clue.account else ():
        credential = pilot.status.credential
        has_serial = credential is not None and clue.serial == normal_serial(credential.serial)
        is_named = bool(clue.pilot) and (clue.namespace, clue.pilot) == (
            pilot.metadata.namespace,
            pilot.metadata.name,
        )
        if (clue.serial and has_serial) or is_named or clue.secret == pilot.svid_secret:
            yield pilot
