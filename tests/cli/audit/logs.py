"""Logs in directories, as an export has them."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.cli.audit.exporting import Export
from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner
from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.proofs import Tree

NAME = "pilots.example.org/log"
SIGNER = LogSigner(NAME, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = LogSigner(NAME, Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


def write(directory: Path, entries: list[bytes], signer: LogSigner = SIGNER) -> Path:
    """A log in a directory."""
    export, tree = Export(directory), Tree()
    for each in entries:
        export.add(each)
        tree.append(leaf_hash(each))
    note = signer.sign(Checkpoint(signer.name, tree.size, tree.root()))
    export.finish(tree, note, str(signer.verifier()))
    return directory
