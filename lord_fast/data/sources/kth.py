"""The KTH actions show 25 people, 6 actions and 4 scenarios (Schuldt et al., ICPR 2004).

The class is the person. There are no content labels, because frames of two people do not correspond
to each other. Class and images are not known to be those of the published experiments.
"""

import functools
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lord_fast.bounds import Checked, MoreThan
from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.folder import followed
from lord_fast.data.sources.labels import Labels, image_extensions, printable

VIDEO = re.compile(r"person(?P<person>\d{2})_(?P<action>[a-z]+)_d(?P<scenario>\d)")


@dataclass(frozen=True)
class KthOptions(Checked):
    """KTH actions, from videos or their frames."""

    every: Annotated[int, MoreThan(0)] = 1
    """Use only every n-th frame of each video."""


class Kth(Source):
    """The original videos such as `person01_boxing_d1_uncomp.avi`, or folders with their frames.

    Folders of frames have the names of the videos.

    Args:
        path: A folder that holds the videos or the folders of frames, at any depth.
        class_factors: Labels that define the class. Defaults to the person.
        every: Use only every n-th frame.

    Raises:
        ValueError: There are neither videos nor frames, a video cannot be read, or PyAV is missing.
    """

    def __init__(self, path: Path, class_factors: Sequence[str] = (), every: int = 1):
        self.path, self.every, self.root = path, every, path.resolve()
        self.labels = Labels.chosen(class_factors, ("person",), ("action", "scenario"), ())
        self.videos = [f for f in sorted(path.rglob("*.avi")) if VIDEO.match(f.name)]
        extensions = image_extensions()
        frames = [
            file
            for file in sorted(path.rglob("person*/*"))
            if file.suffix.lower() in extensions and VIDEO.match(file.parent.name)
        ]
        folders = itertools.groupby(frames, lambda file: file.parent)
        self.frames = [file for _, files in folders for file in list(files)[::every]]
        if self.videos and self.frames:
            raise ValueError(f"{path}: videos and frames; give the folder of one or the other")
        if not self.videos and not self.frames:
            raise ValueError(
                f"{path}: no person01_boxing_d1_uncomp.avi, and no folder with such a name"
            )
        if self.videos:
            self.channels, self.has_files = 1, False
            _av()
        self.count = len(self.frames) + sum(-(-_count(f) // every) for f in self.videos)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Record]:
        for file in self.frames:
            name = printable(file.relative_to(self.path))
            yield Record(name, *self._label(file.parent), followed(file, self.root))
        for video in self.videos:
            name = printable(video.relative_to(self.path))
            for number, pixels in enumerate(_pictures(video)):
                if number % self.every == 0:
                    image = functools.partial(pixels.__getitem__, ...)
                    yield Record(f"{name}/{number}", *self._label(video), image)

    def describe(self) -> dict:
        """Return format, folder, class and frame step."""
        return {
            "format": "kth",
            "path": os.path.abspath(self.path),
            "class_factors": list(self.labels.classes),
            "every": self.every,
        }

    def _label(self, video: Path) -> tuple[str, dict[str, str]]:
        match = VIDEO.match(video.name)
        assert match is not None
        return self.labels.split(match.groupdict())


@register(
    "kth", "KTH actions (videos, or folders of frames)", KthOptions, names_are_paths=True,
    signs=("person??_*_d?_uncomp.avi",),
)  # fmt: skip
def open_kth(path: Path, config: PackConfig, options: KthOptions) -> Source:
    """Open the source at a path."""
    return Kth(path, config.class_factors, options.every)


def _av():
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "--format kth: PyAV, which reads videos, is missing; pip install "
            "'lord-fast[datasets]', or extract the frames to folders named like the videos"
        ) from error
    return av


def _count(video: Path) -> int:
    """Count the frames of a video by decoding it, because the number in its header may be wrong."""
    return sum(1 for _ in _pictures(video))


def _pictures(video: Path) -> Iterator:
    """Yield every frame of a video, uint8 [H, W]."""
    av = _av()
    try:
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="gray")
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{video}: cannot be decoded ({error})") from error
