"""The C++ kernels for the CPU, in a shared library with a C interface that ctypes loads.

`setup.py` builds the library from this folder with CMake. The build does not need PyTorch. The
library chooses its instruction set when it is loaded. It divides rows or images among as many
threads as PyTorch uses, and the result is bitwise identical for any number of threads.

Tested on Linux with GCC and Clang, for x86-64 with every instruction set and for 64-bit Arm under
an emulator. macOS builds the library in the same way, but no Mac has run it. Windows needs Clang or
MinGW, which is not tested either. Where the library is not built, the reference runs.
"""

from .adain import leaky_adain, leaky_adain_backward
from .latent import gather, scatter_adam_
from .loader import LIBRARY, instructions, load, use_instructions

__all__ = [
    "LIBRARY", "gather", "instructions", "leaky_adain", "leaky_adain_backward", "load",
    "scatter_adam_", "use_instructions",
]  # fmt: skip
