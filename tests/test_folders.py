"""Tests what packing says of folders and archives as people have them."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lord_fast.cli import main
from lord_fast.data.options import PackConfig
from lord_fast.data.sources import open_source
from lord_fast.data.sources.layout import NEEDED
from tests.test_cli import fails

RNG = np.random.default_rng(0)


def photo(file: Path, pixels: np.ndarray | None = None, **options) -> None:
    pixels = RNG.integers(0, 256, (20, 24, 3), np.uint8) if pixels is None else pixels
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of four photos, whose names have nothing in common."""
    for name in ("alice", "bob"):
        for i in range(4):
            photo(tmp_path / "photos" / name / f"{name}_{i}.JPG")
    return tmp_path / "photos"


def packed(source: Path, tmp_path: Path, capsys, *flags: str) -> tuple[str, dict]:
    store = tmp_path / "store"
    assert main(["pack", str(source), str(store), "--size", "16", *flags]) == 0
    return capsys.readouterr().err, json.loads((store / "manifest.json").read_text())


def zipped(folder: Path, file: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(folder).as_posix())
    return file


def test_upper_case_suffixes_are_read(photos, tmp_path, capsys):
    printed, manifest = packed(photos, tmp_path, capsys)
    assert manifest["num_images"] == 8
    assert "not packed" not in printed


@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_files_that_are_not_packed_are_counted_and_named(photos, tmp_path, capsys, as_zip):
    (photos / "alice" / "clip.mov").write_bytes(b"film")
    (photos / "notes.txt").write_text("dear diary")
    photo(photos / "loose.jpg")
    for junk in (".DS_Store", "Thumbs.db", "alice/._alice_0.JPG"):
        (photos / junk).write_bytes(b"junk")
    source = zipped(photos, tmp_path / "photos.zip") if as_zip else photos
    printed, manifest = packed(source, tmp_path, capsys)
    assert manifest["num_images"] == 8
    assert "note: not packed, no images: 2 files (alice/clip.mov, notes.txt)" in printed
    assert "note: not packed, in no class folder: 1 file (loose.jpg)" in printed


@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_photos_without_class_folders_are_refused_with_what_to_do(tmp_path, capsys, as_zip):
    for i in range(3):
        photo(tmp_path / "flat" / f"{i}.jpg")
    source = tmp_path / "flat"
    if as_zip:
        source = zipped(source, tmp_path / "flat.zip")
    error = fails(capsys, "pack", source, tmp_path / "store")
    assert "3 files (0.jpg, 1.jpg, 2.jpg) in no class folder" in error
    assert "flat/CLASS/NAME.jpg" in error
    assert "3 files" in fails(capsys, "run", source, "--run", tmp_path / "run")


def test_a_zip_from_a_phone(photos, tmp_path, capsys):
    (photos / ".DS_Store").write_bytes(b"junk")
    (photos / "__MACOSX" / "alice").mkdir(parents=True)
    (photos / "__MACOSX" / "alice" / "._alice_0.JPG").write_bytes(b"junk")
    whole = zipped(photos, tmp_path / "phone.zip", "My Photos/")
    printed, manifest = packed(whole, tmp_path, capsys)
    assert manifest["class_names"] == ["alice", "bob"]
    assert manifest["num_images"] == 8
    assert "not packed" not in printed


def test_the_only_folder_inside_is_read_instead(photos, tmp_path, capsys):
    top = tmp_path / "export"
    (top / "DCIM").mkdir(parents=True)
    photos.rename(top / "DCIM" / "photos")
    (top / ".DS_Store").write_bytes(b"junk")
    printed, manifest = packed(top, tmp_path, capsys)
    assert manifest["class_names"] == ["alice", "bob"]
    assert f"note: the class folders are in {top / 'DCIM' / 'photos'}" in printed
    assert main(["pack", "--verify", str(tmp_path / "store")]) == 0
    assert "and so are their sources" in capsys.readouterr().err


def test_one_class_folder_is_not_mistaken_for_the_top(tmp_path):
    photo(tmp_path / "photos" / "alice" / "0.jpg")
    (record,) = open_source(str(tmp_path / "photos"), PackConfig())
    assert record.class_name == "alice"


def test_images_that_need_a_package_are_refused(photos, capsys, tmp_path, monkeypatch):
    for i in range(7):
        (photos / "alice" / f"IMG_{i}.HEIC").write_bytes(b"heic")
    extensions = {".jpg", ".png"}
    for module in ("folder", "layout"):
        monkeypatch.setattr(f"lord_fast.data.sources.{module}.image_extensions", lambda: extensions)
    error = fails(capsys, "pack", photos, tmp_path / "store")
    assert "7 files (alice/IMG_0.HEIC," in error
    assert "pip install 'lord-fast[heif]'" in error
    assert set(NEEDED) == {".heic", ".heif", ".avif", ".webp"}


