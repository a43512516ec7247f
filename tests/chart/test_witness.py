"""The chart's witness: absent unless it is asked for, and never in the operator's hands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilot_identity.__main__ import _parser, _witnesses
from pilot_identity.witness import WitnessOptions

CHART = Path(__file__).parents[2] / "charts" / "pilot-identity"
LOG = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
VKEY = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
OWN = "pilot-identity-witness"
ENABLED = ("--set=witness.enabled=true", "--set-json", f"witness.logs={json.dumps([LOG])}")

Document = dict[str, Any]
Render = Callable[..., list[Document]]
Helm = Callable[..., subprocess.CompletedProcess[str]]


def container(documents: list[Document], name: str) -> Document:
    """The container of a Deployment."""
    (deployment,) = (
        each for each in documents if (each["kind"], each["metadata"]["name"]) == ("Deployment", name)
    )
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_nobody_witnesses_by_default(render: Render) -> None:
    """No Deployment, no namespace, no right to replace what witnesses cosigned."""
    documents = render()
    assert [each for each in documents if each["metadata"].get("namespace") == OWN] == []
    assert "--witness" not in container(documents, "pilot-identity")["args"]
    assert not [rule for rule in home_rules(documents) if "update" in rule["verbs"] and is_config_maps(rule)]


def home_rules(documents: list[Document]) -> list[Document]:
    """What the operator may do at home."""
    (role,) = (
        each
        for each in documents
        if each["metadata"]["name"] == "pilot-identity-operator-home" and each["kind"] == "Role"
    )
    return list(role["rules"])


def is_config_maps(rule: Document) -> bool:
    """Whether a rule is about ConfigMaps."""
    return "configmaps" in rule["resources"]


def test_the_witness_has_all_of_its_own(render: Render) -> None:
    """Namespace, account, Role; and the program takes the arguments that the chart gives it."""
    documents = render(*ENABLED, "--set=witness.trustOnFirstUse=true")
    own = [each for each in documents if each["metadata"].get("namespace") == OWN]
    assert {each["kind"] for each in own} == {
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "Service",
        "Deployment",
    }
    (role,) = (each for each in own if each["kind"] == "Role")
    assert {
        (*rule["resources"], *rule.get("resourceNames", ()), *rule["verbs"]) for rule in role["rules"]
    } == {
        ("secrets", "configmaps", "create"),
        ("secrets", "witness-key", "get"),
        ("configmaps", "witness-state", "get", "update"),
    }
    chosen = _parser().parse_args([*container(documents, OWN)["args"], f"--witness-namespace={OWN}"])
    options = WitnessOptions.of_arguments(chosen)
    assert [str(each) for each in options.logs] == [LOG]
    assert (options.may_begin, options.port, options.namespace) == (True, 8081, OWN)
    assert options.files is None


def test_first_use_is_not_trusted_unless_it_is_said(render: Render) -> None:
    """So that a state that was lost is noticed."""
    assert "--trust-on-first-use" not in container(render(*ENABLED), OWN)["args"]


def test_the_operator_is_told_whom_to_ask(render: Render) -> None:
    """By key and URL; and it may replace the one ConfigMap that it publishes them in."""
    asked = [{"vkey": VKEY, "url": "https://witness.example.org/log"}]
    documents = render("--set-json", f"audit.witnesses={json.dumps(asked)}")
    arguments = container(documents, "pilot-identity")["args"]
    chosen = _parser().parse_args([*arguments, "--operator-namespace=x"])
    (address,) = _witnesses(chosen)
    assert (str(address.verifier), address.url) == (VKEY, asked[0]["url"])
    (rule,) = (rule for rule in home_rules(documents) if is_config_maps(rule) and "update" in rule["verbs"])
    assert (rule["resourceNames"], rule["verbs"]) == (["audit-cosigned"], ["update"])


REFUSED = {
    "no log to watch": (("--set=witness.enabled=true",), "set witness.logs"),
    "the operator's namespace": (
        (*ENABLED, "--set=witness.namespace=pilot-identity-system"),
        "set witness.namespace to another",
    ),
    "a key that is none": (
        ("--set=witness.enabled=true", "--set-json", 'witness.logs=["nonsense"]'),
        "does not match pattern",
    ),
    "a witness without a URL": (
        ("--set-json", f"audit.witnesses={json.dumps([{'vkey': VKEY}])}"),
        "missing property 'url'",
    ),
}


@pytest.mark.parametrize("values, message", REFUSED.values(), ids=REFUSED)
def test_half_a_witness_is_refused(helm: Helm, values: tuple[str, ...], message: str) -> None:
    """With the value to set."""
    answer = helm("template", "x", str(CHART), "--namespace", "pilot-identity-system", *values)
    assert answer.returncode != 0
    assert message in answer.stderr


PROGRAM = {
    "a key without a memory": (["--key-file=k", "--name=n"], "go together"),
    "a memory without a key": (["--state-directory=d"], "go together"),
    "a key without a name": (["--key-file=k", "--state-directory=d"], "needs a --name"),
    "half a certificate": (["--tls-key=k"], "go together"),
    "no place for the key": ([], "--witness-namespace or POD_NAMESPACE"),
    "one log twice": (["--witness-namespace=x", f"--log={LOG}"], "two keys for one origin"),
    "a log's key that is none": (["--witness-namespace=x", "--log=a+b+c"], "a vkey"),
}


@pytest.mark.parametrize("arguments, message", PROGRAM.values(), ids=PROGRAM)
def test_the_program_refuses_half_a_witness_too(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it does anything."""
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    chosen = _parser().parse_args(["witness", f"--log={LOG}", *arguments])
    with pytest.raises(ValueError, match=message):
        WitnessOptions.of_arguments(chosen)


def test_two_cosignatures_by_one_key_are_one() -> None:
    """The operator asks each key once."""
    twice = ["--witness", VKEY, "http://a", "--witness", VKEY, "http://b"]
    with pytest.raises(ValueError, match="the same key twice"):
        _witnesses(_parser().parse_args(["run", "--cluster-wide", *twice]))
