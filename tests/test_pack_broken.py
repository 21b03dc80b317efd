"""Tests packing of broken, changed and interrupted sources."""

import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lord_fast.data.decode import BadImageError, read_file
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source
from lord_fast.data.verify import verify

ROOT = Path(__file__).parents[1]
CONFIG = PackConfig(size=16, decoder="pillow")


def encoded(form: str, seed: int = 0, size=(20, 16)) -> bytes:
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """Return a small PNG file whose header declares a large image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(999))), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(name + data))
        file += struct.pack(">I", len(data)) + name + data + crc
    return file


def flipped(data: bytes) -> bytes:
    """Flip one bit in the compressed pixels of a PNG."""
    position = data.index(b"IDAT") + 40
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def put(content: bytes):
    return lambda path: path.write_bytes(content)


TEN_WAYS = {
    "empty.png": (put(b""), "empty file"),
    "text.jpg": (put(b"not an image at all"), "not an image"),
    "cut.jpg": (put(encoded("JPEG")[:-200]), "truncated"),
    "cut.png": (put(encoded("PNG")[:-300]), "truncated"),
    "flipped.png": (put(flipped(encoded("PNG"))), "broken"),
    "bomb.png": (put(png_of(40_000, 40_000)), "more than 100,000,000 pixels"),
    "loop.png": (lambda path: path.symlink_to(path.name), "leads back to itself"),
    "out.png": (lambda path: path.symlink_to(sys.executable), "a link out of the folder"),
    "nowhere.png": (lambda path: path.symlink_to("gone.png"), "which does not exist"),
    "pipe.png": (os.mkfifo, "not a regular file"),
}


def listing(root: Path) -> dict[str, str]:
    """Return everything about a folder that packing must not change."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        digest = hashlib.sha256(content).hexdigest()
        found[str(path)] = f"{status.st_mode} {status.st_size} {status.st_mtime_ns} {digest}"
    return found


def thousand(root: Path) -> set[str]:
    """Write 950 good images and 50 broken ones, five of each kind. Return the broken names."""
    broken = set()
    for c in range(10):
        folder = root / f"class{c}"
        folder.mkdir(parents=True)
        for i in range(95):
            (folder / f"{i:03}.png").write_bytes(encoded("PNG", seed=100 * c + i))
        for name, (make, _) in list(TEN_WAYS.items())[c % 2 :: 2]:
            make(folder / name)
            broken.add(f"class{c}/{name}")
    return broken


