"""What can go wrong with a cluster of the harness.

ClusterError          a client program failed, or something was not there in time
├── BuildError        the binary cannot be built: Go is missing, too old, or its build failed
├── ComponentError    a process did not become ready in time, or ended by itself; ends with its log
├── PickError         what was asked for on purpose cannot be had
└── UnsupportedError  the cluster at hand cannot show this, such as the end of its etcd
"""

from __future__ import annotations


class ClusterError(Exception):
    """The root of the tree above."""


class BuildError(ClusterError):
    """The binary cannot be built."""


class ComponentError(ClusterError):
    """A component did not start, or did not stay."""


class PickError(ClusterError):
    """What was asked for on purpose cannot be had; the harness never falls back in silence."""


class UnsupportedError(ClusterError):
    """This cluster cannot do that; `Cluster.can_…` tells beforehand."""
