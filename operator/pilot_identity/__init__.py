"""Pilot Identity: a Kubernetes operator for the identities of AI and automation pilots.

A pilot gets a SPIFFE identity of its own; a task gets short-lived credentials for as long as it runs;
every step is recorded before it takes effect and ends by reconciliation.

The rooms, from the outside in (import-linter holds the order, see `pyproject.toml`):

* `wiring` puts the parts together; it alone knows everyone.
* `handlers` is the Kopf shell: watches that mark keys dirty. `endpoints` serves probes and metrics.
* `control` is the loop: store, queue, deadlines, gather → decide → apply, leader election.
* `adapters` speak to the API server, hold the keys and write the audit log; `ports` is what they promise.
* `core` decides. It has no I/O, clock or randomness.
"""

__version__ = "0.1.0"
