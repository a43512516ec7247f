"""A real Kubernetes control plane for everyone: built, picked, started, hurt and stopped.

Nothing here imitates an API server. `pick` chooses among the clusters that can be had (one given on
purpose, kind, `KUBEBUILDER_ASSETS`, the binary that `build` makes from Go modules) and says which it
took; all of them are a `access.Cluster`. The one that the tests love best is `cluster.ControlPlane`:
etcd, kube-apiserver and kube-controller-manager as processes of ours on loopback, each of which can
be restarted, paused and killed on demand. `python -m e2e.controlplane up` leaves one running for a
person to play with.
"""
