"""Tests all published data sets with small files in their original formats."""

import gzip
import io
import itertools
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lord_fast.bounds import Checked
from lord_fast.data.formats import formats
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source
from lord_fast.data.sources.mnist import IMAGES, read_idx

RNG = np.random.default_rng(0)


def open_form(path: Path, form: str, **settings):
    """Open a source. Settings belong to PackConfig or to the format's own options."""
    kind = formats()[form].options or Checked
    own = {name: settings.pop(name) for name in list(settings) if hasattr(kind, name)}
    return open_source(str(path), PackConfig(format=form, **settings), kind(**own))


def records(path: Path, form: str, **settings) -> list:
    source = open_form(path, form, **settings)
    found = list(source)
    assert len(source) == len(found)
    assert len({record.name for record in found}) == len(found)
    return found


def refuses(message: str, path: Path, form: str, **settings) -> None:
    with pytest.raises(ValueError, match=message):
        list(open_form(path, form, **settings))


# SmallNORB files hold a magic number, the number of dimensions, the dimensions and the values.
NORB = "smallnorb-5x46789x9x18x6x2x96x96-{}-{}.mat"


def binary_matrix(values: np.ndarray) -> bytes:
    magic, kind = {1: (0x1E3D4C55, "<u1"), 4: (0x1E3D4C54, "<i4")}[values.dtype.itemsize]
    dimensions = [*values.shape, *[1] * (3 - values.ndim)]
    header = struct.pack(f"<{2 + len(dimensions)}i", magic, values.ndim, *dimensions)
    return header + values.astype(kind).tobytes()


def norb_split(folder: Path, split: str, info: np.ndarray, zipped=False) -> np.ndarray:
    """Write the files of one split with images of 16 x 16 instead of 96 x 96 pixels."""
    count = len(info)
    images = RNG.integers(0, 256, (count, 2, 16, 16), dtype=np.uint8)
    categories = (np.arange(count) % 5).astype(np.int32)
    for kind, values in (("dat", images), ("cat", categories), ("info", info.astype(np.int32))):
        data = binary_matrix(values)
        file = folder / NORB.format(split, kind)
        file.write_bytes(data)
        if zipped:
            Path(f"{file}.gz").write_bytes(gzip.compress(data))
            file.unlink()
    return images


INFO = np.array([[4, 0, 0, 0], [9, 8, 34, 5], [6, 3, 12, 2], [7, 3, 12, 2], [8, 1, 2, 3]])


@pytest.mark.parametrize("zipped", [False, True], ids=["mat", "gz"])
def test_smallnorb_matrices(tmp_path, zipped):
    training = norb_split(tmp_path, "training", INFO, zipped)
    testing = norb_split(tmp_path, "testing", INFO - np.array([[4, 0, 0, 0]]), zipped)
    found = records(tmp_path, "smallnorb")
    assert len(found) == 20
    assert (found[0].class_name, found[0].content) == ("animal_4_0_0_lt", {"azimuth": "0"})
    assert (found[3].class_name, found[3].content) == ("human_9_8_5_rt", {"azimuth": "34"})
    assert found[10].class_name == "animal_0_0_0_lt"
    for i, camera in itertools.product(range(5), range(2)):
        assert np.array_equal(found[2 * i + camera].image(), training[i, camera])
        assert np.array_equal(found[10 + 2 * i + camera].image(), testing[i, camera])
    simple = records(tmp_path, "smallnorb", class_factors=("category", "instance"))
    assert simple[3].class_name == "human_9"
    assert simple[3].content == {
        "azimuth": "34", "elevation": "8", "lighting": "5", "camera": "rt"
    }  # fmt: skip
    refuses("--class-factors colour: no such label; there are category", tmp_path, "smallnorb",
            class_factors=("colour",))  # fmt: skip


@pytest.mark.parametrize(("column", "value"), [(0, 10), (1, 9), (2, 35), (2, 33), (3, 6), (0, -1)])
def test_smallnorb_labels_out_of_bounds_are_refused(tmp_path, column, value):
    info = INFO.copy()
    info[2, column] = value
    norb_split(tmp_path, "training", info)
    refuses("training-info.mat: labels out of their limits", tmp_path, "smallnorb")


def test_damaged_smallnorb_files_are_refused(tmp_path):
    norb_split(tmp_path, "training", INFO)
    dat = tmp_path / NORB.format("training", "dat")
    whole = dat.read_bytes()
    dat.write_bytes(whole[:-1])
    refuses("dat.mat: not 2,584 bytes of .* truncated", tmp_path, "smallnorb")
    swapped = np.frombuffer(whole[:24], dtype="<i4").astype(">i4").tobytes()
    dat.write_bytes(swapped + whole[24:])
    refuses("dat.mat: not a binary matrix", tmp_path, "smallnorb")
    for length in (6, 20):
        dat.write_bytes(whole[:length])
        refuses("dat.mat: not a binary matrix", tmp_path, "smallnorb")
    dat.write_bytes(whole)
    (tmp_path / NORB.format("training", "cat")).unlink()
    refuses("no smallnorb-...-training-cat.mat", tmp_path, "smallnorb")


