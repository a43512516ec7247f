"""The verbs of `kubectl pilot audit`, as the sub-app `app`."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from pilot_identity.cli.audit.exporting import Export
from pilot_identity.cli.audit.following import follow
from pilot_identity.cli.audit.memory import Memory
from pilot_identity.cli.audit.options import Output, OutputOption, on_log
from pilot_identity.cli.audit.printing import print_entry, print_report, report_data, whole_entry
from pilot_identity.cli.audit.reading import OpenLog, read_vkey, tell_findings
from pilot_identity.cli.audit.selection import About, Selection
from pilot_identity.cli.audit.sources import whole
from pilot_identity.cli.failures import CliError, ExitCode, UsageError
from pilot_identity.cli.files import read_bounded
from pilot_identity.cli.options import failing_well
from pilot_identity.cli.output import Format, say, show_data, tell
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogVerifier
from pilot_identity.core.audit.entries import EntryError, decode_entry
from pilot_identity.core.audit.proofs import ProofError
from pilot_identity.core.audit.receipt import MAX_RECEIPT_BYTES, Receipt, ReceiptError

app = typer.Typer(
    name="audit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Verify the audit log, read it, and take proofs out of it.",
)

IndexArgument = Annotated[int, typer.Argument(min=0, help="The entry's number, from 0.")]


@app.command()
@on_log
def verify(log: OpenLog, *, output: OutputOption = Output.TABLE) -> None:
    """Verify every byte of the log: signatures, hashes, gaps, and that it goes on from what you saw last."""
    report = whole(log.read)
    if output is Output.JSON:
        show_data(report_data(report, log), Format.JSON)
    else:
        print_report(report, log)
        tell_findings(report)
    if not report.is_sound:
        raise typer.Exit(ExitCode.REFUSED)


@app.command()
@on_log
def tail(
    log: OpenLog,
    *,
    is_followed: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; by watching the cluster.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", min=0, help="How many of the newest to begin with.")] = 10,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print the newest entries, each only after it verified."""
    if is_followed and log.cluster is None:
        raise UsageError("-f follows the log in a cluster; it cannot be given with --from")

    def print_one(index: int, entry: bytes) -> None:
        print_entry(index, entry, as_json=output is Output.JSON)

    newest: deque[tuple[int, bytes]] = deque(maxlen=lines)
    whole(lambda: log.read_sound(lambda index, entry: newest.append((index, entry))))
    for index, entry in newest:
        print_one(index, entry)
    if log.cluster is not None and is_followed:
        try:
            follow(log, log.cluster, print_one)
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None


@app.command()
@on_log
def show(log: OpenLog, index: IndexArgument, *, output: OutputOption = Output.TABLE) -> None:
    """Print one entry with all that it says."""
    entry = _entry(log, index)
    if output is Output.JSON:
        print_entry(index, entry, as_json=True)
    else:
        typer.echo(whole_entry(entry))


