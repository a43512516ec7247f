"""The witness: a process of its own that cosigns the heads of logs, put together here.

It knows a log by its key alone, which whoever runs the witness gives it; the operator is a stranger to it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.adapters.kubernetes.login import find_login
from pilot_identity.adapters.witness_key import from_file, from_secret
from pilot_identity.adapters.witness_state import FileState
from pilot_identity.clocks import utc_now
from pilot_identity.core.audit.checkpoint import LogVerifier
from pilot_identity.core.audit.cosignature import Cosigner
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.witness.judgement import Refusal
from pilot_identity.endpoints import figures, probes
from pilot_identity.endpoints.server import Certificate, Tls, listen
from pilot_identity.endpoints.witnessing import Witnessing
from pilot_identity.ports import WitnessState

log = logging.getLogger(__name__)

MAX_VKEY = 4096
"""Characters of a file with a verifier key."""
DESCRIPTION = """Run a witness: it cosigns the heads of audit logs (C2SP tlog-witness), each only if it goes
on from the last one. Its key and what it cosigned are in a Secret and a ConfigMap, or in files."""


@dataclass(frozen=True, slots=True)
class WitnessOptions:
    """How to run.

    Attributes:
        logs: the keys of the logs to watch.
        name: the key's name, in the notes that it cosigns.
        namespace: where key and state are, in a Secret and a ConfigMap; empty where they are files.
        files: the key's file and the state's directory, where they are files.
        may_begin: whether a log of which nothing is known may begin with what it is shown.
        port: for logs and monitors; 0 lets the system choose.
        http_port: for probes and metrics.
        certificate: for HTTPS; plain HTTP without.
    """

    logs: tuple[LogVerifier, ...]
    name: str
    namespace: str = ""
    files: tuple[Path, Path] | None = None
    may_begin: bool = False
    port: int = 8081
    http_port: int = 8080
    certificate: Certificate | None = None

    @classmethod
    def of_arguments(cls, chosen: argparse.Namespace) -> WitnessOptions:
        """Read the options.

        Raises:
            ValueError, OSError: they do not fit together, or a file cannot be read.
        """
        if (chosen.key_file is None) != (chosen.state_directory is None):
            raise ValueError("--key-file and --state-directory go together: a key without a memory forks")
        if (chosen.tls_certificate is None) != (chosen.tls_key is None):
            raise ValueError("--tls-certificate and --tls-key go together")
        if chosen.key_file is None and not chosen.witness_namespace:
            raise ValueError(
                "--witness-namespace or POD_NAMESPACE is needed, or --key-file and --state-directory"
            )
        if chosen.key_file is not None and not chosen.name:
            raise ValueError("a key from --key-file needs a --name")
        watched = tuple(_read_vkey(each) for each in chosen.log)
        if len({verifier.name for verifier in watched}) != len(watched):
            raise ValueError("--log: two keys for one origin; a log has one")
        return cls(
            logs=watched,
            name=chosen.name or f"{GROUP}/witness/{secrets.token_hex(8)}",
            namespace=chosen.witness_namespace or "",
            files=(chosen.key_file, chosen.state_directory) if chosen.key_file is not None else None,
            may_begin=chosen.trust_on_first_use,
            port=chosen.port,
            http_port=chosen.http_port,
            certificate=Certificate(chosen.tls_certificate, chosen.tls_key)
            if chosen.tls_key is not None
            else None,
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """What a witness is given; nothing of it comes from the operator at run time."""
    parser.add_argument(
        "--log",
        action="append",
        required=True,
        metavar="VKEY",
        help="the verifier key of a log to watch, or a file with it; may be repeated",
    )
    parser.add_argument(
        "--name", default="", metavar="NAME", help="the key's name in notes (default: of a new key, random)"
    )
    parser.add_argument(
        "--witness-namespace",
        default=os.environ.get("POD_NAMESPACE"),
        metavar="NAME",
        help="where Secret witness-key and ConfigMap witness-state are (default: $POD_NAMESPACE)",
    )
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE", help="an Ed25519 key in PEM, instead of the Secret"
    )
    parser.add_argument(
        "--state-directory", type=Path, metavar="DIR", help="what was cosigned; goes with --key-file"
    )
    parser.add_argument(
        "--trust-on-first-use",
        action="store_true",
        help="begin with whatever head is shown of a log of which nothing is known; otherwise it is refused",
    )
    parser.add_argument(
        "--port", type=int, default=8081, metavar="PORT", help="takes heads here (default: 8081)"
    )
    parser.add_argument(
        "--http-port", type=int, default=8080, metavar="PORT", help="probes and metrics (default: 8080)"
    )
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="serve HTTPS: chain, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")


def _read_vkey(given: str) -> LogVerifier:
    """A vkey, or the file that holds it; raises `ValueError` or `OSError`."""
    if "+" in given:
        return LogVerifier.parse(given)
    with Path(given).open(encoding="utf-8") as file:
        return LogVerifier.parse(file.read(MAX_VKEY))


async def run(options: WitnessOptions) -> None:
    """Run one replica until it is told to stop.

    Raises:
        LostStateError, KeyFileError: it must not go on under its name, or has none.
        LoginError: there is no API server to talk to.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        cosigner, state = await _identity(options, stack)
        logs = {verifier.name: verifier for verifier in options.logs}
        witnessing = Witnessing(cosigner, logs, state, utc_now, options.may_begin)
        tls = Tls(options.certificate, str) if options.certificate is not None else None
        port = await stack.enter_async_context(listen(witnessing.application(), options.port, tls))
        metrics = figures.collect(_readings(witnessing))
        await stack.enter_async_context(
            probes.serve(options.http_port, is_ready=lambda: not stop.is_set(), metrics=metrics)
        )
        log.info("witness %s takes heads of %d logs on port %d", cosigner.verifier(), len(logs), port)
        await stop.wait()


async def _identity(options: WitnessOptions, stack: AsyncExitStack) -> tuple[Cosigner, WitnessState]:
    """The key, and what was cosigned with it."""
    if options.files is not None:
        key, directory = options.files
        return from_file(key, options.name), FileState(directory)
    api = Api(find_login())
    stack.push_async_callback(api.close)
    return await from_secret(api, options.namespace, options.name)


def _readings(witnessing: Witnessing) -> figures.Readings:
    return {
        "pilot_identity_witness_cosigned_total": (
            "Heads that were cosigned.",
            lambda: float(witnessing.cosigned),
        ),
        "pilot_identity_witness_inconsistent_total": (
            "Heads that a log signed and that were not shown to go on from what was cosigned.",
            lambda: float(witnessing.refused[Refusal.INCONSISTENT]),
        ),
        "pilot_identity_witness_refused_total": (
            "Requests that were refused, for whatever reason.",
            lambda: float(sum(witnessing.refused.values())),
        ),
    }