def test_smallnorb_jpg(tmp_path):
    folder = tmp_path / "train" / "truck" / "7"
    folder.mkdir(parents=True)
    for camera in ("lt", "rt"):
        Image.new("L", (96, 96)).save(folder / f"azimuth12_elevation3_lighting5_{camera}.jpg")
    found = records(tmp_path, "smallnorb")
    assert [r.class_name for r in found] == ["truck_7_3_5_lt", "truck_7_3_5_rt"]
    assert found[0].content == {"azimuth": "12"}
    (tmp_path / "empty").mkdir()
    refuses("neither smallnorb-", tmp_path / "empty", "smallnorb")


# Cars3D


def mesh_file(im: np.ndarray) -> bytes:
    savemat = pytest.importorskip("scipy.io").savemat
    file = io.BytesIO()
    savemat(file, {"im": im}, do_compression=True)
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar.gz"])
def test_cars3d_meshes(tmp_path, packed):
    meshes = RNG.integers(0, 256, (2, 8, 8, 3, 24, 4), dtype=np.uint8)
    files = {f"data/cars/car_{i:03}_mesh.mat": mesh_file(im) for i, im in enumerate(meshes)}
    path = tmp_path / "nips2015-analogy-data.tar.gz" if packed else tmp_path
    if packed:
        with tarfile.open(path, "w:gz") as archive:
            for name, data in {**files, "data/sprites/other.mat": b"x"}.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        (tmp_path / "data" / "cars").mkdir(parents=True)
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
    found = records(path, "cars3d")
    assert len(found) == 2 * 96
    for record in (found[0], found[50], found[96], found[-1]):
        azimuth, elevation = int(record.content["azimuth"]), int(record.content["elevation"])
        car = int(record.class_name.removeprefix("car_"))
        assert np.array_equal(record.image(), meshes[car, :, :, :, azimuth, elevation])
    assert {r.content["azimuth"] for r in found} == set(map(str, range(24)))


def test_damaged_cars3d_files_are_refused(tmp_path):
    (tmp_path / "car_001_mesh.mat").write_bytes(b"MATLAB 5.0 MAT-file, not really")
    refuses("car_001_mesh.mat: not a MATLAB file", tmp_path, "cars3d")
    im = np.zeros((8, 8, 3, 4, 24), dtype=np.uint8)
    (tmp_path / "car_001_mesh.mat").write_bytes(mesh_file(im))
    refuses(r"im is uint8 \[8, 8, 3, 4, 24\]", tmp_path, "cars3d")


@pytest.mark.parametrize("name", ["imgs", "images"])
def test_cars3d_npz(tmp_path, name):
    images = RNG.integers(0, 256, (4, 24, 3, 8, 8, 3), dtype=np.uint8)
    flat = images.reshape(-1, 8, 8, 3) if name == "imgs" else images
    np.savez(tmp_path / "cars3d.npz", **{name: flat})
    found = records(tmp_path / "cars3d.npz", "cars3d")
    for record in (found[0], found[100], found[-1]):
        index = [int(record.content[f]) for f in ("elevation", "azimuth")]
        assert np.array_equal(record.image(), images[(*index, int(record.class_name))])
    np.savez(tmp_path / "bad.npz", imgs=images.reshape(-1, 8, 8, 3)[:-1])
    refuses("bad.npz: imgs is uint8", tmp_path / "bad.npz", "cars3d")
    np.savez(tmp_path / "none.npz", x=images)
    refuses("no array imgs or images", tmp_path / "none.npz", "cars3d")


# 3D Shapes


def test_shapes3d(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    images = RNG.integers(0, 256, (600, 4, 4, 3), dtype=np.uint8)
    grids = (
        np.arange(10) / 10, np.arange(10) / 10, np.arange(10) / 10,
        np.linspace(0.75, 1.25, 8), np.arange(4.0), np.linspace(-30, 30, 15),
    )  # fmt: skip
    labels = np.array(list(itertools.islice(itertools.product(*grids), 600)))
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file.create_dataset("images", data=images)
        file.create_dataset("labels", data=labels)
    found = records(tmp_path / "3dshapes.h5", "shapes3d")
    assert [r.class_name for r in (found[0], found[15], found[59])] == [
        "cube",
        "cylinder",
        "capsule",
    ]
    assert found[16].content == {
        "floor_hue": "0", "wall_hue": "0", "object_hue": "0", "scale": "0.75",
        "orientation": "-25.7143",
    }  # fmt: skip
    for i in (0, 255, 256, 599, 3):
        assert np.array_equal(found[i].image(), images[i])
    other = records(tmp_path / "3dshapes.h5", "shapes3d", class_factors=("scale", "object_hue"))
    assert other[60].class_name == "0.821429_0"
    assert set(other[0].content) == {"floor_hue", "wall_hue", "shape", "orientation"}
    (tmp_path / "bad.h5").write_bytes(b"x" * 100)
    refuses("bad.h5: not an HDF5 file", tmp_path / "bad.h5", "shapes3d")


def test_shapes3d_without_h5py_is_refused_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "3dshapes.h5").touch()
    refuses(r"h5py is missing; pip install 'lord-fast\[datasets\]'", tmp_path / "3dshapes.h5",
            "shapes3d")  # fmt: skip


