import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.cli.clues import read_clues
from pilot_identity.cli.failures import CliError
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.ids import TrustDomain, task_id
from pilot_identity.core.spiffe.keys import spki_sha256
from pilot_identity.core.spiffe.x509_svid import Authority, authority_certificate, issue_leaf
from tests.cli import things
from tests.cli.api import FakeApi
from tests.cli.conftest import Run

JTI = "5f0e3c1a-0000-4000-8000-000000000001"
KUBERNETES = {
    "serviceAccountName": "pilot-grant-0f1e2d3c4b5a69788796",
    "credentialID": f"JTI={JTI}",
    "notAfter": things.at(minutes=4),
    "bindings": [],
}


def traced(run: Run, *arguments: str, stdin: str | bytes = "") -> Any:
    """What `trace -o json` says."""
    result = run("trace", *arguments, "-o", "json", stdin=stdin)
    return json.loads(result.stdout)


def test_a_kubernetes_token_leads_to_its_grant(api: FakeApi, run: Run) -> None:
    """Alone or in a kubeconfig, by the id that the status has of it."""
    credential = things.credential("task") | {"kubernetes": KUBERNETES}
    api.put("taskgrants", things.grant(status={"credential": credential}))
    api.put("taskgrants", things.grant("other", uid="1" * 36))
    token = things.account_token()
    for stdin in (
        token,
        f"Bearer {token}\n",
        things.kubeconfig(token),
        yaml.safe_dump(json.loads(things.kubeconfig(token))),
    ):
        (grant,) = traced(run, "-", stdin=stdin)["grants"]
        assert (grant["name"], grant["ground"], grant["isCurrent"]) == ("task", "recorded", True)


def test_an_older_kubernetes_token_names_its_account(api: FakeApi, run: Run) -> None:
    """The account is the grant's own; that the token is no forgery is not ours to say."""
    api.put("taskgrants", things.grant())
    (grant,) = traced(run, "-", stdin=things.account_token(jti="renewed-since"))["grants"]
    assert (grant["name"], grant["ground"]) == ("task", "unchecked")


def test_a_secrets_manifest_leads_to_its_grant(api: FakeApi, run: Run) -> None:
    """As `kubectl get secret -o yaml` prints it; every credential in it is looked at, none is printed."""
    api.put("taskgrants", things.grant())
    key = ec.generate_private_key(ec.SECP256R1())
    files = {
        "tls.crt": things.certificate(key, 0xA1B2C3),
        "token.jwt": things.svid("0123456789abcdef.0").encode(),
    }
    secret = {
        "kind": "Secret",
        "metadata": {"name": "task", "namespace": "team-a"},
        "data": {name: things.encoded(content) for name, content in files.items()},
    }
    result = run("trace", "-", "-o", "json", stdin=yaml.safe_dump(secret))
    found = json.loads(result.stdout)
    assert [each["what"] for each in found["given"]] == ["a certificate", "a JWT-SVID", "a Secret"]
    assert [each["ground"] for each in found["grants"]] == ["recorded"]
    assert things.encoded(files["tls.crt"]) not in result.output


@pytest.mark.parametrize("serial", ["A1B2C3", "a1:b2:c3", "00A1B2C3", "serial=A1B2C3", "0xa1b2c3"])
def test_a_serial_is_known_however_it_is_written(api: FakeApi, run: Run, serial: str) -> None:
    """As browsers, openssl and our own status write it."""
    api.put("taskgrants", things.grant())
    assert traced(run, serial)["grants"][0]["name"] == "task"


def test_a_renewed_token_is_told_by_its_signature(api: FakeApi, run: Run) -> None:
    """Its id is in no status any more; the stage's published key says that it is not made up."""
    key = ec.generate_private_key(ec.SECP256R1())
    domain = TrustDomain.parse("sandbox.example.org")
    authority = _authority(domain)
    bundle = Bundle(domain, (authority,), {"k1": key.public_key()}, sequence=1).to_spiffe_json()
    api.put(
        "configmaps",
        {
            "metadata": {"name": "pilot-bundle-sandbox", "namespace": "team-a"},
            "data": {"bundle.json": bundle},
        },
    )
    api.put("taskgrants", things.grant())
    grounds = {
        name: traced(run, "-", stdin=token)["grants"][0]["ground"]
        for name, token in {
            "the stage's": things.svid("renewed-since", key=key),
            "another key": things.svid("renewed-since"),
            "another kid": things.svid("renewed-since", key=key, kid="k2"),
        }.items()
    }
    assert grounds == {"the stage's": "signed", "another key": "forged", "another kid": "unchecked"}
    api.forbidden = "configmaps/pilot-bundle"
    assert traced(run, "-", stdin=things.svid("x" * 9, key=key))["grants"][0]["ground"] == "unchecked"


