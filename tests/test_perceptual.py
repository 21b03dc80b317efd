"""Tests of the VGG16 features and the reconstruction losses."""

import functools
import http.server
import threading

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from lord_fast.bench.step import random_weights
from lord_fast.model import perceptual
from lord_fast.model.perceptual import VGG16, PerceptualLoss, PyramidLoss, load_weights


@pytest.fixture(scope="module")
def weights():
    return random_weights()


def plain_features(weights, x, layers):
    """The output of every layer of VGG16 with torchvision's numbering."""
    outputs = {}
    for n in range(layers):
        if n in perceptual.CONVOLUTIONS:
            weight, bias = weights[f"features.{n}.weight"], weights[f"features.{n}.bias"]
            x = F.conv2d(x, weight, bias, padding=1)
        elif n in perceptual.POOLS:
            x = F.max_pool2d(x, kernel_size=2, stride=2)
        else:
            x = F.relu(x)
        outputs[n] = x
    return outputs


def test_taps_are_the_named_layers(weights):
    taps = ("relu1_2", "relu2_2", "relu3_2", "relu4_3", "pool5")
    # The deep taps sum so many products that float32 errors would come near the tolerance.
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    weights = {name: weight.double() for name, weight in weights.items()}
    mean = torch.tensor((0.48502, 0.45796, 0.40760)).view(3, 1, 1)
    wanted = plain_features(weights, (images - mean) * 255, 31)
    got = VGG16(weights, taps, "caffe").double()(images)
    assert [tuple(feature.shape[1:]) for feature in got] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 1, 1),
    ]  # fmt: skip
    for feature, layer in zip(got, (3, 8, 13, 22, 30), strict=True):
        torch.testing.assert_close(feature, wanted[layer], rtol=1e-4, atol=1e-3)


def test_grey_is_repeated_and_unit_input_is_not_normalised(weights):
    grey = torch.rand(2, 1, 32, 32)
    vgg = VGG16(weights, ("relu1_2",), "unit")
    torch.testing.assert_close(vgg(grey)[0], vgg(grey.repeat(1, 3, 1, 1))[0])
    torch.testing.assert_close(
        vgg(grey)[0], plain_features(weights, grey.repeat(1, 3, 1, 1), 4)[3], rtol=1e-4, atol=1e-5
    )


def test_published_loss(weights):
    """The loss is pixel L1 plus the unscaled sum over taps of the mean absolute difference."""
    vgg = VGG16(weights, ("relu1_2", "relu2_2"), "unit")
    images, targets = torch.rand(2, 2, 3, 32, 32).unbind(0)
    wanted = (images - targets).abs().mean() + sum(
        (a - b).abs().mean() for a, b in zip(vgg(images), vgg(targets), strict=True)
    )
    torch.testing.assert_close(PerceptualLoss(vgg, 1.0, 1.0)(images, targets), wanted)


def test_normalised_taps_do_not_depend_on_the_scale_of_the_weights(weights):
    """Scaling a layer by ten changes the raw loss but not the normalised one."""
    images, targets = torch.rand(2, 4, 3, 32, 32).unbind(0)
    scaled = dict(weights)
    for kind in ("weight", "bias"):
        scaled[f"features.0.{kind}"] = weights[f"features.0.{kind}"] * 10
    scaled["features.2.bias"] = weights["features.2.bias"] * 10
    losses = {}
    for name, state in (("plain", weights), ("scaled", scaled)):
        loss = PerceptualLoss(VGG16(state, ("relu1_2",), "unit"), 0.0, 0.1)
        raw = loss(images, targets)
        loss.measure_scale([targets[:2], targets[2:]])
        losses[name] = raw, loss(images, targets)
    assert losses["scaled"][0] > 5 * losses["plain"][0]
    torch.testing.assert_close(losses["scaled"][1], losses["plain"][1])


def test_vgg_is_frozen_and_the_target_keeps_no_graph(weights):
    loss = PerceptualLoss(VGG16(weights, ("relu1_2",), "caffe"), 1.0, 0.1)
    images = torch.rand(1, 1, 32, 32, requires_grad=True)
    targets = torch.rand(1, 1, 32, 32, requires_grad=True)
    loss(images, targets.detach()).backward()
    assert images.grad.abs().max() > 0
    assert list(loss.parameters()) == []
    assert set(loss.state_dict()) == {"tap_scale"}


