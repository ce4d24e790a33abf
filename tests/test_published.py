"""Published weights on photographs: torchvision's own predictions, layouts, trouble."""

import numpy as np
import pytest
import torch
from photo_folders import WNIDS, flat_imagenet, odd_images, picture
from PIL import Image, ImageOps
from torch import nn
from torchvision import models

from nbs_utils.cli import main as cli
from nbs_utils.data import load_photographs
from nbs_utils.parity import WrongWeights, reference_network
from nbs_utils.scoring.evaluation import evaluate
from nbs_utils.scoring.prediction import predict
from nbs_utils.scoring.published_weights import (
    list_published,
    load_published,
    photographs_for,
    published,
)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    return flat_imagenet(tmp_path_factory.mktemp("imagenet"))


def preset(paths):
    """What torchvision's preset makes of files: PIL, resize 256, center crop 224."""
    steps = models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    return torch.stack([steps(Image.open(p).convert("RGB")) for p in paths])


@pytest.fixture(scope="module")
def theirs(imagenet):
    """torchvision's network; its random weights tell the images apart."""
    torch.manual_seed(0)
    network = reference_network("resnet18")
    seen = []
    hook = network.avgpool.register_forward_hook(lambda m, i, out: seen.append(out))
    with torch.no_grad():
        network(preset(sorted((imagenet / "val").iterdir())))
        hook.remove()
        features = seen[0].flatten(1)
        network.fc.weight *= 10 / (features - features.mean(0)).norm(dim=1).mean()
        network.fc.bias.copy_(-network.fc.weight @ features.mean(0))
    return network


@pytest.fixture(scope="module")
def weights(theirs, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(theirs.state_dict(), file)
    return file


class Biased(nn.Module):
    """A network whose scores are the same for every image."""

    def __init__(self, **scores):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(1000))
        for name, score in scores.items():
            self.scores.data[int(name[1:])] = score

    def forward(self, x):
        return self.scores.expand(len(x), -1)


# ---- Predictions


def test_predictions_are_those_of_torchvisions_network_and_preset(
    imagenet, theirs, weights
):
    network, entry = load_published("resnet18", path=weights)
    photographs = photographs_for(entry, imagenet)
    found, labels = predict(network, photographs, precision="float32", batch_size=4)
    with torch.no_grad():
        expected = theirs(preset(photographs.paths)).softmax(1)
    assert found.argmax(1).tolist() == expected.argmax(1).tolist()
    assert len(set(expected.argmax(1).tolist())) > 2  # they are told apart
    # PIL's resize and torch's differ by one level in one of a hundred pixels
    torch.testing.assert_close(found, expected, rtol=0.01, atol=1e-5)
    assert labels.tolist() == photographs.labels.tolist()
    # the preset on the same decoded and resized pixels: nothing is left to differ
    crops = torch.stack(
        [photographs.center_crop(photographs.image(i)) for i in range(len(photographs))]
    )
    same = [(c / 255 - torch.tensor(entry.mean)[:, None, None]) for c in crops]
    same = [x / torch.tensor(entry.std)[:, None, None] for x in same]
    with torch.no_grad():
        exact = theirs(torch.stack(same)).softmax(1)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-5)


def test_a_preset_of_another_crop_and_interpolation():
    entry = published("resnet50", "IMAGENET1K_V2")
    assert (entry.shorter, entry.crop, entry.interpolation) == (232, 224, "bilinear")
    assert entry.top1 == pytest.approx(0.80858)
    entry = published("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    assert (entry.shorter, entry.crop, entry.interpolation) == (384, 384, "bicubic")
    assert published("resnet18").weights == "IMAGENET1K_V1"
    assert {"alexnet", "resnet18", "resnet152", "vit_b_16"} <= set(list_published())
    assert "resnet50_v1" not in list_published()
    # the book's googlenet is the paper's; torchvision's has another name here
    assert "googlenet" not in list_published()
    assert published("googlenet_tv").file_name.startswith("googlenet-")
    assert published("googlenet_tv").mean == (0.5, 0.5, 0.5)


def test_weights_of_a_network_that_has_another_name_here(tmp_path):
    theirs = reference_network("googlenet")
    file = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), file)
    network, entry = load_published("googlenet_tv", path=file)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(network(x), theirs(x), rtol=1e-3, atol=1e-4)
    assert entry.model == "googlenet_tv"
    with pytest.raises(ValueError, match="no weights of googlenet"):
        load_published("googlenet", path=file)


