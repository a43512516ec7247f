"""`kubectl pilot audit`: an auditor's verbs, which believe nothing but the log's verifier key.

Every verb reads the log from a cluster, a directory or a web server, verifies all of it first and answers
from what verified. What a verification saw is remembered, so that the next one finds out whether the log
goes on from there; each says plainly what it did not check.
"""
