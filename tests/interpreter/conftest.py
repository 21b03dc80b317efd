"""Settings for the tests that run in Triton's interpreter.

Triton reads TRITON_INTERPRET when it is imported, so these tests need their own process. Run them
with `python -m pytest tests/interpreter`.
"""

import os
import sys

import pytest

if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.exit("tests/interpreter needs a process of its own: Triton was already imported", 4)
os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton", reason="Triton is not installed")

import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction


@pytest.fixture(scope="session", autouse=True)
def quick_calls():
    """Skip the patching of `tl` for functions that a kernel calls, which halves the run time."""
    call = InterpretedFunction.__call__

    def quick(self, *args, **kwargs):
        if any(value is tl for value in self.fn.__globals__.values()):
            return self.rewrite()(*args, **kwargs)
        return call(self, *args, **kwargs)

    InterpretedFunction.__call__ = quick
    yield
    InterpretedFunction.__call__ = call
