"""Telling: what a trace found, for people and for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from pilot_identity.cli.access import format_access
from pilot_identity.cli.clues import Clue
from pilot_identity.cli.ending import describe_end
from pilot_identity.cli.text import ahead, clock
from pilot_identity.cli.traces import Result, Trace
from pilot_identity.core.resources.pilot_identity import PilotIdentity
from pilot_identity.core.resources.task_grant import TaskGrant
from pilot_identity.core.resources.timestamps import format_timestamp

SHOWN_ENTRIES = 20


def lines(result: Result, now: dt.datetime) -> Iterator[str]:
    """What was found, a line for each thing that a responder needs."""
    for clue in result.clues:
        yield f"Given        {_describe(clue, now)}"
    for each in result.traces:
        yield ""
        yield from _grant_lines(each, now)
        if result.ended is not None and each.grant.metadata.uid in result.ended:
            yield f"Revoked      {describe_end(each.grant)}"
        elif result.ended is not None and each.grant.status.phase.is_terminal:
            yield "Revoked      nothing to revoke: it has ended already"
    for pilot in result.pilots:
        yield ""
        yield from _pilot_lines(pilot)
    if result.entries:
        yield ""
        yield from _entry_lines(result)
    elif result.refused and result.is_found:
        yield f"Audit log    not read: {result.refused}"


def _pilot_lines(pilot: PilotIdentity) -> Iterator[str]:
    metadata, owners = pilot.metadata, pilot.spec.owners
    yield f"Pilot        {metadata.namespace}/{metadata.name}: its own certificate, which gives no access"
    yield f"Owners       {owners.technical} (technical), {owners.business} (business)"
    yield f"To withdraw  kubectl pilot suspend {metadata.name} -n {metadata.namespace}"


def _entry_lines(result: Result) -> Iterator[str]:
    if not result.traces:
        yield "Grant        is no object any more; the audit log has it"
    shown = result.entries[-SHOWN_ENTRIES:]
    for found in shown:
        told = f"{clock(found.entry.time)}  {found.entry.type}  {found.entry.subject}"
        yield f"Entry {found.index:<6} {told}{_particulars(found.entry.data)}"
    if len(shown) < len(result.entries):
        yield f"             and {len(result.entries) - len(shown)} earlier; -o json shows all"


def _describe(clue: Clue, now: dt.datetime) -> str:
    shown = clue.shown
    told = [shown["what"]]
    told += [
        f"{name} {shown[name]}"
        for name in ("serial", "jti", "publicKeySHA256", "serviceAccount", "secret")
        if name in shown
    ]
    if clue.expires_at is not None:
        told.append(f"{'ends' if clue.expires_at > now else 'ended'} {ahead(clue.expires_at, now)}")
    return ", ".join(told)


def _grant_lines(trace: Trace, now: dt.datetime) -> Iterator[str]:
    grant, pilot = trace.grant, trace.pilot
    metadata, spec, status = grant.metadata, grant.spec, grant.status
    yield f"Grant        {metadata.namespace}/{metadata.name}   {status.phase}   uid {metadata.uid}"
    yield f"Because      {trace.ground}" + (
        "" if trace.is_current or not trace.ground.is_sure else "; an earlier credential, since replaced"
    )
    if trace.is_alive:
        yield f"Alive        YES: ends {ahead(status.expires_at, now)} unless revoked"
    elif status.phase.is_terminal:
        yield f"Alive        no: {describe_end(grant)}"
    else:
        yield f"Alive        not yet: nothing was issued, it is {status.phase}"
    owners = f", owned by {pilot.spec.owners.technical}, {pilot.spec.owners.business}" if pilot else ""
    yield f"Pilot        {spec.pilot}{f' in stage {status.stage}' if status.stage else ''}{owners}"
    yield f"Task         {spec.task.id}" + (f": {spec.task.description}" if spec.task.description else "")
    yield f"Asked by     {spec.requested_by or 'unknown'} at {clock(metadata.creation_timestamp)}"
    yield f"Approved by  {', '.join(_approvers(grant)) or 'nobody; none was asked for'}"
    access = (format_access(each.name, each.actions, each.resources) for each in spec.access)
    yield f"Access       {' '.join(access)}"
    if status.credential is not None and status.credential.secret_name:
        yield f"Secret       {status.credential.secret_name}, certificate {status.credential.serial}"
    if status.usage is not None:
        told = f"{status.usage.requests} requests ({status.usage.refused} refused)"
        yield f"Used         last {ahead(status.usage.last_used, now)}, {told}"
    if trace.parents():
        yield f"Parents      {' > '.join(trace.parents())}"
    for depth, child in trace.children():
        indent = "  " * (depth - 1)
        yield f"Child        {indent}{child.metadata.name} of {child.spec.pilot}: {child.status.phase}"
    if status.decision is not None and status.decision.audit_index >= 0:
        yield f"Audit        decided in entry {status.decision.audit_index}" + (
            f", last credential in entry {status.credential.audit_index}" if status.credential else ""
        )


def _approvers(grant: TaskGrant) -> tuple[str, ...]:
    decision, wait = grant.status.decision, grant.status.approval
    if decision is not None and decision.approvals:
        return tuple(each.approver for each in decision.approvals)
    return wait.approved_by if wait is not None else ()


def _particulars(data: Mapping[str, Any]) -> str:
    """Who and what for, as far as the entry says so at its top."""
    asked = data.get("requestedBy")
    closure = data.get("closure")
    told = [f"asked by {asked}"] if isinstance(asked, str) else []
    if isinstance(closure, dict) and isinstance(closure.get("message"), str):
        told.append(closure["message"])
    return f"  ({'; '.join(told)})" if told else ""


def data(result: Result, now: dt.datetime) -> dict[str, Any]:
    """What was found, for programs. Identifiers are here, what was given is not."""
    return {
        "given": [clue.shown for clue in result.clues],
        "grants": [_grant_data(each) for each in result.traces],
        "pilots": [
            {"namespace": pilot.metadata.namespace, "name": pilot.metadata.name} for pilot in result.pilots
        ],
        "auditEntries": [found.data() for found in result.entries],
        "auditLogRefused": result.refused,
        "revoked": sorted(result.ended or ()),
        "at": format_timestamp(now.replace(microsecond=0)),
    }


def _grant_data(trace: Trace) -> dict[str, Any]:
    grant, closure = trace.grant, trace.grant.status.closure
    return {
        "namespace": grant.metadata.namespace,
        "name": grant.metadata.name,
        "uid": grant.metadata.uid,
        "ground": trace.ground.name.lower(),
        "isCurrent": trace.is_current,
        "isAlive": trace.is_alive,
        "phase": grant.status.phase.value,
        "expiresAt": format_timestamp(grant.status.expires_at) if grant.status.expires_at else None,
        "outcome": closure.outcome if closure else None,
        "residualUntil": format_timestamp(closure.residual_until)
        if closure and closure.residual_until
        else None,
        "pilot": grant.spec.pilot,
        "stage": grant.status.stage,
        "owners": [trace.pilot.spec.owners.technical, trace.pilot.spec.owners.business]
        if trace.pilot
        else [],
        "task": {"id": grant.spec.task.id, "description": grant.spec.task.description},
        "requestedBy": grant.spec.requested_by,
        "approvers": list(_approvers(grant)),
        "parents": list(trace.parents()),
        "children": [
            {
                "name": child.metadata.name,
                "uid": child.metadata.uid,
                "generation": depth,
                "phase": child.status.phase.value,
            }
            for depth, child in trace.children()
        ],
    }
