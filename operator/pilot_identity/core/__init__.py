"""The pure core: what the operator knows and decides, without I/O, clock or randomness.

`resources` parses the API's objects once; `spiffe` builds and validates identities; `audit` is the
mathematics and the formats of the log; `decisions` turns an observation into a plan.
"""
