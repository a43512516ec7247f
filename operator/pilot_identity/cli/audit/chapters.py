"""Chapters: what an entry says of a task, in words, for each section of its story."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pilot_identity.cli.access import format_access
from pilot_identity.cli.audit.printing import short_type, why
from pilot_identity.cli.text import clock
from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.audit.particulars import count, mapping, mappings, moment, text, texts
from pilot_identity.core.audit.story import Section, Story
from pilot_identity.core.audit.uses import Line, Uses

_DIGEST_DIGITS = 16
"""Of a digest, for people; -o json has all of them."""


@dataclass(frozen=True, slots=True)
class Told:
    """One entry in words: a line, and its particulars in lines of their own."""

    head: str
    particulars: tuple[str, ...] = ()


def tell(section: Section, line: Line, story: Story) -> Told:
    """Say what an entry tells in a section of a story."""
    return _TELLERS[section](line, story)


def summed(uses: Uses) -> str:
    """How much something was used, in a few words."""
    told = [number_of(uses.requests, "request")] if uses.requests else []
    told += [f"{uses.refused} refused"] if uses.refused else []
    told += [f"{number} x {kind}" for kind, number in sorted(uses.activities.items())]
    return ", ".join(told) or "nothing"


def number_of(count: int, noun: str) -> str:
    """So many of something.

    >>> number_of(1, "grant"), number_of(0, "grant")
    ('1 grant', '0 grants')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _request(line: Line, story: Story) -> Told:
    data = line.entry.data
    task, parent = mapping(data, "task"), story.parent
    description = text(task, "description")
    head = (
        f"{text(data, 'requestedBy') or 'unknown'} asked for pilot {text(data, 'pilot')}: "
        f"task {text(task, 'id')}" + (f", {description}" if description else "")
    )
    return Told(head, tuple(_asked(story, parent)))


def _asked(story: Story, parent: Mapping[str, Any]) -> Iterator[str]:
    access = next(filter(None, map(_access, story.lines)), ())
    duration = next(filter(None, (text(line.entry.data, "spec", "duration") for line in story.lines)), "")
    if duration:
        yield f"for {duration}"
    if access:
        yield "access: " + " ".join(
            format_access(text(each, "name"), texts(each, "actions"), texts(each, "resources"))
            for each in access
        )
    if parent:
        yield f"delegated from grant {text(parent, 'name')}, uid {text(parent, 'uid') or 'unknown'}"


def _access(line: Line) -> tuple[Mapping[str, Any], ...]:
    data = line.entry.data
    if line.type == EntryType.ACCESS_SEEN:
        return ()
    return mappings(data, "access") or mappings(data, "spec", "access")


def _decision(line: Line, _: Story) -> Told:
    decision = mapping(line.entry.data, "decision")
    checks = mappings(decision, "checks")
    refusal = "waits" if line.type == EntryType.GRANT_DECIDED else "denied"
    is_allowed = decision.get("allowed") is True
    verdict = "allowed" if is_allowed else f"{refusal}: {text(decision, 'message')}"
    failed = [check for check in checks if check.get("passed") is not True]
    particulars = [f"not passed: {text(check, 'name')}{_beyond(check, decision)}" for check in failed]
    particulars += [
        f"passed, but: {text(check, 'name')}: {text(check, 'message')}"
        for check in checks
        if check.get("passed") is True and text(check, "message")
    ]
    approvers = [text(each, "approver") for each in mappings(decision, "approvals")]
    if approvers:
        particulars.append(f"at the word of {', '.join(approvers)}")
    for name, what in (("policyDigest", "policy"), ("pilotDigest", "pilot")):
        if digest := text(decision, name):
            particulars.append(f"{what} {_short(digest)}")
    counted = f" ({len(checks) - len(failed)} of {len(checks)} checks passed)" if checks else ""
    return Told(f"{verdict}{counted}", tuple(particulars))


def _beyond(check: Mapping[str, Any], decision: Mapping[str, Any]) -> str:
    """What a check says that its decision does not; the first one that fails makes the decision."""
    message = text(check, "message")
    return f": {message}" if message not in {"", text(decision, "message")} else ""


