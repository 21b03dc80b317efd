"""Fuzz our own parsers, guided by coverage. Needs atheris: pip install atheris.

Usage: python -m tests.soak.fuzz [PARSER ...] [-- libFuzzer's options, such as -runs=100000]

The first byte of an input chooses the parser. Seeds are small valid files. A crash is written to
crash-* and named. TMPDIR=/dev/shm keeps the files in memory, which is ten times as fast.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lord_fast"]):
    from tests.soak.parsers import PARSERS, run
from tests.soak.seeds import seeds


def main() -> None:
    """Run from the command line."""
    names, options = sys.argv[1:], []
    if "--" in names:
        cut = names.index("--")
        names, options = names[:cut], names[cut + 1 :]
    names = names or list(PARSERS)

    def one(data: bytes) -> None:
        if data:
            run(names[data[0] % len(names)], data[1:])

    with tempfile.TemporaryDirectory() as corpus:
        for i, (name, data) in enumerate(seeds()):
            if name in names:
                start = bytes([names.index(name)])
                (Path(corpus) / f"seed-{i}").write_bytes(start + data)
        atheris.Setup([sys.argv[0], corpus, "-max_len=8192", "-timeout=30", *options], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
