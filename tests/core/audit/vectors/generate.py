"""Makes `notes.json` anew: `python tests/core/audit/vectors/generate.py`, from the repository's root.

Ed25519 signatures are deterministic, so the file only changes where the format does. Each broken note is
named for its one defect.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner, key_id

NAME = "pilots.example.org/log"
OURS = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
THEIRS = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ROOT = bytes(range(32))
ENCODED_ROOT = base64.b64encode(ROOT).decode()
GOOD = Checkpoint(NAME, 42, ROOT)


def signature_line(body: str, key: Ed25519PrivateKey = OURS, name: str = NAME, *, hint: bytes = b"") -> str:
    """A signature over `body`; `hint` replaces the key id."""
    public = key.public_key().public_bytes_raw()
    signed = (hint or key_id(name, public)) + key.sign(body.encode())
    return f"— {name} {base64.b64encode(signed).decode()}\n"


def signed(body: str) -> str:
    """A note that our key signed, whatever its body says."""
    return f"{body}\n{signature_line(body)}"


def cases() -> dict[str, dict[str, object]]:
    """Each note, and what is said of it: nothing where it is good."""
    body = GOOD.body()
    note = LogSigner(NAME, OURS).sign(GOOD)
    origin = f"{NAME}\n"
    none = "no valid signature"
    lines = "an origin line, a decimal size line and a root line"
    blank = "an empty line before its signatures"
    alone = "stand signatures alone"
    control = "no control characters"
    whole = "ends with a whole line"
    strangers = "".join(signature_line(body, THEIRS, f"w{number}.example.org") for number in range(99))
    our_id = key_id(NAME, OURS.public_key().public_bytes_raw())
    flipped = note[:-6] + ("A" if note[-6] != "A" else "B") + note[-5:]
    return {
        "good": {"note": note},
        "good-empty-log": {"note": signed(Checkpoint(NAME, 0, ROOT).body()), "size": 0},
        "good-size-of-18-digits": {
            "note": signed(Checkpoint(NAME, 10**18 - 1, ROOT).body()),
            "size": 10**18 - 1,
        },
        "good-with-a-witness": {"note": note + signature_line(body, THEIRS, "witness.example.org")},
        "good-witness-first": {
            "note": f"{body}\n{signature_line(body, THEIRS, 'w.example.org')}{signature_line(body)}"
        },
        "good-with-an-extension-line": {"note": signed(f"{body}an extension\n")},
        "good-with-100-signatures": {"note": note + strangers},
        "broken-wrong-key": {"note": f"{body}\n{signature_line(body, THEIRS)}", "error": none},
        "broken-wrong-key-under-our-id": {
            "note": f"{body}\n{signature_line(body, THEIRS, hint=our_id)}",
            "error": none,
        },
        "broken-key-id": {"note": f"{body}\n{signature_line(body, hint=b'abcd')}", "error": none},
        "broken-key-name": {
            "note": f"{body}\n{signature_line(body, name='other.example.org')}",
            "error": none,
        },
        "broken-origin": {
            "note": signed(f"other.example.org\n42\n{ENCODED_ROOT}\n"),
            "error": "the origin is",
        },
        "broken-signature-flipped": {"note": flipped, "error": none},
        "broken-size-flipped": {"note": note.replace("\n42\n", "\n43\n"), "error": none},
        "broken-root-flipped": {"note": note.replace("\nAAEC", "\nAAED"), "error": none},
        "broken-signature-truncated": {"note": note[:-30] + "\n", "error": alone},
        "broken-signature-empty": {"note": f"{body}\n— {NAME} \n", "error": alone},
        "broken-signature-not-base64": {"note": f"{body}\n— {NAME} a=b=c\n", "error": alone},
        "broken-hyphen-for-dash": {"note": note.replace("— ", "- "), "error": alone},
        "broken-no-signature": {"note": f"{body}\n", "error": whole},
        "broken-no-blank-line": {"note": f"{body}{signature_line(body)}", "error": blank},
        "broken-empty": {"note": "", "error": blank},
        "broken-carriage-returns": {"note": note.replace("\n", "\r\n"), "error": control},
        "broken-last-newline-cut": {"note": note.removesuffix("\n"), "error": whole},
        "broken-empty-line-behind": {"note": f"{note}\n", "error": whole},
        "broken-junk-behind": {"note": f"{note}junk\n", "error": alone},
        "broken-junk-behind-without-newline": {"note": f"{note}junk", "error": whole},
        "broken-blank-behind-signature": {"note": note.replace("=\n", "= \n"), "error": alone},
        "broken-tab-in-text": {"note": signed(f"{body}an\textension\n"), "error": control},
        "broken-null-behind": {"note": f"{note}\x00", "error": control},
        "broken-stranger-of-no-key": {"note": f"{note}— w.example.org AAAAAA==\n", "error": alone},
        "broken-stranger-not-base64": {"note": f"{note}— w.example.org AAAAAAA\n", "error": alone},
        "broken-line-separator-in-a-line": {
            "note": f"{note}— w.example.org AAAAAAAA\u2028\n",
            "error": alone,
        },
        "broken-101-signatures": {
            "note": note + strangers + signature_line(body, THEIRS, "w99.example.org"),
            "error": "at most 100 signatures, got 101",
        },
        "broken-size-leading-zero": {"note": signed(f"{origin}01\n{ENCODED_ROOT}\n"), "error": lines},
        "broken-size-negative": {"note": signed(f"{origin}-1\n{ENCODED_ROOT}\n"), "error": lines},
        "broken-size-sign": {"note": signed(f"{origin}+1\n{ENCODED_ROOT}\n"), "error": lines},
        "broken-size-hex": {"note": signed(f"{origin}0x2a\n{ENCODED_ROOT}\n"), "error": lines},
        "broken-size-blank": {"note": signed(f"{origin} 42\n{ENCODED_ROOT}\n"), "error": lines},
        "broken-size-empty": {"note": signed(f"{origin}\n{ENCODED_ROOT}\n"), "error": lines},
        "broken-size-other-digits": {"note": signed(f"{origin}4\u0662\n{ENCODED_ROOT}\n"), "error": lines},
        "broken-size-of-19-digits": {"note": signed(f"{origin}{10**18}\n{ENCODED_ROOT}\n"), "error": lines},
        "broken-size-of-5000-digits": {
            "note": signed(f"{origin}{'9' * 5000}\n{ENCODED_ROOT}\n"),
            "error": "size",
        },
        "broken-root-short": {"note": signed(f"{origin}42\nAAEC\n"), "error": "a root is 32 bytes, got 3"},
        "broken-root-not-base64": {
            "note": signed(f"{origin}42\n!{ENCODED_ROOT[1:]}\n"),
            "error": "is base64",
        },
        "broken-root-missing": {"note": signed(f"{origin}42\n"), "error": "a root is 32 bytes, got 0"},
        "broken-no-size": {"note": signed(origin), "error": lines},
        "broken-empty-origin": {"note": signed(f"\n42\n{ENCODED_ROOT}\n"), "error": lines},
    }


if __name__ == "__main__":
    verifier = str(LogSigner(NAME, OURS).verifier())
    written = json.dumps({"verifier": verifier, "notes": cases()}, indent=1, ensure_ascii=False)
    (Path(__file__).parent / "notes.json").write_text(written + "\n")
