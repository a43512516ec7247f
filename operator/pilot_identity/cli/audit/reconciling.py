"""`reconcile`: the log held against the objects that are there, and the reverse, with the user's own rights.

Of Secrets only metadata is asked for, so that no key leaves the API server. A kind that the user may not list
is told as not checked. Both sides go on while they are read: what one look finds is looked at again, and what
is told stood in each look, with the log read after the objects.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import typer

from pilot_identity.cli.audit.options import ArchiveOption, FromOption, Output, OutputOption, VkeyOption
from pilot_identity.cli.audit.reading import DEFAULT_NAMESPACE, OpenLog, Where, opened
from pilot_identity.cli.audit.sources import whole
from pilot_identity.cli.failures import AnswerError, ExitCode, UsageError
from pilot_identity.cli.options import ContextOption, KubeconfigOption, NamespaceOption, failing_well
from pilot_identity.cli.output import Format, say, show_data, show_table
from pilot_identity.cli.session import PAGE, RELISTS, Session, collection
from pilot_identity.core.audit.completeness import Discrepancy, confirmed
from pilot_identity.core.audit.completeness import reconcile as held_against
from pilot_identity.core.audit.entries import EntryError, decode_entry
from pilot_identity.core.audit.findings import Report
from pilot_identity.core.audit.live import LABEL, LABELLED, Listed, Live, LiveBinding
from pilot_identity.core.audit.told import Record
from pilot_identity.core.audit.unannounced import beside
from pilot_identity.core.resources import KINDS, PilotIdentity, ResourceError, TaskGrant
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.resources.parsing import read_as

LOOKS = 3
"""What all of them show is told; where the first shows nothing, it is the last."""
BETWEEN_SECONDS = 1.0
"""Between two looks: what is under way takes some milliseconds, the garbage collector about a second."""
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Asks for names and labels alone; what cannot be had so is not had at all."""
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_CREDENTIALS = {"fieldSelector": f"type={GROUP}/credential"}
_LABELLED = {"labelSelector": f"{LABEL}={LABELLED}"}
_TOKENS = {"fieldSelector": "type=kubernetes.io/service-account-token"}

Kept = TypeVar("Kept")
Ours = TypeVar("Ours", TaskGrant, PilotIdentity)


