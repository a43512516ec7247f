"""`pilot-identity`: start-up."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys

from pilot_identity import __version__, logs, wiring
from pilot_identity.adapters.issuer import ISSUERS

log = logging.getLogger("pilot_identity")

EXIT_FAILED = 1


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
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="default: info"
    )
    run.add_argument("--log-format", choices=("json", "text"), default="json", help="default: json")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not chosen.operator_namespace:
        parser.error("--operator-namespace or POD_NAMESPACE is needed: it is where the keys are kept")
    logs.configure(chosen.log_level, chosen.log_format)
    options = wiring.Options(
        operator_namespace=chosen.operator_namespace,
        identity=chosen.identity,
        namespaces=tuple(chosen.namespace),
        http_port=chosen.http_port,
        issuer=chosen.issuer,
    )
    try:
        asyncio.run(wiring.run(options))
    except Exception as error:
        log.critical("stops: %s: %s", type(error).__name__, error, exc_info=chosen.log_level == "debug")
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
