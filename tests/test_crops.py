"""Protocols at work: the averages of plain loops, over splits and over files."""

import pytest
import torch
from torch import nn

import nbs_utils as nbs
from nbs_utils.dense import NotDense, fully_convolutional
from nbs_utils.protocols import cut, views


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


def test_a_protocol_that_a_network_cannot_do(data):
    vit = nbs.create_model("vit_mini_8", num_classes=10, image_size=32, depth=1)
    with pytest.raises(NotDense, match="VisionTransformer cannot be applied densely"):
        fully_convolutional(vit, (3, 32, 32))
