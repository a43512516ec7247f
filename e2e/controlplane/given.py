"""A cluster that was there before us: we speak to it, and leave it as it is."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from e2e.controlplane import pki
from e2e.controlplane.access import Cluster
from e2e.controlplane.errors import ClusterError, PickError
from e2e.controlplane.programs import Programs

SIGNER = "kubernetes.io/kube-apiserver-client"
USER_SECONDS = 24 * 60 * 60


class GivenCluster(Cluster):
    """Whatever a kubeconfig's current context points to.

    Its users are certified by its own signer, through a CertificateSigningRequest that its admin approves.

    Args:
        programs: kubectl and helm.
        kubeconfig: The admin's.
        why: What it is and why it was picked.
    """

    can_make_users = True

    def __init__(
        self, programs: Programs, kubeconfig: Path, *, why: str = "a cluster that was given"
    ) -> None:
        directory = Path(tempfile.mkdtemp(prefix="pilot-identity-client-"))
        super().__init__(programs, why=why, kubeconfig=kubeconfig.absolute(), directory=directory)

    def start(self) -> Self:
        """Make sure that it answers.

        Raises:
            PickError: It does not, or not to this kubeconfig.
        """
        if self.programs.exists():
            return self
        self._programs.link(self.programs)
        try:
            self.kubectl("get", "--raw", "/readyz", "--request-timeout=20s")
        except ClusterError as error:
            self.stop()
            raise PickError(f"the cluster of {self.kubeconfig} does not answer: {error}") from error
        return self

    def stop(self) -> None:
        """Forget it."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _certify(self, name: str, groups: Sequence[str]) -> pki.Credential:
        request = pki.certificate_request(name, groups)
        request_name = f"pilot-identity-e2e-{secrets.token_hex(6)}"
        manifest = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": request_name},
            "spec": {
                "request": base64.b64encode(request.certificate).decode(),
                "signerName": SIGNER,
                "expirationSeconds": USER_SECONDS,
                "usages": ["client auth"],
            },
        }
        self.kubectl("create", "--filename=-", stdin=json.dumps(manifest))
        try:
            self.kubectl("certificate", "approve", request_name)
            issued = "jsonpath={.status.certificate}"
            self.kubectl("wait", f"csr/{request_name}", f"--for={issued}", "--timeout=30s")
            certificate = self.kubectl("get", f"csr/{request_name}", f"--output={issued}")
        finally:
            self.kubectl("delete", f"csr/{request_name}", "--wait=false")
        return pki.Credential(base64.b64decode(certificate), request.key)
