"""Tests `Lord`: what it takes, what it finds, what it leaves alone, and how it trains."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lord_fast import Lord
from lord_fast.data.store import ImageStore, as_float
from lord_fast.images import Images
from lord_fast.run.codes import load_codes
from tests.test_train import ROOT


@pytest.fixture(scope="module")
def lord(encoder_run):
    return Lord(encoder_run, device="cpu")


@pytest.fixture(scope="module")
def store(glyph_store):
    return ImageStore(glyph_store)


@pytest.fixture(scope="module")
def photo(store, tmp_path_factory):
    """A file that shows image 5 of the store."""
    file = tmp_path_factory.mktemp("photos") / "five.png"
    Image.fromarray(store.pixels[5, :, :, 0].numpy()).save(file)
    return file


def test_images_come_in_any_form(lord, store, photo):
    """A path, a Pillow image and arrays of all shapes give the codes of the tensor."""
    tensor = as_float(store.images(torch.tensor([5])))
    wanted = lord.encode(tensor)
    grey = store.pixels[5, :, :, 0].numpy()
    forms = [
        photo, str(photo), photo.parent, Image.open(photo), Image.open(photo).convert("RGB"), grey,
        grey[None], grey[:, :, None], np.stack([grey] * 3, 2), grey / 255, [photo],
    ]  # fmt: skip
    for form in forms:
        for found, code in zip(lord.encode(form), wanted, strict=True):
            torch.testing.assert_close(found, code, rtol=0, atol=2e-5)
    mixed = lord.encode([photo, Image.open(photo), tensor])[0]
    torch.testing.assert_close(mixed, wanted[0].expand(3, -1), rtol=0, atol=2e-5)
    larger = Image.open(photo).resize((64, 64), Image.Resampling.NEAREST)
    assert lord.as_images(larger).shape == (1, 1, 32, 32)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((32, 32), 255.0), "divide by 255"),
        (np.zeros((2, 32, 32, 5), np.uint8), r"uint8 \[2, 32, 32, 5\]"),
        (np.zeros((0, 32, 32), np.uint8), r"uint8 \[0, 32, 32\]"),
        (3.5, "float: not an image"),
        ([], "list: not an image"),
    ],
)
def test_what_is_no_image_is_refused(lord, bad, message):
    with pytest.raises(ValueError, match=message):
        lord.encode(bad)


def test_classes_and_images_are_found_by_name_and_number(lord, store, photo):
    assert lord.class_names == store.class_names
    made = lord.translate(7, class_="3")
    assert isinstance(made, Images)
    wanted = lord.decode(lord.content_codes[7:8], lord.class_codes[3:4], "latent")
    assert torch.equal(made, wanted)
    name = "0/DejaVuSans/30"  # the second image
    assert torch.equal(lord.translate(name, class_="3"), lord.translate(1, class_="3"))
    of_image = lord.find("5/DejaVuSans/30", "class")[0]
    assert (of_image.name, of_image.class_id) == ("5", 5)
    [source] = lord.find("101", "content")
    assert (source.image_id, source.name) == (101, "DejaVuSans 30")
    assert torch.equal(source.image, as_float(store.images(torch.tensor([101])))[0])
    both = lord.translate([photo, 7], class_="3")
    torch.testing.assert_close(
        both[0], lord.decode(lord.encode(photo)[0], lord.class_codes[3:4], "encoders")[0]
    )
    assert len(both) == 2


def test_files_get_names_that_tell_them_apart(lord, photo, tmp_path):
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        shutil.copy(photo, tmp_path / name / "1.png")
    found = lord.find([str(tmp_path / "ann" / "1.png"), tmp_path / "bob" / "1.png", "3"], "class")
    assert [source.name for source in found] == ["ann/1", "bob/1", "3"]
    assert [source.name for source in lord.find(photo, "class")] == ["five"]


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ("33", "content", None), ("7", "class", None),
        ("160", "content", "images 0 to 159"),
        ("DejaVu", "content", "DejaVu: no such file or image"),
        ("0/DejaVuSans/31", "class", "did you mean 0/DejaVuSans/30"),
        ("ten", "class", "the classes are 0, 1, 2"),
    ],
)  # fmt: skip
def test_a_name_that_nothing_has_is_refused(lord, asked, kind, message):
    if message is None:
        assert len(lord.find(asked, kind)) == 1
        return
    with pytest.raises(ValueError, match=message):
        lord.find(asked, kind)


def test_contents_and_classes_must_pair(lord):
    with pytest.raises(ValueError, match="3 contents and 2 classes"):
        lord.translate([1, 2, 3], class_=["1", "2"])


def test_training_images_need_no_encoders(trained_run, photo):
    lord = Lord(trained_run, device="cpu")
    assert lord.translate([1, 2], class_="3").shape == (2, 1, 32, 32)
    with pytest.raises(ValueError, match="train-encoders"):
        lord.translate(photo, class_="3")


def test_names_survive_the_loss_of_the_store(encoder_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(encoder_run, run)
    text = (run / "config.yaml").read_text().partition("\n")[2]
    at = text.index("  store: ")
    (run / "config.yaml").write_text(
        text[:at] + "  store: /gone\n" + text[text.index("\n", at) + 1 :]
    )
    lord = Lord(run, device="cpu")
    assert lord.class_names[3] == "3"
    with pytest.warns(UserWarning, match="/gone is gone.*images of training are not used"):
        assert lord.translate(7, class_="3").shape == (1, 1, 32, 32)
    with pytest.raises(ValueError, match="no such file or image"):
        lord.find("0/DejaVuSans/30", "content")
    with pytest.raises(ValueError, match="give the name of a class"):
        lord.find(9, "class")


def test_loading_and_using_changes_nothing_of_the_process(encoder_run):
    """Threads, TF32, the allocator, the random numbers and the warnings stay as they were."""
    code = f"""
