"""Build the native kernels with CMake. Everything else is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

SUFFIXES = {"darwin": ".dylib", "win32": ".dll"}
LIBRARY = "liblord_fast_kernels" + SUFFIXES.get(sys.platform, ".so")
LINK = Path("lord_fast", "kernels")


class CMakeBuild(build_ext):
    """Run CMake. Without a compiler the package is built without the native kernels."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the library without a Python version: it is loaded with ctypes."""
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
                f"lord-fast: the native kernels were not built ({error}). lord-fast will use the "
                f"slower reference kernels. To build the native kernels, install CMake, make, and "
                f"GCC or Clang.",
                file=sys.stderr,
            )


class PlatformWheel(bdist_wheel):
    """Tag the wheel py3-none-PLATFORM: the library does not depend on a version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags for Python, its ABI and the platform."""
        return "py3", "none", super().get_tag()[2]


class LinkedSource(sdist):
    """Keep lord_fast/kernels a link in the source distribution, as it is in the checkout.

    setuptools follows the link and would pack a second copy of the kernels.
    """

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Lay out the files of the source distribution."""
        inside = str(LINK) + os.sep
        files = [name for name in files if not os.path.normpath(name).startswith(inside)]
        super().make_release_tree(base_dir, files)
        (Path(base_dir) / LINK).symlink_to(Path("..", "kernels"), target_is_directory=True)


def check_link() -> None:
    """Stop with one line if git wrote lord_fast/kernels as a text file."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    try:
        import lord_fast  # noqa: F401 (importing it is the check)
    except ImportError as error:
        sys.exit(f"error: {error}")


check_link()
setup(
    ext_modules=[Extension("lord_fast.kernels.native.library", sources=[], optional=True)],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": PlatformWheel, "sdist": LinkedSource},
)
