"""A trained network in use: predictions, fine-tuning, exports, and PyTorch's own data."""

import copy
import json
import sys

import numpy as np
import pytest
import torch
from own_photographs import CLASSES, make_photographs, photograph, top_and_bottom
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toy_data import ToyData, same, toy_network

import nbs_utils as nbs
from nbs_utils.parity import WrongWeights, load_pretrained
from nbs_utils.scoring import export_model, match_classes, start_from
from nbs_utils.scoring.exporting import ExportError
from nbs_utils.scoring.files import PhotoFiles
from nbs_utils.scoring.labels import as_network_sees
from nbs_utils.training.checkpoints import CheckpointError
from nbs_utils.training.depth import freeze, stages, training_mode
from nbs_utils.training.losses import balanced_weights, make_loss
from nbs_utils.training.recipe import Recipe
from nbs_utils.training.schedule import parameter_groups
from nbs_utils.training.small import advice, small_recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of photographs and a network that was trained on it for an epoch."""
    root = tmp_path_factory.mktemp("trained")
    make_photographs(root / "photos", count=(8, 4, 6))
    return root


@pytest.fixture(scope="module")
def data(place):
    with pytest.warns(UserWarning):
        return nbs.load_data(
            place / "photos", image_size=32, batch_size=8, on_bad_image="skip"
        )


@pytest.fixture(scope="module")
def network(place, data):
    torch.manual_seed(0)
    network = nbs.create_model("cifar_resnet20", data=data)
    nbs.fit(network, data, "small", epochs=1, folder=place / "run", progress="off")
    return network


# ---- Predictions


def test_a_photograph_is_seen_as_evaluation_sees_it(network, data, place):
    loaded = nbs.load(place / "run")
    assert same(loaded, network)  # the recipe keeps the last weights
    paths = data.test.store.paths
    wanted, _ = nbs.predict(network, data.test, precision="float32")
    found = nbs.predict(loaded, list(paths), precision="float32")
    torch.testing.assert_close(found.probabilities, wanted, atol=1e-5, rtol=0)
    assert found.names == [str(p) for p in paths]
    name, p = found.top(1)[0][0]
    assert (name, p) == (found.best[0], float(found.probabilities[0].max()))


def test_files_tensors_and_pictures_give_the_same(network, place):
    path = place / "one.png"
    image = photograph("church", 5, 90, 70)
    image.save(path)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    rows = [
        nbs.predict(network, given, precision="float32").probabilities
        for given in (path, x, x[None], image, [image], x / 255)
    ]
    for row in rows[1:]:
        torch.testing.assert_close(row, rows[0], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="not normalized yet"):
        nbs.predict(network, torch.randn(3, 40, 40))


def test_a_photograph_is_turned_as_its_camera_says(network, place):
    upright, _ = top_and_bottom(rotated=False)
    sideways, exif = top_and_bottom(rotated=True)
    upright.save(place / "a.jpg", quality=95)
    sideways.save(place / "b.jpg", quality=95, exif=exif)
    sideways.save(place / "c.jpg", quality=95)
    files = PhotoFiles([place / f"{c}.jpg" for c in "abc"], network.description)
    (x, _), *_ = files.batches()
    a, b, c = x
    assert (a - b).abs().mean() < 0.05  # what JPEG loses
    assert (a - c).abs().mean() > 1


def test_a_network_that_knows_no_classes_says_what_to_do():
    with pytest.raises(ValueError, match=r"Load a trained one with nbs\.load"):
        nbs.predict(toy_network(), "photo.jpg")


def test_a_network_of_ones_own_is_loaded_into_one(tmp_path):
    network = toy_network()
    nbs.fit(network, ToyData(), epochs=1, folder=tmp_path, progress="off")
    with pytest.raises(CheckpointError, match="not built by create_model"):
        nbs.load(tmp_path)
    loaded = nbs.load(tmp_path, network=toy_network(seed=1))
    assert same(loaded, network)
    assert loaded.description.classes[3] == "class 3"


# ---- Classes by name


def test_labels_follow_the_names_of_classes(network, data):
    split = data.test
    turned = copy.copy(split)
    turned.classes = split.classes[::-1]
    turned.labels = 2 - split.labels
    seen = as_network_sees(turned, network.description)
    assert seen.classes == split.classes
    assert torch.equal(seen.labels, split.labels)
    assert nbs.evaluate(network, seen).correct1 == nbs.evaluate(network, split).correct1
    with pytest.raises(ValueError, match="'dog', which the network was not trained on"):
        match_classes(["church", "dog"], data.classes)


# ---- Few images


def test_few_images_get_small_batches_and_enough_steps():
    recipe = small_recipe(240)
    assert (recipe.batch_size, recipe.epochs) == (16, 40)
    assert small_recipe(2000).epochs == 10
    tuning = small_recipe(320, "fine-tune")
    assert (tuning.name, tuning.epochs, tuning.layer_decay) == ("fine-tune", 30, 0.7)
    assert "the recipe 'small', for 40 epochs" in advice(240, 128, Recipe.load("short"))
    assert advice(50_000, 128, Recipe.load("short")) == ""


def test_fit_says_what_suits_few_images(data, capsys):
    network = nbs.create_model("cifar_resnet20", data=data)
    nbs.fit(network, data, epochs=1, progress="lines")
    said = capsys.readouterr().err
    words = f"{len(data.train)} training images in batches of 8 are"
    assert words in said
    assert "the recipe 'small'" in said
    nbs.fit(network, data, "small", epochs=1, progress="lines")
    assert "training images in batches" not in capsys.readouterr().err


def test_balanced_weights_count_classes_alike():
    labels = torch.tensor([0] * 90 + [1] * 10)
    weights = balanced_weights(labels, 2)
    torch.testing.assert_close(weights, torch.tensor([100 / 180, 100 / 20]))
    assert float(weights[labels].mean()) == pytest.approx(1)
    logits = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(class_weights="balanced")
    own = nn.functional.cross_entropy(logits, labels, weight=weights)
    assert float(make_loss(recipe, labels, 2)(logits, labels)) == pytest.approx(
        float(own), rel=1e-5
    )
    soft = nn.functional.one_hot(labels, 2).float()
    assert float(make_loss(recipe, labels, 2)(logits, soft)) == pytest.approx(
        float(own), rel=1e-5
    )


# ---- Fine-tuning


def test_weights_of_a_run_are_begun_from_and_the_classifier_is_new(place, network):
    other = nbs.create_model("cifar_resnet20", 5)
    head = other.fc.weight.clone()
    _, said = start_from(other, place / "run")
    assert "the classifier is new" in said
    assert torch.equal(other.fc.weight, head)
    body = [n for n in other.state_dict() if not n.startswith("fc.")]
    theirs = network.state_dict()
    assert all(torch.equal(other.state_dict()[n], theirs[n]) for n in body)


def test_weights_of_the_reference_are_begun_from(tmp_path):
    source = nbs.reference_network("resnet18", num_classes=7)
    torch.save(source.state_dict(), tmp_path / "mine.pth")
    network = nbs.create_model("resnet18", 3)
    start_from(network, tmp_path / "mine.pth")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    source.fc = nn.Identity()
    network.fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), source(x), atol=1e-4, rtol=1e-4)


def test_a_wrong_file_is_named_and_never_to_be_deleted(tmp_path):
    network = nbs.create_model("cifar_resnet20", 3)
    torch.save(toy_network().state_dict(), tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("other.pth", "text.pth"):
        with pytest.raises(WrongWeights, match="It was left as it is") as error:
            start_from(network, tmp_path / name)
        assert "elete" not in str(error.value)
    book = nbs.create_model("resnet18")
    with pytest.raises(WrongWeights, match="start_from") as error:
        load_pretrained(book, "resnet18", "IMAGENET1K_V1", tmp_path / "other.pth")
    assert "elete" not in str(error.value)


def test_frozen_layers_stand_still_with_their_batch_norms(data):
    network = nbs.create_model("cifar_resnet20", data=data)
    frozen = freeze(network, "body")
    assert "fc.weight" not in frozen
    before = {k: v.clone() for k, v in network.state_dict().items()}
    nbs.fit(network, data, "small", epochs=1, progress="off")
    moved = {
        k for k, v in network.state_dict().items() if not torch.equal(v, before[k])
    }
    assert moved == {"fc.weight", "fc.bias"}
    with pytest.raises(ValueError, match="matches 'conv9'"):
        freeze(network, "conv9")
    plain = toy_network()
    training_mode(plain)
    assert all(module.training for module in plain.modules())


def test_early_layers_learn_more_slowly():
    network = nbs.create_model("resnet18", 3)
    recipe = Recipe.load("fine-tune")
    names = {id(p): name for name, p in network.named_parameters()}
    scale = {
        names[id(p)]: group["lr_scale"]
        for group in parameter_groups(network, recipe)
        for p in group["params"]
    }
    assert len(scale) == len(names)
    assert scale["fc.weight"] == scale["fc.bias"] == 1
    rows = stages(network)
    assert scale[rows[-2][0]] == pytest.approx(0.7)
    assert scale[rows[0][0]] == pytest.approx(0.7 ** (len(rows) - 1))
    assert "lr_scale" not in parameter_groups(network, Recipe())[0]


def test_a_recipe_may_begin_from_another(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("base: short\nlr: 0.03\nepochs: 40\n")
    recipe = Recipe.load(path)
    short = Recipe.load("short")
    assert (recipe.name, recipe.lr, recipe.epochs) == ("mine", 0.03, 40)
    assert recipe.label_smoothing == short.label_smoothing
    path.write_text("base: mine.yml\n")
    with pytest.raises(ValueError, match="its own base"):
        Recipe.load(path)


# ---- Elsewhere


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_an_exported_file_says_what_the_network_says(network, place, to):
    if to == "onnx":
        pytest.importorskip("onnx", reason="requirements/onnx.txt is not installed")
    made = export_model(network, place / f"model.{to}", to)
    assert made.difference < 1e-3
    photo = place / "photos" / "church" / "photo 1 ü.jpg"
    if to == "onnx":
        import onnx
        import onnxruntime

        (entry,) = onnx.load(made.path).metadata_props
        said = json.loads(entry.value)
        session = onnxruntime.InferenceSession(made.path)
        run = lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
    else:
        extra = {"nbs.json": ""}
        run = torch.export.load(made.path, extra_files=extra).module()
        said = json.loads(extra["nbs.json"])
    # by hand, from the file's own metadata
    image = Image.open(photo).convert("RGB")
    side, size = said["stored"], said["image_size"]
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    x = nbs.data.decoding.square(x, side).float()[None] / 255
    x = nn.functional.interpolate(x, (size, size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(said[k])[:, None, None] for k in ("mean", "std"))
    logits = run((x - mean) / std)
    found = nbs.predict(network, photo, precision="float32")
    torch.testing.assert_close(
        logits.softmax(1), found.probabilities, atol=2e-3, rtol=0
    )
    assert said["classes"] == sorted(CLASSES)


def test_onnx_without_its_packages_says_what_to_install(network, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match="pip install onnx onnxscript onnxruntime"):
        export_model(network, place / "none.onnx", "onnx")


def test_a_file_that_computes_something_else_is_refused(network, place, monkeypatch):
    monkeypatch.setattr(
        "nbs_utils.scoring.exporting._read_export", lambda path: lambda x: x.sum()
    )
    with pytest.raises(ExportError, match="more than rounding"):
        export_model(network, place / "bad.pt2", "torch-export")
    assert not (place / "bad.pt2").exists()


# ---- What users of PyTorch hold


def test_datasets_and_loaders_are_taken_by_fit_and_evaluate():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 1, 8, 8, generator=generator)
    y = (x.flatten(1).mean(1) > 0).long()
    whole = TensorDataset(x, y)
    network = toy_network(classes=2)
    run = nbs.fit(network, whole, "small", epochs=4, progress="off")
    assert run.epochs == 4
    pair = (TensorDataset(x[:80], y[:80]), DataLoader(TensorDataset(x[80:], y[80:])))
    nbs.fit(
        network, pair, "small", epochs=1, progress="off", loss=nn.CrossEntropyLoss()
    )
    scores = nbs.evaluate(network, DataLoader(whole, batch_size=10))
    with torch.no_grad():
        right = int((network.eval()(x).argmax(1) == y).sum())
    assert abs(scores.correct1 - right) <= 1  # a tie of 16 bits at most
    assert scores.n == 96
    with pytest.raises(TypeError, match="load_data"):
        nbs.fit(network, "photos")


def test_a_script_gets_its_figures(tmp_path):
    run = nbs.fit(toy_network(), ToyData(), epochs=1, progress="off")
    figure = nbs.figures.plot_history(run)
    svg = nbs.figures.save_svg(figure, tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")
    assert "Epoch" in svg
