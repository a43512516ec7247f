"""Decisions: from what was gathered to what is to be done, with no I/O.

Each kind has one function, `decide_…(seen, …) -> Plan`. It is level-based: it looks at what is, never at
what changed, so that create, update, restart and deadline are one path and a crash loses nothing. Checks
are ordered tuples of named functions; each returns `None` or an `Objection`, a value. An exception means
that nothing could be decided.
"""
