"""lord-fast translate."""

from pathlib import Path

from rich.console import Console

from lord_fast.data.image_files import list_images, read_images
from lord_fast.grid import label, save_png, tile, to_pixels
from lord_fast.lord import Lord


def run(
    run_path: Path, content: list[Path], class_: list[Path], out: Path, singles: Path | None
) -> None:
    """Write a grid: rows keep the class of an image, columns the content of another."""
    lord = Lord.load(run_path, stage="encoders")
    columns, rows = list_images(content), list_images(class_)
    above, left = read_images(columns, lord.shape), read_images(rows, lord.shape)
    made = [lord.translate(above, image[None]).cpu() for image in left]
    cells = [[image, *images] for image, images in zip(left, made, strict=True)]
    names = ([file.stem for file in columns], [file.stem for file in rows])
    save_png(out, label(tile([[None, *above], *cells]), lord.data["size"], *names))
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"{out}: {len(rows)} classes x {len(columns)} contents")
    if singles is not None:
        for i, (row, images) in enumerate(zip(rows, made, strict=True)):
            for j, (column, image) in enumerate(zip(columns, images, strict=True)):
                name = f"{i:03d}-{row.stem}--{j:03d}-{column.stem}.png"
                save_png(singles / name, to_pixels(image))
        console.print(f"{singles}: {len(rows) * len(columns)} images, CLASS--CONTENT.png")
