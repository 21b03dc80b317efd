"""Tests the metrics of the literature on codes for which the right answer is known."""

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.ensemble import GradientBoostingClassifier

from lord_fast.evaluate.blocks import infomec, information, scores
from lord_fast.evaluate.dimensions import dci, mig, sap
from lord_fast.evaluate.field import MOST_FOR_DIMENSIONS, measure_field
from lord_fast.evaluate.read_codes import Labels
from lord_fast.evaluate.regression import periods, regress
from lord_fast.evaluate.samples import frechet_distance, quality
from lord_fast.evaluate.score import score
from lord_fast.evaluate.splits import Split
from lord_fast.run.metrics import probe_rows
from tests.test_cli import fails


def planted(kind):
    """Return codes of 600 images, their three factors and a split.

    The codes are `perfect` (one dimension for each factor), `rotated` (the same after a rotation),
    `random`, or `entangled` (each dimension mixes two factors).
    """
    rng = np.random.default_rng(0)
    factors = {"class": rng.integers(4, size=600), "light": rng.integers(3, size=600)}
    factors["pose"] = rng.integers(5, size=600)
    values = np.stack([labels / labels.max() for labels in factors.values()], axis=1)
    values = np.hstack((values, np.zeros((600, 1)))) + 0.02 * rng.standard_normal((600, 4))
    if kind == "rotated":
        values = values @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    elif kind == "random":
        values = rng.standard_normal((600, 4))
    elif kind == "entangled":
        values = values[:, [0, 1, 2, 0]] + 0.6 * values[:, [1, 2, 0, 2]]
    return values, factors, Split(np.arange(400), np.arange(400, 600), "first images")


# disent 0.8.0 (`pip install disent==0.8.0`) computed these figures, and disentanglement_lib 1.5
# gives the same. For each kind of code, with `codes, factors, split = planted(kind)`:
#   labels = numpy.stack(list(factors.values()))
#   parts = [x[..., rows] for rows in (split.train, split.test) for x in (codes.T, labels)]
#   numpy.random.seed(0)
#   disent.metrics._dci._compute_dci(*parts)  # disentanglement, completeness, informativeness_test
#   disent.metrics._mig._compute_mig(codes.T, labels)
#   disent.metrics._sap._compute_sap(*parts, continuous_factors=False)
DISENT = {
    "perfect": (0.9999999995206816, 0.9999999994302265, 1.0, 0.9622650122610515,
                0.22166666666666668),
    "rotated": (0.5119822707142564, 0.49267467664664044, 0.9883333333333333, 0.14364022269944388,
                0.07499999999999996),
    "random": (0.0020094232486148915, 0.003273973346953822, 0.2683333333333333,
               0.0016814236678922012, 0.020000000000000007),
    "entangled": (0.3302066632414885, 0.30355017481177426, 0.9866666666666667,
                  0.1876398492487916, 0.08),
}  # fmt: skip


@pytest.mark.parametrize("kind", DISENT)
def test_dci_mig_and_sap_equal_those_of_disent(kind):
    codes, factors, split = planted(kind)
    stream = np.random.RandomState(0)  # disent draws from the global stream
    found = dci(codes, factors, split, 0, lambda _: GradientBoostingClassifier(random_state=stream))
    figures = [found[of] for of in ("disentanglement", "completeness", "informativeness")]
    figures += [mig(codes, factors), sap(codes, factors, split, 0)]
    assert figures == pytest.approx(DISENT[kind], abs=1e-6)


def test_the_forest_orders_codes_like_boosting():
    found = {kind: dci(*planted(kind), 0) for kind in DISENT}
    assert found["perfect"]["disentanglement"] == pytest.approx(1, abs=1e-6)
    assert found["perfect"]["completeness"] == pytest.approx(1, abs=1e-6)
    assert found["random"]["disentanglement"] < 0.05
    for kind in ("rotated", "entangled"):
        assert 0.15 < found[kind]["disentanglement"] < 0.6


# The authors' `compute_infomec` (kylehkhsu/latent_quantization, disentangle/metrics/infomec.py)
# gives these infom and infoc for these matrices of information [factors, latents].
INFOMEC = [
    ([[0.1, 0.9], [0.8, 0.05]], 0.8362573099415205, 0.8411764705882354),
    ([[0.5, 0.5], [0.5, 0.5]], 0.0, 0.0),
    ([[0.9, 0.9], [0.1, 0.05]], 0.8473684210526315, 0.16666666666666652),
    ([[0.02, 0.97], [0.61, 0.3]], 0.7320334958130235, 0.6501276501276503),
]


