"""Protocols at work: the averages of plain loops, over splits and over files."""

import pytest
import torch
from photo_folders import SIZES, picture
from torch import nn

import nbs_utils as nbs
from nbs_utils.data import load_photographs
from nbs_utils.data.protocols import cut, views
from nbs_utils.scoring.dense import NotDense, fully_convolutional


@pytest.fixture(scope="module")
def data():
    return nbs.load_data("digits", image_size=28, channels=3, limit=40)


class Tiny(nn.Sequential):
    """Convolutions without padding, a flattening, two linear layers."""

    def __init__(self, k=10):
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 5, stride=2),  # 28 -> 12
            nn.ReLU(),
            nn.MaxPool2d(2),  # 6
            nn.Flatten(),
            nn.Linear(8 * 36, 16),
            nn.ReLU(),
            nn.Linear(16, k),
        )


@pytest.fixture(scope="module")
def network():
    return Tiny()


def by_hand(network, split, protocol):
    """The mean probability of all crops, one image and one crop at a time."""
    rows = []
    for x, _ in split.originals(1):
        pictures = cut(x, views(protocol, *x.shape[-2:], split.image_size))
        each = [network(split.normalize(p)).softmax(1) for p in pictures]
        rows.append(torch.stack(each).mean(0))
    return torch.cat(rows)


@pytest.mark.parametrize("protocol", ["ten_crop", "multi_crop", "googlenet_144"])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_probabilities_are_averaged_over_crops(data, network, protocol, batch_size):
    with torch.no_grad():
        expected = by_hand(network, data.test, protocol)
    found, labels = nbs.predict(
        network, data.test, protocol=protocol, precision="float32",
        batch_size=batch_size,
    )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(labels, data.test.labels)
    scores = nbs.evaluate(network, data.test, protocol=protocol, precision="float32")
    right = (expected.argmax(1) == labels).sum().item()
    assert (scores.correct1, scores.protocol) == (right, protocol)


def test_a_sum_of_protocols_is_the_mean_of_their_probabilities(data, network):
    def p(protocol):
        return nbs.predict(network, data.test, protocol=protocol, precision="float32")

    both = p("dense+multi_crop")[0]
    mean = (p("dense")[0] + p("multi_crop")[0]) / 2
    torch.testing.assert_close(both, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("protocol", ["dense", "multi_scale_dense"])
def test_a_class_map_is_averaged_over_space_then_over_pictures(data, network, protocol):
    dense = fully_convolutional(network, (3, 28, 28))
    rows = []
    with torch.no_grad():
        for x, _ in data.test.originals(1):
            pictures = cut(x, views(protocol, *x.shape[-2:], 28))
            maps = [dense.class_map(data.test.normalize(p)) for p in pictures]
            scores = torch.stack([m.mean((2, 3)) for m in maps])
            if protocol == "dense":  # VGG: probabilities of image and mirror image
                rows.append(scores.softmax(2).mean(0))
            else:  # ResNet: scores
                rows.append(scores.mean(0).softmax(1))
    found, _ = nbs.predict(
        network, data.test, protocol=protocol, precision="float32", batch_size=16
    )
    torch.testing.assert_close(found, torch.cat(rows), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("protocol", ["center", "ten_crop", "dense", "multi_crop"])
def test_photographs_of_all_shapes_keep_their_order(tmp_path, network, protocol):
    for k in range(2):
        (tmp_path / f"class{k}").mkdir()
        for i, (height, width) in enumerate(SIZES):
            image = picture(10 * k + i, height // 5, width // 5)
            image.save(tmp_path / f"class{k}" / f"{i}.png")
    network = Tiny(2)
    photographs = load_photographs(tmp_path, image_size=28, workers=2)
    dense = fully_convolutional(network, (3, 28, 28))
    expected = []
    with torch.no_grad():
        for i in range(len(photographs)):
            image = photographs.image(i)[None]
            pictures = cut(image, views(protocol, *image.shape[-2:], 28))
            use = dense if protocol == "dense" else network
            each = [use(photographs.normalize(p)).softmax(1) for p in pictures]
            expected.append(torch.stack(each).mean(0))
    found, labels = nbs.predict(
        network, photographs, protocol=protocol, precision="float32", batch_size=5
    )
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-6)
    assert labels.tolist() == [0] * 6 + [1] * 6


@pytest.mark.parametrize("protocol", ["multi_crop", "multi_scale_dense"])
def test_no_more_than_a_batch_goes_through_the_network(data, protocol):
    pixels = []
    network = Tiny()
    network[0].register_forward_hook(
        lambda m, inputs, out: pixels.append(inputs[0][:, 0].numel())
    )
    nbs.predict(network, data.test, protocol=protocol, batch_size=12)
    assert max(pixels) <= 12 * 28 * 28
    assert len(pixels) > 1


def test_modes_come_back_even_when_a_protocol_cannot_be_done(data):
    sizes = dict(num_classes=10, image_size=28, stem="imagenet", patch_size=7, depth=1)
    vit = nbs.create_model("vit_mini_8", **sizes).train()
    with pytest.raises(NotDense, match="use a protocol of crops, such as ten_crop"):
        nbs.evaluate(vit, data.test, protocol="dense")
    assert vit.training
    assert not torch.is_inference_mode_enabled()


def test_an_empty_split_and_batches_that_cannot_be_cut(data, network):
    class Finished:
        labels, classes, batch_size = torch.tensor([0]), list("ab"), 1

        def __len__(self):
            return 1

    with pytest.raises(ValueError, match="only hands out finished batches"):
        nbs.predict(network, Finished(), protocol="ten_crop")
    with pytest.raises(TypeError, match=r"Pass data\.val"):
        nbs.predict(network, data)


def test_a_protocol_that_a_network_cannot_do(data):
    vit = nbs.create_model(
        "vit_mini_8", num_classes=10, image_size=32, stem="imagenet", depth=1
    )
    with pytest.raises(NotDense, match="VisionTransformer cannot be applied densely"):
        fully_convolutional(vit, (3, 32, 32))
