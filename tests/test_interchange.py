"""Tests of the export and of the import of published checkpoints."""

import contextlib
import errno
import itertools
import json
import pickle
import shutil
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from lord_fast.atomic import atomic_folder
from lord_fast.bench.published import PublishedModel
from lord_fast.bench.step import random_weights
from lord_fast.cli import main
from lord_fast.interchange import export
from lord_fast.lord import Lord
from tests.test_cli import fails
from tests.test_encoders import ENCODER_FLAGS
from tests.test_train import ROOT

NAMES = {"adain": "modulation.adain_per_layer", "fc": "generator.fc_layers"}


def published_names(model: PublishedModel) -> dict[str, torch.Tensor]:
    """The parameters of `bench.published` under the names of the published code."""
    out = {}
    for name, tensor in model.state_dict().items():
        room, _, rest = name.partition(".")
        if room == "convs":
            number, _, kind = rest.partition(".")
            name = f"generator.adain_conv_layers.{4 * int(number) + 1}.{kind}"
        elif room == "last":
            name = f"generator.last_conv_layers.{rest}"
        elif room == "content_embedding":
            name = "content_embedding.embedding.weight"
        elif room in NAMES:
            name = f"{NAMES[room]}.{rest}"
        out[name] = tensor
    return out


class PublishedEncoder(nn.Module):
    """The published encoder for 64 px images, with few channels."""

    def __init__(self, code_dim: int, width: int, channels: int):
        super().__init__()
        w = (width // 4, width // 2, width, width, width)
        convs: list[nn.Module] = [nn.Conv2d(channels, w[0], 7, 1, 3), nn.LeakyReLU()]
        for a, b in itertools.pairwise(w):
            convs += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU()]
        self.conv_layers = nn.Sequential(*convs)
        self.fc_layers = nn.Sequential(
            nn.Linear(16 * width, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU(),
            nn.Linear(width, code_dim),
        )  # fmt: skip

    def forward(self, images):
        return self.fc_layers(self.conv_layers(images).flatten(1))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model directory of lord-pytorch, the two models in it and the encoders."""
    folder = tmp_path_factory.mktemp("published")
    return folder, *write_published(folder)


def write_published(folder):
    """Write the files of a published model.

    Returns:
        The model of stage 1, the fine-tuned model of stage 2 and the encoders.
    """
    torch.manual_seed(0)
    model = PublishedModel(5, 3, content_dim=6, class_dim=10, adain_dim=16, size=64, channels=3)
    tuned = PublishedModel(5, 3, content_dim=6, class_dim=10, adain_dim=16, size=64, channels=3)
    encoders = {
        "content_encoder": PublishedEncoder(6, 12, 3), "class_encoder": PublishedEncoder(10, 12, 3)
    }  # fmt: skip
    torch.save(published_names(model), folder / "latent.pth")
    amortized = {
        f"{name}.{k}": v for name, e in encoders.items() for k, v in e.state_dict().items()
    } | {k: v for k, v in published_names(tuned).items() if "embedding" not in k}
    torch.save(amortized, folder / "amortized.pth")
    (folder / "config.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")  # must not be opened
    return model, tuned, encoders


def images_of(model: PublishedModel, content, class_):
    """The images that the published forward pass makes from codes."""
    with torch.no_grad():
        model.content_embedding.weight[: len(content)] = content
        model.class_embedding.weight[: len(class_)] = class_
        ids = torch.arange(len(content))
        return model(ids, ids, torch.zeros(len(content), 6))[0]


def test_imported_images_equal_the_published_ones(checkpoint, tmp_path):
    folder, model, tuned, encoders = checkpoint
    run = tmp_path / "run"
    assert main(["import-lord", str(folder), "--run", str(run)]) == 0
    lord = Lord.load(run, device="cpu", stage="latent")
    assert (lord.data["size"], lord.data["channels"]) == (64, 3)
    sizes = lord.config.model
    assert (sizes.content_dim, sizes.class_dim, sizes.adain_dim) == (6, 10, 16)
    content = model.content_embedding.weight.detach()[:3].clone()
    class_ = model.class_embedding.weight.detach().clone()
    torch.testing.assert_close(lord.content_codes[:3], content, rtol=0, atol=1e-7)
    torch.testing.assert_close(lord.class_codes, class_, rtol=0, atol=1e-7)
    wanted = images_of(model, content, class_)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(lord.decode(content, class_), wanted, rtol=0, atol=1e-4)

    amortized = Lord.load(run, device="cpu")
    images = torch.rand(3, 3, 64, 64)
    codes = amortized.encode(images)
    with torch.no_grad():
        expected = [encoders[name](images) for name in ("content_encoder", "class_encoder")]
    torch.testing.assert_close(codes[0], expected[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(codes[1], expected[1], rtol=0, atol=1e-4)
    made = amortized.translate(images, images)
    torch.testing.assert_close(made, images_of(tuned, *expected), rtol=0, atol=1e-4)


def config_of_published(height: int, width: int, protocol: int = 4) -> bytes:
    shapes = {"img_shape": (height, width, 3), "n_imgs": 5, "rate": 1e-3, "dims": (128, 256, 7)}
    return pickle.dumps(shapes, protocol)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("sides", [(128, 32), (32, 128)])
def test_wide_images_of_the_area_of_a_square_are_refused(
    checkpoint, tmp_path, capsys, sides, protocol
):
    """The tensors of 128 x 32 images have the shapes of those of 64 x 64 images."""
    shutil.copytree(checkpoint[0], tmp_path / "model")
    (tmp_path / "model" / "config.pkl").write_bytes(config_of_published(*sides, protocol))
    error = fails(capsys, "import-lord", tmp_path / "model", "--run", tmp_path / "run")
    assert f"images of {sides[0]} x {sides[1]} pixels" in error
    assert not (tmp_path / "run").exists()


def test_the_published_configuration_is_never_loaded(checkpoint, tmp_path, capsys):
    """A pickle that calls code is not obeyed, and a line says that squares are assumed."""
    run = tmp_path / "run"
    assert main(["import-lord", str(checkpoint[0]), "--run", str(run)]) == 0
    assert "they are taken to be square" in capsys.readouterr().err
    shutil.copytree(checkpoint[0], tmp_path / "model")
    (tmp_path / "model" / "config.pkl").write_bytes(config_of_published(64, 64))
    again = tmp_path / "again"
    assert main(["import-lord", str(tmp_path / "model"), "--run", str(again)]) == 0
    assert "square" not in capsys.readouterr().err


def test_an_imported_model_is_tied_to_its_images(checkpoint, tmp_path, capsys, quick):
    """With its store it is evaluated, reported and given encoders, as the issue's users want."""
    folder, store, run = tmp_path / "model", tmp_path / "store", tmp_path / "run"
    folder.mkdir()
    shutil.copy(checkpoint[0] / "latent.pth", folder)
    for i, name in enumerate(("ann", "ann", "bob", "bob", "eve")):
        (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (40 * i, 90, 9)).save(tmp_path / "images" / name / f"{i}.png")
    assert main(["pack", str(tmp_path / "images"), str(store), "--size", "64"]) == 0
    command = ["import-lord", str(folder), "--run", str(run), "--store", str(store)]
    assert main(command) == 0
    printed = capsys.readouterr().err
    assert "dB with shuffled codes" in printed
    assert "order of training" in printed  # random weights reconstruct nothing
    lord = Lord(run, device="cpu")
    assert lord.class_names == ["ann", "bob", "eve"]
    assert lord.find("bob/2.png", "content")[0].image_id == 2
    assert main(["report", str(run)]) == 0
    small = ["--steps", "1", "--batch-size", "2", "--encoder-dim", "8"]
    weights = tmp_path / "vgg.safetensors"
    save_file(random_weights(), weights)
    assert main(["train-encoders", str(run), "--perceptual-weights", str(weights), *small]) == 0
    assert Lord(run, device="cpu").encode(torch.rand(1, 3, 64, 64))[0].shape == (1, 6)
    shutil.rmtree(tmp_path / "images" / "eve")
    other = tmp_path / "other"
    assert main(["pack", str(tmp_path / "images"), str(other), "--size", "64"]) == 0
    error = fails(capsys, "import-lord", folder, "--run", tmp_path / "r", "--store", other)
    assert "num_images 4 instead of 5, num_classes 2 instead of 3" in error
    assert not (tmp_path / "r").exists()


def test_import_without_stage_2_and_of_unusable_checkpoints(checkpoint, tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    source = (checkpoint[0] / "latent.pth").read_bytes()
    (folder / "latent.pth").write_bytes(source)
    run = tmp_path / "run"
    assert main(["import-lord", str(folder), "--run", str(run)]) == 0
    assert "train-encoders" in fails(capsys, "encode", run, folder / "latent.pth")
    assert "has no store" in fails(capsys, "evaluate", run)
    assert "exists already" in fails(capsys, "import-lord", folder, "--run", run)
    state = torch.load(folder / "latent.pth", weights_only=True)
    del state["generator.adain_conv_layers.5.bias"]
    torch.save(state, folder / "latent.pth")
    error = fails(capsys, "import-lord", folder, "--run", tmp_path / "other")
    assert "generator.adain_conv_layers.5.bias is missing" in error
    (folder / "latent.pth").write_bytes(b"not a checkpoint")
    error = fails(capsys, "import-lord", folder, "--run", tmp_path / "other")
    assert "not a state dict that can be read safely" in error
    torch.save({"x": print}, folder / "latent.pth")  # a pickle that names code
    error = fails(capsys, "import-lord", folder, "--run", tmp_path / "other")
    assert "not a state dict that can be read safely" in error
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (128, "latent.pth: this model makes images of 128 x 128 pixels"),
        (48, "latent.pth: this model makes images of 48 x 48 pixels"),
        ((64, 128), "not square"),
    ],
)
def test_import_refuses_sizes_whose_networks_differ(tmp_path, capsys, size, message):
    side = size if isinstance(size, int) else 64
    model = PublishedModel(5, 3, content_dim=6, class_dim=10, adain_dim=16, size=side, channels=3)
    state = published_names(model)
    if side != size:  # for twice the width, the last layer of the head has twice as many outputs
        for kind in ("weight", "bias"):
            name = f"generator.fc_layers.4.{kind}"
            state[name] = state[name].repeat_interleave(2, 0)
    refused(capsys, tmp_path, state, message)


