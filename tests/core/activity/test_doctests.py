from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from pilot_identity.core import activity


@pytest.mark.parametrize("module", [it.name for it in pkgutil.iter_modules(activity.__path__)])
def test_examples_are_true(module: str) -> None:
    """Each example in a docstring does what it says."""
    assert doctest.testmod(importlib.import_module(f"{activity.__name__}.{module}")).failed == 0
