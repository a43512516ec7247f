"""A witness keeps what the log's own key cannot take back.

The operator's log is cosigned; the witness is killed, and knows what it knew; it is away, and nothing waits
for it. At last somebody who holds the operator's key and its storage rewrites the log.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, RELEASE, Installation
from e2e.patience import until
from e2e.stories.play import Play
from e2e.stories.witness.conftest import HOME, SECONDS, Audit, Witness, cosigned
from e2e.stories.witness.forger import Forger

WHERE = ("-n", NAMESPACE)
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"


def words(told: str) -> dict[str, object]:
    """What the only witness says, of `verify -o json`."""
    (word,) = json.loads(told)["witnesses"]["words"]
    return dict(word)


def is_alarm(event: dict[str, Any]) -> bool:
    """Whether it warns that a witness saw another history."""
    return (event["type"], event["reason"]) == ("Warning", "WitnessInconsistent")


def test_heads_are_cosigned_and_verified(
    play: Play, operator: Installation, witness: Witness, audit: Audit, tmp_path: Path
) -> None:
    """By the witness's key the log is witnessed, in the cluster, in an export and in a receipt."""
    play.ready_pilot("triage")
    size = cosigned(operator)
    operator.cluster.kubectl("wait", "--for=condition=Witnessed", "stage", "--all", "--timeout=60s")
    asked = ("--witness", witness.vkey, "--witness-url", witness.url, "--witnessed-within", "5m")
    done = audit("verify", *WHERE, *asked, "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    word = words(done.stdout)
    assert (word["given"], word["stands"], word["counts"]) == (True, True, True)
    assert word["size"] == size
    directory = tmp_path / "export"
    assert audit("export", str(directory), *WHERE).returncode == 0
    taken = audit("verify", "--from", str(directory), "--witness", witness.vkey)
    assert (taken.returncode, "verdict  sound" in taken.stdout) == (0, True), taken.stdout
    receipt = audit("receipt", "0", *WHERE).stdout
    assert f"— {witness.vkey.split('+')[0]} " in receipt


def test_a_witness_that_was_away_goes_on_where_it_stood(
    play: Play, operator: Installation, witness: Witness, audit: Audit
) -> None:
    """Killed, it keeps its state; while it is away grants are issued, and a metric tells of what waits."""
    play.ready_pilot("triage")
    before = cosigned(operator)
    witness.component.kill()
    play.ask("meanwhile", "triage", duration="10m")
    play.phase("meanwhile", "Active")
    behind = until(
        lambda: operator.metrics(operator.operator)["pilot_identity_log_uncosigned_entries"],
        "entries are beyond the last cosigned head",
        seconds=SECONDS,
    )
    until(
        lambda: operator.metrics(operator.operator)["pilot_identity_witness_failures_total"],
        "the operator noticed that the witness is away",
        seconds=SECONDS,
    )
    late = audit("verify", *WHERE, "--witness", witness.vkey, "-o", "json")
    assert late.returncode == 0, "what came since is under the log's key alone, and it is said how much"
    assert int(str(words(late.stdout)["beyond"])) >= behind > 0
    bound = ("--witness", witness.vkey, "--witnessed-within", "1s")
    until(
        lambda: f"entry {before} is the oldest that no witness saw" in audit("verify", *WHERE, *bound).stdout,
        "the first entry that the witness missed is named",
        seconds=SECONDS,
    )
    witness.component.start()
    assert cosigned(operator, beyond=before) > before
    assert operator.metrics(operator.operator)["pilot_identity_witness_refusals_total"] == 0


def test_the_witness_has_the_rights_that_it_needs(
    cluster: Cluster, operator: Installation, witness: Witness
) -> None:
    """Every right of its account was used, and none was missing; nobody else writes what it keeps."""
    cosigned(operator)
    assert witness.component.is_running
    if cluster.audit_log is None:
        pytest.skip("the API server's audit log is not ours to read on this cluster")
    role = cluster.get("-n", HOME, "role", HOME)
    wanted = {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    audit_log = cluster.audit_log

    def used() -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for line in audit_log.read_text().splitlines():
            event = json.loads(line)
            if event["user"]["username"] == f"system:serviceaccount:{HOME}:{HOME}" and "objectRef" in event:
                assert event["annotations"]["authorization.k8s.io/decision"] == "allow", event
                found.add((event["objectRef"]["resource"], event["verb"]))
        return found

    until(lambda: used() == wanted, f"every right of {wanted} was used;", seconds=SECONDS, instead=used)
    own = ("kubectl", "-n", HOME)
    taken = cluster.run(*own, "delete", "configmap", "witness-state", check=False)
    assert "only the witness writes witness-key and witness-state" in taken.stderr
    # The operator's account stands before two walls; which of them answers is chance.
    taken = cluster.run(*own, "--as", OPERATOR, "delete", "configmap", "witness-state", check=False)
    assert "ValidatingAdmissionPolicy 'pilot-identity-" in taken.stderr
    read = cluster.run(*own, "--as", OPERATOR, "get", "secret", "witness-key", check=False)
    assert "Forbidden" in read.stderr


def test_who_holds_key_and_storage_cannot_rewrite_what_was_witnessed(
    play: Play, operator: Installation, witness: Witness, audit: Audit, forger: Forger
) -> None:
    """Rewritten and signed anew the log fools whoever never saw it; not who knows the witness's key."""
    play.ready_pilot("triage")
    size = cosigned(operator)
    operator.stop()
    forger.rewrite()
    operator.start_operator()
    fooled = audit("verify", *WHERE)
    assert (fooled.returncode, "verdict  sound" in fooled.stdout) == (0, True), fooled.stdout
    refusals = "pilot_identity_witness_refusals_total"
    until(
        lambda: operator.metrics(operator.operator)[refusals],
        "the witness refused the forged log",
        seconds=SECONDS,
    )
    alarm = "--for=jsonpath={.status.conditions[?(@.type=='Witnessed')].reason}=WitnessInconsistent"
    operator.cluster.kubectl("wait", alarm, "stage", "--all", "--timeout=60s")
    until(
        lambda: [
            event for event in operator.cluster.get("-n", "default", "events")["items"] if is_alarm(event)
        ],
        "people are warned of it",
        seconds=SECONDS,
    )
    unproven = audit("verify", *WHERE, "--witness", witness.vkey)
    assert (unproven.returncode, "NOT WITNESSED" in unproven.stdout) == (1, True), unproven.stdout
    asked = ("--witness", witness.vkey, "--witness-url", witness.url)
    cut = audit("verify", *WHERE, *asked, "-o", "json")
    told = [finding["flaw"] for finding in json.loads(cut.stdout)["findings"]]
    assert (cut.returncode, told) == (1, ["tail-truncated"]), cut.stdout
    # The forged log outgrows the one that was witnessed.
    for number in range(size):
        play.ask(f"denied-{number}", "triage", access=[{"name": "unknown"}])
    until(
        lambda: operator.metrics(operator.operator)["pilot_identity_log_entries"] > size,
        "the forged log is the longer one",
        seconds=SECONDS,
    )
    forked = audit("verify", *WHERE, *asked, "-o", "json")
    told = [finding["flaw"] for finding in json.loads(forked.stdout)["findings"]]
    assert (forked.returncode, told) == (1, ["head-forked"]), forked.stdout
    until(witness.inconsistent, "the witness saw two histories", seconds=SECONDS)
