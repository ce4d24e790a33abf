# Written by `nbs export` from chapters/classics/alexnet.ipynb; edit the chapter, not this file.
"""AlexNet (2012), as its chapter builds it."""

from torch import nn

from nbs_utils.zoo import register


class LocalResponseNorm(nn.Module):
    """Divide each activation by the energy of its neighboring channels.

    Args:
        size: number of neighboring channels in the sum, n in the paper.
        alpha: weight of the sum. The paper's alpha; `nn.LocalResponseNorm`
            divides its own alpha by `size`.
        beta: exponent of the denominator.
        k: constant in the denominator.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Source: Krizhevsky et al. 2012, section 3.3.
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=2.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x):
        channels = x.shape[1]
        half = self.size // 2
        squares = nn.functional.pad(x.square(), (0, 0, 0, 0, half, half))
        energy = sum(squares[:, i : i + channels] for i in range(self.size))
        return x * (self.k + self.alpha * energy) ** -self.beta


class AlexNet(nn.Module):
    """AlexNet: five convolutions, three linear layers.

    Args:
        channels: output channels of the five convolutions.
        towers: groups of convolutions 2, 4 and 5; 2 in the network of 2012.
        norm: whether LRN follows the ReLU of convolutions 1 and 2.
        padding: of convolution 1: 0 for 227-pixel images, 2 for 224.
        dropout: probability in the classifier.
        dropout_first: drop the inputs of fc6 and fc7 (torchvision) rather than
            their outputs (2012).
        activation: module class of the nonlinearity.
        pool_size: window of the max pooling; the stride is 2.
        num_classes: number of outputs.

    Shape: (B, 3, H, W) -> (B, num_classes), H and W at least 63.

    Source: Krizhevsky et al. 2012; Krizhevsky 2014 (arXiv:1404.5997).
    """

    def __init__(
        self,
        channels=(64, 192, 384, 256, 256),
        towers=1,
        norm=False,
        padding=2,
        dropout=0.5,
        dropout_first=True,
        activation=nn.ReLU,
        pool_size=3,
        num_classes=1000,
    ):
        super().__init__()
        c1, c2, c3, c4, c5 = channels
        pool = dict(kernel_size=pool_size, stride=2)
        self.conv1 = nn.Conv2d(3, c1, kernel_size=11, stride=4, padding=padding)
        self.conv2 = nn.Conv2d(c1, c2, kernel_size=5, padding=2, groups=towers)
        self.conv3 = nn.Conv2d(c2, c3, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, kernel_size=3, padding=1, groups=towers)
        self.conv5 = nn.Conv2d(c4, c5, kernel_size=3, padding=1, groups=towers)
        self.norm1 = LocalResponseNorm() if norm else nn.Identity()
        self.norm2 = LocalResponseNorm() if norm else nn.Identity()
        self.pool1, self.pool2 = nn.MaxPool2d(**pool), nn.MaxPool2d(**pool)
        self.pool5 = nn.MaxPool2d(**pool)
        self.resize = nn.AdaptiveAvgPool2d(6)  # the identity at the native size
        self.fc6 = nn.Linear(c5 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.activation = activation()
        self.dropout = nn.Dropout(dropout)
        self.dropout_first = dropout_first

    def features(self, x):
        """Return the feature maps of the last pooling layer, (B, c5, 6, 6)."""
        act = self.activation
        x = self.pool1(self.norm1(act(self.conv1(x))))  # (B, c1, 27, 27)
        x = self.pool2(self.norm2(act(self.conv2(x))))  # (B, c2, 13, 13)
        x = act(self.conv3(x))  # (B, c3, 13, 13)
        x = act(self.conv4(x))  # (B, c4, 13, 13)
        x = self.pool5(act(self.conv5(x)))  # (B, c5, 6, 6)
        return self.resize(x)

    def embed(self, x):
        """Return the activations of fc7, (B, 4096): the image as the network sees it.

        The classifier is linear in these, so images that are close here look alike
        to the network.
        """
        drop, act = self.dropout, self.activation
        x = self.features(x).flatten(1)  # (B, c5 * 36)
        if self.dropout_first:
            x = act(self.fc6(drop(x)))  # (B, 4096)
            return act(self.fc7(drop(x)))  # (B, 4096)
        x = drop(act(self.fc6(x)))
        return drop(act(self.fc7(x)))

    def forward(self, x):
        return self.fc8(self.embed(x))  # (B, num_classes)


ALEXNETS = {
    "alexnet": dict(channels=(64, 192, 384, 256, 256)),
    "alexnet_2012": dict(
        channels=(96, 256, 384, 384, 256),
        towers=2,
        norm=True,
        padding=0,
        dropout_first=False,
    ),
}
register(AlexNet, ALEXNETS)


def init_2012(network):
    """Initialize as the paper: N(0, 0.01) weights, some biases 1, others 0."""
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name, layer in network.named_children():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, float(name in ones))


def init_he(network):
    """Initialize as He et al. 2015: variance 2 / fan-in for layers before a ReLU.

    No ReLU follows fc8. It begins near zero, so that all classes are equally likely.
    """
    for layer in network.children():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    nn.init.normal_(network.fc8.weight, std=0.01)
