"""What stands beside entries, held to them: edges, heads, and what a start keeps.

No entry is proven by it. But the operator starts from it, so whoever changes it can keep the operator from
starting, or make a start forget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pilot_identity.core.audit.archived import Archived
from pilot_identity.core.audit.checkpoint import Checkpoint, LogVerifier
from pilot_identity.core.audit.entries import EntryError, decode_entry
from pilot_identity.core.audit.findings import Finding, Flaw
from pilot_identity.core.audit.proofs import join
from pilot_identity.core.audit.recollection import Recollection, recollect, unpack


def about_edge(
    where: str, size: int, edge: Sequence[bytes], checkpoint: Checkpoint | None
) -> Iterator[Finding]:
    """Hold the head and the right edge that stand where the log has `size` entries to each other.

    The hashes of an edge are the only ones that make its root. So where the head holds, the edge does.
    """
    if checkpoint is None:
        return  # that it is none of the log's was said
    if checkpoint.size != size:
        message = f"it ends at size {size}, the signed head beside it is of size {checkpoint.size}"
        yield Finding(Flaw.HEAD_MISPLACED, where, -1, message)
    elif len(edge) != size.bit_count() or join(edge) != checkpoint.root:
        made = join(edge).hex() if edge else "none"
        message = f"its edge at size {size} makes root {made}, signed is {checkpoint.root.hex()}"
        yield Finding(Flaw.EDGE_REPLACED, where, -1, message)


def about_kept(where: str, archived: Archived, verifier: LogVerifier) -> Iterator[Finding]:
    """Hold what is kept of archived entries to its seal."""
    if not archived.is_sealed(verifier):
        message = f"what it keeps of the entries 0 to {archived.size - 1} is not what the log's key signed"
        yield Finding(Flaw.RECOLLECTION_REPLACED, where, -1, message)


def about_recollection(where: str, first: int, entries: Iterable[bytes], packed: str) -> Iterator[Finding]:
    """Hold what a bundle keeps of its entries to them; what no entry says cannot be kept of it."""
    rows = unpack(packed)
    if rows is None:
        yield Finding(Flaw.RECOLLECTION_REPLACED, where, -1, "what it keeps of its entries cannot be read")
        return
    for index, (entry, row) in enumerate(zip(entries, rows, strict=False), start=first):
        if not is_kept_of(entry, row, is_all=True):
            message = f"what it keeps of entry {index} is not what that entry says"
            yield Finding(Flaw.RECOLLECTION_REPLACED, where, index, message)
            return


def is_kept_of(entry: bytes, row: Recollection, *, is_all: bool = False) -> bool:
    """Whether a row says nothing but what an entry says, or all of it; an unreadable entry says anything."""
    try:
        said = recollect(decode_entry(entry))
    except EntryError:
        return True
    if is_all:
        return row == said
    return (
        (row.id, row.subject_uid) == (said.id, said.subject_uid)
        and row.issuance in {None, said.issuance}
        and (row.revoked is None or row.revoked == said.revoked)
    )
