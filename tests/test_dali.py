"""Tests that DALI and Pillow decode images alike, within 2 levels, or 3 for grey from colour.

The outermost ring of pixels of a reduced image may differ more at strong edges (see
`lord_fast.data.decode.dali`), so the tests bound its mean.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lord_fast.data.decode import BadImageError, PillowDecoder, Shape, open_decoder
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source


def smooth(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """Return colours that change slowly, as in a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 12 + 2, width // 12 + 2, channels), dtype=np.uint8)
    bands = [Image.fromarray(coarse[:, :, c]) for c in range(channels)]
    resized = [np.asarray(b.resize((width, height), Image.Resampling.BICUBIC)) for b in bands]
    return np.stack(resized, axis=-1)


def saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def deep_png(pixels: np.ndarray) -> bytes:
    """Return a 16-bit RGB PNG with `pixels` as the upper bytes, which Pillow cannot write."""
    height, width, _ = pixels.shape
    rows = (pixels.astype(">u2") * 256 + 200).astype(">u2").reshape(height, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(name + data))
        file += struct.pack(">I", len(data)) + name + data + crc
    return file


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def files(height: int = 97, width: int = 140) -> dict[str, tuple[bytes, Image.Image]]:
    """Return encoded files by name, each with the image that a user expects to see."""
    rgb = Image.fromarray(smooth(height, width, 3))
    grey = rgb.convert("L")
    alpha = Image.fromarray(smooth(height, width, 1, seed=1)[:, :, 0])
    clear = rgb.copy()
    clear.putalpha(alpha)
    grey_clear = grey.copy()
    grey_clear.putalpha(alpha)
    palette = rgb.quantize(64)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256 + 200)
    on_white = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    grey_on_white = Image.composite(grey, Image.new("L", rgb.size, "white"), alpha)
    see_through = np.asarray(palette)[:, :, None] == 3
    holes = Image.fromarray(
        np.where(see_through, 255, np.asarray(palette.convert("RGB"))).astype(np.uint8)
    )
    jpeg = {"quality": 95, "subsampling": 0}
    return {
        "jpeg": (saved(rgb, "JPEG", **jpeg), rgb),
        "jpeg-420": (saved(rgb, "JPEG", quality=95), rgb),
        "jpeg-progressive": (saved(rgb, "JPEG", progressive=True, **jpeg), rgb),
        "jpeg-grey": (saved(grey, "JPEG", **jpeg), grey),
        "jpeg-cmyk": (saved(rgb.convert("CMYK"), "JPEG", quality=95), rgb),
        "jpeg-exif-6": (saved(rgb, "JPEG", exif=turned(6), **jpeg), rgb.rotate(-90, expand=True)),
        "jpeg-exif-3": (saved(rgb, "JPEG", exif=turned(3), **jpeg), rgb.rotate(180)),
        "png": (saved(rgb, "PNG"), rgb),
        "png-grey": (saved(grey, "PNG"), grey),
        "png-1-bit": (saved(grey.convert("1"), "PNG"), grey.convert("1")),
        "png-palette": (saved(palette, "PNG"), palette.convert("RGB")),
        "png-palette-hole": (saved(palette, "PNG", transparency=3), holes),
        "png-alpha": (saved(clear, "PNG"), on_white),
        "png-grey-alpha": (saved(grey_clear, "PNG"), grey_on_white),
        "png-16-bit": (saved(deep, "PNG"), grey),
        "png-16-bit-rgb": (deep_png(np.asarray(rgb)), rgb),
        "png-exif-6": (saved(rgb, "PNG", exif=turned(6)), rgb.rotate(-90, expand=True)),
        "gif": (saved(palette, "GIF"), palette.convert("RGB")),
        "pgm": (saved(grey, "PPM"), grey),
        "bmp": (saved(rgb, "BMP"), rgb),
        "webp": (saved(rgb, "WEBP", lossless=True), rgb),
    }


FILES = files()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_pillow_shows_what_a_user_expects(name, channels):
    """Lossless files equal the image before encoding, and lossy files are close to it."""
    file, seen = FILES[name]
    shape = Shape(48, channels)
    (pixels,) = PillowDecoder(shape).decode([file])
    mode = "L" if channels == 1 else "RGB"
    box = shape.box(*seen.size)
    expected = seen.convert(mode).resize((48, 48), Image.Resampling.BILINEAR, box)
    difference = np.abs(pixels.astype(int) - np.asarray(expected).reshape(48, 48, channels))
    assert difference.mean() < (4 if name.startswith("jpeg") else 0.6)
    assert difference.max() <= (30 if name.startswith("jpeg") else 2)


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def dali(request):
    """A function that opens a DALI decoder for a shape."""
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    torch = pytest.importorskip("torch")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    made = {}

    def make(shape: Shape):
        if shape not in made:
            made[shape] = open_decoder("dali", shape, 1, request.param)
        return made[shape]

    return make


