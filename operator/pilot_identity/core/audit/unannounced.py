"""What gives access beside the record: it is no grant's, so no entry announces it, and none is asked for.

Whoever reads that a record is complete must know what that leaves out: what a cluster's people give to groups
that a grant's account may come to be in, and what a team gives its pilot's own account for as long as it
likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pilot_identity.core.audit.completeness import Discrepancy
from pilot_identity.core.audit.live import EVERYBODY, Listed, LiveBinding

_NAMED = 3
"""As many are named; the others are counted."""


def beside(listed: Listed, found: Iterable[Discrepancy]) -> Iterator[str]:
    """Tell what was listed, gives access, and was not held against the log; `found` is told already."""
    told = {one.key for one in found}
    every = (*(listed.bindings or ()), *(listed.cluster_bindings or ()))
    bindings = [one for one in every if not one.is_marked and one.object.key not in told]
    crowds = [one for one in bindings if one.gives_accounts]
    if crowds:
        yield f"{_some(crowds)}: a group of accounts, in which no grant's account is now"
    everybody = [one for one in bindings if any(group.crowd == EVERYBODY for group in one.crowds)]
    if everybody:
        yield f"{_some(everybody)}: everybody has it, and so has each grant's account"
    own = {(one.key.namespace, one.service_account) for one in (listed.pilots or {}).values()}
    of_pilots = [one for one in bindings if any(subject.account in own for subject in one.subjects)]
    if of_pilots:
        yield f"{_some(of_pilots)}: a pilot's own account, whatever its grants are"
    tokens = [one for one in listed.tokens if (one.key.namespace, one.token_of) in own]
    if tokens:
        names = ", ".join(str(one.key) for one in tokens[:_NAMED])
        yield f"{len(tokens)} lasting tokens of pilots' own accounts, such as {names}"


def _some(bindings: list[LiveBinding]) -> str:
    named = "; ".join(f"{one.object.key} ({one})" for one in bindings[:_NAMED])
    return f"{len(bindings)} bindings such as {named}"
