"""Content labels of a factor that has too many for the manifest. They stay in a mapped file."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lord_fast.data.mapped import map_integers

MOST_IN_MANIFEST = 1 << 16
"""Number of labels of a factor that the manifest holds. More are written to files."""

Labels = Sequence[str]


class Strings(Sequence[str]):
    """Strings in two files, STEM.utf8 with the text and STEM.npy with int64 offsets [count + 1].

    Args:
        stem: Path of both files without their endings.
        count: Number of strings.

    Raises:
        ValueError: A file is missing or damaged.
    """

    def __init__(self, stem: Path, count: int):
        text = stem.with_suffix(".utf8")
        size = text.stat().st_size if text.is_file() else -1
        self._ends = map_integers(stem.with_suffix(".npy"), (count + 1,), size + 1)
        if self._ends[-1] != size:
            raise ValueError(f"{text}: is not {self._ends[-1]:,} bytes long; pack again")
        self._text = np.memmap(text, dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index):
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._text[self._ends[index] : self._ends[index + 1]].tobytes().decode()


def write_strings(stem: Path, strings: Iterable[str]) -> None:
    """Write the two files of `Strings`."""
    lengths = [0]
    with stem.with_suffix(".utf8").open("wb") as file:
        lengths += [file.write(text.encode()) for text in strings]
    np.save(stem.with_suffix(".npy"), np.cumsum(np.array(lengths, dtype=np.int64)))


def write_factors(
    folder: Path, factors: Mapping[str, Iterable[str]]
) -> dict[str, list[str] | dict]:
    """Write the labels of large factors to files. Return the manifest's `factors`."""
    found: dict[str, list[str] | dict] = {}
    for number, (factor, labels) in enumerate(factors.items()):
        labels = list(labels)
        if len(labels) > MOST_IN_MANIFEST:
            write_strings(folder / f"labels-{number}", labels)
            found[factor] = {"count": len(labels)}
        else:
            found[factor] = labels
    return found


def read_factors(folder: Path, manifest: dict) -> dict[str, Labels]:
    """Return the labels of each factor of a store.

    Raises:
        ValueError: A file of labels is missing or damaged.
    """
    return {
        factor: labels if isinstance(labels, list) else
        Strings(folder / f"labels-{number}", labels["count"])
        for number, (factor, labels) in enumerate(manifest["factors"].items())
    }  # fmt: skip


def label_files(manifest: dict) -> tuple[str, ...]:
    """Return the names of the files with labels of large factors."""
    return tuple(
        f"labels-{number}{ending}"
        for number, labels in enumerate(manifest["factors"].values())
        if not isinstance(labels, list)
        for ending in (".utf8", ".npy")
    )


def num_labels(labels: list[str] | dict) -> int:
    """Return the number of labels of a factor in the manifest."""
    return len(labels) if isinstance(labels, list) else labels["count"]
