"""Tests encode, translate, fit, sample and interpolate as commands and from Python."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import lord_fast.data.image_files
from lord_fast import Lord
from lord_fast.cli import main
from lord_fast.data.image_files import list_images, read_batches, read_images
from lord_fast.data.store import ImageStore, as_float
from lord_fast.model.density import fit_density, sample_training
from tests.test_cli import fails, packed
from tests.test_encoders import ENCODER_FLAGS
from tests.test_train import train


@pytest.fixture(scope="module")
def photos(glyph_store, tmp_path_factory):
    """A folder with six images of the store."""
    folder = tmp_path_factory.mktemp("photos")
    store = ImageStore(glyph_store)
    for i in range(6):
        Image.fromarray(store.pixels[i, :, :, 0].numpy()).save(folder / f"image-{i}.png")
    return folder


@pytest.fixture(scope="module")
def images(glyph_store):
    return as_float(ImageStore(glyph_store).images(torch.arange(6)))


def test_encode_command_gives_the_codes_of_the_api(encoder_run, photos, images, tmp_path):
    out = tmp_path / "codes.npz"
    assert main(["encode", str(encoder_run), str(photos), "--out", str(out)]) == 0
    content, class_ = Lord.load(encoder_run, device="cpu").encode(images)
    with np.load(out) as codes:
        assert [name.rsplit("/", 1)[1] for name in codes["names"]] == [
            f"image-{i}.png" for i in range(6)
        ]
        assert str(codes["stage"]) == "encoders"
        np.testing.assert_allclose(codes["content"], content.numpy(), atol=1e-6)
        np.testing.assert_allclose(codes["class_"], class_.numpy(), atol=1e-6)


def test_translate_takes_content_from_one_and_class_from_the_other(encoder_run, images):
    lord = Lord.load(encoder_run, device="cpu")
    content, class_ = lord.encode(images)
    made = lord.translate(images[:3], images[3:])
    torch.testing.assert_close(made, lord.decode(content[:3], class_[3:]))
    one = lord.translate(images[:3], images[5:6])
    torch.testing.assert_close(one, lord.decode(content[:3], class_[5].expand(3, -1)))


def test_translate_command(encoder_run, photos, images, tmp_path):
    out, singles = tmp_path / "grid.png", tmp_path / "singles"
    files = [str(photos / f"image-{i}.png") for i in range(6)]
    assert main(
        ["translate", str(encoder_run), "--content", *files[:2], "--class", *files[2:5],
         "--out", str(out), "--singles", str(singles)]
    ) == 0  # fmt: skip
    lord = Lord.load(encoder_run, device="cpu")
    names = sorted(path.name for path in singles.iterdir())
    assert names[0] == "000-image-2--000-image-0.png"
    assert len(names) == 6
    wanted = lord.translate(images[1:2], images[4:5])[0, 0]
    with Image.open(singles / "002-image-4--001-image-1.png") as single:
        found = torch.from_numpy(np.array(single))
    torch.testing.assert_close(found[:, :, 0].float() / 255, wanted, atol=0.5 / 255 + 1e-6, rtol=0)
    with Image.open(out) as grid:
        assert grid.width > 2 * 3 * 32
        assert grid.height > 2 * 4 * 32


def test_fit_finds_codes_that_reconstruct(trained_run, images):
    """Better than the codes of the nearest training images that it starts from, and no worse than
    the codes that training itself found for these images by much."""
    lord = Lord.load(trained_run, device="cpu", stage="latent")

    def error(content, class_):
        return (lord.decode(content, class_.expand(len(content), -1)) - images).square().mean()

    before = lord.fit(images, steps=1)
    content, class_ = lord.fit(images, steps=80)
    assert content.shape == (6, 4)
    assert class_.shape == (6, 8)
    assert error(content, class_) < error(*before)


def test_fit_is_seeded_and_does_not_change_the_generator(trained_run, images):
    lord = Lord.load(trained_run, device="cpu")
    weights = [p.clone() for p in lord.decoders["latent"].parameters()]
    codes = lord.fit(images, steps=5, seed=3)
    assert torch.equal(codes[0], lord.fit(images, steps=5, seed=3)[0])
    assert not torch.equal(codes[0], lord.fit(images, steps=5, seed=4)[0])
    for before, after in zip(weights, lord.decoders["latent"].parameters(), strict=True):
        assert torch.equal(before, after)


def test_fit_of_a_new_class_gives_one_code(trained_run, photos, tmp_path, capsys):
    out = tmp_path / "codes.npz"
    command = ["fit", str(trained_run), str(photos), "--out", str(out), "--steps", "10"]
    assert main([*command, "--new-class"]) == 0
    assert "one class code" in capsys.readouterr().err
    with np.load(out) as codes:
        assert codes["content"].shape == (6, 4)
        assert codes["class_"].shape == (1, 8)
        assert str(codes["stage"]) == "latent"


def test_the_mixture_is_chosen_by_held_out_likelihood():
    """A single Gaussian would put most samples between the three clusters."""
    rng = np.random.default_rng(0)
    centres = np.array([[8.0, 0.0], [-8.0, 0.0], [0.0, 8.0]])
    codes = (centres[rng.integers(3, size=300)] + 0.3 * rng.standard_normal((300, 2))).astype("f4")
    found = fit_density(codes, seed=0)
    assert found.mixture.n_components >= 3
    made = found.sample(200, seed=1)
    distance = np.linalg.norm(made[:, None] - centres, axis=2).min(1)
    assert np.mean(distance < 1.5) > 0.95
    assert np.array_equal(made, found.sample(200, seed=1))
    assert len(np.unique(made, axis=0)) == 200
    gauss = fit_density(rng.standard_normal((300, 2)).astype("f4"), seed=0)
    assert gauss.mixture.n_components == 1


def test_the_baseline_adds_the_noise_of_training_to_training_codes():
    codes = np.array([[10.0, 0.0], [-10.0, 0.0]], dtype=np.float32)
    exact = sample_training(codes, 0.0, 50, seed=0)
    assert {tuple(row) for row in exact.tolist()} == {(10.0, 0.0), (-10.0, 0.0)}
    noisy = sample_training(codes, 1.0, 2000, seed=0)
    assert np.std(noisy[:, 1]) == pytest.approx(1.0, rel=0.1)


def test_the_mixture_is_fitted_to_a_sample_of_many_codes(monkeypatch):
    from lord_fast.model import density

    fitted = []
    fit = density._fit
    monkeypatch.setattr(density, "COMPONENTS", (1,))
    monkeypatch.setattr(density, "_fit", lambda c, *rest: fitted.append(len(c)) or fit(c, *rest))
    codes = np.random.default_rng(0).standard_normal((20_000, 2)).astype("f4")
    found = fit_density(codes, seed=0)
    assert max(fitted) == density.MOST_CODES
    assert np.array_equal(found.mixture.means_, fit_density(codes, seed=0).mixture.means_)
    assert not np.array_equal(found.mixture.means_, fit_density(codes, seed=1).mixture.means_)
    np.testing.assert_allclose(found.mixture.means_, 0, atol=0.1)


def test_new_classes_need_a_density_of_classes(trained_run, tmp_path, capsys):
    out = tmp_path / "grid.png"
    error = fails(
        capsys, "sample", trained_run, "--new-classes", "--density", "training", "--out", out
    )
    assert "--new-classes: --density training" in error
    assert not out.exists()


@pytest.mark.parametrize("extra", [(), ("--new-classes",), ("--density", "training")])
def test_sample_command(trained_run, tmp_path, extra):
    out = tmp_path / "grid.png"
    assert main(["sample", str(trained_run), "-n", "5", "--out", str(out), *extra]) == 0
    with Image.open(out) as grid:
        assert grid.size == (3 * 34, 2 * 34)


def test_samples_are_seeded_and_differ(trained_run):
    lord = Lord.load(trained_run, device="cpu")
    made = lord.sample(4, seed=1)
    assert made.shape == (4, 1, 32, 32)
    assert torch.equal(made, lord.sample(4, seed=1))
    assert not torch.equal(made, lord.sample(4, seed=2))
    _, class_ = lord.sample_codes(20, new_classes=True)
    assert torch.cdist(class_, lord.class_codes).min() > 1e-3
    _, class_ = lord.sample_codes(20)
    assert torch.cdist(class_, lord.class_codes).min(1).values.max() < 1e-3


def test_interpolation_starts_and_ends_at_the_two_images(encoder_run, photos, tmp_path):
    lord = Lord.load(encoder_run, device="cpu")
    line = lord.interpolate(torch.zeros(3), torch.tensor([1.0, 2.0, 4.0]), 5)
    assert line[0].tolist() == [0, 0, 0]
    assert line[2].tolist() == [0.5, 1, 2]
    assert line[4].tolist() == [1, 2, 4]
    out = tmp_path / "grid.png"
    files = [str(photos / f"image-{i}.png") for i in (0, 5)]
    assert main(["interpolate", str(encoder_run), *files, "--out", str(out), "--steps", "3"]) == 0
    made = lord.decode(*lord.encode(read_images([photos / "image-0.png"], lord.shape)))
    with Image.open(out) as grid:
        assert grid.width > 5 * 66  # the two images stand at the sides
        corner = np.asarray(grid.convert("L"))[:, -5 * 66 - 8 :]
    tile = corner[-3 * 66 :, 66 + 4 :][:64:2, :64:2].astype(float)
    assert np.abs(tile / 255 - made[0, 0].numpy()).mean() < 0.01


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 3, 32, 32), r"\[B, 1, 32, 32\]"),
        (torch.zeros(1, 32, 32), r"\[B, 1, 32, 32\]"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), "divide uint8 by 255"),
        (torch.full((2, 1, 32, 32), 200.0), "divide uint8 by 255"),
    ],
)
def test_images_of_another_shape_are_refused(encoder_run, bad, message):
    with pytest.raises(ValueError, match=message):
        Lord.load(encoder_run, device="cpu").encode(bad)


def using(verb: str, run, inputs, out) -> list:
    """Return the arguments of a verb for a run and for image files or folders."""
    inputs = [inputs]
    return {
        "encode": ["encode", run, *inputs, "--out", out],
        "translate": ["translate", run, "--content", *inputs, "--class", *inputs, "--out", out],
        "fit": ["fit", run, *inputs, "--out", out, "--steps", "2"],
        "interpolate": ["interpolate", run, *inputs * 2, "--out", out],
    }[verb]


def test_files_that_pack_ignores_are_not_listed(tmp_path):
    for name in ("a.png", "b.pdf", "c.eps", "d.txt"):
        (tmp_path / name).touch()
    assert list_images([tmp_path]) == [tmp_path / "a.png"]


@pytest.mark.parametrize("verb", ["encode", "translate", "fit", "interpolate"])
def test_every_verb_refuses_wrong_images(encoder_run, trained_run, photos, tmp_path, capsys, verb):
    out, empty, text = tmp_path / "out.png", tmp_path / "empty", tmp_path / "letter.png"
    empty.mkdir()
    text.write_text("not an image")
    cases = {
        "no images in it": (encoder_run, empty),
        "not an image": (encoder_run, text),
        "no such file": (encoder_run, tmp_path / "gone"),
        "not a run of lord-fast": (empty, photos),
    }
    if verb != "fit":
        cases["train-encoders"] = (trained_run, photos)
    for message, (run, inputs) in cases.items():
        assert message in fails(capsys, *using(verb, run, inputs, out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "letter.png"]


@pytest.mark.parametrize("verb", ["report", "train-encoders", "evaluate"])
def test_the_store_of_another_run_is_refused(trained_run, tmp_path, capsys, verb):
    other = packed(tmp_path, {"a": 4, "b": 4})
    error = fails(capsys, verb, trained_run, "--store", other)
    assert "not the images that" in error
    assert not (trained_run / "encoders.yaml").exists()


def test_verbs_refuse_folders_that_are_not_runs(tmp_path, trained_run, capsys):
    out = tmp_path / "out.png"
    for command in (
        ("sample", tmp_path, "--out", out), ("export", tmp_path, "--out", out),
        ("report", tmp_path), ("train-encoders", tmp_path), ("evaluate", tmp_path),
    ):  # fmt: skip
        assert "not a run of lord-fast" in fails(capsys, *command)
    file = trained_run / "config.yaml"
    for command in (
        ("sample", file, "--out", out), ("export", file, "--out", out), ("report", file),
        ("train-encoders", file), ("evaluate", file), ("encode", file, file, "--out", out),
    ):  # fmt: skip
        assert "not a run of lord-fast" in fails(capsys, *command)
    assert "-n 0" in fails(capsys, "sample", trained_run, "-n", "0", "--out", out)
    assert "--steps 0" in fails(capsys, "fit", trained_run, tmp_path, "--steps", "0")
    assert "latent.pth: no such file" in fails(capsys, "import-lord", tmp_path, "--run", out)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def cropped(tmp_path_factory):
    """A run with stage 2 on a store that was packed with --crop, and the original images."""
    root = tmp_path_factory.mktemp("cropped")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / "images" / name).mkdir(parents=True)
        for i in range(16):
            pixels = rng.integers(0, 256, (50, 60), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{i:02d}.png")
    store, run = root / "store", root / "run"
    crop = ("--size", "32", "--crop", "40x40+12+3")
    assert main(["pack", str(root / "images"), str(store), *crop]) == 0
    assert train(store, run, "--steps", "2", "--threads", "1") == 0
    assert main(["train-encoders", str(run), *ENCODER_FLAGS, "--steps", "2"]) == 0
    return run, root / "images"


def test_new_images_are_cropped_like_those_of_the_store(cropped, tmp_path):
    run, folder = cropped
    lord = Lord.load(run, device="cpu")
    store = ImageStore(run.parent / "store")
    packed_images = as_float(store.images(torch.arange(32)))
    assert torch.equal(read_images(list_images([folder]), lord.shape), packed_images)
    out = tmp_path / "codes.npz"
    assert main(["encode", str(run), str(folder), "--out", str(out)]) == 0
    with np.load(out) as codes:
        wanted = lord.encode(packed_images)[0].numpy()
        np.testing.assert_allclose(codes["content"], wanted, atol=1e-6)


def test_images_that_are_smaller_than_the_crop_are_refused(cropped, photos, tmp_path, capsys):
    error = fails(capsys, "encode", cropped[0], photos, "--out", tmp_path / "codes.npz")
    assert "image-0.png: 32 x 32" in error
    assert "cropped to 40x40+12+3" in error


def test_a_run_without_a_recorded_crop_is_refused(cropped, tmp_path, capsys):
    """Older versions did not record the crop, and lord-fast does not guess it."""
    run, folder = tmp_path / "run", cropped[1]
    shutil.copytree(cropped[0], run)
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)[1:]  # no hash
    at = next(i for i, line in enumerate(lines) if line.strip() == "crop:")
    (run / "config.yaml").write_text("".join(lines[:at]))
    error = fails(capsys, "encode", run, folder, "--out", tmp_path / "codes.npz")
    assert "config.yaml: does not record how its images were cropped" in error
    (run / "config.yaml").write_text("".join(lines[:at]) + "  crop: [40, 40, 12, 3]\n")
    assert main(["encode", str(run), str(folder), "--out", str(tmp_path / "codes.npz")]) == 0


def test_files_are_read_in_batches(cropped, tmp_path, monkeypatch):
    """Memory does not grow with the number of files, and all broken files are named."""
    lord = Lord.load(cropped[0], device="cpu")
    files = list_images([cropped[1]])
    whole = read_images(files, lord.shape)
    monkeypatch.setattr(lord_fast.data.image_files, "INFERENCE_BATCH", 5)
    opened = []
    read_file = lord_fast.data.image_files.read_file
    monkeypatch.setattr(
        lord_fast.data.image_files, "read_file", lambda f: opened.append(f) or read_file(f)
    )
    batches = read_batches(files, lord.shape)
    first = next(batches)
    assert (len(first), len(opened)) == (5, 5)
    assert torch.equal(torch.cat([first, *batches]), whole)
    broken = [tmp_path / "one.png", tmp_path / "two.png"]
    for file in broken:
        file.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"one\.png.*two\.png"):
        list(read_batches([files[0], broken[0], *files, broken[1]], lord.shape))


def test_codes_are_decoded_by_the_decoder_of_their_stage(encoder_run, trained_run, images):
    """Sampled, fitted and trained codes use the decoder of stage 1 even with stage 2 loaded."""
    both, latent = Lord.load(encoder_run, device="cpu"), Lord.load(trained_run, device="cpu")
    codes = both.content_codes[:4], both.class_codes[:4]
    assert torch.equal(both.decode(*codes, stage="latent"), latent.decode(*codes))
    assert not torch.equal(both.decode(*codes), latent.decode(*codes))
    assert torch.equal(both.decode(*codes), both.decode(*codes, stage="encoders"))
    assert torch.equal(both.sample(2, density="training"), latent.sample(2, density="training"))
    fitted = [lord.fit(images[:2], steps=3)[0] for lord in (both, latent)]
    assert torch.equal(*fitted)
    assert (both.step, both.steps) == (120, {"latent": 120, "encoders": 120})
    with pytest.raises(ValueError, match="train-encoders"):
        latent.decode(*codes, stage="encoders")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  size: 32\n", "", "config.yaml: damaged (data: size)"),
        ("  size: 32\n", "  size: [1]\n", "config.yaml: damaged (data: size)"),
        ("  store: ", "  shop: ", "config.yaml: damaged (data: store)"),
        ("data:\n", "data: 3\nrest:\n", "config.yaml"),
        ("  crop: null\n", "  crop: 3\n", "config.yaml: damaged (data: crop)"),
        ("  num_images: 160\n", "  num_images: 1\n", "numbers of images and classes differ"),
        ("adain_dim: 8\n", "adain_dim: 16\n", "does not fit the configured networks"),
    ],
)
def test_a_damaged_configuration_is_refused(trained_run, tmp_path, capsys, old, new, message):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    text = (run / "config.yaml").read_text()
    assert old in text
    unhashed = text.partition("\n")[2]  # as after an edit on purpose
    (run / "config.yaml").write_text(unhashed.replace(old, new))
    error = fails(capsys, "sample", run, "--density", "training", "--out", tmp_path / "grid.png")
    assert message in error
    assert str(run) in error
