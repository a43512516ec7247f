"""`python -m e2e.lifeline MODULE …`: run a module as a program that ends when its standard input does.

Whoever started it holds the other end of the pipe; however that one dies, nothing is left running.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def _die_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_die_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
