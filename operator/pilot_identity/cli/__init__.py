"""`kubectl pilot`: the daily work with pilots and grants, without writing YAML.

Every verb does what its user may do and no more: it speaks to the API server as that user, by the kubeconfig
that kubectl would take, and has no rights of its own. The server stamps or checks who asked, approved and
revoked, so nothing here is a control; what is refused is refused there.

What others wrote (descriptions, reasons, names in a token) is shown with its control characters made visible,
and a token, a key or an argument that may be one is never printed.
"""