def test_pyramid_loss():
    images, targets = torch.rand(2, 2, 1, 32, 32).unbind(0)
    wanted = torch.zeros(())
    for level in range(4):
        a, b = (F.avg_pool2d(x, 2**level) for x in (images, targets))
        wanted = wanted + (a - b).abs().mean()
    torch.testing.assert_close(PyramidLoss()(images, targets), wanted)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file(tmp_path, weights, suffix):
    file = tmp_path / f"vgg{suffix}"
    half = {name: tensor.half() for name, tensor in weights.items()}
    save_file(half, file) if suffix == ".safetensors" else torch.save(half, file)
    loaded = load_weights(file, "caffe")
    assert loaded["features.28.weight"].dtype == torch.float32
    assert set(loaded) == set(weights)


def test_errors_name_bad_weight_files(tmp_path, weights):
    with pytest.raises(ValueError, match=r"nowhere\.pth: no such file"):
        load_weights(tmp_path / "nowhere.pth", "caffe")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"broken\.safetensors: neither"):
        load_weights(broken, "caffe")
    short = tmp_path / "short.pth"
    torch.save({"features.0.weight": weights["features.0.weight"]}, short)
    with pytest.raises(ValueError, match=r"features\.0\.bias is missing"):
        load_weights(short, "caffe")
    pickled = tmp_path / "pickled.pth"
    torch.save({"x": Exploit()}, pickled)
    with pytest.raises(ValueError, match="neither"):
        load_weights(pickled, "caffe")


class Exploit:
    def __reduce__(self):
        return (pytest.fail, ("a pickled object was run",))


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_weights_are_downloaded_once_and_verified(tmp_path, server, weights, monkeypatch):
    folder, url = server
    torch.save(weights, folder / "vgg.pth")
    from lord_fast.atomic import file_sha256

    name = f"vgg16-{file_sha256(folder / 'vgg.pth')[:8]}.pth"
    (folder / "vgg.pth").rename(folder / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(perceptual.URLS, "caffe", f"{url}/{name}")
    assert torch.equal(load_weights(None, "caffe")["features.0.bias"], weights["features.0.bias"])
    (folder / name).unlink()
    load_weights(None, "caffe")  # from the cache

    wrong = "vgg16-00000000.pth"
    torch.save(weights, folder / wrong)
    monkeypatch.setitem(perceptual.URLS, "caffe", f"{url}/{wrong}")
    with pytest.raises(ValueError, match="its sha256 is"):
        load_weights(None, "caffe")


def test_a_failed_download_suggests_a_file_or_another_loss(tmp_path, server, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(perceptual.URLS, "caffe", f"{server[1]}/missing-00000000.pth")
    with pytest.raises(ValueError, match=r"--perceptual-weights FILE.*--loss pyramid"):
        load_weights(None, "caffe")


def test_real_weights_measure_blur(shared):
    """A slightly blurred image has a smaller loss than a strongly blurred one."""
    state = load_weights(shared / "weights" / "vgg16_features.safetensors", "caffe")
    loss = PerceptualLoss(VGG16(state, ("relu1_2", "relu2_2", "relu3_2"), "caffe"), 1.0, 0.1)
    image = (torch.arange(64) // 8 % 2).float().expand(1, 3, 64, 64).contiguous()
    loss.measure_scale([image])
    little, much = (F.avg_pool2d(image, k, 1, k // 2) for k in (3, 9))
    assert 0 < loss(little, image) < loss(much, image)
    assert loss.tap_scale[0] > 10  # activations of the Caffe weights are this large


def test_taps_in_bf16_are_averaged_in_float32(weights):
    """bfloat16 has 8 bits, so it would round the mean to one of a few values."""
    vgg = VGG16(weights, ("relu1_2", "relu2_2"), "unit")
    loss = PerceptualLoss(vgg, 0.0, 1.0)
    images, targets = torch.rand(2, 4, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(images, targets)
        taps = zip(vgg(images), vgg(targets), strict=True)
        wanted = sum(float((a - b).abs().double().mean()) for a, b in taps)
    assert got.dtype == torch.float32
    torch.testing.assert_close(float(got), wanted, rtol=1e-6, atol=0)


def test_weights_kept_in_bf16_give_the_same_bits(weights):
    """Autocast rounds them to the same values. The hash stays that of the file."""
    found = []
    for keep in (False, True):
        vgg = VGG16(weights, ("relu1_2", "relu3_2"), "caffe")
        sha256 = vgg.sha256()
        if keep:
            vgg.keep_in(torch.bfloat16)
            assert vgg.features_0_weight.dtype == vgg.features_0_bias.dtype == torch.bfloat16
            assert vgg.features_2_weight.is_contiguous(memory_format=torch.channels_last)
            assert vgg.mean.dtype == torch.float32
        assert vgg.sha256() == sha256
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        images.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = PerceptualLoss(vgg, 1.0, 1.0)(images, images.detach().flip(0))
        loss.backward()
        found.append((loss.detach(), images.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
