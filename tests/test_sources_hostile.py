"""Tests that damaged and hostile sources give one ValueError and use bounded memory."""

import gzip
import io
import lzma
import random
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lord_fast.data.decode import BadImageError, PillowDecoder, Shape
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source
from lord_fast.data.sources.mnist import IMAGES, read_idx
from lord_fast.run.config import load_config
from tests.test_pack_broken import encoded
from tests.test_sources import NORB, binary_matrix, idx, mesh_file

RNG = np.random.default_rng(0)
IMAGES_OF_TWO = {
    f"top/{c}/{i}.png": encoded("PNG", seed=i, size=(8, 8)) for c in "ab" for i in (1, 2)
}


def pixels_of(path: Path, form: str = "auto") -> list[bytes]:
    """Return all images of a source, all of which must be readable."""
    found = []
    for record in open_source(str(path), PackConfig(format=form)):
        image = record.image
        content = image.read_bytes() if isinstance(image, Path) else image()
        found.append(content if isinstance(content, bytes) else content.tobytes())
    return found


def outcome(path: Path, form: str) -> list[bytes] | ValueError:
    """Return the images or the ValueError, which is the only error that is allowed."""
    try:
        return pixels_of(path, form)
    except ValueError as error:
        return error


def tarred(mode: str, members: dict[str, bytes], **options) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, **options) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def arrays(save: Callable) -> bytes:
    file = io.BytesIO()
    imgs = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    save(file, imgs=imgs, classes=np.array([0, 0, 1, 1]), contents=np.array(["x", "y", "x", "y"]))
    return file.getvalue()


def shapes_file(path: Path) -> bytes:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["images"] = RNG.integers(0, 256, (4, 4, 4, 3), dtype=np.uint8)
        file.create_dataset("labels", data=np.zeros((4, 6)), chunks=(2, 6), compression="gzip")
    return path.read_bytes()


def good_files(folder: Path, kind: str) -> tuple[Path, str, dict[Path, bytes]]:
    """Write a small valid source. Return its path, its format and its files."""
    train = {"train-images-idx3-ubyte": idx(RNG.integers(0, 256, (4, 28, 28), dtype=np.uint8)),
             "train-labels-idx1-ubyte": idx(np.arange(4, dtype=np.uint8))}  # fmt: skip
    info = np.array([[4, 0, 0, 0], [9, 8, 34, 5]], dtype=np.int32)
    norb = {"dat": RNG.integers(0, 256, (2, 2, 8, 8), dtype=np.uint8),
            "cat": np.array([0, 1], dtype=np.int32), "info": info}  # fmt: skip
    single = {
        "zip": ("i.zip", "auto", lambda: zipped(IMAGES_OF_TWO)),
        "tar": ("i.tar", "auto", lambda: tarred("w", IMAGES_OF_TWO)),
        "tar.gz": ("i.tar.gz", "auto", lambda: tarred("w:gz", IMAGES_OF_TWO)),
        "tar.bz2": ("i.tar.bz2", "auto", lambda: tarred("w:bz2", IMAGES_OF_TWO)),
        "tar.xz": ("i.tar.xz", "auto", lambda: tarred("w:xz", IMAGES_OF_TWO)),
        "npz": ("i.npz", "npz", lambda: arrays(np.savez)),
        "npz compressed": ("i.npz", "npz", lambda: arrays(np.savez_compressed)),
        "h5": ("i.h5", "shapes3d", lambda: shapes_file(folder / "x.h5")),
    }
    if kind in single:
        name, form, make = single[kind]
        return folder / name, form, {folder / name: make()}
    mesh = mesh_file(RNG.integers(0, 256, (2, 2, 3, 24, 4), dtype=np.uint8))
    several = {
        "idx": ("mnist", train),
        "idx.gz": ("mnist", {f"{n}.gz": gzip.compress(d) for n, d in train.items()}),
        "norb": ("smallnorb",
                 {NORB.format("training", n): binary_matrix(v) for n, v in norb.items()}),
        "norb.gz": ("smallnorb", {NORB.format("training", n) + ".gz":
                                  gzip.compress(binary_matrix(v)) for n, v in norb.items()}),
        "mat": ("cars3d", {"car_001_mesh.mat": mesh}),
    }  # fmt: skip
    form, files = several[kind]
    return folder, form, {folder / name: data for name, data in files.items()}