def test_a_claim_alone_ends_nothing(api: FakeApi, run: Run) -> None:
    """Anybody can write another's UID into a token."""
    api.put("taskgrants", things.grant())
    result = run("trace", "-", "--revoke", stdin=things.svid("made-up-by-eve"))
    assert result.exit_code == 1
    assert "may be forged" in result.stderr
    assert not api.asked("PATCH")


def test_a_namesake_is_not_meant(api: FakeApi, run: Run) -> None:
    """A later grant of the same name has another UID."""
    api.put("taskgrants", things.grant(uid="later"))
    result = run("trace", "-", stdin=things.svid("of-the-first"))
    assert result.exit_code == 1


def test_an_earlier_credential_is_found_in_the_log(api: FakeApi, run: Run) -> None:
    """By serial, by token id, by the hash of a leaked key; and the grant behind it is shown, alive."""
    key = ec.generate_private_key(ec.SECP256R1())
    earlier = things.credential("task", "beef01", "earlier-token.0")
    earlier |= {"publicKeySHA256": spki_sha256(key.public_key()), "kubernetes": KUBERNETES}
    api.put(
        "configmaps",
        things.group({"requestedBy": "alice@example.org", "credential": earlier}, {"task": "beef01"}),
    )
    api.put("taskgrants", things.grant())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    for stdin in ("BE:EF:01", "earlier-token.0", JTI, pem):
        found = traced(run, "-", stdin=stdin)
        assert [each["ground"] for each in found["grants"]] == ["recorded"], stdin
        assert found["grants"][0]["isCurrent"] is False
        assert [each["index"] for each in found["auditEntries"]] == [40, 41], "what came after belongs to it"
    assert "an earlier credential" in run("trace", "beef01").stdout


def test_a_task_that_is_called_like_a_serial_is_no_credential(api: FakeApi, run: Run) -> None:
    """Only what an entry has as an identifier counts."""
    api.put("configmaps", things.group({"task": "deadbeef"}))
    assert run("trace", "deadbeef").exit_code == 1


def test_what_is_only_in_the_log_is_told_from_there(api: FakeApi, run: Run) -> None:
    """The grant was removed after its retention."""
    closed = {"closure": {"message": "revoked by tom"}, "withdrawn": {"serial": "a1b2c3"}}
    issued = {"requestedBy": "alice@example.org", "credential": things.credential("task")}
    api.put("configmaps", things.group(issued, closed))
    squatter = {"name": "audit-group-x", "labels": {"pilotidentity.dev/audit": "group"}}
    api.put("configmaps", {"metadata": squatter | {"namespace": "pilot-identity-system"}})
    result = run("trace", "a1b2c3")
    assert result.exit_code == 0
    assert "is no object any more" in result.stdout
    assert "asked by alice@example.org" in result.stdout
    assert "revoked by tom" in result.stdout
    assert traced(run, "a1b2c3", "--revoke")["revoked"] == []


def test_who_may_not_read_the_log_is_told_what_to_ask_for(api: FakeApi, run: Run) -> None:
    """And where; a clear sentence, not a stack of HTTP."""
    api.forbidden = "/namespaces/pilot-identity-system/configmaps"
    result = run("trace", "-", stdin=things.svid("long-gone"))
    assert result.exit_code == 1
    assert "long-gone" in result.stderr
    assert "who may read ConfigMaps in pilot-identity-system" in result.stderr


def test_a_reader_of_one_namespace_looks_there(api: FakeApi, run: Run) -> None:
    """And says that it looked nowhere else."""
    api.put("taskgrants", things.grant())
    api.forbidden = "/v1alpha1/taskgrants|pilot-identity-system"
    result = run("trace", "a1b2c3")
    assert result.exit_code == 0
    assert "looks only in namespace team-a" in result.stderr
    assert run("trace", "beef").exit_code == 1