@pytest.mark.parametrize("suffix", [".heic", ".HEIC", ".avif", ".webp"])
def test_pictures_of_phones_are_read_upright(tmp_path, suffix):
    if suffix.lower() == ".heic":
        pytest.importorskip("pillow_heif", reason="needs the heif extra")
    from lord_fast.data.decode import PillowDecoder, Shape

    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[32 if suffix.lower() == ".heic" else 0 :][:32] = 255  # HEIF ignores the EXIF rotation.
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    stream = io.BytesIO()
    form = {".heic": "HEIF", ".avif": "AVIF", ".webp": "WEBP"}[suffix.lower()]
    Image.fromarray(pixels).save(stream, format=form, exif=exif)
    for name in ("alice", "bob"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / f"IMG{suffix}").write_bytes(stream.getvalue())
    assert len(open_source(str(tmp_path / "photos"), PackConfig())) == 2
    (upright,) = PillowDecoder(Shape(8, 1)).decode([stream.getvalue()])
    assert upright[:3].max() < 60
    assert upright[-3:].min() > 200


@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_names_that_the_pattern_does_not_match_are_counted(photos, tmp_path, capsys, as_zip):
    for i in range(7):
        photo(photos / "alice" / f"odd{i}.jpg")
    source = zipped(photos, tmp_path / "photos.zip") if as_zip else photos
    flags = ("--content-pattern", r"_(?P<number>\d+)")
    error = fails(capsys, "pack", source, tmp_path / "store", "--size", "16", *flags)
    assert "does not match 7 files (alice/odd0.jpg, alice/odd1.jpg," in error
    assert "--max-bad 7" in error
    printed, manifest = packed(source, tmp_path, capsys, *flags, "--max-bad", "7")
    assert manifest["num_images"] == 8
    assert manifest["factors"] == {"number": ["0", "1", "2", "3"]}
    assert "left out 7 images" in printed
    assert "alice/odd6.jpg: its name does not match --content-pattern" in printed


def test_a_long_list_of_broken_images_is_cut(photos, tmp_path, capsys):
    for i in range(30):
        (photos / "bob" / f"broken{i:02}.jpg").write_bytes(b"no jpeg")
    error = fails(capsys, "pack", photos, tmp_path / "store")
    assert "30 of 38 images cannot be used" in error
    assert len(error.splitlines()) == 22
    assert "and 10 more" in error
    printed, _ = packed(photos, tmp_path, capsys, "--max-bad", "30")
    assert "and 10 more" in printed
    assert len((tmp_path / "store" / "left_out.jsonl").read_text().splitlines()) == 30


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("t10k-images-idx3-ubyte.gz", "mnist"), ("identity_CelebA.txt", "celeba"),
        ("obj1__0.png", "coil"), ("person01_boxing_d1_uncomp.avi", "kth"),
        ("3dshapes.h5", "shapes3d"), ("smallnorb-5x-testing-dat.mat", "smallnorb"),
        ("Rafd090_01_Caucasian_female_angry_frontal.jpg", "rafd"), ("cars3d.npz", "cars3d"),
    ],
)  # fmt: skip
def test_a_published_data_set_gets_a_hint_at_its_format(photos, tmp_path, capsys, file, form):
    (photos / file).write_bytes(b"")
    error = fails(capsys, "pack", photos, tmp_path / "store")
    assert f"it holds {file}; use --format {form}" in error
    assert len(open_source(str(photos), PackConfig(format="folder"))) == 8


def alike(folder: Path, same: bool) -> None:
    """Write numbered photos that show the same content in every class, or another one."""
    shared = RNG.integers(0, 256, (12, 16, 16), np.uint8)
    for name in ("alice", "bob", "carol"):
        order = range(12) if same else RNG.permutation(12)
        for i, j in enumerate(order):
            photo(folder / name / f"{i:04}.png", shared[j])


@pytest.mark.parametrize("flags", [(), ("--encoded",)], ids=["pixels", "encoded"])
@pytest.mark.parametrize("same", [True, False])
def test_names_are_content_labels_if_the_images_are_alike(tmp_path, capsys, same, flags):
    alike(tmp_path / "photos", same)
    printed, manifest = packed(tmp_path / "photos", tmp_path, capsys, *flags)
    if same:
        assert len(manifest["factors"]["content"]) == 12
        assert "images of the same name are alike" in printed
    else:
        assert manifest["factors"] == {}
        assert "are not alike" in printed
        assert "--content-labels stem" in printed
    assert main(["pack", "--verify", str(tmp_path / "store")]) == 0


def test_content_labels_can_be_forced(tmp_path, capsys):
    alike(tmp_path / "photos", same=False)
    _, manifest = packed(tmp_path / "photos", tmp_path, capsys, "--content-labels", "stem")
    assert len(manifest["factors"]["content"]) == 12
    (tmp_path / "second").mkdir()
    printed, manifest = packed(
        tmp_path / "photos", tmp_path / "second", capsys, "--content-labels", "none"
    )
    assert manifest["factors"] == {}
    assert "content factors: none;" in printed


def test_labels_that_no_two_classes_share_are_said(photos, tmp_path, capsys):
    printed, manifest = packed(photos, tmp_path, capsys)
    assert manifest["factors"] == {}
    assert "note: no two classes share the name of a file, so transfer cannot be" in printed
    assert "--content-pattern" in printed
    (tmp_path / "second").mkdir()
    pattern = ("--content-pattern", r"(?P<who>.*)")
    printed, _ = packed(photos, tmp_path / "second", capsys, *pattern)
    assert "note: no two classes share a content label" in printed
