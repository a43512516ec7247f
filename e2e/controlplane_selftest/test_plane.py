from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.controlplane import process
from e2e.controlplane.build import build
from e2e.controlplane.cluster import ClusterError, ControlPlane
from e2e.controlplane.errors import ComponentError, PickError
from e2e.controlplane.given import GivenCluster
from e2e.controlplane.kind import KindCluster
from e2e.controlplane.programs import Programs

ROOT = Path(__file__).parents[2]
GONE_WITHIN_S = 10.0


def until(is_so: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Look until it is so; whether it ever was."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)  # between two looks
    return True


def who(plane: ControlPlane, kubeconfig: Path) -> tuple[str, set[str]]:
    """User and groups, as the API server sees the bearer."""
    answer = json.loads(plane.kubectl("auth", "whoami", "--output=json", kubeconfig=kubeconfig))
    return answer["status"]["userInfo"]["username"], set(answer["status"]["userInfo"]["groups"])


def test_it_serves_kubectl_and_helm(plane: ControlPlane) -> None:
    """Clients and server are of the version that go.mod names, and helm can install."""
    version = json.loads(plane.kubectl("version", "--output=json"))
    assert version["serverVersion"]["gitVersion"] == version["clientVersion"]["gitVersion"]
    assert plane.helm("list", "--all-namespaces", "--output=json").strip() == "[]"
    assert "apiserver_request_total" in plane.metrics()


def test_it_serves_the_kinds_that_the_project_wants(plane: ControlPlane) -> None:
    """Admission policies that mutate, trust bundles and certificates of pods."""
    kinds = plane.kubectl("api-resources", "--output=name").split()
    wanted = {
        "mutatingadmissionpolicies.admissionregistration.k8s.io",
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "clustertrustbundles.certificates.k8s.io",
        "podcertificaterequests.certificates.k8s.io",
    }
    assert wanted <= set(kinds)


def test_users_are_who_their_certificates_say(plane: ControlPlane) -> None:
    """Name and groups come from the certificate, and RBAC goes by them."""
    ada = plane.user("ada@example.org", "dev", "qa")
    assert who(plane, ada) == ("ada@example.org", {"dev", "qa", "system:authenticated"})
    with pytest.raises(ClusterError, match=r'User "ada@example\.org" cannot list resource "secrets"'):
        plane.kubectl("get", "secrets", kubeconfig=ada)


def test_users_are_two_even_where_their_names_look_alike(plane: ControlPlane) -> None:
    """A name that is no file name gets one of its own."""
    names = ["a/b", "a_b", "../a", "a:b"]
    files = {plane.user(name) for name in names}
    assert len(files) == len(names)
    assert {who(plane, file)[0] for file in files} == set(names)
    assert {file.parent for file in files} == {plane.files.users}


def test_garbage_is_collected(plane: ControlPlane) -> None:
    """What an owner owned goes with it."""
    plane.kubectl("create", "configmap", "owner")
    uid = plane.get("configmap", "owner")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owned = {"name": "owned", "namespace": "default", "ownerReferences": [owner]}
    plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": owned})
    plane.kubectl("delete", "configmap", "owner")
    plane.kubectl("wait", "configmap/owned", "--for=delete", "--timeout=60s")


def test_requests_of_service_accounts_are_audited(plane: ControlPlane) -> None:
    """Each is a line of the audit log, with verb and resource; people's are not."""
    plane.kubectl("create", "serviceaccount", "robot")
    token = plane.kubectl("create", "token", "robot").strip()
    question = (f"--token={token}", "get", "pods")
    asked = plane.run("kubectl", *question, kubeconfig=without_user(plane), check=False)
    assert "cannot list resource" in asked.stderr

    def audited() -> set[tuple[str, str, str]]:
        events = map(json.loads, plane.files.audit_log.read_text().splitlines())
        return {(each["user"]["username"], each["verb"], each["objectRef"]["resource"]) for each in events}

    robot = "system:serviceaccount:default:robot"
    assert until(lambda: (robot, "list", "pods") in audited())
    assert {user for user, _, _ in audited()} == {robot}


def without_user(plane: ControlPlane) -> Path:
    """A kubeconfig that knows the server and no user: kubectl prefers a certificate to a token."""
    document = json.loads(plane.kubeconfig.read_text())
    document["users"][0]["user"] = {}
    path = plane.directory / "nobody.kubeconfig"
    path.write_text(json.dumps(document))
    return path


def test_an_api_server_that_is_killed_keeps_what_it_answered(plane: ControlPlane) -> None:
    """SIGKILL and a new start: the object is there."""
    plane.kubectl("create", "configmap", "before-the-crash")
    before = plane.apiserver.pid
    plane.apiserver.kill()
    with pytest.raises(ClusterError, match="refused"):
        plane.kubectl("get", "configmap", "before-the-crash")
    plane.apiserver.start()
    assert plane.apiserver.pid != before
    plane.kubectl("get", "configmap", "before-the-crash")


def test_etcd_that_is_killed_keeps_what_it_stored(plane: ControlPlane) -> None:
    """Its log is synced at each write."""
    plane.kubectl("create", "configmap", "before-the-power-cut")
    plane.etcd.kill()
    plane.etcd.start()
    plane.wait_ready()
    plane.kubectl("get", "configmap", "before-the-power-cut")


def test_a_paused_api_server_answers_late(plane: ControlPlane) -> None:
    """While it is paused nothing answers; resumed, it goes on as the same process."""
    before = plane.apiserver.pid
    plane.apiserver.pause()
    try:
        asked = plane.run("kubectl", "get", "--raw", "/readyz", "--request-timeout=1s", check=False)
        assert asked.returncode != 0
    finally:
        plane.apiserver.resume()
    plane.wait_ready()
    assert plane.kubectl("get", "--raw", "/readyz") == "ok"
    assert plane.apiserver.pid == before


def test_a_restart_of_each_component_ends_ready(plane: ControlPlane) -> None:
    """In good order, in any order."""
    for component in reversed(plane.components.values()):
        component.restart()
    plane.wait_ready()
    plane.kubectl("create", "namespace", "after-the-restarts")
    account = ("--namespace=after-the-restarts", "serviceaccount", "default")
    assert until(lambda: plane.run("kubectl", "get", *account, check=False).returncode == 0)


def test_private_keys_are_private(plane: ControlPlane) -> None:
    """No key is readable by another user of the machine."""
    keys = [*plane.files.pki.glob("*.key"), *plane.directory.rglob("*.kubeconfig")]
    assert keys
    readable = [key.name for key in keys if stat.S_IMODE(key.stat().st_mode) & 0o077]
    assert set(readable) <= {"nobody.kubeconfig"}


def test_a_given_cluster_certifies_users_itself(plane: ControlPlane) -> None:
    """Through its own signer; and nothing of it is ours to stop."""
    with GivenCluster(Programs.of_binary(build()), plane.kubeconfig) as given:
        assert who(plane, given.user("grace", "ops")) == ("grace", {"ops", "system:authenticated"})
        assert not given.can_control_components
        assert given.server == plane.server
        assert given.get("certificatesigningrequests")["items"] == []
        directory = given.directory
    assert not directory.exists()
    assert plane.kubectl("get", "--raw", "/readyz") == "ok"


def test_a_given_cluster_that_does_not_answer_is_an_error(plane: ControlPlane, tmp_path: Path) -> None:
    """The kubeconfig is named, and what kubectl said."""
    dead = tmp_path / "dead.kubeconfig"
    dead.write_text(plane.kubeconfig.read_text().replace(plane.server, "https://127.0.0.1:1"))
    with pytest.raises(PickError, match=r"dead\.kubeconfig does not answer: .*refused"):
        GivenCluster(Programs.of_binary(build()), dead).start()


def test_kind_is_asked_for_a_cluster_and_to_delete_it(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the kind program hands out our control plane; the real one needs Docker."""
    calls = tmp_path / "calls"
    stand_in = tmp_path / "kind"
    stand_in.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        echo "$@" >> {calls}
        for argument; do case $argument in --kubeconfig=*) file=${{argument#*=}};; esac; done
        [ "$1" != create ] || cp {plane.kubeconfig} "$file"
        """)
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with KindCluster(Programs.of_binary(build())) as cluster:
        assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
    said = calls.read_text().splitlines()
    assert [line.split()[0] for line in said] == ["get", "create", "delete"]


def test_a_port_that_was_taken_is_left_to_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two control planes that were told the same ports: the second tries others."""
    taken: list[list[int]] = []
    real = sys.modules["e2e.controlplane.ports"].free_ports

    def first_the_same(count: int) -> list[int]:
        taken.append(taken[0] if len(taken) == 1 else real(count))
        return taken[-1]

    monkeypatch.setattr("e2e.controlplane.cluster.free_ports", first_the_same)
    programs = Programs.of_binary(build())
    with ControlPlane(programs) as one, ControlPlane(programs) as two:
        assert one.server != two.server
        assert len(taken) == 3
        assert two.kubectl("get", "--raw", "/readyz") == "ok"


def test_one_that_cannot_start_says_why_and_leaves_nothing() -> None:
    """The error has the end of the component's own log."""
    plane = ControlPlane(Programs.of_binary(build()), more_flags={"kube-apiserver": ["--no-such-flag"]})
    with pytest.raises(ComponentError, match="kube-apiserver ended with 1:\n") as failure:
        plane.start()
    assert "unknown flag: --no-such-flag" in str(failure.value)
    assert not plane.directory.exists()
    assert not plane.components


def test_nothing_is_left_after_the_block() -> None:
    """Neither process nor file."""
    with ControlPlane(Programs.of_binary(build())) as plane:
        pids = {component.pid: process.born(component.pid) for component in plane.components.values()}
        plane.etcd.pause()
    assert not plane.directory.exists()
    assert [pid for pid, birth in pids.items() if process.born(pid) == birth] == []


@pytest.mark.parametrize(
    "paused", ["pass", "plane.etcd.pause(); plane.apiserver.pause()"], ids=["running", "paused"]
)
def test_nothing_runs_on_when_python_is_killed(tmp_path: Path, paused: str) -> None:
    """SIGKILL of the parent, which can run no clean-up of its own."""
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from e2e.controlplane.build import build
        from e2e.controlplane.cluster import ControlPlane
        from e2e.controlplane.programs import Programs
        directory = Path({str(tmp_path / "plane")!r})
        plane = ControlPlane(Programs.of_binary(build()), directory=directory).start()
        {paused}
        print(*(component.pid for component in plane.components.values()), flush=True)
        time.sleep(600)
    """)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = {pid: process.born(pid) for pid in map(int, parent.stdout.readline().split())}
        assert len(pids) == 3
        assert all(pids.values())
        parent.kill()
    assert until(lambda: all(process.born(pid) != birth for pid, birth in pids.items()), GONE_WITHIN_S)


def test_one_can_be_left_running(tmp_path: Path) -> None:
    """`up`, again `up`, `status`, `down`; and a state file whose processes are gone is no hindrance."""
    binary = build()
    (tmp_path / binary.name).symlink_to(binary)
    environment = {**os.environ, "PILOT_IDENTITY_CACHE": str(tmp_path)}

    def command(word: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "e2e.controlplane", word]
        return subprocess.run(
            arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    try:
        assert command("status").returncode == 3
        first = command("up")
        assert first.returncode == 0, first.stderr
        assert first.stdout.startswith("export KUBECONFIG=")
        assert first.stdout.count("\n") == 1
        again = command("up")
        assert again.stdout == first.stdout
        assert "runs already" in again.stderr
        shell = ["/bin/sh", "-c", f"{first.stdout}\nkubectl get stagepolicies --output=name"]
        stages = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()
        assert "stagepolicy.pilotidentity.dev/sandbox" in stages
        processes = json.loads((tmp_path / "cluster.json").read_text())["processes"]
        process.end(*processes["etcd"])
        lame = command("status")
        assert lame.returncode == 3
        assert "etcd: not running" in lame.stderr
    finally:
        stopped = command("down")
    assert "kube-apiserver" in stopped.stderr
    assert [name for name, (pid, birth) in processes.items() if process.born(pid) == birth] == []
    assert command("down").stderr == "nothing was running\n"