def test_fifty_of_a_thousand_broken_in_ten_ways(tmp_path):
    source = tmp_path / "images"
    broken = thousand(source)
    before = listing(source)
    assert len(broken) == 50

    with pytest.raises(ValueError, match=r"^50 of 1000 images cannot be used; .*--max-bad 50") as e:
        pack(open_source(str(source), CONFIG), tmp_path / "store", CONFIG)
    listed = re.findall(r"\n  (\S+): ", str(e.value))
    assert listed == sorted(broken)[:20]
    assert "and 30 more" in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["images"]

    config = PackConfig(size=16, decoder="pillow", max_bad=50, workers=3)
    manifest = pack(open_source(str(source), config), tmp_path / "store", config)
    assert (manifest["num_images"], manifest["left_out"]) == (950, 50)
    left_out = lines(tmp_path / "store" / "left_out.jsonl")
    assert {row["name"] for row in left_out} == broken
    for row in left_out:
        assert TEN_WAYS[Path(row["name"]).name][1] in row["reason"]
    assert listing(source) == before

    # Every row holds the pixels of its own file.
    pixels = np.fromfile(tmp_path / "store" / "images.u8", dtype=np.uint8).reshape(950, 16, 16, 3)
    rows = lines(tmp_path / "store" / "index.jsonl")
    assert [row["id"] for row in rows] == list(range(950))
    for row in rows[::50]:
        with Image.open(source / row["name"]) as image:
            box = (2, 0, 18, 16)
            expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR, box))
        assert np.array_equal(pixels[row["id"]], expected)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def images(tmp_path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(40):
            file = tmp_path / "images" / name / f"{i:02}.png"
            file.write_bytes(encoded("PNG", seed=i))
    return tmp_path / "images"


def test_left_out_images_leave_the_ids_of_the_others(images, tmp_path):
    source = open_source(str(images), CONFIG)
    broken = images / "a" / "05x.png"
    broken.write_bytes(b"x")
    config = PackConfig(size=16, decoder="pillow", max_bad=1)
    pack(open_source(str(images), CONFIG), tmp_path / "with", config)
    broken.unlink()
    pack(source, tmp_path / "without", CONFIG)
    for name in ("images.u8", "index.jsonl", "class_ids.npy"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_none_of_the_images_can_be_used(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "1.png").write_bytes(b"x")
    config = PackConfig(size=16, max_bad=5)
    with pytest.raises(ValueError, match="none of 1 images can be used"):
        pack(open_source(str(tmp_path / "images"), config), tmp_path / "store", config)
    assert not list(tmp_path.glob("store*"))


class Stop(BaseException):
    """Plays the role of Ctrl-C."""


def interrupted(source, out, config, after):
    """Pack until `after` images are packed."""
    total = 0

    def progress(count):
        nonlocal total
        total += count
        if total >= after:
            raise Stop

    with pytest.raises(Stop):
        pack(source, out, config, progress)
    assert not out.exists()
    assert out.with_name(out.name + ".partial").is_dir()


@pytest.mark.parametrize("keep", [False, True], ids=["decoded", "encoded"])
def test_an_interrupted_packing_continues(images, tmp_path, keep):
    (images / "a" / "03x.png").write_bytes(b"x")
    config = PackConfig(size=16, decoder="pillow", max_bad=1, encoded=keep, workers=1)
    pack(open_source(str(images), config), tmp_path / "whole", config)
    interrupted(open_source(str(images), config), tmp_path / "store", config, 48)
    # A killed process may leave an incomplete image and an incomplete line.
    data = tmp_path / "store.partial" / ("images.bin" if keep else "images.u8")
    with data.open("r+b") as file:
        file.truncate(data.stat().st_size - 7)
    with (tmp_path / "store.partial" / "index.jsonl").open("a") as file:
        file.write('{"id": 48, "na')
    steps = []
    pack(open_source(str(images), config), tmp_path / "store", config, steps.append)
    assert steps[0] == 47  # the images that were whole, and the one left out, were not done again
    assert sum(steps) == 81
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == names
    for name in names:
        assert (tmp_path / "store" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "store.partial").exists()


@pytest.mark.parametrize("change", ["image", "repaired", "size", "name", "damage"])
def test_changed_sources_are_packed_again(images, tmp_path, change):
    config = PackConfig(size=16, decoder="pillow", workers=1, max_bad=1)
    (images / "a" / "02x.png").write_bytes(b"x")
    interrupted(open_source(str(images), config), tmp_path / "store", config, 48)
    if change == "image":
        file = images / "a" / "03.png"
        modified = file.stat().st_mtime_ns
        file.write_bytes(encoded("PNG", seed=1000))
        os.utime(file, ns=(modified, modified))
    elif change == "repaired":
        (images / "a" / "02x.png").write_bytes(encoded("PNG", seed=1000))
    elif change == "size":
        config = PackConfig(size=32, decoder="pillow", workers=1, max_bad=1)
    elif change == "name":
        (images / "a" / "03.png").rename(images / "a" / "03b.png")
    else:
        with (tmp_path / "store.partial" / "images.u8").open("r+b") as file:
            file.write(b"damage")
    steps = []
    pack(open_source(str(images), config), tmp_path / "store", config, steps.append)
    assert steps[0] == 0
    pack(open_source(str(images), config), tmp_path / "whole", config)
    for name in ("images.u8", "index.jsonl", "manifest.json"):
        assert (tmp_path / "store" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("index.jsonl", "source_sha256"),
        ("index.jsonl", "source_bytes"),
        ("left_out.jsonl", "reason"),
        ("index.jsonl.crc32", ""),
    ],
)
def test_a_damaged_row_of_an_interrupted_packing_is_packed_again(images, tmp_path, name, key):
    config = PackConfig(size=16, decoder="pillow", workers=1, max_bad=1)
    (images / "a" / "02x.png").write_bytes(b"x")
    interrupted(open_source(str(images), config), tmp_path / "store", config, 48)
    file = tmp_path / "store.partial" / name
    text = file.read_text()
    at = text.index(key) + len(key) + 5
    file.write_text(text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :])
    pack(open_source(str(images), config), tmp_path / "store", config)
    pack(open_source(str(images), config), tmp_path / "whole", config)
    for name in sorted(path.name for path in (tmp_path / "whole").iterdir()):
        assert (tmp_path / "store" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_sigterm_keeps_what_is_done(images, tmp_path):
    """A pack command that is terminated exits with 143, and the next one continues."""
    code = (
        "import os, signal, sys\n"
        "from lord_fast.data import decode\n"
        "from lord_fast.cli import main\n"
        "real = decode.read_file\n"
        "def read_file(path):\n"
        "    if path.name == '39.png': os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(path)\n"
        "decode.read_file = read_file\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["pack", images, tmp_path / "store", "--size", "16", "--decoder", "pillow",
                 "--channels", "3", "--workers", "1"]  # fmt: skip
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 143, run.stderr
    assert "stopped by SIGTERM while packing" in run.stderr
    assert not (tmp_path / "store").exists()
    steps = []
    config = PackConfig(size=16, channels=3, decoder="pillow")
    pack(open_source(str(images), config), tmp_path / "store", config, steps.append)
    assert steps[0] >= 16
    assert sum(steps) == 80


@pytest.mark.parametrize("keep", [False, True], ids=["decoded", "encoded"])
def test_verify_names_damaged_images_and_changed_sources(images, tmp_path, keep):
    config = PackConfig(size=16, decoder="pillow", encoded=keep)
    store = tmp_path / "store"
    pack(open_source(str(images), config), store, config)
    assert verify(store).startswith("all 80 images are as they were packed, and so are their sour")
    # One source has changed, and one is missing.
    (images / "a" / "07.png").write_bytes(encoded("PNG", seed=1000))
    (images / "b" / "09.png").unlink()
    with pytest.raises(ValueError, match="2 of 80 images") as caught:
        verify(store)
    assert "\n  a/07.png: its source" in str(caught.value)
    assert "\n  b/09.png: its source cannot be read any more" in str(caught.value)
    # A byte of the store has changed.
    images.rename(tmp_path / "gone")
    assert verify(store) == "all 80 images are as they were packed"
    data = store / ("images.bin" if keep else "images.u8")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 80 images:\n  b/39\.png: damaged in the store"):
        verify(store)
    with (store / "index.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match=r"index\.jsonl: changed since packing"):
        verify(store)


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("top/a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.mark.parametrize("make", [zipped, tarred])
def test_archives_give_the_same_store_as_their_folder(tmp_path, make):
    good = {f"top/{c}/{i}.png": encoded("PNG", seed=i) for c in "ab" for i in range(3)}
    bad = {"top/../../../x/evil.png": b"x", "/etc/x/evil.png": b"x"}
    other = {"top/readme.txt": b"hello", "__MACOSX/a/._1.png": b"x"}
    path = make(tmp_path / ("i.zip" if make is zipped else "i.tar.gz"), {**good, **bad, **other})
    config = PackConfig(size=16, decoder="pillow", max_bad=3)
    manifest = pack(open_source(str(path), config), tmp_path / "store", config)
    assert (manifest["num_images"], manifest["class_names"]) == (6, ["a", "b"])
    reasons = {row["name"]: row["reason"] for row in lines(tmp_path / "store" / "left_out.jsonl")}
    expected = dict.fromkeys(bad, "its path leads out of the archive")
    if make is tarred:
        expected["top/a/link.png"] = "a link or a device, not a file"
    assert reasons == expected
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "store"}
    folder = tmp_path / "same"
    for name, content in good.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    pack(open_source(str(folder / "top"), CONFIG), tmp_path / "other", CONFIG)
    stores = [(tmp_path / name / "images.u8").read_bytes() for name in ("store", "other")]
    assert stores[0] == stores[1]


def test_damaged_archives_are_refused_are_refused(tmp_path):
    path = zipped(tmp_path / "i.zip", {"a/1.png": encoded("PNG"), "a/2.png": encoded("PNG", 1)})
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"1 of 2 images.*\n  a/1\.png: Bad CRC-32"):
        pack(open_source(str(path), CONFIG), tmp_path / "store", CONFIG)
    path.write_bytes(data[:200])
    with pytest.raises(ValueError, match=r"i\.zip: not a readable archive"):
        open_source(str(path), CONFIG)


def test_names_that_are_not_utf8_are_escaped_are_escaped(tmp_path):
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"\xff1.png")).write_bytes(encoded("PNG"))
    pack(open_source(str(tmp_path / "images"), CONFIG), tmp_path / "store", CONFIG)
    assert lines(tmp_path / "store" / "index.jsonl")[0]["name"] == "a/\\xff1.png"