# MNIST files are big-endian.


def idx(values: np.ndarray) -> bytes:
    return (
        struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()
    )


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_mnist(tmp_path, zipped):
    images = RNG.integers(0, 256, (7, 28, 28), dtype=np.uint8)
    labels = np.array([5, 0, 4, 1, 9, 2, 1], dtype=np.uint8)
    for split, part in (("train", slice(0, 4)), ("t10k", slice(4, 7))):
        for kind, values in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            data = idx(values)
            name = f"{split}-{kind}-ubyte"
            if zipped:
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (tmp_path / name).write_bytes(data)
    found = records(tmp_path, "mnist")
    assert [r.class_name for r in found] == list("5041921")
    assert all(np.array_equal(r.image(), i) for r, i in zip(found, images, strict=True))
    assert found[0].content == {}
    store = tmp_path.with_name(f"{tmp_path.name}-store")
    config = PackConfig(format="mnist", size=32)
    manifest = pack(open_source(str(tmp_path), config), store, config)
    assert (manifest["channels"], manifest["factors"]) == (1, {})


def test_mnist_in_folders_of_the_names_of_its_files(tmp_path):
    for kind, values in (
        ("images-idx3", np.zeros((3, 28, 28), np.uint8)),
        ("labels-idx1", np.arange(3, dtype=np.uint8)),
    ):  # fmt: skip
        name = f"t10k-{kind}-ubyte"
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(idx(values))
    assert [record.class_name for record in records(tmp_path, "mnist")] == ["0", "1", "2"]


def test_coil(tmp_path):
    for name in ("obj1__0", "obj1__355", "obj12__0"):
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    Image.new("L", (8, 8)).save(tmp_path / "other.png")
    found = [(record.class_name, record.content["angle"]) for record in records(tmp_path, "coil")]
    assert sorted(found) == [("1", "0"), ("1", "355"), ("12", "0")]
    (tmp_path / "empty").mkdir()
    refuses("no obj1__0.png", tmp_path / "empty", "coil")


def test_damaged_mnist_files_are_refused(tmp_path):
    data = idx(np.zeros((3, 28, 28), dtype=np.uint8))
    file = tmp_path / "train-images-idx3-ubyte"
    for content, message in (
        (data[:-1], "2,351 bytes where"),
        (data + b"x", "2,353 bytes where"),
        (data[:9], "does not begin with 0x00000803"),
        (struct.pack("<4I", 0x803, 3, 28, 28) + data[16:], "does not begin with 0x00000803"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_idx(file, IMAGES)
    refuses("train-images without train-labels", tmp_path, "mnist")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(2, dtype=np.uint8)))
    file.write_bytes(data)
    refuses("another number of entries", tmp_path, "mnist")


# npz files of the published preprocess


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_published_npz(tmp_path, save):
    """The published files also hold the number of classes, and their labels are numbers."""
    imgs = RNG.integers(0, 256, (6, 16, 16, 1), dtype=np.uint8)
    save(
        tmp_path / "data.npz", imgs=imgs, classes=np.array([0, 0, 1, 1, 2, 2]),
        contents=np.array([0, 1, 0, 1, 0, 1]), n_classes=3,
    )  # fmt: skip
    source = open_source(str(tmp_path / "data.npz"), PackConfig())
    assert isinstance(source.imgs, np.memmap) == (save is np.savez)
    config = PackConfig(size=16)
    manifest = pack(source, tmp_path / "store", config)
    assert manifest["class_names"] == ["0", "1", "2"]
    assert manifest["factors"] == {"content": ["0", "1"]}
    assert (tmp_path / "store" / "images.u8").read_bytes() == imgs.tobytes()


def test_npz_files_of_python_objects_are_refused(tmp_path):
    imgs = np.array([None, None], dtype=object)
    np.savez(tmp_path / "data.npz", imgs=imgs, classes=np.array([0, 1]))
    refuses("data.npz: cannot be read .*objects", tmp_path / "data.npz", "npz")