import random, warnings
import numpy as np
import torch
torch.set_num_threads(3)
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
torch.manual_seed(5)
def state():
    return (
        torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32, torch.get_rng_state().sum().item(),
        np.random.get_state()[1].sum(), random.getstate(), list(warnings.filters),
        torch.get_default_dtype(), torch.is_grad_enabled(),
    )
from lord_fast import Lord
import lord_fast.lord
import sklearn.mixture, sympy, torchmetrics, scipy.stats  # these add filters of their own
import lord_fast.kernels
before = state()
import lord_fast.machine
def refuse(): raise AssertionError("the allocator was touched")
lord_fast.machine.keep_freed_memory = refuse
lord = Lord({str(encoder_run)!r}, device="cpu")
images = lord.translate([1, 2], class_="3")
lord.encode(images)
lord.fit(images, steps=1)
changed = [(old, new) for old, new in zip(before, state()) if old != new]
assert not changed, changed
import sys
assert "lord_fast.train.start" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_cuda_products_are_ieee_while_a_model_works(monkeypatch):
    from lord_fast.machine import ieee_float32

    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with pytest.raises(KeyError), ieee_float32(torch.device("cuda")):  # noqa: PT012
            assert [place.fp32_precision for place in places] == ["ieee", "ieee"]
            raise KeyError
        assert [place.fp32_precision for place in places] == ["tf32", before[1]]
    finally:
        torch.backends.cuda.matmul.fp32_precision = before[0]


def test_a_density_uses_one_thread_and_restores_the_rest(lord, monkeypatch):
    """Threads of small matrices wait for each other for minutes."""
    from threadpoolctl import threadpool_info

    from lord_fast.model import density

    def threads():
        return {pool["num_threads"] for pool in threadpool_info()}

    seen = []
    fit = density._fit
    monkeypatch.setattr(density, "COMPONENTS", (1,))
    monkeypatch.setattr(density, "_fit", lambda *rest: seen.append(threads()) or fit(*rest))
    torch.set_num_threads(2)
    before = threads()
    lord.density("class", 7)
    assert set.union(*seen) == {1}
    assert threads() == before


def test_lord_trains_and_resumes(tmp_path, monkeypatch, capsys):
    """One call goes from files to a model, and the same call resumes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("anna", "bob"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    flags = dict(
        size=32, preset="demo", steps=4, batch_size=4, adain_dim=8, threads=2, quiet=True,
        encoders={"steps": 3, "encoder_dim": 8},
    )  # fmt: skip
    lord = Lord.train("photos", device="cpu", **flags)
    assert capsys.readouterr().err == ""
    assert lord.run.as_posix() == "runs/photos"
    assert (lord.steps, lord.class_names) == ({"latent": 4, "encoders": 3}, ["anna", "bob"])
    again = Lord.train("photos", device="cpu", **flags)
    assert torch.equal(again.content_codes, lord.content_codes)
    only = Lord.train("runs/photos-store", "runs/one", device="cpu", **{**flags, "encoders": None})
    assert only.encoders is None
    with pytest.raises(ValueError, match="stepz: no such option"):
        Lord.train("photos", stepz=3)
    with pytest.raises(ValueError, match="--size 64"):
        Lord.train("photos", quiet=True)


def test_damaged_files_of_codes_are_refused(lord, tmp_path):
    file = tmp_path / "codes.npz"
    cases = {
        "not an npz file": b"no",
        "not codes of lord-fast": {"content": np.zeros((2, 4))},
        "do not fit together": {
            "names": ["a"], "content": np.zeros((2, 4)), "class_": np.zeros((2, 8)),
            "stage": "latent",
        },
    }  # fmt: skip
    for message, content in cases.items():
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            np.savez(file, **content)
        with pytest.raises(ValueError, match=message):
            load_codes(file)
    arrays = {"content": np.zeros((1, 5)), "class_": np.zeros((1, 8)), "stage": "latent"}
    np.savez(file, names=["a"], **arrays)
    with pytest.raises(ValueError, match=r"codes of another model, with 5 content"):
        lord.find(file, "content")