@dataclass(slots=True)
class Looked:
    """One look at the objects.

    Attributes:
        counts: how many there were of each kind that could be listed.
        refused: of each kind that could not, why.
        unreadable: by UID, why objects could not be read.
        tokens: Secrets for lasting tokens of accounts that are no grant's.
    """

    session: Session
    namespace: str
    counts: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    tokens: list[Live] = field(default_factory=list)

    def kept(
        self,
        kind: str,
        list_all: Callable[[], Mapping[str, Kept]],
        counts: Callable[[Kept], bool] = lambda _: True,
    ) -> Mapping[str, Kept] | None:
        """List a kind, and note how that went, and how many count; `None` where the user may not."""
        try:
            found = list_all()
        except AnswerError as error:
            if error.status not in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
                raise
            self.refused[kind] = str(error)
            return None
        self.counts[kind] = sum(map(counts, found.values()))
        return found

    def items(
        self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "application/json"
    ) -> Iterator[Mapping[str, Any]]:
        """Yield a collection's items, page by page.

        Some come twice where it took longer than the server remembers.
        """
        for attempt in range(RELISTS):
            asked = {"limit": str(PAGE), **(query or {})}
            try:
                while True:
                    page = self.session.call("GET", path, query=asked, accept=accept)
                    yield from page["items"] or ()  # null where there are only metadata, and none
                    token = page["metadata"].get("continue")
                    if not token:
                        return
                    asked["continue"] = token
            except AnswerError as error:
                if error.status != HTTPStatus.GONE or attempt == RELISTS - 1:
                    raise

    def path(self, group: str, plural: str) -> str:
        """A collection in the namespace, or in all."""
        where = f"/namespaces/{quote(self.namespace, safe='')}" if self.namespace else ""
        return f"{group}{where}/{plural}"

    def secrets(self, home: str) -> Mapping[str, Live]:
        """Every Secret by UID that is ours by type or label, or holds a lasting token of a grant's account.

        In the operator's own namespace the label is on its keys, which are no grant's.
        """
        path, found = self.path("/api/v1", "secrets"), dict[str, Live]()
        for query in (_CREDENTIALS, _LABELLED, _TOKENS):
            for item in self.items(path, query, accept=METADATA_LIST):
                one = Live.read("Secret", item)
                if query is _TOKENS and not one.is_a_grants_token:
                    self.tokens.append(one)
                elif not (query is _LABELLED and one.key.namespace == home):
                    found[one.uid] = one
        return found

    def accounts(self) -> Mapping[str, Live]:
        """Every ServiceAccount by UID that only the operator makes."""
        items = self.items(self.path("/api/v1", "serviceaccounts"), accept=METADATA_LIST)
        read = (Live.read("ServiceAccount", item) for item in items)
        return {one.uid: one for one in read if one.is_marked}

    def bindings(self, kind: str, path: str) -> Mapping[str, LiveBinding]:
        """Every binding by UID that only the operator makes, or that gives accounts something."""
        read = (LiveBinding.read(kind, item) for item in self.items(path))
        return {one.object.uid: one for one in read if one.is_marked or one.crowds or one.is_of_accounts}

    def ours(self, view: type[Ours]) -> Mapping[str, Ours]:
        """Every grant or pilot by UID; one that does not fit its view is noted."""
        kind, found = KINDS[view.__name__], dict[str, Ours]()
        for item in self.items(collection(kind.name, self.namespace)):
            try:
                read = read_as(item, kind)
            except ResourceError as error:
                self.unreadable[item["metadata"]["uid"]] = str(error)
                continue
            if isinstance(read, view):
                found[read.metadata.uid] = read
        return found

    def listed(self, home: str) -> Listed:
        """List all that is held against the log."""
        secrets = self.kept("Secret", lambda: self.secrets(home))
        accounts = self.kept("ServiceAccount", self.accounts)
        kind, path = "RoleBinding", self.path(_RBAC, "rolebindings")
        bindings = self.kept(kind, lambda: self.bindings(kind, path), _is_marked)
        everywhere, everywhere_path = "ClusterRoleBinding", f"{_RBAC}/clusterrolebindings"
        cluster_bindings = self.kept(
            everywhere, lambda: self.bindings(everywhere, everywhere_path), _is_marked
        )
        grants = self.kept("TaskGrant", lambda: self.ours(TaskGrant))
        pilots = self.kept("PilotIdentity", lambda: self.ours(PilotIdentity))
        return Listed(
            secrets=_values(secrets),
            accounts=_values(accounts),
            bindings=_values(bindings),
            cluster_bindings=_values(cluster_bindings),
            grants=grants,
            pilots=pilots,
            tokens=tuple(self.tokens),
            namespaces=frozenset({self.namespace} if self.namespace else ()),
        )


def _is_marked(binding: LiveBinding) -> bool:
    return binding.is_marked


def _values(found: Mapping[str, Kept] | None) -> tuple[Kept, ...] | None:
    return None if found is None else tuple(found.values())


@dataclass(slots=True)
class Reconciliation:
    """Looks taken one after the other, and what all of them showed."""

    log: OpenLog
    session: Session
    namespace: str
    home: str
    record: Record = field(default_factory=Record)
    report: Report | None = None
    looked: Looked = field(init=False)
    listed: Listed = field(default_factory=Listed)

    def run(self) -> tuple[Discrepancy, ...]:
        """Look until nothing is left, or all looks are taken.

        Raises:
            CliError: the log does not verify, or is not there from its first entry on, or something cannot be
                read.
        """
        found = self._look()
        for _ in range(LOOKS - 1):
            if not found:
                break
            time.sleep(BETWEEN_SECONDS)
            found = confirmed(found, self._look())
        return found

    def _look(self) -> tuple[Discrepancy, ...]:
        self.looked = Looked(self.session, self.namespace)
        self.listed = listed = self.looked.listed(self.home)
        # After the objects: what was announced before they were made is in it then.
        whole(self._read_whole if self.report is None else self._read_on)
        self.record.pending = frozenset(self.looked.unreadable)
        return held_against(self.record, listed, dt.datetime.now(dt.UTC))

    def _read_whole(self) -> None:
        record = Record()
        self.report = self.log.read_whole(lambda index, entry: _take(record, index, entry))
        self.record = record

    def _read_on(self) -> None:
        """Verify it again, and take what came since; what is known already must still be there."""
        known = self.report.entries if self.report is not None else 0
        self.report = self.log.read_on(known, lambda index, entry: _take(self.record, index, entry))

    @property
    def is_all_read(self) -> bool:
        """Whether each kind could be listed, and each object and each entry be read."""
        return not (self.looked.refused or self.looked.unreadable or self.record.unread)

    def not_checked(self, found: Iterable[Discrepancy]) -> Iterator[str]:
        """What was not, beside what was found, and what that leaves open."""
        for kind, why in sorted(self.looked.refused.items()):
            yield f"{_plural(kind)}: you may not list them: {why}"
        yield from self.looked.unreadable.values()
        if self.record.unread:
            some = ", ".join(map(str, self.record.unread[:5]))
            yield f"{len(self.record.unread)} entries that this kubectl-pilot cannot read, such as {some}"
        if self.namespace:
            yield f"other namespaces than {self.namespace}: -A looks into all"
        yield from beside(self.listed, found)
        yield "what the Secrets hold: only their metadata was asked for"
        yield "copies of credentials, and anything that has neither the operator's name, label nor type"


