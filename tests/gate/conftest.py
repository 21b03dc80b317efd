"""Settings for the tests that compile kernels.

Triton cannot compile in a process that uses its interpreter, so these tests need their own process.
Run them with `python -m pytest tests/gate`.
"""

import os

import pytest

if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
    pytest.exit("tests/gate needs a process of its own, without TRITON_INTERPRET", 4)

pytest.importorskip("triton", reason="Triton is not installed")