def test_a_file_of_gigabytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("lord_fast.data.decode.contract.MAX_BYTES", 10)
    (tmp_path / "x.png").write_bytes(encoded("PNG"))
    with pytest.raises(BadImageError, match="bytes: more than 10"):
        read_file(tmp_path / "x.png")


@pytest.mark.parametrize(("crop", "corner"), [("8x8", (6, 4)), ("8x8+1+2", (1, 2)), ("none", None)])
def test_crop_cuts_out_the_region(tmp_path, crop, corner):
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(encoded("PNG"))
    size = 8 if corner else 16
    config = PackConfig(size=size, decoder="pillow", crop=crop)
    pack(open_source(str(tmp_path / "images"), config), tmp_path / "store", config)
    pixels = np.fromfile(tmp_path / "store" / "images.u8", dtype=np.uint8).reshape(size, size, 3)
    left, top = corner or (2, 0)
    with Image.open(folder / "1.png") as image:
        assert np.array_equal(pixels, np.asarray(image)[top : top + size, left : left + size])


def test_a_crop_that_does_not_fit_or_parse_is_refused(images, tmp_path):
    for crop, message in (("21x8", "reaches over its edge"), ("big", "give WIDTHxHEIGHT")):
        config = PackConfig(size=16, decoder="pillow", crop=crop)
        with pytest.raises(ValueError, match=message):
            pack(open_source(str(images), config), tmp_path / "store", config)
