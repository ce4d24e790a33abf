"""The network of the EfficientNet chapter against arithmetic."""

import torch

from nbs_utils import count_parameters, create_model


def test_counts():
    network = create_model("efficientnet", num_classes=10)
    conv1, conv2 = 16 * (3 * 3 * 3) + 16, 32 * (16 * 3 * 3) + 32
    assert count_parameters(network) == conv1 + conv2 + 10 * 32 + 10


def test_images_of_an_odd_size_and_gray_ones():
    network = create_model("efficientnet", num_classes=10, in_channels=1)
    assert network(torch.zeros(2, 1, 33, 47)).shape == (2, 10)