def agree(ours: np.ndarray, theirs: np.ndarray, limit: int) -> None:
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    assert difference[1:-1, 1:-1].max() <= limit
    assert difference.mean() < 1.5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_dali_agrees_with_pillow(dali, name, channels):
    shape = Shape(48, channels)
    file, _ = FILES[name]
    agree(dali(shape).decode([file])[0], PillowDecoder(shape).decode([file])[0], 4 - channels // 2)


@pytest.mark.parametrize("crop", [None, (60, 50), (60, 50, 7, 11)])
@pytest.mark.parametrize("size", [32, 128])
def test_dali_crops_and_scales_like_pillow(dali, size, crop):
    """Images are enlarged and reduced, wide and high, with and without a crop."""
    shape = Shape(size, 3, crop)
    images = [files(*sides)[name][0] for sides in ((80, 150), (151, 83))
              for name in ("jpeg", "png", "jpeg-exif-6")]  # fmt: skip
    pillow = PillowDecoder(shape).decode(images)
    for ours, theirs in zip(dali(shape).decode(images), pillow, strict=True):
        agree(ours, theirs, 2)


def test_an_image_does_not_depend_on_its_batch(dali):
    """A broken image gives a reason and does not change the other images."""
    shape = Shape(48, 3)
    decoder = dali(shape)
    alone = {name: decoder.decode([file])[0] for name, (file, _) in FILES.items()}
    jpeg = FILES["jpeg"][0]
    broken = {"empty": b"", "text": b"hello" * 9, "cut": jpeg[:-300],
              "closed": jpeg[: len(jpeg) // 2] + b"\xff\xd9"}  # fmt: skip
    batch = [*broken.values(), *(file for file, _ in FILES.values())] * 4  # more than one of DALI's
    decoded = decoder.decode(batch)
    expected = PillowDecoder(shape).decode(list(broken.values()))
    each = len(batch) // 4
    for i in range(4):
        part = decoded[i * each : (i + 1) * each]
        for ours, pillow in zip(part, expected, strict=False):
            assert type(ours) is type(pillow)
            assert not isinstance(ours, BadImageError) or str(ours) == str(pillow)
        for ours, one in zip(part[len(broken) :], alone.values(), strict=True):
            assert np.array_equal(ours, one)


def test_a_batch_is_a_tensor_on_the_device(dali):
    decoder = dali(Shape(48, 3))
    names = [file for file, _ in FILES.values()]
    batch = decoder.batch(names)
    assert batch.device.type == decoder.device
    assert str(batch.dtype) == "torch.uint8"
    assert np.array_equal(batch.cpu().numpy(), np.stack(decoder.decode(names)))
    with pytest.raises(BadImageError, match="empty file"):
        decoder.batch([names[0], b""])


def test_packing_with_dali(dali, tmp_path):
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    for name, (file, _) in FILES.items():
        (folder / f"{name}.png").write_bytes(file)
    stores = []
    for decoder in ("dali", "pillow"):
        config = PackConfig(size=48, decoder=decoder)
        manifest = pack(open_source(str(folder.parent), config), tmp_path / decoder, config)
        assert manifest["decoder"]["name"] == decoder
        pixels = np.fromfile(tmp_path / decoder / "images.u8", dtype=np.uint8)
        stores.append(pixels.reshape(-1, 48, 48, 3))
    for ours, theirs in zip(*stores, strict=True):
        agree(ours, theirs, 2)


def test_without_dali_auto_uses_pillow(monkeypatch):
    """An explicit request for DALI is an error that quotes the reason."""
    monkeypatch.setitem(__import__("sys").modules, "nvidia.dali", None)
    with pytest.raises(ValueError, match=r"--decoder dali: .*nvidia\.dali.*lord-fast\[dali\]"):
        open_decoder("dali", Shape(32, 3), 1)
    assert open_decoder("auto", Shape(32, 3), 1).describe()["name"] == "pillow"