CHECKED = ("zip", "tar.gz", "tar.bz2", "tar.xz", "npz", "npz compressed", "idx.gz", "norb.gz")
"""Those with checksums, where no damage may change an image."""
KINDS = (*CHECKED, "tar", "h5", "idx", "norb", "mat")


def damages(data: bytes, rng: random.Random, count: int):
    """Yield copies with a flipped bit, a cut, a run of zeros, or the start of a web page."""
    for i in range(count):
        at = rng.randrange(len(data))
        damaged = bytearray(data)
        if i % 4 == 0:
            damaged = damaged[:at]
        elif i % 4 == 3:
            damaged[at : at + 16] = bytes(len(damaged[at : at + 16]))
        else:
            damaged[at] ^= 1 << rng.randrange(8)
        yield bytes(damaged)
    yield b"<!DOCTYPE html><html><body>Not found</body></html>"
    yield b""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_one_error_or_changes_nothing(tmp_path, kind):
    path, form, files = good_files(tmp_path, kind)
    for file, data in files.items():
        file.write_bytes(data)
    whole = pixels_of(path, form)
    rng = random.Random(0)
    for file, data in files.items():
        for damaged in damages(data, rng, 40):
            file.unlink()  # a file that is mapped into memory must not be cut
            file.write_bytes(damaged)
            found = outcome(path, form)
            if isinstance(found, BadImageError):
                continue
            if isinstance(found, ValueError):
                assert file.stem.split(".")[0] in str(found)
                assert "\n" not in str(found)
            else:
                assert len(found) == len(whole)
                assert kind not in CHECKED or found == whole
        file.write_bytes(data)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_truncated_tar_is_refused_wherever_it_is_cut(tmp_path, suffix):
    file = tmp_path / f"i.{suffix}"
    mode = "w:gz" if suffix == "tar.gz" else "w"
    data = tarred(mode, IMAGES_OF_TWO, format=tarfile.PAX_FORMAT)
    end = len(data) if suffix == "tar.gz" else len(data.rstrip(b"\0")) // 512 * 512 + 512
    for cut in range(0, end, 97 if suffix == "tar" else 11):
        file.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=rf"i\.{suffix}: not a readable archive"):
            open_source(str(file), PackConfig())


def test_a_tar_of_two_tars_is_refused(tmp_path):
    (tmp_path / "i.tar").write_bytes(2 * tarred("w", IMAGES_OF_TWO))
    with pytest.raises(ValueError, match=r"i\.tar: .*data behind the end marker"):
        open_source(str(tmp_path / "i.tar"), PackConfig())


# Memory


def peak_of(function: Callable) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


ZEROS = bytes(64 << 20)


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_members_that_are_no_images_are_not_loaded(tmp_path, mode):
    path = tmp_path / ("i.tar.gz" if mode == "w:gz" else "i.tar.xz")
    path.write_bytes(tarred(mode, {"top/a/notes.bin": ZEROS, **IMAGES_OF_TWO}))
    assert peak_of(lambda: pixels_of(path)) < 16 << 20


def test_an_xz_with_a_large_dictionary_is_refused(tmp_path):
    data = bytearray(tarred("w:xz", IMAGES_OF_TWO))
    size = (data[12] + 1) * 4
    header = data[12 : 12 + size - 4]
    assert header[2:4] == b"\x21\x01"  # LZMA2, and one byte with the size of its dictionary
    header[4] = 32  # 256 MiB
    data[12 : 12 + size] = header + struct.pack("<I", zlib.crc32(header))
    path = tmp_path / "i.tar.xz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"i\.tar\.xz: .*more than 134,217,728 bytes of memory"):
        open_source(str(path), PackConfig())


def test_an_xz_of_several_streams_is_read(tmp_path):
    data = tarred("w", IMAGES_OF_TWO)
    whole, parts = tmp_path / "whole.tar.xz", tmp_path / "parts.tar.xz"
    whole.write_bytes(lzma.compress(data, preset=9))
    parts.write_bytes(lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:]) + bytes(4))
    assert pixels_of(parts) == pixels_of(whole)