@pytest.mark.parametrize(("parts", "infom", "infoc"), INFOMEC)
def test_infom_and_infoc_equal_those_of_their_authors(parts, infom, infoc):
    found = scores(np.hstack((parts, [[0.5], [0.7]])))
    assert found["infom"] == pytest.approx(infom, abs=1e-6)
    assert found["infoc"] == pytest.approx(infoc, abs=1e-6)
    assert found["infoe"] == pytest.approx(0.6)


def test_information_equals_the_explicitness_of_its_authors(monkeypatch):
    """Their `compute_infoe` fits without weight decay and scores the same images."""
    monkeypatch.setattr("lord_fast.evaluate.blocks.REGULARIZATIONS", (1e6,))
    rng, labels = np.random.default_rng(0), np.tile(np.arange(4), 150)
    codes = rng.standard_normal((4, 3))[labels] + rng.standard_normal((600, 3))
    everything = np.arange(600)
    found = information(codes, labels, Split(everything, everything, ""))
    assert found == pytest.approx(0.3649276439768039, abs=1e-6)


def two_codes(content_holds, class_holds):
    """Return codes of a grid of 20 classes and 20 contents and what `infomec` measures on them."""
    rng = np.random.default_rng(0)
    classes, contents = np.indices((20, 20)).reshape(2, -1)
    labels = {"class": classes, "content": contents}

    def code(holds):
        parts = [rng.standard_normal((20, 16))[labels[name]] for name in holds]
        return sum(parts) + 0.1 * rng.standard_normal((400, 16))

    codes = code(content_holds), code(class_holds)
    return infomec(*codes, classes, contents, {"pose": contents}, 0)


def test_information_of_separated_codes_is_in_one_code_each():
    found = two_codes(["content"], ["class"])
    for of in ("infom", "infoe", "infoc"):
        assert found[of] > 0.95
    assert found["information"]["class"]["content_code"] < 0.01
    assert found["information"]["pose"]["class_code"] < 0.01


def test_information_of_other_codes():
    """A leak lowers modularity, a copy lowers compactness, and empty codes lower explicitness."""
    leaky = two_codes(["content", "class"], ["class"])
    assert 0.3 < leaky["infom"] < 0.7
    assert 0.3 < leaky["infoc"] < 0.7
    same = two_codes(["content", "class"], ["content", "class"])
    assert same["infom"] < 0.1
    assert same["infoc"] < 0.1
    assert same["infoe"] > 0.9
    empty = two_codes([], [])
    assert empty["infoe"] < 0.02
    collapsed = two_codes([], ["class"])
    assert collapsed["infom"] == pytest.approx(0.5, abs=0.05)


def test_information_is_missing_without_content_labels():
    classes = np.repeat(np.arange(4), 10)
    codes = np.random.default_rng(0).standard_normal((40, 3))
    assert "missing" in infomec(codes, codes, classes, np.zeros(40, int), {}, 0)


def on_a_circle(period):
    """Return codes that hold an angle as a point on a circle, the angles and the classes."""
    rng = np.random.default_rng(0)
    classes, steps = np.indices((10, 36)).reshape(2, -1)
    values = steps * period / 36
    angles = 2 * np.pi * values / period
    codes = np.stack((np.sin(angles + 1), np.cos(angles + 1)), axis=1)
    return codes + 0.02 * rng.standard_normal(codes.shape), values, classes


def test_angles_are_predicted_along_the_circle():
    for period in (360.0, 72.0):
        codes, values, classes = on_a_circle(period)
        found = regress(codes, values, classes, 0, period)
        assert found["r2"] > 0.99
        assert found["mlp_r2"] > 0.99
        assert found["error"] < period / 100
        assert found["chance_error"] == pytest.approx(period / 4, rel=0.02)
        assert found["split"] == "classes held out"
        low, high = found["error_interval"]
        assert low <= found["error"] <= high
        linear = regress(codes, values, classes, 0, None)
        assert linear["error"] > 5 * found["error"]


def test_numbers_are_predicted_in_their_unit():
    rng = np.random.default_rng(0)
    codes, classes = rng.standard_normal((600, 5)), np.repeat(np.arange(10), 60)
    mark = 40 + 8 * codes[:, 0]
    found = regress(codes, mark, classes, 0, None)
    assert found["r2"] > 0.999
    assert found["error"] < 0.1
    assert found["chance_error"] == pytest.approx(8 * (2 / np.pi) ** 0.5, rel=0.1)
    squared = regress(codes, codes[:, 1] ** 2, classes, 0, None)
    assert squared["r2"] < 0.1
    assert squared["mlp_r2"] > 0.9
    nothing = regress(codes, rng.standard_normal(600), classes, 0, None)
    assert nothing["r2"] < 0.05
    assert nothing["error"] > 0.9 * nothing["chance_error"]
    assert regress(codes, np.arange(600) % 2.0, classes, 0, None) is None