def test_files_of_weights_that_are_refused(weights, tmp_path):
    with pytest.raises(WrongWeights, match="not those of resnet34"):
        load_published("resnet34", path=weights)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WrongWeights, match=r"cut.pth is damaged"):
        load_published("resnet18", path=cut)
    named = tmp_path / published("resnet18").file_name
    named.write_bytes(weights.read_bytes())
    with pytest.raises(WrongWeights, match="SHA-256"):  # its name promises a hash
        load_published("resnet18", path=named)
    with pytest.raises(ValueError, match="no weights 'V9' for resnet18"):
        load_published("resnet18", "V9")
    with pytest.raises(ValueError, match="publishes no weights of resnet50_v1"):
        published("resnet50_v1")


# ---- Layouts


def test_the_flat_folder_with_the_devkits_labels(imagenet):
    photographs = load_photographs(f"imagefolder:{imagenet}")
    # class number i of the devkit is WordNet id 1000 - i of the sorted thousand
    assert photographs.labels.tolist() == [0, 1, 997, 999, 300, 500]
    assert len(photographs.classes) == 1000
    assert photographs.columns.tolist() == list(range(1000))
    again = load_photographs(imagenet / "val")  # the devkit lies beside it
    assert again.labels.tolist() == photographs.labels.tolist()