def test_a_tar_header_of_megabytes_is_refused(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(ZEROS)
    path = tmp_path / "i.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf() + ZEROS))

    def opened():
        with pytest.raises(ValueError, match=r"i\.tar\.gz: .*a header of 67,108,864 bytes"):
            open_source(str(path), PackConfig())

    assert peak_of(opened) < 16 << 20


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_the_memory_of_images_in_process_is_bounded(tmp_path, monkeypatch, form):
    """There are 40 files of 4 MB, which four workers could all load at the same time."""
    monkeypatch.setattr("lord_fast.data.pack.CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr("lord_fast.data.pack.HELD_BYTES", 8 << 20)
    files = {f"a/{i}.png": bytes(4 << 20) for i in range(40)}
    path = tmp_path / f"i.{form}"
    path.write_bytes(zipped(files) if form == "zip" else tarred("w:gz", files))
    config = PackConfig(size=16, decoder="pillow", workers=4)

    def packed():
        with pytest.raises(ValueError, match="40 of 40 images cannot be used"):
            pack(open_source(str(path), config), tmp_path / "store", config)

    assert peak_of(packed) < 40 << 20


def test_a_member_larger_than_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("lord_fast.data.sources.archive.MAX_BYTES", 100)
    for name, data in (("i.zip", zipped(IMAGES_OF_TWO)), ("i.tar", tarred("w", IMAGES_OF_TWO))):
        (tmp_path / name).write_bytes(data)
        for record in open_source(str(tmp_path / name), PackConfig()):
            with pytest.raises(BadImageError, match="bytes: more than 100"):
                record.image()


def test_a_zip_member_that_is_longer_than_declared_is_refused(tmp_path):
    data = zipped({"a/1.png": ZEROS})
    for at in (22, data.index(b"PK\1\2") + 24):  # the local header's and the directory's length
        data = data[:at] + struct.pack("<I", 1000) + data[at + 4 :]
    (tmp_path / "i.zip").write_bytes(data)
    [record] = open_source(str(tmp_path / "i.zip"), PackConfig())

    def read():
        with pytest.raises(BadImageError):
            record.image()

    assert peak_of(read) < 4 << 20


def test_a_zip_with_more_members_than_declared_is_refused(tmp_path):
    file = tmp_path / "i.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(66_000):
            archive.writestr(zipfile.ZipInfo(f"a/{i}.png"), b"x")
    assert len(open_source(str(file), PackConfig())) == 66_000


def test_an_idx_file_is_read_up_to_its_declared_length(tmp_path):
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(struct.pack(">4I", IMAGES, 1, 28, 28) + ZEROS))

    def read():
        with pytest.raises(ValueError, match=r"ubyte\.gz: .*at least 785 bytes where"):
            read_idx(file, IMAGES)

    assert peak_of(read) < 4 << 20
    file.write_bytes(gzip.compress(struct.pack(">4I", IMAGES, 1 << 31, 1 << 31, 28)))
    with pytest.raises(ValueError, match="more than 1,073,741,824 bytes"):
        read_idx(file, IMAGES)


def test_a_compressed_npz_is_not_loaded_into_memory(tmp_path):
    imgs = np.zeros((1000, 256, 256), dtype=np.uint8)
    np.savez_compressed(tmp_path / "i.npz", imgs=imgs, classes=np.arange(1000) % 10)
    config = PackConfig(size=16)
    source = open_source(str(tmp_path / "i.npz"), config)
    assert peak_of(lambda: pack(source, tmp_path / "store", config)) < 24 << 20


def test_labels_of_an_npz_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("lord_fast.data.sources.npz.MAX_LABEL_BYTES", 1000)
    classes = np.zeros(1000, dtype=np.int64)
    np.savez_compressed(tmp_path / "i.npz", imgs=np.zeros((1000, 4, 4), np.uint8), classes=classes)
    with pytest.raises(ValueError, match=r"i\.npz: .*classes is int64 .*more than 1,000 bytes"):
        open_source(str(tmp_path / "i.npz"), PackConfig())


@pytest.mark.parametrize("name", ["imgs", "classes", "contents"])
def test_an_npz_array_without_dimensions_is_refused(tmp_path, name):
    whole = {
        "imgs": np.zeros((2, 4, 4), np.uint8),
        "classes": np.arange(2),
        "contents": np.arange(2),
    }
    np.savez(tmp_path / "i.npz", **{**whole, name: np.uint8(3)})
    with pytest.raises(ValueError, match=r"i\.npz: cannot be read \(an array of .* \[\]\)"):
        open_source(str(tmp_path / "i.npz"), PackConfig())


def test_a_configuration_with_aliases_is_refused(tmp_path):
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12))
    (tmp_path / "config.yaml").write_text(f"l0: &l0 [x]\n{levels}\n")
    with pytest.raises(
        ValueError, match=r"config\.yaml: not written by lord-fast \(it has YAML al"
    ):
        load_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("#" * (2 << 20))
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        load_config(tmp_path / "config.yaml")


