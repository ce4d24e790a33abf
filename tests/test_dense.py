"""Networks made fully convolutional: the same at their size, windows at larger ones."""

import pytest
import torch
from torch import nn
from torchvision import models

import nbs_utils as nbs
from nbs_utils.scoring.dense import NotDense, fully_convolutional


def valid(*head):
    """Convolutions without padding: 28 px become a map of 6 x 6, stride 4."""
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*body, *head).eval()


HEADS = {
    "flatten": lambda: (nn.Flatten(), nn.Linear(288, 16), nn.ReLU(), nn.Linear(16, 5)),
    "norm": lambda: (
        nn.Flatten(),
        nn.Linear(288, 9),
        nn.BatchNorm1d(9),
        nn.Linear(9, 5),
    ),
    "identical pool": lambda: (
        *(nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Dropout()),
        *(nn.Linear(288, 16), nn.ReLU(), nn.Linear(16, 5)),
    ),
    "pooled nonlinear": lambda: (
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16)),
        *(nn.Hardswish(), nn.Linear(16, 5)),
    ),
    "plain pool": lambda: (nn.AvgPool2d(6, 1), nn.Flatten(), nn.Linear(8, 5)),
}


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_without_padding_the_map_holds_the_scores_of_all_windows(head):
    network = valid(*HEADS[head]())
    dense = fully_convolutional(network, (3, 28, 28))
    x = torch.randn(2, 3, 36, 44)
    scores = dense.class_map(x)
    assert scores.shape == (2, 5, 3, 5)  # (36 - 28) / 4 + 1, (44 - 28) / 4 + 1
    windows = [
        network(x[:, :, 4 * i : 4 * i + 28, 4 * j : 4 * j + 28])
        for i in range(3)
        for j in range(5)
    ]
    expected = torch.stack(windows, 2).view(2, 5, 3, 5)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dense(x), expected.mean((2, 3)), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_global_average_and_one_linear_layer_commute():
    network = valid(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    dense = fully_convolutional(network, (3, 28, 28))
    x = torch.randn(2, 3, 36, 44)
    assert dense.class_map(x).shape == (2, 5, 8, 10)
    torch.testing.assert_close(dense(x), network(x), rtol=1e-5, atol=1e-5)


NATIVE = {
    "resnet18": lambda: nbs.reference_network("resnet18"),
    "book's resnet18": lambda: nbs.create_model("resnet18"),
    "book's alexnet": lambda: nbs.create_model("alexnet"),
    "squeezenet1_1": lambda: nbs.reference_network("squeezenet1_1"),
    "mobilenet_v3_small": lambda: nbs.reference_network("mobilenet_v3_small"),
    "shufflenet_v2_x0_5": lambda: nbs.reference_network("shufflenet_v2_x0_5"),
}


@pytest.mark.parametrize("name", NATIVE)
@torch.no_grad()
def test_at_its_own_size_it_is_the_network(name):
    torch.manual_seed(0)
    network = NATIVE[name]().eval()
    dense = fully_convolutional(network)
    x = torch.randn(1, 3, 224, 224)
    expected = network(x)
    torch.testing.assert_close(dense(x), expected, rtol=0, atol=1e-5)
    assert dense(torch.randn(1, 3, 256, 288)).shape == expected.shape


def test_weights_are_shared_and_the_network_is_left_as_it_was():
    network = valid(*HEADS["flatten"]())
    names = [type(m).__name__ for m in network]
    dense = fully_convolutional(network, (3, 28, 28))
    x = torch.randn(1, 3, 28, 28)
    before = dense(x)
    with torch.no_grad():
        network[5].weight.mul_(2)
    assert not torch.allclose(dense(x), before)
    assert [type(m).__name__ for m in network] == names
    torch.testing.assert_close(dense(x), network(x), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_done_is_said():
    with torch.device("meta"):
        alexnet = nbs.create_model("alexnet").eval()
        vit = nbs.create_model("vit_b_16").eval()
        theirs = models.vit_b_16().eval()
    with pytest.raises(NotDense, match=r"map of 3 x 3 is pooled to 6 x 6, which is no"):
        fully_convolutional(alexnet, (3, 128, 128))
    for network in (vit, theirs):
        with pytest.raises(NotDense, match="VisionTransformer cannot be applied dense"):
            fully_convolutional(network)
    with pytest.raises(NotDense, match="has no linear layer"):
        fully_convolutional(nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten()), (3, 8, 8))
