"""The Kopf shell: watches that put objects into the store and mark keys dirty, and nothing else.

Only low-level handlers are used: they keep no state on the objects and write nothing, so that a watch costs
the API server no write. `reference/kopf.md`'s measurements are why.
"""
