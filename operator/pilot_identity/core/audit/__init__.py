"""The audit log's mathematics and formats: entries, the tree over them, signed checkpoints, groups.

The log is a C2SP transparency log (tlog-tiles): its entries are CloudEvents in canonical JSON, its tree is
RFC 6962's, its head is a checkpoint signed with Ed25519. It is committed in groups: one immutable ConfigMap
holds the entries that were waiting and the checkpoint over all entries up to them, and is *named by the
size of the tree that it extends*. Two writers who both extend size 40 want the same name, so the second
create fails and the log cannot fork.

Nothing here reads or writes; `adapters.audit_log` does.
"""