def _approval(line: Line, _: Story) -> Told:
    data = line.entry.data
    approver = text(data, "approver")
    match line.type:
        case EntryType.GRANT_EMERGENCY:
            by, due = text(data, "requestedBy"), clock(moment(data, "reviewDueAt"))
            told = f"{by} broke the glass: no approvals; the pilot's review is due at {due}"
        case EntryType.REVIEW_OWED:
            told = f"a review of the pilot is owed until {clock(moment(data, 'owed', 'dueAt'))}"
        case EntryType.PILOT_REVIEWED:
            told = f"{text(data, 'approval', 'approver')} reviewed the pilot: {text(data, 'reason')}"
        case EntryType.GRANT_APPROVED:
            who = ", ".join(text(each, "approver") for each in mappings(data, "approvals"))
            told = f"of the approvals that it needs all are there ({count(data, 'required')}): {who}"
        case EntryType.APPROVAL_USED:
            by = f", for the decision in entry {count(data, 'decidedBy')}" if "decidedBy" in data else ""
            told = f"the word of {approver} counted{by}"
        case EntryType.APPROVAL_VOID:
            told = f"the word of {approver} counts for nothing: {text(data, 'why')}"
        case _:
            word = "denied it" if text(data, "decision") == "Deny" else "approved it"
            ticket = f" ({text(data, 'ticket')})" if text(data, "ticket") else ""
            told = f"{approver} {word}: {text(data, 'reason')}{ticket}"
    return Told(told)


def _credential(line: Line, _: Story) -> Told:
    data = line.entry.data
    if line.type == EntryType.CREDENTIAL_ABANDONED:
        number, holds = count(data, "abandoned", "issuance"), text(data, "secretHolds")
        return Told(f"number {number} was announced and never released; in its place is {holds}")
    credential = mapping(data, "credential")
    verb = "renewed" if line.type == EntryType.GRANT_RENEWED else "issued"
    place = f" in Secret {text(credential, 'secretName')}" if text(credential, "secretName") else ""
    head = (
        f"{verb}: number {count(credential, 'issuance')}, certificate {text(credential, 'serial')} "
        f"until {clock(moment(credential, 'notAfter'))}{place}"
    )
    particulars = [
        f"token {text(token, 'jti')} for {text(token, 'audience')} until {clock(moment(token, 'notAfter'))}"
        for token in mappings(credential, "tokens")
    ]
    return Told(head, (text(credential, "spiffeID"), *particulars))


def _kubernetes(line: Line, _: Story) -> Told:
    given = mapping(line.entry.data, "credential", "kubernetes")
    head = (
        f"account {text(given, 'serviceAccountName')}, token {text(given, 'credentialID')} "
        f"until {clock(moment(given, 'notAfter'))}"
    )
    bindings = (
        f"RoleBinding {text(each, 'namespace')}/{text(each, 'name')} to "
        f"{text(each, 'roleRef', 'kind')} {text(each, 'roleRef', 'name')}"
        for each in mappings(given, "bindings")
    )
    return Told(head, tuple(bindings))


def _seen(line: Line, _: Story) -> Told:
    data = line.entry.data
    head = f"{number_of(count(data, 'requests'), 'request')}, {count(data, 'refused')} refused"
    if (since := moment(data, "from")) is not None:
        head += f", from {clock(since)} until {clock(moment(data, 'until'))}"
    if line.is_of_an_account:
        head += f"; told of {line.entry.subject} (UID {line.entry.subject_uid})"
    return Told(head, (*map(_row, mappings(data, "access")), *_beside(data)))


def _row(row: Mapping[str, Any]) -> str:
    names = [*texts(row, "names"), *(["…"] if row.get("moreNames") is True else [])]
    where = f" in {text(row, 'namespace')}" if text(row, "namespace") else ""
    which = f" ({', '.join(names)})" if names else ""
    refused = f", {count(row, 'refused')} refused" if count(row, "refused") else ""
    return f"{text(row, 'verb')} {text(row, 'resource')}{where}{which}: {count(row, 'requests')}{refused}"


