"""The verbs of `kubectl pilot audit`, as the sub-app `app`."""

from __future__ import annotations

import json
import sys
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from pilot_identity.cli.audit.chaining import choose, draw, read_family, told_data
from pilot_identity.cli.audit.exporting import Export
from pilot_identity.cli.audit.following import follow
from pilot_identity.cli.audit.memory import Memory
from pilot_identity.cli.audit.options import (
    Output,
    OutputOption,
    RequireWitnessOption,
    WitnessedWithinOption,
    WitnessOption,
    WitnessUrlOption,
    on_log,
)
from pilot_identity.cli.audit.printing import print_entry, print_report, report_data, whole_entry
from pilot_identity.cli.audit.reading import KeyOrigin, OpenLog, decoded, read_vkey, tell_findings
from pilot_identity.cli.audit.receipts import CheckedReceipt
from pilot_identity.cli.audit.reconciling import reconcile
from pilot_identity.cli.audit.replaying import Replays, Wanted, print_replays, replay_log, replays_data
from pilot_identity.cli.audit.selection import About, Selection
from pilot_identity.cli.audit.sources import whole
from pilot_identity.cli.audit.witnesses import Demand
from pilot_identity.cli.failures import CliError, ExitCode, UsageError
from pilot_identity.cli.files import read_bounded
from pilot_identity.cli.options import failing_well
from pilot_identity.cli.output import Format, say, show_data, tell
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogVerifier
from pilot_identity.core.audit.proofs import ProofError
from pilot_identity.core.audit.receipt import MAX_RECEIPT_BYTES, Receipt, ReceiptError
from pilot_identity.core.audit.witnessed import combined

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
def verify(  # noqa: PLR0913 - the verb's options
    log: OpenLog,
    *,
    witness: WitnessOption = None,
    witness_url: WitnessUrlOption = None,
    require_witness: RequireWitnessOption = None,
    witnessed_within: WitnessedWithinOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Verify every byte of the log: signatures, hashes, gaps, and that it goes on from what you saw last.

    It is held to what witnesses cosigned, too. Without --witness only those count as found that are
    published beside the log, whose keys its keeper could have made up.

    Exits with 1 where it is broken, or witnesses are missing; with 4 where all that was read is sound, but
    what is archived was not read, or a copy is older than what you saw.
    """
    log.demand = Demand.of_options(witness or (), witness_url or (), require_witness, witnessed_within)
    report = whole(log.read)
    if output is Output.JSON:
        show_data(report_data(report, log), Format.JSON)
    else:
        print_report(report, log)
        if not sys.stdout.isatty():
            tell_findings(report)  # whoever sends the report to a file sees them all the same
    if not report.is_sound or not log.testimony.is_enough:
        raise typer.Exit(ExitCode.REFUSED)
    if not report.is_whole or report.is_older:
        raise typer.Exit(ExitCode.PARTLY)


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
        is_owner = what is About.OWNER
        hint = "NAME is a user's, as in a pilot's owners" if is_owner else "NAME may be NAMESPACE/NAME"
        raise CliError(f"the log has no entry about {what} {name}", hint)


@app.command()
@on_log
def chain(
    log: OpenLog,
    grant: Annotated[str, typer.Argument(metavar="[NAMESPACE/]GRANT", help="Whose story is told.")],
    *,
    uid: Annotated[
        str, typer.Option("--uid", help="Of several grants of the name the one of this UID, not the newest.")
    ] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell the whole story of a task as a tree: who asked, why it was allowed, what was done, how it ended.

    Told from the log alone, which is verified first. What was delegated from the grant is told with it; what
    the log leaves open is said in words.
    """
    family = whole(lambda: read_family(log, grant))
    story = choose(family, grant, uid)
    if output is Output.JSON:
        show_data(told_data(story, family), Format.JSON)
    else:
        draw(story, family)


@app.command()
@on_log
def replay(
    log: OpenLog,
    what: Annotated[
        str,
        typer.Argument(
            metavar="INDEX|[NAMESPACE/]GRANT",
            help="An entry with a decision by its number, or a grant, whose name may need its namespace.",
            show_default=False,
        ),
    ] = "",
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Replay every decision; print those that do not agree.")
    ] = False,
    evidence: Annotated[
        list[Path] | None,
        typer.Option(
            "--evidence",
            help="A JSON file with a definition that the log has by its digest only; may be repeated.",
            metavar="FILE",
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Decide again what the log says was decided, from the log alone, and compare the two decisions.

    What was looked at, and what was given, is held to the rest of the log.
    """
    wanted = Wanted.parse(what, every=every)
    replays: Replays = whole(lambda: replay_log(log, wanted, evidence or ()))
    if not replays.total and not every:
        hint = replays.instead or "see `kubectl pilot audit for grant NAME`"
        raise CliError(f"the log has no decision {what}", hint)
    if output is Output.JSON:
        for one in replays_data(replays, is_all=every):
            typer.echo(json.dumps(one))
    else:
        print_replays(replays, is_all=every)
    code = replays.exit_code(is_all=every)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


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
    note = combined(report.note, log.testimony.words)
    cosigned = max(
        (word for word in log.testimony.words if word.stands and word.head and word.head.size > index),
        key=lambda word: word.head.size if word.head else 0,
        default=None,
    )
    if note == report.note and cosigned is not None and cosigned.head is not None:
        # An older head that a witness stands for says more than the newest, which the log's key alone signed.
        note = combined(cosigned.note, log.testimony.words)
    size = log.verifier.open(note).size
    # Its bytes are what is checked, whatever the terminal shows.
    typer.echo(str(Receipt(index, entry, log.tree.inclusion(index, size), note)).encode(), nl=False)


app.command()(reconcile)


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
    witness: WitnessOption = None,
    require_witness: RequireWitnessOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check a receipt offline: that the log's key signed a head over this very entry at this index.

    And that the witnesses given cosigned that head: without one, the log's key alone speaks.
    """
    with failing_well():
        demand = Demand.of_options(witness or (), (), require_witness, "")
        text = read_bounded(file, MAX_RECEIPT_BYTES, "the receipt")
        try:
            stored = Receipt.parse(text)
            verifier = read_vkey(vkey) if vkey else _remembered(stored)
            head = stored.verify(verifier)
        except (ReceiptError, CheckpointError, ProofError) as error:
            raise CliError(f"the receipt is not valid: {error}") from error
        _require_one_history(verifier, head)
        origin = KeyOrigin.GIVEN if vkey else KeyOrigin.REMEMBERED
        checked = CheckedReceipt.of(stored, verifier, origin, head, demand)
        if output is Output.JSON:
            print_entry(stored.index, stored.entry, as_json=True, more=checked.data())
        else:
            checked.print()
        if not checked.is_witnessed:
            raise typer.Exit(ExitCode.REFUSED)


def _entry(log: OpenLog, index: int) -> bytes:
    """One entry of a log that verified."""
    found: dict[int, bytes] = {}

    def keep(at: int, entry: bytes) -> None:
        if at == index:
            found[at] = entry

    report = whole(lambda: log.read_sound(keep))
    if index < report.first:
        raise CliError(f"entry {index} is archived", "give --archive DIR or URL")
    if index not in found:
        raise CliError(f"the log has {report.entries} entries; the last is {report.entries - 1}")
    return found[index]


def _selected(log: OpenLog, what: About, name: str) -> tuple[list[tuple[int, bytes]], Selection]:
    namespace, _, own = name.rpartition("/") if what is not About.OWNER else ("", "", name)
    selection, taken = Selection(what, own, namespace), list[tuple[int, bytes]]()

    def keep(index: int, entry: bytes) -> None:
        recorded = decoded(index, entry)
        if recorded is not None and selection.takes(recorded):
            taken.append((index, entry))

    log.read_sound(keep)
    return taken, selection


def _export(log: OpenLog, directory: Path) -> Checkpoint:
    written = Export(directory)
    try:
        report = log.read_whole(lambda _index, entry: written.add(entry))
        written.witnessed(log.testimony.words)
        written.finish(log.tree, combined(report.note, log.testimony.words), str(log.verifier))
        log.keep(report)
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
