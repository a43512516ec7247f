"""The audit log's format, judged by others' programs: Tessera's fsck, Go's tlog and note packages.

`foreign/` is a small Go module, pinned by its go.sum. Its two programs are built once and cached beside the
control plane's binary.
"""