def _take(record: Record, index: int, encoded: bytes) -> None:
    try:
        record.take(index, decode_entry(encoded))
    except EntryError:
        record.unread.append(index)


def reconcile(  # noqa: PLR0913, PLR0917 - typer reads a verb's options from its parameters
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")
    ] = False,
    namespace: NamespaceOption = "",
    operator_namespace: Annotated[
        str, typer.Option("--operator-namespace", help="Where the operator and its audit log are.")
    ] = DEFAULT_NAMESPACE,
    place: FromOption = "",
    archive: ArchiveOption = "",
    vkey: VkeyOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Hold the log against the objects that are there: what is not in the log, and what is not there.

    With your own rights; a kind that you may not list is told as not checked. Needs the whole log: give
    --archive where its beginning is archived. Exits with 1 where something is found, with 4 where nothing
    is, and not everything could be checked.
    """
    where = Where(place, operator_namespace, context, kubeconfig, vkey, archive)
    with failing_well():
        if all_namespaces and namespace:
            raise UsageError("-A looks into all namespaces: leave out -n")
        with opened(where) as log:
            session = Session.open(kubeconfig=kubeconfig, context=context, namespace=namespace)
            try:
                chosen = "" if all_namespaces else session.namespace
                reconciliation = Reconciliation(log, session, chosen, operator_namespace)
                found = reconciliation.run()
            finally:
                session.close()
    if output is Output.JSON:
        show_data(_data(reconciliation, found), Format.JSON)
    else:
        _print(reconciliation, found)
    if found:
        raise typer.Exit(ExitCode.REFUSED)
    if not reconciliation.is_all_read:
        raise typer.Exit(ExitCode.PARTLY)


def _print(reconciliation: Reconciliation, found: tuple[Discrepancy, ...]) -> None:
    log, looked, report = reconciliation.log, reconciliation.looked, reconciliation.report
    say(f"log      {log.verifier.name}, {report.entries if report is not None else 0} entries, sound")
    say(
        "objects  "
        + (", ".join(f"{count} {_plural(kind)}" for kind, count in looked.counts.items()) or "none")
    )
    say(f"verdict  {_verdict(reconciliation, found)}")
    if found:
        say("")
        rows = [(one.kind, str(one.key), _entry(one), one.message) for one in found]
        show_table(("FINDING", "OBJECT", "ENTRY", "WHAT"), rows)
    say("")
    say("Not checked:")
    for line in reconciliation.not_checked(found):
        say(f"  - {line}")


def _plural(kind: str) -> str:
    """As in sentences.

    >>> _plural("Secret"), _plural("PilotIdentity")
    ('Secrets', 'PilotIdentities')
    """
    return f"{kind.removesuffix('y')}ies" if kind.endswith("y") else f"{kind}s"


def _verdict(reconciliation: Reconciliation, found: tuple[Discrepancy, ...]) -> str:
    if found:
        return f"NOT COMPLETE: {len(found)} found"
    if reconciliation.looked.refused:
        return "nothing found in what could be listed; not everything could"
    if not reconciliation.is_all_read:
        return "nothing found in what could be read; not everything could"
    return "complete"


def _entry(one: Discrepancy) -> str:
    return str(one.index) if one.index >= 0 else ""


def _data(reconciliation: Reconciliation, found: tuple[Discrepancy, ...]) -> Mapping[str, Any]:
    """The same for programs; `complete` is null where nothing was found but not everything could be read."""
    report, looked = reconciliation.report, reconciliation.looked
    return {
        "complete": False if found else True if reconciliation.is_all_read else None,
        "log": reconciliation.log.verifier.name,
        "entries": report.entries if report is not None else 0,
        "objects": looked.counts,
        "findings": [
            {
                "finding": str(one.kind),
                "kind": one.key.kind,
                "namespace": one.key.namespace,
                "name": one.key.name,
                "entry": one.index if one.index >= 0 else None,
                "owner": str(one.owner) if one.owner is not None else None,
                "message": one.message,
            }
            for one in found
        ],
        "notChecked": list(reconciliation.not_checked(found)),
    }