def _beside(data: Mapping[str, Any]) -> Iterator[str]:
    """What a sum tells beside its rows."""
    if others := count(data, "otherAccess", "requests"):
        yield f"other: {others}, {count(data, 'otherAccess', 'refused')} refused"
    for token in mappings(data, "tokens"):
        if token.get("isKnown") is not True:
            yield f"by token {text(token, 'credentialID')}, which is not known: {count(token, 'requests')}"
    if late := count(data, "afterEnd", "requests"):
        about = mapping(data, "afterEnd", "about")
        near = f"; {count(about, 'requests')} within {count(about, 'seconds')} s of it" if about else ""
        allowed = count(data, "afterEnd", "allowed")
        yield f"after the access was withdrawn: {late}, of which {allowed} allowed{near}"
    for whom in mappings(data, "impersonated"):
        yield f"acting as {text(whom, 'user')}: {count(whom, 'requests')}"
    borrowed = mapping(data, "impersonatedBy")
    for who in mappings(borrowed, "users"):
        yield f"{text(who, 'user')} acted as the account: {number_of(count(who, 'requests'), 'request')}"
    for row in mappings(borrowed, "access"):
        yield f"by impersonation: {_row(row)}"


def _activity(line: Line, _: Story) -> Told:
    data = line.entry.data
    authentication = mapping(data, "authentication")
    shown = text(authentication, "audience") or text(authentication, "serial")
    by = f"by {text(authentication, 'method')} {shown}".rstrip()
    told = tuple(map(_done, mappings(data, "activities")))
    return Told(f"{told[0]} ({by})") if len(told) == 1 else Told(f"{len(told)} activities, {by}", told)


_NAMED = (
    "gen_ai.tool.name",
    "pilotidentity.action",
    "pilotidentity.resource",
    "pilotidentity.approver",
    "pilotidentity.decision",
    "gen_ai.operation.name",
    "gen_ai.request.model",
    "gen_ai.tool.call.id",
    "gen_ai.response.id",
    "error.type",
)
"""The attributes of an activity that a line has room for."""


def _done(activity: Mapping[str, Any]) -> str:
    attributes, digests = mapping(activity, "attributes"), mapping(activity, "digests")
    told = [text(activity, "kind"), *(text(attributes, name) for name in _NAMED)]
    told += [f"{name} {_short(text(digests, name))}" for name in sorted(digests)]
    return " ".join(filter(None, told))


def _end(line: Line, _: Story) -> Told:
    closure = mapping(line.entry.data, "closure")
    asked, withdrawn = clock(moment(closure, "requestedAt")), clock(moment(closure, "withdrawnAt"))
    return Told(
        f"{text(closure, 'outcome')}: {text(closure, 'message') or text(closure, 'reason')}",
        (f"asked for at {asked}, withdrawn at {withdrawn}",),
    )


def _proof(line: Line, _: Story) -> Told:
    data = line.entry.data
    closure = mapping(data, "closure")
    proven = moment(closure, "provenAt")
    if data.get("letGo") is True:
        head = "not proven, and the object was let go"
    else:
        head = f"proven at {clock(proven)}" if proven is not None else "not proven yet"
    return Told(head, tuple(map(_shown, mappings(closure, "proofs"))))


def _shown(proof: Mapping[str, Any]) -> str:
    message = f" ({text(proof, 'message')})" if text(proof, "message") else ""
    return f"{'shown' if proof.get('proven') is True else 'NOT shown'}: {text(proof, 'name')}{message}"


def _other(line: Line, _: Story) -> Told:
    return Told(f"{short_type(line.entry)}{why(line.entry)}")


def _short(digest: str) -> str:
    """The beginning of a digest.

    >>> _short("sha256:" + "ab" * 32)
    'sha256:abababababababab…'
    """
    algorithm, colon, digits = digest.rpartition(":")
    rest = "…" if len(digits) > _DIGEST_DIGITS else ""
    return f"{algorithm}{colon}{digits[:_DIGEST_DIGITS]}{rest}"


_TELLERS: Mapping[Section, Callable[[Line, Story], Told]] = MappingProxyType(
    {
        Section.REQUEST: _request,
        Section.DECISION: _decision,
        Section.APPROVALS: _approval,
        Section.CREDENTIALS: _credential,
        Section.KUBERNETES: _kubernetes,
        Section.ACCESS: _seen,
        Section.ACTIVITY: _activity,
        Section.END: _end,
        Section.PROOF: _proof,
        Section.OTHER: _other,
    }
)
