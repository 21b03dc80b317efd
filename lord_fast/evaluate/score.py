"""Measures the codes of any model from a file of codes and a file of labels."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lord_fast.data.sources.archive import readable
from lord_fast.evaluate.draw import draw_rows
from lord_fast.evaluate.field import measure_field
from lord_fast.evaluate.read_codes import Labels, probe_codes
from lord_fast.evaluate.regression import check_circular, numeric
from lord_fast.evaluate.splits import shared

CLASS = "class"
NAME = "name"


def score(
    codes_file: Path,
    labels_file: Path,
    seed: int = 0,
    circular: Mapping[str, float] | None = None,
) -> dict:
    """Measure codes by all metrics of `evaluate` that need no images.

    At most `MAX_IMAGES` codes are probed, which are drawn as `evaluate` draws images.

    Args:
        codes_file: An npz file with content codes `content` [N, content_dim]. Class codes `class_`
            [N, class_dim] are optional. With `names` [N], as in files of `lord-fast encode`, labels
            are matched by name.
        labels_file: A CSV file whose header has a column `class` and a column for each content
            factor. A column `name` is optional. Without it the rows must be in the order of the
            codes. Numeric columns whose values classes do not share, such as landmarks, are only
            predicted by regression.
        seed: Seed of the splits, the probes and the controls.
        circular: Period of each circular content factor.

    Returns:
        The keys images, classes, seed and probed, and `leakage`, `informativeness`, `dimensions`,
        `blocks` and `regression` as in metrics.json.

    Raises:
        ValueError: A file is damaged or incomplete, the two files do not match, or a factor of
            `circular` does not exist or is not numeric.
    """
    circular = circular or {}
    codes = _read_codes(codes_file)
    columns = _read_labels(labels_file)
    rows = _match(codes.get("names"), columns.pop(NAME, None), codes_file, labels_file)
    content = codes["content"]
    count = len(next(iter(columns.values())))
    if rows is None and count != len(content):
        raise ValueError(
            f"{labels_file}: has {count} rows, but {codes_file} has {len(content)} codes; give one "
            f"row for each code, or a column {NAME}"
        )
    order = np.arange(count) if rows is None else rows
    columns = {name: column[order] for name, column in columns.items()}
    classes = np.unique(columns.pop(CLASS), return_inverse=True)[1]
    factors, numbers = _factors(columns, classes)
    check_circular(numbers, circular)
    sizes = np.bincount(classes)
    if (sizes > 1).sum() < 2:
        raise ValueError(f"{labels_file}: fewer than two classes have two images or more")
    contents = _combinations(factors, len(classes))
    kept = draw_rows(classes, len(sizes), lambda: contents, seed, among=np.flatnonzero(sizes > 1))
    labels = Labels(
        classes[kept],
        contents[kept],
        {name: values[kept] for name, values in factors.items()},
        {name: values[kept] for name, values in numbers.items()},
    )
    content, class_ = content[kept], codes.get("class_")
    class_ = None if class_ is None else class_[kept]
    return {
        "images": len(codes["content"]),
        "classes": len(sizes),
        "seed": seed,
        "probed": {
            "images": len(kept),
            "classes": len(np.unique(classes[kept])),
            "classes_of_one_image": int((sizes == 1).sum()),
        },
        **probe_codes(content, class_, labels, seed),
        **measure_field(content, class_, labels, seed, circular),
    }


def _factors(
    columns: Mapping[str, np.ndarray], classes: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the columns as labels int64 [N], and those that are numeric as float64 [N].

    Numeric columns whose values classes do not share are no labels. They would make every content
    unique.
    """
    factors, numbers = {}, {}
    for name, column in columns.items():
        labels = np.unique(column, return_inverse=True)[1]
        found = numeric(column)
        if found is not None:
            numbers[name] = found
        if found is None or shared(classes, labels):
            factors[name] = labels
    return factors, numbers


def _read_codes(file: Path) -> dict[str, np.ndarray]:
    with readable(file, "not an npz file of arrays"):
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with arrays:
            found = {
                name: arrays[name] for name in ("names", "content", "class_") if name in arrays
            }
    content, class_, names = (found.get(name) for name in ("content", "class_", "names"))
    if content is None:
        raise ValueError(f"{file}: needs an array content of shape [N, content_dim]")
    _check_codes(file, "content", content)
    if class_ is not None:
        _check_codes(file, "class_", class_)
        if len(class_) != len(content):
            raise ValueError(f"{file}: {len(content)} content codes and {len(class_)} class codes")
    if names is not None and names.shape != content.shape[:1]:
        raise ValueError(
            f"{file}: names has shape {list(names.shape)}, but there are {len(content)} codes"
        )
    return found


def _check_codes(file: Path, name: str, codes: np.ndarray) -> None:
    if codes.ndim != 2 or codes.dtype.kind not in "fiu" or not codes.size:
        raise ValueError(
            f"{file}: needs an array {name} of numbers of shape [N, {name.strip('_')}_dim], but "
            f"has {codes.dtype} {list(codes.shape)}"
        )
    if not np.isfinite(codes).all():
        raise ValueError(f"{file}: {name} holds values that are not finite")
    if (codes == codes[0]).all():
        raise ValueError(f"{file}: all codes in {name} are equal, so they hold no information")


def _read_labels(file: Path) -> dict[str, np.ndarray]:
    try:
        with file.open(newline="") as stream:
            header, *rows = csv.reader(stream)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{file}: not a CSV file with a header ({error})") from error
    if CLASS not in header or not rows:
        raise ValueError(f"{file}: needs a header with a column {CLASS}, and rows")
    if (twice := _repeated(header)) is not None:
        raise ValueError(f"{file}: has two columns {twice}")
    wrong = [i for i, row in enumerate(rows, 2) if len(row) != len(header)]
    if wrong:
        raise ValueError(f"{file}: line {wrong[0]} has another number of cells than the header")
    return {
        name: np.array(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)
    }


def _match(
    names: np.ndarray | None, labelled: np.ndarray | None, codes_file: Path, labels_file: Path
) -> np.ndarray | None:
    """Return the row of labels of each code, or None if the labels have no names."""
    if labelled is None:
        return None
    if names is None:
        raise ValueError(f"{codes_file}: holds no names, but {labels_file} has a column {NAME}")
    if (twice := _repeated(labelled.tolist())) is not None:
        raise ValueError(f"{labels_file}: has two rows for {twice}")
    places = {name: row for row, name in enumerate(labelled.tolist())}
    unknown = [name for name in names.tolist() if name not in places]
    if unknown:
        raise ValueError(f"{labels_file}: no row for {unknown[0]} of {codes_file}")
    return np.array([places[name] for name in names.tolist()])


def _repeated(names: Sequence[str]) -> str | None:
    """Return a name that occurs more than once, or None."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _combinations(factors: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Number the combinations of content labels. Without labels all numbers are equal."""
    if not factors:
        return np.zeros(count, dtype=np.int64)
    columns = np.stack(list(factors.values()), axis=1)
    return np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1)
