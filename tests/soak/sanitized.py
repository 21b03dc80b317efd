"""A pytest plugin: the tests use the native library named by LORD_FAST_SANITIZED."""

import os
from pathlib import Path

from lord_fast.kernels import native

native.load(Path(os.environ["LORD_FAST_SANITIZED"]))