def test_import_refuses_checkpoints_that_do_not_load(checkpoint, tmp_path, capsys):
    """A checkpoint that Lord.load could not load is refused before anything is written."""
    latent, amortized = (
        torch.load(checkpoint[0] / f"{name}.pth", weights_only=True)
        for name in ("latent", "amortized")
    )
    table = "class_embedding.weight"
    refused(capsys, tmp_path, latent | {table: torch.zeros(3, 11)}, "latent.pth: does not fit")
    refused(capsys, tmp_path, latent | {table: torch.zeros(3)}, f"latent.pth: {table} is not a pa")
    more = {"modulation.adain_per_layer.4.weight": torch.zeros(32, 10)}
    refused(capsys, tmp_path, latent | more, "belongs to a layer that lord-fast does not have")
    torch.save(
        amortized | {"content_encoder.fc_layers.4.weight": torch.zeros(7, 12)},
        tmp_path / "amortized.pth",
    )
    refused(capsys, tmp_path, latent, "amortized.pth: does not fit the configured networks")


def refused(capsys, folder, state, message):
    torch.save(state, folder / "latent.pth")
    error = fails(capsys, "import-lord", folder, "--run", folder / "run")
    assert message in error
    assert str(folder) in error
    assert not (folder / "run").exists()


def test_export(encoder_run, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: the onnx extra")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: the onnx extra")
    out = tmp_path / "exported"
    assert main(["export", str(encoder_run), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "class_encoder.onnx", "class_names.json", "config.json",
        "content_encoder.onnx", "decoder.onnx", "encoders_decoder.onnx", "model.safetensors",
        "swaps.png",
    ]  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5, lines  # nothing of another library
    assert all(line.startswith(str(out)) for line in lines)
    check_files(out, tmp_path, encoder_run)
    lord = Lord.load(encoder_run, device="cpu")
    tensors = load_file(out / "model.safetensors")
    assert torch.equal(tensors["content_codes"], lord.content_codes)
    config = json.loads((out / "config.json").read_text())
    assert (config["content_dim"], config["data"]["size"]) == (4, 32)
    assert "160 images of 8 classes" in (out / "README.md").read_text()
    assert "exists already" in fails(capsys, "export", encoder_run, "--out", out)

    import onnxruntime

    images = torch.rand(7, 1, 32, 32)
    session = onnxruntime.InferenceSession(out / "content_encoder.onnx")
    content = session.run(None, {"images": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(content), lord.encode(images)[0], rtol=0, atol=1e-4)
    codes = {"content": lord.content_codes[:3].numpy(), "class": lord.class_codes[:3].numpy()}
    for name, kind in (("decoder", "latent"), ("encoders_decoder", "encoders")):
        made = onnxruntime.InferenceSession(out / f"{name}.onnx").run(None, codes)[0]
        wanted = lord.decode(lord.content_codes[:3], lord.class_codes[:3], stage=kind)
        torch.testing.assert_close(torch.from_numpy(made), wanted, rtol=0, atol=1e-4)


def test_an_exported_content_encoder_searches_the_codebook(trained_run, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: the onnx extra")
    run, out = tmp_path / "run", tmp_path / "exported"
    shutil.copytree(trained_run, run)
    book = ("--content-codebook", "9", "--content-candidates", "3", "--content-bandwidth", "0")
    form = (*book, "--reconstruction-weight", "0", "--steps", "2")
    assert main(["train-encoders", str(run), *ENCODER_FLAGS, *form]) == 0
    name, networks = "content_encoder.onnx", export._networks  # The other files take long.
    monkeypatch.setattr(export, "_networks", lambda lord: {name: networks(lord)[name]})
    assert main(["export", str(run), "--out", str(out)]) == 0
    lord, images = Lord.load(run, device="cpu"), torch.rand(7, 1, 32, 32)
    session = onnxruntime.InferenceSession(out / name)
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    torch.testing.assert_close(found, lord.encode(images)[0], rtol=0, atol=1e-4)
    assert not torch.equal(found, lord.encoders.content(images)), "no image needed the search"


def check_files(out, *folders):
    """Everyone may read the files, and no file names a folder of this machine."""
    for file in out.iterdir():
        assert file.stat().st_mode & 0o777 == 0o644, file
        for text in (*map(str, folders), str(ROOT), "site-packages", sys.prefix):
            assert text.encode() not in file.read_bytes(), (file, text)


def test_an_exported_model_comes_back(encoder_run, photos, tmp_path, capsys):
    """It does what the run does: in Python, and in the verbs that use a run."""
    out = tmp_path / "exported"
    command = ["export", str(encoder_run), "--out", str(out), "--no-onnx"]
    assert main([*command, "--license", "cc-by-4.0"]) == 0
    check_files(out, tmp_path, encoder_run)
    run, model = Lord(encoder_run, device="cpu"), Lord(out, device="cpu")
    assert model.class_names == run.class_names
    assert (model.steps, model.stage, model.shape) == (run.steps, "encoders", run.shape)
    images = torch.rand(3, 1, 32, 32)
    for found, wanted in zip(model.encode(images), run.encode(images), strict=True):
        assert torch.equal(found, wanted)
    assert torch.equal(model.translate(images, class_="3"), run.translate(images, class_="3"))
    assert torch.equal(model.translate(7, class_="3"), run.translate(7, class_="3"))
    assert torch.equal(model.sample(2, density="training"), run.sample(2, density="training"))
    assert torch.equal(model.fit(images, steps=2)[0], run.fit(images, steps=2)[0])
    assert set(Lord(out, device="cpu", stage="latent").decoders) == {"latent"}
    for verb in ("encode", "fit"):
        steps = ["--steps", "1"] if verb == "fit" else []
        codes = str(tmp_path / f"{verb}.npz")
        assert main([verb, str(out), str(photos), "--out", codes, *steps]) == 0
    picture = str(tmp_path / "t.png")
    assert main(["translate", str(out), "--content", "7", "--class", "3", "--out", picture]) == 0
    card = (out / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "`0`, `1`, `2`" in card
    assert "(swaps.png)" in card
    snippet = (
        card.split("```python\n")[1]
        .split("```")[0]
        .replace(f'"{encoder_run.name}"', repr(str(out)))
    )
    with contextlib.chdir(tmp_path):
        Image.new("L", (40, 40)).save("photo.png")
        exec(
            compile(snippet.replace("sample(16)", 'sample(4, density="training")'), "card", "exec")
        )
    assert (tmp_path / "translated.png").is_file()
    assert (tmp_path / "samples.png").is_file()
    assert "not a run of lord-fast" in fails(capsys, "evaluate", out)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    Image.new("L", (40, 40), 90).save(folder / "one.png")
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("config.json", "{", "[", "config.json: not the configuration of a model"),
        ("config.json", '"content_dim": 4', '"content_dim": 5', "does not fit the configured net"),
        ("config.json", '"num_images": 160', '"num_images": -1', "config.json: damaged"),
        ("class_names.json", "[", "{", "class_names.json: damaged"),
        ("model.safetensors", None, None, "model.safetensors: cannot be read"),
    ],
)
def test_a_damaged_export_is_refused(trained_run, tmp_path, file, old, new, message):
    out = tmp_path / "exported"
    assert main(["export", str(trained_run), "--out", str(out), "--no-onnx"]) == 0
    if old is None:
        (out / file).write_bytes((out / file).read_bytes()[:1000])
    else:
        text = (out / file).read_text()
        assert old in text
        (out / file).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        Lord(out, device="cpu")


def test_export_writes_each_decoder_with_its_codes(encoder_run, trained_run, tmp_path, capsys):
    """Training codes get the decoder of stage 1, and the encoders get that of stage 2.

    Metrics of an earlier checkpoint are left out of the model card.
    """
    run, out = tmp_path / "run", tmp_path / "exported"
    shutil.copytree(encoder_run, run)
    assert main(["evaluate", str(run)]) == 0
    early = json.loads((run / "metrics.json").read_text()) | {"codes": "encoder", "step": 60}
    del early["checksum"]
    (run / "metrics-encoder.json").write_text(json.dumps(early))
    assert main(["export", str(run), "--out", str(out), "--no-onnx"]) == 0
    tensors = load_file(out / "model.safetensors")
    latent, both = Lord.load(trained_run, device="cpu"), Lord.load(run, device="cpu")
    assert torch.equal(tensors["class_codes"], latent.class_codes)
    for name, tensor in latent.decoders["latent"].state_dict().items():
        assert torch.equal(tensors[f"decoder.{name}"], tensor)
    for name, tensor in both.decoders["encoders"].state_dict().items():
        assert torch.equal(tensors[f"encoders_decoder.{name}"], tensor)
    config = json.loads((out / "config.json").read_text())
    assert config["decoders"] == {
        "decoder": ["content_codes", "class_codes"], "encoders_decoder": ["encoders"],
    }  # fmt: skip
    card = (out / "README.md").read_text()
    assert "## metrics: latent codes, step 120" in card
    assert "## metrics-encoder" not in card
    (run / "metrics.json").write_text("{")
    error = fails(capsys, "export", run, "--out", tmp_path / "again", "--no-onnx")
    assert f"{run / 'metrics.json'}: damaged" in error
    assert not (tmp_path / "again").exists()


def test_export_without_onnx_or_stage_2(trained_run, tmp_path):
    out = tmp_path / "exported"
    assert main(["export", str(trained_run), "--out", str(out), "--no-onnx"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "class_names.json", "config.json", "model.safetensors", "swaps.png",
    ]  # fmt: skip
    rooms = {name.split(".")[0] for name in load_file(out / "model.safetensors")}
    assert rooms == {"decoder", "content_codes", "class_codes"}
    assert Lord(out, device="cpu").translate(0, class_="3").shape == (1, 1, 32, 32)
    assert "encoders_decoder" not in (out / "README.md").read_text()


def test_export_never_removes_what_it_exports(trained_run, tmp_path, capsys):
    for name in ("model", "model.partial"):
        shutil.copytree(trained_run, tmp_path / name)
        before = sorted(path for path in (tmp_path / name).rglob("*"))
        for out in (name, f"{name}/exported", name.removesuffix(".partial")):
            error = fails(capsys, "export", tmp_path / name, "--out", tmp_path / out, "--no-onnx")
            assert str(tmp_path / out) in error
            assert "give a" in error
            assert sorted(path for path in (tmp_path / name).rglob("*")) == before
        shutil.rmtree(tmp_path / name)
    mine = tmp_path / "out.partial"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    error = fails(capsys, "export", trained_run, "--out", tmp_path / "out", "--no-onnx")
    assert f"{mine}: in the way" in error
    assert (mine / "thesis.tex").exists()


def test_export_goes_on_after_a_disk_that_was_full_before_the_marker(trained_run, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "out.partial").mkdir()  # what such an export leaves
    assert main(["export", str(trained_run), "--out", str(out), "--no-onnx"]) == 0
    assert (out / "model.safetensors").is_file()
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("verb", ["export", "import-lord"])
def test_a_full_disk_leaves_nothing_and_the_same_command_works_again(
    trained_run, checkpoint, tmp_path, capsys, monkeypatch, verb
):
    out = tmp_path / "out"
    command = {
        "export": ["export", trained_run, "--out", out, "--no-onnx"],
        "import-lord": ["import-lord", checkpoint[0], "--run", out],
    }[verb]

    def full(stream, digest, content):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lord_fast.run.tensors._put", full)
        error = fails(capsys, *command)
        assert "No space left on device" in error
        assert ".safetensors" in error
    assert list(tmp_path.iterdir()) == []
    assert main([str(word) for word in command]) == 0
    assert Lord.load(out if verb == "import-lord" else trained_run, device="cpu").step > 0


@pytest.mark.parametrize("verb", ["export", "import-lord"])
def test_only_one_process_writes_a_folder(trained_run, checkpoint, tmp_path, capsys, verb):
    out = tmp_path / "out"
    command = {
        "export": ["export", trained_run, "--out", out, "--no-onnx"],
        "import-lord": ["import-lord", checkpoint[0], "--run", out],
    }[verb]
    with atomic_folder(out) as partial:
        (partial / "half").touch()
        assert "out.partial: in use by process" in fails(capsys, *command)
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["half"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
