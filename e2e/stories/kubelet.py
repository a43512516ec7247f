"""Kubelet, as far as the operator's pod needs one: a process that ended is started again."""

from __future__ import annotations

import threading
from typing import Self

from e2e.controlplane.component import Component
from e2e.patience import LOOK_S

BACK_OFF_S = 0.5
"""Kubelet waits too, though longer each time."""
JOIN_S = 10.0


class Kubelet:
    """While the context is open, starts `component` again whenever it ends by itself.

    Attributes:
        endings: the exit codes so far.
    """

    def __init__(self, component: Component) -> None:
        self._component = component
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"kubelet of {component.name}", daemon=True)
        self.endings: list[int] = []

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let it be."""
        self._stop.set()
        self._thread.join(JOIN_S)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            code = self._component.exit_code
            if code is not None and not self._stop.wait(BACK_OFF_S):
                self.endings.append(code)
                self._component.stop()
                self._component.launch()