def test_the_family_is_shown_and_only_what_was_found_is_ended(api: FakeApi, run: Run) -> None:
    """Parents and every generation of children; the operator ends the children with their parent."""
    family = {"": "root", "root": "task", "task": "child", "child": "grandchild"}
    for parent, name in family.items():
        status = {"parentUID": f"uid-{parent}", "chain": ["root"] if name == "task" else []} if parent else {}
        api.put("taskgrants", things.grant(name, uid=f"uid-{name}", spec={"parent": parent}, status=status))
    api.put(
        "taskgrants",
        things.grant("namesake", uid="n", spec={"parent": "task"}, status={"parentUID": "older"}),
    )
    api.put("pilotidentities", things.pilot())
    (grant,) = traced(run, "grant/task")["grants"]
    assert grant["parents"] == ["root"]
    assert [(each["name"], each["generation"]) for each in grant["children"]] == [
        ("child", 1),
        ("grandchild", 2),
    ]
    assert grant["owners"] == ["tom@example.org", "bea@example.org"]
    result = run("trace", "grant/task", "--revoke", "--reason", "leaked", "--timeout", "1s")
    assert result.exit_code == 3, "nobody closes it here"
    assert [path.rpartition("/")[2] for path, _ in api.asked("PATCH")] == ["task"]


def test_of_a_secrets_name_the_living_grant_is_meant(api: FakeApi, run: Run) -> None:
    """A name is used again and again; the last one where none is alive."""
    for name, phase in (("old", "Completed"), ("new", "Active")):
        api.put("taskgrants", things.grant(name, phase, uid=name, spec={"secretName": "file-of-a-job"}))
    for thing in ("secret/file-of-a-job", "file-of-a-job"):
        assert [each["name"] for each in traced(run, thing)["grants"]] == ["new"]


def test_approvers_and_state_are_told(api: FakeApi, run: Run) -> None:
    """Who let it happen, and whether it is alive, not yet, or no more."""
    decision = {"allowed": True, "approvals": [{"name": "a", "uid": "u", "approver": "una@example.org"}]}
    api.put("taskgrants", things.grant(status={"decision": decision}))
    assert "una@example.org" in run("trace", "a1b2c3").stdout
    used = {"lastUsed": things.at(minutes=-90), "requests": 7, "refused": 1}
    api.put("taskgrants", things.grant(status={"usage": used}))
    assert "1h30m ago, 7 requests (1 refused)" in run("trace", "a1b2c3").stdout
    api.put("taskgrants", things.grant("waits", "Pending", uid="w"))
    assert "Alive        not yet" in run("trace", "grant/waits").stdout


def test_a_pilots_own_certificate_gives_no_access(api: FakeApi, run: Run) -> None:
    """By serial, by SPIFFE ID, by its Secret's name; ending it is a suspension, and for a person to say."""
    pilot = things.pilot()
    pilot["status"]["credential"] = things.credential("triage", serial="c0ffee")
    api.put("pilotidentities", pilot)
    for thing in (
        "C0:FF:EE",
        "spiffe://sandbox.example.org/ns/team-a/pilot/triage",
        "secret/pilot-svid-triage",
    ):
        result = run("trace", thing)
        assert result.exit_code == 0, thing
        assert "gives no access" in result.stdout
    refused = run("trace", "c0ffee", "--revoke")
    assert refused.exit_code == 1
    assert "kubectl pilot suspend triage -n team-a" in refused.stderr
    assert not api.asked("PATCH")


def test_an_earlier_certificate_is_told_by_its_signature(api: FakeApi, run: Run) -> None:
    """Signed by an authority in the stage's bundle, or by anybody."""
    domain = TrustDomain.parse("sandbox.example.org")
    key = ec.generate_private_key(ec.SECP256R1())
    authority = authority_certificate(key, domain, 7, things.NOW, things.NOW + dt.timedelta(days=1))
    bundle = Bundle(domain, (authority,), {"k1": key.public_key()}, sequence=1).to_spiffe_json()
    metadata = {"name": "pilot-bundle-sandbox", "namespace": "team-a"}
    api.put("configmaps", {"metadata": metadata, "data": {"bundle.json": bundle}})
    api.put("taskgrants", things.grant())
    own = ec.generate_private_key(ec.SECP256R1())
    task = task_id(domain, "team-a", "triage", "task")
    end = things.NOW + dt.timedelta(minutes=5)
    leaf = issue_leaf(Authority(authority, key, domain), own.public_key(), task, 99, things.NOW, end)
    signed = leaf.public_bytes(serialization.Encoding.PEM)
    assert traced(run, "-", stdin=signed)["grants"][0]["ground"] == "signed"
    assert traced(run, "-", stdin=things.certificate(own, 99, task.uri))["grants"][0]["ground"] == "unchecked"
    api.objects["configmaps", "team-a", "pilot-bundle-sandbox"]["data"] = {"bundle.json": "{}"}
    assert traced(run, "-", stdin=signed)["grants"][0]["ground"] == "unchecked"