@pytest.mark.parametrize("value", ["angle", "=360", "angle=", "angle=0", "angle=x", "angle=inf"])
def test_a_circle_needs_a_name_and_a_period(value):
    with pytest.raises(ValueError, match=f"--circular {value}: must be a factor with its period"):
        periods((value,))
    assert periods(("angle=360", "a=b=2.5")) == {"angle": 360, "a=b": 2.5}


# `lord-fast score`


def written(folder, class_codes=True):
    """Write codes and labels of a grid of 20 classes and 36 angles, and a landmark."""
    rng = np.random.default_rng(0)
    classes, steps = np.indices((20, 36)).reshape(2, -1)
    angles = 2 * np.pi * steps / 36
    content = np.stack((np.sin(angles), np.cos(angles), rng.standard_normal(720)), axis=1)
    arrays = {"content": content}
    if class_codes:
        arrays["class_"] = rng.standard_normal((20, 8))[classes]
    np.savez(folder / "codes.npz", **arrays)
    rows = zip(classes, steps, 30 + 5 * content[:, 2], strict=True)
    lines = [f"k{k},{10 * step},{mark:.4f}" for k, step, mark in rows]
    (folder / "labels.csv").write_text("\n".join(["class,angle,mark", *lines]) + "\n")
    return folder / "codes.npz", folder / "labels.csv"


def test_score_measures_all_that_needs_no_images(tmp_path):
    found = score(*written(tmp_path), circular={"angle": 360.0})
    assert list(found["leakage"]["content_from_class"]) == ["angle"]  # A landmark is no label.
    assert found["dimensions"]["factors"] == ["class", "angle"]
    assert found["dimensions"]["images"] <= MOST_FOR_DIMENSIONS
    assert found["dimensions"]["permuted"]["mig"] < 0.05 < found["dimensions"]["mig"] + 0.05
    assert found["blocks"]["infom"] > 0.9
    assert found["regression"]["content_from_content"]["angle"]["error"] < 3
    assert found["regression"]["content_from_content"]["mark"]["r2"] > 0.99
    assert found["regression"]["content_from_class"]["mark"]["r2"] < 0.1
    names = " ".join(name for name, _, _ in probe_rows(found))
    for name in ("DCI", "MIG and SAP", "two codes", "regression: content from content angle"):
        assert name in names


def test_score_says_what_it_cannot_measure(tmp_path):
    found = score(*written(tmp_path, class_codes=False))
    assert found["blocks"] == {"missing": "there are no class codes"}
    assert list(found["regression"]) == ["content_from_content"]
    (tmp_path / "labels.csv").write_text(
        "class\n" + "\n".join(f"k{i // 36}" for i in range(720)) + "\n"
    )
    assert "fewer than two factors" in score(
        tmp_path / "codes.npz", tmp_path / "labels.csv"
    )["dimensions"]["missing"]  # fmt: skip


def test_score_refuses_a_circle_without_numbers(tmp_path, capsys):
    files = list(map(str, written(tmp_path)))
    for value, message in (
        ("pose=360", "no numeric content factor; there are: angle, mark"),
        ("angle", "must be a factor with its period: angle=360"),
    ):
        assert f"--circular {value.split('=')[0]}" in (
            text := fails(capsys, "score", *files, "--circular", value)
        )
        assert message in text


def test_the_number_of_images_is_bounded(monkeypatch):
    """No classifier gets more images than the docs say."""
    sizes = {"dimensions": [], "blocks": [], "regression": []}
    room = "lord_fast.evaluate.field"
    rng = np.random.default_rng(0)
    classes, contents = np.indices((50, 100)).reshape(2, -1)
    labels = Labels(classes, contents, {"pose": contents}, {"pose": contents.astype(float)})
    monkeypatch.setattr(f"{room}.dci", lambda codes, *_: sizes["dimensions"].append(len(codes)))
    monkeypatch.setattr(f"{room}.mig", lambda *_: 0)
    monkeypatch.setattr(f"{room}.sap", lambda *_: 0)
    monkeypatch.setattr(
        f"{room}.infomec", lambda codes, *_: sizes["blocks"].append(len(codes)) or {}
    )
    monkeypatch.setattr(f"{room}.regress", lambda codes, *_: sizes["regression"].append(len(codes)))
    codes = rng.standard_normal((5000, 4))
    measure_field(codes, codes, labels, 0, {})
    assert sizes == {"dimensions": [1000, 1000], "blocks": [2000], "regression": [2000, 2000]}


def test_the_frechet_distance_equals_its_formula():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(500, 6, generator=generator)
    made = 2 * torch.randn(400, 6, generator=generator) + 1
    covariances = [np.cov(features.T.double()) for features in (real, made)]
    expected = float((real.mean(0) - made.mean(0)).square().sum())
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)
    assert quality(real[:50], real[:50], 0)["frechet_distance_vgg16"] == pytest.approx(0, abs=1e-4)
