"""The adapters: what `ports` promises, done with the real API server, real keys and a real log.

Each adapter translates the errors of what it uses into `ports`' tree, in one place.
"""
