"""Load the native library of an installed wheel, far from any checkout. cibuildwheel runs this."""

import torch

from lord_fast import kernels
from lord_fast.kernels import dispatch

assert torch.__version__
kernels.use("native", "cpu")
print(dispatch.__file__, kernels.live("cpu"))
