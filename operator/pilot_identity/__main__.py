"""`pilot-identity`: start-up."""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import logging
import os
import socket
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pilot_identity import __version__, logs, witness
from pilot_identity.adapters.archive import DirectoryArchive
from pilot_identity.adapters.audit_archiving import Archiving
from pilot_identity.adapters.issuer import ISSUERS
from pilot_identity.adapters.witnesses import Address
from pilot_identity.core.audit.cosignature import CosignatureVerifier
from pilot_identity.core.resources.durations import Duration
from pilot_identity.endpoints.inbound import Inbound
from pilot_identity.endpoints.server import Certificate
from pilot_identity.endpoints.webhook import Sender

log = logging.getLogger("pilot_identity")

EXIT_FAILED = 1
UNUSED_CLIENTS = ("kubernetes", "pykube")
"""Kopf imports them where they are installed, to know their objects: 20 MB, and half a second of a start."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pilot-identity",
        description="Gives AI and automation pilots identities, short-lived credentials and an audit trail.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the operator", description="Run one replica of the operator.")
    where = run.add_mutually_exclusive_group(required=True)
    where.add_argument("--cluster-wide", action="store_true", help="watch every namespace")
    where.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="watch this namespace; may be repeated",
    )
    run.add_argument(
        "--operator-namespace",
        default=os.environ.get("POD_NAMESPACE"),
        metavar="NAME",
        help="where the keys, the audit log and the Lease are (default: $POD_NAMESPACE)",
    )
    run.add_argument(
        "--identity",
        default=os.environ.get("POD_NAME") or socket.gethostname(),
        metavar="NAME",
        help="this replica's name, which holds the Lease (default: $POD_NAME, else the host name)",
    )
    run.add_argument(
        "--http-port", type=int, default=8080, metavar="PORT", help="probes and metrics (default: 8080)"
    )
    run.add_argument(
        "--issuer", choices=sorted(ISSUERS), default="secret", help="who signs (default: secret)"
    )
    run.add_argument(
        "--kubernetes-server",
        default="",
        metavar="URL",
        help="the API server as grants' kubeconfigs name it (default: as this program reaches it)",
    )
    run.add_argument(
        "--kubernetes-ca-data",
        type=base64.b64decode,
        default=b"",
        metavar="BASE64",
        help="its CA certificates there, PEM in base64 (default: as this program trusts it)",
    )
    run.add_argument(
        "--witness",
        action="append",
        nargs=2,
        default=[],
        metavar=("VKEY", "URL"),
        help="have this witness cosign the audit log's heads; may be repeated",
    )
    run.add_argument(
        "--archive-directory",
        type=Path,
        metavar="DIR",
        help="move old parts of the audit log here from the cluster (default: they stay)",
    )
    run.add_argument(
        "--archive-older-than",
        type=Duration.parse,
        default=Duration(days=90),
        metavar="DURATION",
        help="once they are so old (default: 2160h)",
    )
    run.add_argument(
        "--reconcile-every",
        type=Duration.parse,
        default=Duration(minutes=10),
        metavar="DURATION",
        help="how often to hold the audit log against what is there (default: 10m)",
    )
    _add_inbound(run)
    _add_logging(run)
    witnessing = commands.add_parser("witness", help="run a witness", description=witness.DESCRIPTION)
    witness.add_options(witnessing)
    _add_logging(witnessing)
    return parser


def _add_logging(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="default: info"
    )
    command.add_argument("--log-format", choices=("json", "text"), default="json", help="default: json")


def _witnesses(chosen: argparse.Namespace) -> tuple[Address, ...]:
    """Read whom the operator asks for cosignatures; raises `ValueError`."""
    found = tuple(Address(CosignatureVerifier.parse(vkey), url) for vkey, url in chosen.witness)
    if len({str(each.verifier) for each in found}) != len(found):
        raise ValueError("--witness: the same key twice; two cosignatures by one key are one")
    return found


def _archiving(chosen: argparse.Namespace) -> Archiving | None:
    """Read where old bundles go. That the directory is there is seen when it is used, not before."""
    if chosen.archive_directory is None:
        return None
    return Archiving(DirectoryArchive(chosen.archive_directory), chosen.archive_older_than)


def _add_inbound(run: argparse.ArgumentParser) -> None:
    """The endpoints that listen for others; none does unless its port is given."""
    inbound = run.add_argument_group("endpoints for the API server and for agents (HTTPS)")
    inbound.add_argument("--tls-certificate", type=Path, metavar="FILE", help="certificate chain, PEM")
    inbound.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    inbound.add_argument(
        "--webhook-port", type=int, metavar="PORT", help="take the API server's audit events here"
    )
    inbound.add_argument(
        "--webhook-client-ca", type=Path, metavar="FILE", help="who signs the API server's client certificate"
    )
    inbound.add_argument(
        "--webhook-client-name", default="", metavar="NAME", help="the common name that it must have"
    )
    inbound.add_argument(
        "--webhook-token-file", type=Path, metavar="FILE", help="the bearer token that it must send"
    )
    inbound.add_argument(
        "--activity-port", type=int, metavar="PORT", help="take what agents and tools report here"
    )


def _inbound(chosen: argparse.Namespace) -> Inbound | None:
    """Read the endpoints' options.

    Raises:
        ValueError, OSError: they do not fit together, or a file cannot be read.
    """
    if chosen.webhook_port is None and chosen.activity_port is None:
        return None
    if chosen.tls_certificate is None or chosen.tls_key is None:
        raise ValueError("--webhook-port and --activity-port need --tls-certificate and --tls-key")
    sender = None
    if chosen.webhook_port is not None:
        sender = Sender(chosen.webhook_client_ca, chosen.webhook_client_name, chosen.webhook_token_file)
    return Inbound(
        Certificate(chosen.tls_certificate, chosen.tls_key),
        (chosen.webhook_port, sender) if sender is not None else None,
        chosen.activity_port,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        work = (
            _operator(chosen)
            if chosen.command == "run"
            else witness.run(witness.WitnessOptions.of_arguments(chosen))
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    logs.configure(chosen.log_level, chosen.log_format)
    try:
        asyncio.run(work)
    except Exception as error:
        log.critical("stops: %s: %s", type(error).__name__, error, exc_info=chosen.log_level == "debug")
        return EXIT_FAILED
    return 0


@contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """Let imports find none of these modules, unless they were imported before."""
    names = [name for name in modules if name not in sys.modules]
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]  # the import system's own way to say so
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def _operator(chosen: argparse.Namespace) -> Coroutine[Any, Any, None]:
    """The operator's work.

    Raises:
        ValueError, OSError: the options do not fit together, or a file cannot be read.
    """
    if not chosen.operator_namespace:
        raise ValueError("--operator-namespace or POD_NAMESPACE is needed: it is where the keys are kept")
    gc.disable()  # what is imported stays to the end: looking for garbage in it is a fifth of the start
    with _hidden(*UNUSED_CLIENTS):
        from pilot_identity import wiring  # noqa: PLC0415 - it imports Kopf
    gc.freeze()
    gc.enable()
    options = wiring.Options(
        operator_namespace=chosen.operator_namespace,
        identity=chosen.identity,
        namespaces=tuple(chosen.namespace),
        http_port=chosen.http_port,
        issuer=chosen.issuer,
        kubernetes_server=chosen.kubernetes_server,
        kubernetes_ca=chosen.kubernetes_ca_data,
        inbound=_inbound(chosen),
        witnesses=_witnesses(chosen),
        archiving=_archiving(chosen),
        reconcile_seconds=chosen.reconcile_every.total_seconds(),
    )
    return wiring.run(options)


if __name__ == "__main__":
    sys.exit(main())