# Content that must not pass as something else


def test_an_image_with_nan_is_a_bad_image(tmp_path):
    for value in (np.nan, np.inf):
        values = np.full((16, 16), 0.5, dtype=np.float32)
        values[3, 4] = value
        file = io.BytesIO()
        Image.fromarray(values).save(file, "TIFF")
        [image] = PillowDecoder(Shape(16, 1)).decode([file.getvalue()])
        assert isinstance(image, BadImageError)
        assert "NaN or infinite" in str(image)


@pytest.mark.parametrize("way", ["external link", "soft link", "external data", "virtual"])
def test_an_hdf5_file_that_reads_other_files_is_refused(tmp_path, way):
    h5py = pytest.importorskip("h5py")
    other = tmp_path / "secret.h5"
    with h5py.File(other, "w") as file:
        file["images"] = np.zeros((4, 4, 4, 3), dtype=np.uint8)
    (tmp_path / "secret.bin").write_bytes(bytes(192))
    with h5py.File(tmp_path / "i.h5", "w") as file:
        file["labels"] = np.zeros((4, 6))
        if way == "external link":
            file["images"] = h5py.ExternalLink("secret.h5", "/images")
        elif way == "soft link":
            file["images"] = h5py.SoftLink("/labels")
        elif way == "external data":
            file.create_dataset("images", (4, 4, 4, 3), dtype=np.uint8,
                                external=[(str(tmp_path / "secret.bin"), 0, 192)])  # fmt: skip
        else:
            layout = h5py.VirtualLayout((4, 4, 4, 3), dtype=np.uint8)
            layout[:] = h5py.VirtualSource(str(other), "images", (4, 4, 4, 3))
            file.create_virtual_dataset("images", layout)
    with pytest.raises(
        ValueError, match=r"i\.h5: .*images (is missing, or a link|lies in other fi)"
    ):
        open_source(str(tmp_path / "i.h5"), PackConfig(format="shapes3d"))


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
@pytest.mark.parametrize("nested", ["Greek/alpha/1.png", "Latin/alpha/deep/1.png"])
def test_nested_classes_are_refused_alike(tmp_path, form, nested):
    """Omniglot has files ALPHABET/CHARACTER/NAME.png, and many alphabets have a character01."""
    files = {"Latin/alpha/1.png": b"x", nested: b"x"}
    if form == "folder":
        path = tmp_path / "images"
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        path = tmp_path / f"i.{form}"
        path.write_bytes(zipped(files) if form == "zip" else tarred("w", files))
    flat = r"(Greek_alpha|Latin_alpha|Latin_alpha_deep)/1\.png"
    with pytest.raises(ValueError, match=rf"does not lie at CLASS/NAME; .*this image at {flat}"):
        open_source(str(path), PackConfig())


def test_folders_of_a_class_without_images_do_not_matter(tmp_path):
    (tmp_path / "i" / "a" / "notes").mkdir(parents=True)
    (tmp_path / "i" / "a" / "notes" / "x.txt").touch()
    (tmp_path / "i" / "a" / "1.png").write_bytes(IMAGES_OF_TWO["top/a/1.png"])
    assert len(pixels_of(tmp_path / "i")) == 1


@pytest.mark.parametrize("setting", [{"size": 10**9}, {"size": 4097}, {"workers": 100_000}])
def test_absurd_numbers_are_refused(setting):
    with pytest.raises(ValueError, match="less than"):
        PackConfig(**setting)
