"""A control plane of our own: etcd, kube-apiserver and kube-controller-manager on loopback."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

from e2e.controlplane import flags, pki
from e2e.controlplane.access import Cluster
from e2e.controlplane.component import POLL_SECONDS, START_SECONDS, Component
from e2e.controlplane.errors import ClusterError, ComponentError, UnsupportedError
from e2e.controlplane.flags import Files, Ports
from e2e.controlplane.ports import free_ports
from e2e.controlplane.probe import Probe
from e2e.controlplane.programs import Programs, kubernetes_version

__all__ = ["Cluster", "ClusterError", "ControlPlane", "free_ports"]

ETCD, APISERVER, CONTROLLER_MANAGER = "etcd", "kube-apiserver", "kube-controller-manager"
ADMIN = ("admin", "system:masters")
MANAGER = "system:kube-controller-manager"
# Plain /healthz answers before the controllers are built, and a manager whose API server goes away until
# then gives up. A controller's own check is listed only once it was started.
CONTROLLERS_READY = ("/healthz?verbose", b"]garbage-collector-controller ok")
PORT_TAKEN = "address already in use"


class ControlPlane(Cluster):
    """Ready after `start`, gone after `stop`, whatever happens in between.

    Its audit log has every request of a service account outside kube-system, a second late.

    Args:
        programs: With etcd and kube-apiserver; without kube-controller-manager nothing is garbage
            collected and no namespace gets its service account.
        why: What it is and why it was picked.
        directory: Where everything of it lies, and stays; by default a temporary one, gone with `stop`.
        detached: It outlives this Python.
        more_flags: Further arguments by component name, such as `{"kube-apiserver": ["--v=4"]}`. With
            `{"etcd": ["--unsafe-no-fsync"]}` writes do not wait for the disk, and rates mean nothing.

    Raises:
        UnsupportedError: A program is missing without which there is no control plane.
    """

    can_make_users = True

    def __init__(
        self,
        programs: Programs,
        *,
        why: str = "a control plane of our own",
        directory: Path | None = None,
        detached: bool = False,
        more_flags: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        missing = {"kubectl", ETCD, APISERVER} - programs.by_name().keys()
        if missing:
            raise UnsupportedError(f"a control plane cannot be started without {', '.join(sorted(missing))}")
        self._is_temporary = directory is None
        self.files = Files(directory or Path(tempfile.mkdtemp(prefix="pilot-identity-")))
        super().__init__(programs, why=why, kubeconfig=self.files.kubeconfig, directory=self.files.directory)
        self.audit_log = self.files.audit_log
        self.is_lasting = detached
        self._more_flags = more_flags or {}
        self._has_controllers = programs.controller_manager is not None
        self._authority: pki.Authority | None = None
        self._ports: Ports | None = None

    @property
    def etcd(self) -> Component:
        """Where everything is kept."""
        return self._component(ETCD)

    @property
    def apiserver(self) -> Component:
        """What everyone speaks to."""
        return self._component(APISERVER)

    @property
    def controller_manager(self) -> Component:
        """What collects garbage and makes service accounts."""
        return self._component(CONTROLLER_MANAGER)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self._listening().apiserver}"

    @property
    def ca(self) -> Path:
        """The certificate of the cluster's CA."""
        return self.files.pki / "ca.crt"

    def start(self) -> Self:
        """Start all components, in a few seconds; nothing happens where they were started already.

        Raises:
            ComponentError: One did not become ready; nothing is left running, and the message has its log.
        """
        if self.components:
            return self
        try:  # Ctrl-C too may come at any line from here
            self._prepare()
            try:
                self._start_components()
            except ComponentError as error:
                # Someone took a port between our finding it free and the component's listening.
                if PORT_TAKEN not in str(error):
                    raise
                self._end_components()
                shutil.rmtree(self.files.data, ignore_errors=True)  # it remembers its peer's port
                self._start_components()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything, paused components too, and remove what was only temporary. May be repeated."""
        self._end_components()
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def wait_ready(self) -> None:
        """Wait until every component is ready, for example after a `launch` or a `resume`.

        Raises:
            ComponentError: One is not, or has ended; the message has its log.
        """
        for component in self.components.values():
            component.wait_ready()

    def _certify(self, name: str, groups: Sequence[str]) -> pki.Credential:
        return self._issuer().user(name, groups, datetime.now(UTC))

    def _prepare(self) -> None:
        """Write everything that hangs on no port."""
        files = self.files
        for directory in (files.pki, files.logs, files.users):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._programs.link(self.programs)
        files.audit_policy.write_text(json.dumps(flags.AUDIT_POLICY, indent=1), encoding="utf-8")
        now = datetime.now(UTC)
        authority, storage, proxies = (
            pki.Authority(f"pilot-identity {role}", now) for role in ("cluster", "etcd", "front proxy")
        )
        authority.credential.write(files.pki, "ca")
        (files.pki / "etcd-ca.crt").write_bytes(storage.certificate)
        (files.pki / "front-proxy-ca.crt").write_bytes(proxies.certificate)
        storage.server(ETCD, ["localhost"], [pki.LOOPBACK], now).write(files.pki, "etcd")
        addresses = [pki.LOOPBACK, flags.SERVICE_ADDRESS]
        authority.server(APISERVER, flags.SERVER_NAMES, addresses, now).write(files.pki, "apiserver")
        manager = authority.server(CONTROLLER_MANAGER, ["localhost"], [pki.LOOPBACK], now)
        manager.write(files.pki, "controller-manager")
        user, *groups = ADMIN
        authority.user(user, groups, now).write(files.pki, "admin")
        pki.write_private(files.pki / "service-accounts.key", pki.service_account_key())
        self._authority = authority

    def _start_components(self) -> None:
        self._ports = Ports(*free_ports(4))
        self._write_kubeconfig(self.files.kubeconfig, *ADMIN)
        self._write_kubeconfig(self.files.controller_manager_kubeconfig, MANAGER)
        self.components = self._make_components()
        for name in (ETCD, APISERVER):  # side by side: the server waits for its storage by itself
            self.components[name].launch()
        for name in (ETCD, APISERVER):
            self.components[name].wait_ready()
        self._wait_for("/api/v1/namespaces/default")
        if self._has_controllers:  # it would give up on a server that is not ready within 10 s
            self.controller_manager.start()
            self._wait_for("/api/v1/namespaces/default/serviceaccounts/default")

    def _make_components(self) -> dict[str, Component]:
        files, ports = self.files, self._listening()
        storage = Probe(files.pki / "etcd-ca.crt", files.pki / "etcd.crt", files.pki / "etcd.key")
        server = self._admin_probe()
        version = kubernetes_version(self.programs / APISERVER)
        parts = {
            ETCD: (
                flags.etcd(files, ports),
                partial(storage.is_ok, ports.etcd, "/readyz"),
            ),
            APISERVER: (
                flags.apiserver(files, ports, version),
                partial(server.is_ok, ports.apiserver, "/readyz"),
            ),
        }
        if self._has_controllers:
            parts[CONTROLLER_MANAGER] = (
                flags.controller_manager(files, ports),
                partial(server.is_ok, ports.controller_manager, *CONTROLLERS_READY),
            )
        return {
            name: Component(
                name,
                [str(self.programs / name), *arguments, *self._more_flags.get(name, ())],
                files.logs / f"{name}.log",
                lifeline=not self.is_lasting,
                is_ready=is_ready,
            )
            for name, (arguments, is_ready) in parts.items()
        }

    def _end_components(self) -> None:
        """SIGKILL: their data is never used again, and a graceful end would cost seconds each time."""
        for component in reversed(self.components.values()):
            component.kill()
        self.components = {}

    def _write_kubeconfig(self, path: Path, user: str, *groups: str) -> None:
        authority = self._issuer()
        credential = authority.user(user, groups, datetime.now(UTC))
        pki.write_private(path, pki.kubeconfig(self.server, authority.certificate, user, credential))

    def _wait_for(self, path: str) -> None:
        """Wait for an object that a component makes in its own time."""
        probe, deadline = self._admin_probe(), time.monotonic() + START_SECONDS
        while not probe.is_ok(self._listening().apiserver, path):
            for component in self.components.values():
                if component.exit_code is not None:
                    component.require_running()
            if time.monotonic() > deadline:
                log = list(self.components.values())[-1].log_tail()
                raise ComponentError(f"{path} was not there within {START_SECONDS:.0f} s:\n{log}")
            time.sleep(POLL_SECONDS)  # between two looks, not in place of one

    def _admin_probe(self) -> Probe:
        return Probe(self.ca, self.files.pki / "admin.crt", self.files.pki / "admin.key")

    def _component(self, name: str) -> Component:
        if name not in self.components:
            raise UnsupportedError(f"this control plane has no {name}, or is not started")
        return self.components[name]

    def _issuer(self) -> pki.Authority:
        if self._authority is None:
            raise ComponentError("the control plane is not started")
        return self._authority

    def _listening(self) -> Ports:
        if self._ports is None:
            raise ComponentError("the control plane is not started")
        return self._ports
