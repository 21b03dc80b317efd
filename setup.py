"""Build the optional native kernels with CMake; everything else stands in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LIBRARY = "liblord_fast_kernels.so"


class CMakeBuild(build_ext):
    """Runs CMake, and says so where it cannot: the package then runs the reference kernels."""

    def get_ext_filename(self, fullname: str) -> str:
        """The library is loaded with ctypes: its name carries no Python version."""
        return str(Path(*fullname.split(".")[:-1], LIBRARY))

    def build_extension(self, ext: Extension) -> None:
        """Configure and build the library, and put it into the package."""
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        folder = Path(self.build_temp).resolve()
        try:
            source = Path(__file__).resolve().parent
            subprocess.run(
                ["cmake", "-S", source, "-B", folder, "-DCMAKE_BUILD_TYPE=Release"], check=True
            )
            subprocess.run(["cmake", "--build", folder, "--parallel"], check=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / LIBRARY, target)
        except (OSError, subprocess.CalledProcessError) as error:
            print(
                f"lord-fast: the native kernels were not built ({error}); the slower reference "
                f"kernels will run. A C++17 compiler and make are needed to build them.",
                file=sys.stderr,
            )


setup(
    ext_modules=[Extension("lord_fast.kernels.native.library", sources=[], optional=True)],
    cmdclass={"build_ext": CMakeBuild},
)
