"""The story: a pilot, its identity, what is refused, a grant, its end, and the record of all that."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from e2e.controlplane.access import Cluster
from e2e.demo.screen import Screen, StoryError
from e2e.demo.timeline import Sighting, Watch, in_order
from e2e.installation import NAMESPACE, ROOT

TEAM = "demo"
"""The namespace in which the story plays."""
GRANT = "triage-4712"
SECRET_FILES = "go-template='{{range $name, $_ := .data}}{{$name}} {{end}}'"
CERTIFICATE = """go-template='{{index .data "tls.crt" | base64decode}}'"""
BUNDLE = """go-template='{{index .data "bundle.pem"}}'"""


def python() -> str:
    """How a reader starts Python here."""
    path = Path(sys.executable)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


@dataclass(frozen=True, slots=True)
class Story:
    """The chapters, each a method, in the order of `tell`."""

    cluster: Cluster
    screen: Screen
    scratch: Path

    def tell(self) -> None:
        """Tell the whole story.

        Raises:
            StoryError: something was otherwise than told.
        """
        self.stages()
        self.pilot()
        self.svid()
        self.refusals()
        with ExitStack() as watching:
            kinds = ((TEAM, "taskgrant"), (TEAM, "secret"), (NAMESPACE, "configmap"))
            watches = [watching.enter_context(Watch(self.cluster, *where)) for where in kinds]
            self.grant()
            self.end()
            sightings = [*self._of_grant(*watches)]
        self.record()
        self.timeline(sightings)

    def stages(self) -> None:
        """The ladder."""
        self.screen.chapter("The stages: a ladder, each with trust domain, CA and keys of its own")
        self.screen.run("kubectl wait --for=condition=Ready stage --all --timeout=30s", shown=False)
        self.screen.run("kubectl get stage --sort-by=.spec.rank")

    def pilot(self) -> None:
        """Tom, who owns it, declares a pilot."""
        self.screen.chapter("A pilot: tom@example.org declares one")
        run = self.screen.run
        run(f"kubectl create namespace {TEAM}")
        for person, role in (("tom", "owner"), ("alice", "requester")):
            run(
                f"kubectl -n {TEAM} create rolebinding {person} --clusterrole=pilot-identity-{role} "
                f"--user={person}@example.org"
            )
        self.screen.manifest("docs/examples/pilot.yaml")
        run(f"kubectl -n {TEAM} --as=tom@example.org apply -f docs/examples/pilot.yaml")
        run(f"kubectl -n {TEAM} wait --for=condition=Ready pilot/invoice-triage --timeout=30s")
        run(f"kubectl -n {TEAM} get pilot -o wide")

    def svid(self) -> None:
        """The pilot's SVID, read by programs that others wrote."""
        self.screen.chapter("Its SVID, as foreign verifiers read it")
        run = self.screen.run
        self._verify("pilot-svid-invoice-triage")
        if shutil.which("openssl", path=self.cluster.environment()["PATH"]) is None:
            self.screen.say("(openssl is not on this machine, so its part is left out.)")
            return
        run(f"dir={self.scratch}")
        secret = f"kubectl -n {TEAM} get secret pilot-svid-invoice-triage -o {CERTIFICATE}"
        run(f"{secret} > $dir/svid.pem")
        run(f"kubectl -n {TEAM} get configmap pilot-bundle-sandbox -o {BUNDLE} > $dir/bundle.pem")
        run("openssl verify -x509_strict -CAfile $dir/bundle.pem $dir/svid.pem")
        run("openssl x509 -in $dir/svid.pem -noout -text -certopt no_pubkey,no_sigdump,no_header")

    def _verify(self, secret: str, options: str = "") -> None:
        listed = f"kubectl -n {TEAM} get secret/{secret} configmap/pilot-bundle-sandbox -o json"
        self.screen.run(f"{listed} | {python()} -m e2e.demo.verifier{options}")

    def refusals(self) -> None:
        """What is refused, by whom, and how that is said."""
        self.screen.chapter("Refused, each with a message that says what to change")
        run = self.screen.run
        self.screen.say("By the API server, where it can tell:")
        tom = f"kubectl -n {TEAM} --as=tom@example.org apply -f docs/examples"
        run(f"{tom}/pilot-without-a-person.yaml", refused=True)
        self.screen.say("Otherwise by the operator, in a condition. A pilot that wants production at once:")
        run(f"{tom}/pilot-wants-production.yaml")
        run(f"kubectl -n {TEAM} wait --for=condition=Stalled pilot/invoice-payment --timeout=30s")
        self._message("pilot/invoice-payment")
        self.screen.say("A grant of an action outside its pilot's access, denied for good:")
        self._ask("docs/examples/grant-outside.yaml")
        phase = "jsonpath='{.status.phase}'"
        run(f"kubectl -n {TEAM} wait --for={phase}=Denied grant/close-4711 --timeout=30s")
        self._message("grant/close-4711")

    def _message(self, which: str) -> None:
        ready = """jsonpath='{.status.conditions[?(@.type=="Ready")].message}{"\\n"}'"""
        self.screen.run(f"kubectl -n {TEAM} get {which} -o {ready}")

    def _ask(self, manifest: str) -> None:
        """Apply a grant as Alice; where the API server does not stamp who asked, she writes that herself."""
        stamps = ("get", "mutatingadmissionpolicy", "pilot-identity-stamp-requester")
        alice = f"kubectl -n {TEAM} --as=alice@example.org apply -f"
        if self.cluster.run("kubectl", *stamps, check=False).returncode == 0:
            self.screen.run(f"{alice} {manifest}")
            return
        signed = """-p '{"spec":{"requestedBy":"alice@example.org"}}'"""
        self.screen.run(f"kubectl patch --local -f {manifest} --type=merge {signed} -o yaml | {alice} -")

    def grant(self) -> None:
        """Alice asks for a piece of the pilot's reach."""
        self.screen.chapter("A grant: alice@example.org asks for one task's access, for eight seconds")
        run = self.screen.run
        manifest = "docs/examples/grant-seconds.yaml"
        self.screen.manifest(manifest)
        self._ask(manifest)
        run(f"kubectl -n {TEAM} wait --for=create secret/{GRANT} --timeout=10s")
        run(f"kubectl -n {TEAM} get secret {GRANT} -o {SECRET_FILES}")
        self._verify(GRANT, " --audience=https://tickets.example.org")
        run(f"kubectl -n {TEAM} get grant {GRANT} -o wide")

    def end(self) -> None:
        """The grant ends, and nobody does anything for it."""
        self.screen.chapter("Its end: nobody does anything, the time is up")
        run = self.screen.run
        run(f"kubectl -n {TEAM} wait --for=delete secret/{GRANT} --timeout=20s")
        phase = "jsonpath='{.status.phase}'"
        run(f"kubectl -n {TEAM} wait --for={phase}=Expired grant/{GRANT} --timeout=10s")
        run(f"kubectl -n {TEAM} get secret {GRANT}", refused=True)
        run(f"kubectl -n {TEAM} get grant")

    def record(self) -> None:
        """What is on record: Events for people, the log for good."""
        self.screen.chapter("The record: Events for people, the signed log for good")
        self.screen.run(f"kubectl -n {TEAM} get events --sort-by=.metadata.creationTimestamp")
        listed = f"kubectl -n {NAMESPACE} get configmaps -l pilotidentity.dev/audit -o json"
        self.screen.run(f"{listed} | PYTHONPATH=operator {python()} -m e2e.demo.log")

    def _of_grant(self, grants: Watch, secrets: Watch, groups: Watch) -> list[Sighting]:
        """Everything about the grant that the watches saw; waits for what is still under way."""
        gone = secrets.wait_for(lambda seen: seen.name == GRANT and seen.change == "DELETED")
        closed = grants.wait_for(lambda seen: seen.name == GRANT and seen.revision > gone.revision)
        asked = grants.sightings(lambda seen: seen.name == GRANT)[0]
        groups.wait_for(lambda seen: seen.revision > gone.revision)

        def is_within(seen: Sighting) -> bool:
            return asked.revision < seen.revision <= closed.revision

        return [
            *grants.sightings(lambda seen: seen.name == GRANT),
            *secrets.sightings(lambda seen: seen.name == GRANT),
            *groups.sightings(lambda seen: is_within(seen) and seen.change == "ADDED"),
        ]

    def timeline(self, sightings: list[Sighting]) -> None:
        """Draw the grant's life."""
        self.screen.chapter("The grant's life, by etcd's own revisions")
        ordered = in_order(sightings)
        asked, closed = ordered[0], ordered[-1]
        released = _one(ordered, "secret", "ADDED")
        gone = _one(ordered, "secret", "DELETED")
        status = self.cluster.get("-n", TEAM, "taskgrant", GRANT)["status"]
        due = dt.datetime.fromisoformat(status["expiresAt"]).timestamp()
        table = Table("", "after", "revision", "what", box=None, pad_edge=False, header_style="bold")
        for number, seen in enumerate(ordered):
            last = number == len(ordered) - 1
            if seen is gone:
                table.add_row("│", _after(due - asked.at), "", "[bold]the time is up[/]")
            mark = "┌" if not number else "└" if last else "├"
            table.add_row(mark, _after(seen.at - asked.at), str(seen.revision), _told(seen, asked, closed))
        self.screen.table(table)
        self.screen.say(
            f"Create to Secret: {_ms(released.at - asked.at)}. End to gone: {_ms(gone.at - due)}. "
            "The entry was committed before the Secret was written; access was cut before that was recorded."
        )
        self.screen.say("The order is etcd's, the times are when the watches told.")
        entries = [status["decision"]["auditIndex"], status["closure"]["auditIndex"]]
        self.screen.say(f"Its entries in the log: {json.dumps(entries)}.")


def _one(sightings: list[Sighting], kind: str, change: str) -> Sighting:
    found = [seen for seen in sightings if (seen.kind, seen.change) == (kind, change)]
    if len(found) != 1:
        raise StoryError(f"One {kind} was to be {change} once; the watches saw {len(found)}")
    return found[0]


def _told(seen: Sighting, asked: Sighting, closed: Sighting) -> str:
    match seen.kind, seen.change:
        case "configmap", _:
            return f"audit log: {seen.name} is committed"
        case "secret", "ADDED":
            return f"[green]Secret {seen.name} is there[/]"
        case "secret", "DELETED":
            return f"[red]Secret {seen.name} is gone[/]"
        case _ if seen is asked:
            return f"TaskGrant {seen.name} is created"
        case _ if seen is closed:
            return "its status says Expired"
        case _:
            return "its status says Active"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _after(seconds: float) -> str:
    return f"{seconds:7.3f} s"