@app.command(name="for")
@on_log
def about(
    log: OpenLog,
    what: Annotated[About, typer.Argument(help="What NAME is.")],
    name: Annotated[str, typer.Argument(help="NAME, or NAMESPACE/NAME; of an owner the user name.")],
    *,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print every entry about a grant, about a pilot and its grants, or about all pilots of an owner."""
    taken, selection = whole(lambda: _selected(log, what, name))
    for index, entry in taken:
        print_entry(index, entry, as_json=output is Output.JSON)
    for hidden in sorted(selection.hidden) if what is About.OWNER else ():
        tell(f"warning: of pilot {hidden} a definition is in the log by its digest only, so not its owners")
    if not taken:
        raise CliError(f"the log has no entry about {what} {name}", "NAME may be NAMESPACE/NAME")


@app.command()
@on_log
def export(
    log: OpenLog,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Is made; may be there if it is empty.")],
) -> None:
    """Write the log as plain files: C2SP tiles, which other tools can check, and its entries as NDJSON."""
    head = whole(lambda: _export(log, directory))
    say(f"{head.size} entries in {directory}, root {head.root.hex()}")


@app.command()
@on_log
def receipt(log: OpenLog, index: IndexArgument) -> None:
    """Print a receipt (C2SP tlog-proof): an entry with the proof that it is in the log, for use offline."""
    entry = _entry(log, index)
    report = log.verification.report()
    path = log.tree.inclusion(index, report.entries)
    typer.echo(str(Receipt(index, entry, path, report.note)), nl=False)


@app.command()
def check_receipt(
    file: Annotated[Path, typer.Argument(help="The receipt; - for stdin.")],
    *,
    vkey: Annotated[
        str,
        typer.Option(
            "--vkey", help="The log's verifier key, or a file with it; by default of a log seen before."
        ),
    ] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Check a receipt offline: that the log's key signed a head over this very entry at this index."""
    with failing_well():
        text = read_bounded(file, MAX_RECEIPT_BYTES, "the receipt")
        try:
            stored = Receipt.parse(text)
            verifier = read_vkey(vkey) if vkey else _remembered(stored)
            head = stored.verify(verifier)
        except (ReceiptError, CheckpointError, ProofError) as error:
            raise CliError(f"the receipt is not valid: {error}") from error
        _require_one_history(verifier, head)
        if output is Output.JSON:
            print_entry(stored.index, stored.entry, as_json=True)
            return
        say(f"valid: entry {stored.index} of the log {verifier.name}, by its head of {head.size} entries")
        typer.echo(whole_entry(stored.entry))
        say("Not checked: whether the log still goes on from there, and whether what the entry says is true.")


def _entry(log: OpenLog, index: int) -> bytes:
    """One entry of a log that verified."""
    found: dict[int, bytes] = {}

    def keep(at: int, entry: bytes) -> None:
        if at == index:
            found[at] = entry

    report = whole(lambda: log.read_sound(keep))
    if index not in found:
        raise CliError(f"the log has {report.entries} entries; the last is {report.entries - 1}")
    return found[index]


def _selected(log: OpenLog, what: About, name: str) -> tuple[list[tuple[int, bytes]], Selection]:
    namespace, _, own = name.rpartition("/") if what is not About.OWNER else ("", "", name)
    selection, taken = Selection(what, own, namespace), list[tuple[int, bytes]]()

    def keep(index: int, entry: bytes) -> None:
        try:
            recorded = decode_entry(entry)
        except EntryError as error:
            tell(f"warning: entry {index} is of a kind that this kubectl-pilot does not know: {error}")
            return
        if selection.takes(recorded):
            taken.append((index, entry))

    log.read_sound(keep)
    return taken, selection


def _export(log: OpenLog, directory: Path) -> Checkpoint:
    written = Export(directory)
    try:
        report = log.read_sound(lambda _index, entry: written.add(entry))
        written.finish(log.tree, report.note, str(log.verifier))
    except BaseException:
        written.abandon()
        raise
    return log.verifier.open(report.note)


def _remembered(stored: Receipt) -> LogVerifier:
    """The key of a log that was seen before, if this receipt says that it is of that log."""
    origin = stored.note.split("\n", 1)[0]
    for seen in Memory.of_user().logs():
        verifier = LogVerifier.parse(seen.vkey)
        if verifier.name == origin:
            return verifier
    raise UsageError(f"no log {origin!r} was seen before, so its key is not known", "give it with --vkey")


def _require_one_history(verifier: LogVerifier, head: Checkpoint) -> None:
    """Two heads of one size with two roots are two histories, and both are signed."""
    known = Memory.of_user().head(verifier)
    if known is not None and known[0].size == head.size and known[0].root != head.root:
        raise CliError(
            f"the log was forked: the receipt's head of size {head.size} has root {head.root.hex()}, "
            f"the one that was seen before has root {known[0].root.hex()}",
            "keep both: together they prove that the log's key signed two histories",
        )