def test_of_several_things_only_the_sure_ones_are_ended(api: FakeApi, run: Run) -> None:
    """A kubeconfig with two users: one token that the status has, and one that may be made up."""
    kubernetes = things.credential("task") | {"kubernetes": KUBERNETES}
    api.put("taskgrants", things.grant("task", "Active", status={"credential": kubernetes}))
    api.put("taskgrants", things.grant("other", uid="2f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"))
    users = [
        {"user": {"token": things.account_token()}},
        {
            "user": {
                "token": things.account_token("2f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", jti="made-up-by-eve")
            }
        },
    ]
    given_ = json.dumps({"kind": "Config", "users": users})
    result = run("trace", "-", "--revoke", "--timeout", "1s", stdin=given_)
    assert result.exit_code == 3, "nobody closes it here"
    assert [path.rpartition("/")[2] for path, _ in api.asked("PATCH")] == ["task"]


def test_what_has_ended_needs_no_end(api: FakeApi, run: Run) -> None:
    """It is told how it ended; nothing is written."""
    closure = {"outcome": "Expired", "withdrawnAt": things.at(minutes=-1), "provenAt": things.at()}
    api.put("taskgrants", things.grant("task", "Expired", status={"closure": closure}))
    result = run("trace", "a1b2c3", "--revoke")
    assert result.exit_code == 0
    assert "it has ended already" in result.stdout
    assert "proven" in result.stdout
    assert not api.asked("PATCH")


def test_a_file_is_read_up_to_its_bound(api: FakeApi, run: Run, tmp_path: Path) -> None:
    """1 MiB; a bigger one is refused before anything is looked at."""
    path = tmp_path / "big"
    path.write_bytes(b"a" * (1024 * 1024 + 1))
    result = run("trace", str(path))
    assert result.exit_code == 2
    assert "larger than" in result.stderr
    assert api.requests == []


SECRET = "hunter2/is+my:password!"


@pytest.mark.parametrize(
    "thing",
    [
        SECRET,
        f"{SECRET}\n" * 3,
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"-----BEGIN CERTIFICATE-----\n{SECRET}\n-----END CERTIFICATE-----",
        f"eyJhbGciOiJub25lIn0.{'x' * 9}.x {SECRET}",
        json.dumps({"kind": "Config", "users": [{"user": {"token": SECRET}}, SECRET, {"user": SECRET}]}),
        json.dumps({"kind": "Secret", "data": {"tls.crt": SECRET, "token": 7}, "metadata": SECRET}),
        "",
    ],
)
def test_what_cannot_be_traced_is_not_repeated(run: Run, thing: str) -> None:
    """It may be a secret of some other kind."""
    result = run("trace", "-", stdin=thing)
    assert result.exit_code == 1
    assert "hunter2" not in result.output


@given(
    st.one_of(
        st.text(max_size=200), st.from_regex(r"eyJ[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,9}", fullmatch=True)
    )
)
def test_anything_is_read_or_refused(text: str) -> None:
    """No input makes it fail in a way of its own."""
    refused = ""
    try:
        clues = read_clues(text)
    except CliError as error:
        clues, refused = [], str(error)
    assert bool(clues) != bool(refused)


def test_a_clue_has_no_token_in_its_text_form() -> None:
    """Not in a traceback, not in a log."""
    token = things.svid("some-token.0")
    assert token.rpartition(".")[2] not in repr(read_clues(token))


def _authority(domain: TrustDomain) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    return authority_certificate(key, domain, 7, things.NOW, things.NOW + dt.timedelta(days=1))
