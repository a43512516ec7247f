"""Makes `cosignatures.json` anew: `python tests/core/audit/vectors/generate_cosignatures.py`, from the root.

`FOREIGN` was made by Go's github.com/transparency-dev/formats/note over the same head, by the key of `GO`;
`SPECIFIED` is the example of tlog-cosignature.md, whose key is not told. The others are our own, each broken
one named for its one defect.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner, signature_line
from pilot_identity.core.audit.cosignature import COSIGNATURE, CosignatureVerifier, Cosigner

LOG = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
WITNESS = Cosigner("witness.example.org/w1", KEY)
GO = Cosigner("witness.example.org/go", Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34))))
AT = dt.datetime(2026, 6, 1, 12, 0, 0, 700_000, tzinfo=dt.UTC)
SECOND = int(AT.timestamp())
NOTE = LOG.sign(Checkpoint(LOG.name, 42, bytes(range(32))))
FOREIGN = (
    "— witness.example.org/go tbjlUQAAAABrAaol6/7Q4unPu2b8xOEhcu4Nz0QU1bmYcuBpNWzLVjOnUvME08QPzT4eEB5Gvh0I"
    "AUZXkiPv0ZQUwsSc3GNI4+RODw==\n"
)
SPECIFIED = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9"
    "nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZ"
    "qhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)


def line(second: int, body: str, *, told: int | None = None, identifier: bytes = b"") -> str:
    """A cosignature over a body at a second; `told` is the second that it says."""
    signature = KEY.sign(f"cosignature/v1\ntime {second}\n{body}".encode())
    stamp = (second if told is None else told).to_bytes(8, "big")
    return signature_line(WITNESS.name, identifier or WITNESS.verifier().identifier, stamp + signature)


def cases() -> dict[str, dict[str, object]]:
    """Each note, and when it was cosigned or what is said of it."""
    body = Checkpoint(LOG.name, 42, bytes(range(32))).body()
    good = WITNESS.cosign(NOTE, AT)
    none, bad = "no cosignature by", "no valid cosignature by"
    plain = signature_line(WITNESS.name, WITNESS.verifier().identifier, KEY.sign(body.encode()))
    extended = LOG.sign(Checkpoint(LOG.name, 42, bytes(range(32)))).replace("\n\n", "\nan extension\n\n")
    return {
        "good": {"note": NOTE + good, "at": AT.replace(microsecond=0).isoformat()},
        "good-twice": {
            "note": NOTE + line(SECOND - 60, body) + good,
            "at": AT.replace(microsecond=0).isoformat(),
        },
        "good-witness-first": {
            "note": f"{body}\n{good}{NOTE.rpartition(chr(10) * 2)[2]}",
            "at": AT.replace(microsecond=0).isoformat(),
        },
        "good-extension-line-is-cosigned": {
            "note": extended + line(SECOND, f"{body}an extension\n"),
            "at": AT.replace(microsecond=0).isoformat(),
        },
        "broken-not-cosigned": {"note": NOTE, "error": none},
        "broken-another-key-id": {"note": NOTE + line(SECOND, body, identifier=b"abcd"), "error": none},
        "broken-another-name": {"note": NOTE + good.replace("/w1 ", "/w2 "), "error": none},
        "broken-another-time": {"note": NOTE + line(SECOND, body, told=SECOND + 1), "error": bad},
        "broken-time-of-zero": {"note": NOTE + line(0, body), "error": "a time after 1970"},
        "broken-time-beyond-years": {"note": NOTE + line(2**62, body), "error": "before 10000"},
        "broken-another-size": {"note": (NOTE + good).replace("\n42\n", "\n43\n"), "error": bad},
        "broken-extension-line-added": {"note": extended + good, "error": bad},
        "broken-no-timestamp": {"note": NOTE + plain, "error": "a cosignature has a time"},
        "broken-truncated": {"note": NOTE + _cut(good), "error": bad},
        "broken-one-of-two": {"note": NOTE + good + line(SECOND, body, told=SECOND - 1), "error": bad},
        "broken-no-note": {"note": NOTE.replace("\n\n", "\n") + good, "error": "an empty line before"},
    }


def _cut(signed: str) -> str:
    name, _, encoded = signed.removeprefix("— ").strip().partition(" ")
    return f"— {name} {base64.b64encode(base64.b64decode(encoded)[:-8]).decode()}\n"


def keys() -> dict[str, CosignatureVerifier]:
    """The public halves."""
    return {"witness": WITNESS.verifier(), "go": GO.verifier()}


if __name__ == "__main__":
    stored = {
        **{name: str(verifier) for name, verifier in keys().items()},
        "type": COSIGNATURE.hex(),
        "made_by_go": NOTE + FOREIGN,
        "specified": SPECIFIED,
        "notes": cases(),
    }
    text = json.dumps(stored, indent=1, ensure_ascii=False)
    (Path(__file__).parent / "cosignatures.json").write_text(text + "\n", encoding="utf-8")
