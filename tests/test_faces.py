"""Tests CelebA, RaFD and KTH with small files that have the original names and layout."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source
from lord_fast.data.sources.faces import read_identities
from tests.test_sources import records, refuses

# CelebA


def aligned(i: int) -> bytes:
    """Return an image of 178 x 218 pixels with another colour in the centre 128 x 128."""
    image = Image.new("RGB", (178, 218), "blue")
    image.paste((200, 10 * i, 0), (25, 45, 153, 173))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("layout", ["flat", "official", "zip"])
def test_celeba(tmp_path, layout):
    anno = tmp_path / ("Anno" if layout == "official" else "")
    img = tmp_path / ("Img" if layout == "official" else "")
    for folder in (anno, img):
        folder.mkdir(exist_ok=True)
    names = {"000001.jpg": "2880", "000002.jpg": "2937", "000003.jpg": "2880"}
    (anno / "identity_CelebA.txt").write_text("".join(f"{n} {i}\n" for n, i in names.items()))
    if layout == "zip":
        with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
            for i, name in enumerate(names):
                archive.writestr(f"img_align_celeba/{name}", aligned(i))
    else:
        (img / "img_align_celeba").mkdir()
        for i, name in enumerate(names):
            (img / "img_align_celeba" / name).write_bytes(aligned(i))
    config = PackConfig(format="celeba", size=32, decoder="pillow")
    store = tmp_path.with_name(f"{tmp_path.name}-store")
    manifest = pack(open_source(str(tmp_path), config), store, config)
    assert manifest["class_names"] == ["2880", "2937"]
    assert np.load(store / "class_ids.npy").tolist() == [0, 1, 0]
    pixels = np.fromfile(store / "images.u8", dtype=np.uint8).reshape(3, 32, 32, 3)
    for i in range(3):
        inner = pixels[i, 1:-1, 1:-1].reshape(-1, 3)
        assert (inner == (200, 10 * i, 0)).all()


def test_damaged_celeba_files_are_refused(tmp_path):
    refuses("no identity_CelebA.txt", tmp_path, "celeba")
    names = tmp_path / "identity_CelebA.txt"
    names.write_text("000001.jpg 2880\n")
    refuses("no img_align_celeba/", tmp_path, "celeba")
    (tmp_path / "img_align_celeba").mkdir()
    config = PackConfig(format="celeba", size=32, decoder="pillow")
    with pytest.raises(ValueError, match=r"000001\.jpg: No such file"):
        pack(open_source(str(tmp_path), config), tmp_path.with_name(f"{tmp_path.name}-out"), config)
    names.write_text("000001.jpg 2880\n../../etc/passwd.jpg 3\n")
    refuses(r"identity_CelebA\.txt, line 2: must be a file's name", tmp_path, "celeba")


# RaFD


@pytest.mark.parametrize(
    "header", ["image_id identity\n", "image_id,identity\n", "2\n", "2\nimage_id identity\n"]
)
def test_celeba_identities_may_have_a_header(tmp_path, header):
    file = tmp_path / "identity_CelebA.txt"
    between = "," if "," in header else " "
    file.write_text(f"{header}000001.jpg{between}2880\n000002.jpg{between}2937\n")
    assert read_identities(file) == {"000001.jpg": "2880", "000002.jpg": "2937"}
    file.write_text(f"000001.jpg{between}2880\n{header}")
    with pytest.raises(ValueError, match="line 2: must be a file's name"):
        read_identities(file)


def test_rafd(tmp_path):
    for name in (
        "Rafd090_01_Caucasian_female_angry_frontal.jpg",
        "Rafd000_05_Moroccan_male_happy_left.jpg",
        "Rafd180_64_Kid_male_fearful_right.jpg",
        "Rafd090_xx_not_one.jpg",
    ):
        Image.new("RGB", (68, 102)).save(tmp_path / name)
    found = records(tmp_path, "rafd")
    assert [r.class_name for r in found] == ["05", "01", "64"]
    assert found[1].content == {"camera": "090", "expression": "angry", "gaze": "frontal"}
    assert records(tmp_path, "rafd", class_factors=("population",))[2].class_name == "Kid"
    (tmp_path / "empty").mkdir()
    refuses("no Rafd090_01_", tmp_path / "empty", "rafd")


# KTH


def test_kth_frames(tmp_path):
    for video in ("person01_boxing_d1", "person25_walking_d4_uncomp"):
        folder = tmp_path / video.split("_")[1] / video
        folder.mkdir(parents=True)
        for i in range(5):
            Image.new("L", (16, 12), i).save(folder / f"{i:04}.png")
    found = records(tmp_path, "kth")
    assert [r.class_name for r in found] == ["01"] * 5 + ["25"] * 5
    assert found[0].content == {}
    every = records(tmp_path, "kth", every=2, class_factors=("person", "scenario"))
    assert [r.class_name for r in every] == ["01_1"] * 3 + ["25_4"] * 3
    assert every[1].name == "boxing/person01_boxing_d1/0002.png"
    refuses("--every 0", tmp_path, "kth", every=0)
    (tmp_path / "empty").mkdir()
    refuses("no person01_boxing_d1_uncomp.avi", tmp_path / "empty", "kth")


def test_kth_videos(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    pictures = [np.full((120, 160), 20 * i, dtype=np.uint8) for i in range(6)]
    file = tmp_path / "boxing" / "person01_boxing_d1_uncomp.avi"
    file.parent.mkdir()
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = records(tmp_path, "kth")
    assert [r.class_name for r in found] == ["01"] * 6
    for record, picture in zip(found, pictures, strict=True):
        assert np.abs(record.image().astype(int) - picture).mean() < 6
    assert [r.name for r in records(tmp_path, "kth", every=4)] == [
        "boxing/person01_boxing_d1_uncomp.avi/0", "boxing/person01_boxing_d1_uncomp.avi/4"
    ]  # fmt: skip
    file.write_bytes(b"RIFF not a video")
    refuses(r"uncomp\.avi: cannot be decoded", tmp_path, "kth")