def test_a_flat_folder_without_labels(imagenet, tmp_path):
    picture(1, 30, 30).save(tmp_path / "x.jpg")
    with pytest.raises(
        ValueError, match=r"ground_truth.txt and meta.mat of ImageNet's"
    ):
        load_photographs(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        load_photographs(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is empty: it holds neither images"):
        load_photographs(tmp_path / "empty")


def test_a_thousand_class_folders_are_the_networks_outputs(tmp_path):
    for wnid in WNIDS:
        (tmp_path / "val" / wnid).mkdir(parents=True)
    picture(1, 40, 50).save(tmp_path / "val" / WNIDS[7] / "a.JPEG")
    photographs = load_photographs(tmp_path)
    assert photographs.labels.tolist() == [7]
    assert photographs.columns.tolist() == list(range(1000))


def test_imagenette_is_scored_over_ten_and_over_a_thousand(tmp_path):
    for wnid, count in (("n01440764", 3), ("n02102040", 1)):  # outputs 0 and 217
        folder = tmp_path / "val" / wnid
        folder.mkdir(parents=True)
        for i in range(count):
            picture(i, 70, 80).save(folder / f"{i}.JPEG")
    photographs = load_photographs(tmp_path, image_size=64)
    assert photographs.classes == ["tench", "English springer"]
    assert photographs.columns.tolist() == [0, 217]
    # of the thousand: 5, 6, 7, 8, then 0 and 217; of the two: 0
    network = Biased(c5=9.0, c6=8.0, c7=7.0, c8=6.0, c0=5.0, c217=4.0)
    scores = evaluate(network, photographs, precision="float32")
    assert (scores.top1, scores.top5) == (0.75, 1.0)
    assert (scores.top1_all, scores.top5_all) == (0.0, 0.75)
    assert "over all 1,000 of the network: top-1 0.0 %, top-5 75.0 %" in repr(scores)
    assert scores.confusion.tolist() == [[3, 0], [1, 0]]
    half = evaluate(network, photographs, precision="bfloat16", protocol="ten_crop")
    assert (half.top1, half.top1_all) == (0.75, 0.0)


def test_classes_that_no_output_belongs_to(tmp_path):
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        picture(1, 70, 80).save(tmp_path / name / "a.png")
    photographs = load_photographs(tmp_path, image_size=64)
    with pytest.raises(ValueError, match="1000 scores for each image, but there are 2"):
        evaluate(Biased(), photographs, precision="float32")


# ---- Trouble in files


def test_odd_images_get_a_sentence_and_the_rest_is_scored(tmp_path):
    odd_images(tmp_path / "tench")
    photographs = load_photographs(tmp_path, image_size=64)
    scores = evaluate(Biased(c0=1.0), photographs, precision="float32")
    assert (scores.n, scores.correct1) == (5, 5)
    said = "\n".join(scores.notes)
    assert "d_truncated.jpg cannot be read: image file is truncated" in said
    assert "g_empty.jpg is empty (0 bytes)" in said
    assert "1 of 7 images are gray and were read as three equal channels; b" in said
    assert "1 of 7 images are CMYK and were converted to RGB; c_cmyk.jpg" in said
    assert "1 of 7 images carry an EXIF orientation and were scored as they are" in said
    assert "1 of 7 images are smaller than the crop and were enlarged; f_" in said
    assert scores.notes == tuple(repr(scores).splitlines()[2:])
    both = evaluate(Biased(c0=1.0), photographs, protocol="ten_crop")
    assert both.n == 5


def test_an_exif_orientation_is_applied_on_request(tmp_path):
    folder = tmp_path / "tench"
    folder.mkdir()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture(5, 60, 90).save(folder / f"{orientation}.jpg", exif=exif)
    stored = load_photographs(tmp_path, image_size=32)
    upright = load_photographs(tmp_path, image_size=32, upright=True)
    for i, path in enumerate(stored.paths):
        plain = Image.open(path)
        turned = ImageOps.exif_transpose(plain)
        expected = np.asarray(plain.convert("RGB"))
        assert np.array_equal(stored.image(i).permute(1, 2, 0).numpy(), expected)
        expected = np.asarray(turned.convert("RGB"))
        assert np.array_equal(upright.image(i).permute(1, 2, 0).numpy(), expected)


def test_nothing_but_unreadable_images(tmp_path):
    (tmp_path / "tench").mkdir()
    (tmp_path / "tench" / "a.jpg").write_bytes(b"no image")
    photographs = load_photographs(tmp_path)
    for protocol in ("center", "ten_crop"):
        with pytest.raises(ValueError, match="None of the images could be read"):
            evaluate(Biased(), photographs, protocol=protocol)


# ---- The shell


def test_the_shell_prints_the_published_figures_beside(imagenet, weights, capsys):
    argv = ("evaluate", "--model", "resnet18", "--weights", str(weights))
    argv += ("--data", f"imagefolder:{imagenet}", "--image-size", "64")
    assert cli.main([*argv, "--protocol", "ten_crop"]) == 0
    out = capsys.readouterr().out
    assert "resnet18, 6 images" in out
    assert "69.758   89.078" in out
    assert cli.main([*argv, "--protocol", "ten-crop"]) == 2
    assert "Did you mean ten_crop" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "Give one of RUN or --checkpoint"),
        (("--all", "--checkpoint", "x"), "2 were given"),
        (("--weights", "IMAGENET1K_V1", "--data", "x"), "needs --model"),
        (("--all",), "--all needs --data"),
        (("--all", "--data", "x", "--models", "lenet*"), "No network with published"),
        (("--all", "--data", "imagefolder:none"), "There is no folder none"),
        (("--weights", "x.pth", "--model", "resnet18", "--data", "x"), "no file x.pth"),
    ],
)
def test_bad_requests_get_one_sentence(argv, said, capsys):
    assert cli.main(["evaluate", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
