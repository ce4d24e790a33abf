# Written by `nbs export` from chapters/classics/alexnet.ipynb; edit the chapter, not this file.
"""AlexNet (2012), as its chapter builds it."""

from collections import OrderedDict

from torch import nn

from nbs_utils.zoo import by_stem, register, require_side


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


def make_features(conv1, channels, towers, norm, activation, pool_size):
    """Return the five convolutions: (B, 3, 224, 224) -> (B, channels[4], 6, 6)."""
    c1, c2, c3, c4, c5 = channels
    normalize = LocalResponseNorm if norm else nn.Identity
    layers = OrderedDict(
        conv1=conv1,
        relu1=activation(),  # (B, c1, 55, 55)
        norm1=normalize(),
        pool1=nn.MaxPool2d(pool_size, stride=2),  # (B, c1, 27, 27)
        conv2=nn.Conv2d(c1, c2, kernel_size=5, padding=2, groups=towers),
        relu2=activation(),
        norm2=normalize(),
        pool2=nn.MaxPool2d(pool_size, stride=2),  # (B, c2, 13, 13)
        conv3=nn.Conv2d(c2, c3, kernel_size=3, padding=1),
        relu3=activation(),
        conv4=nn.Conv2d(c3, c4, kernel_size=3, padding=1, groups=towers),
        relu4=activation(),
        conv5=nn.Conv2d(c4, c5, kernel_size=3, padding=1, groups=towers),
        relu5=activation(),  # (B, c5, 13, 13)
        pool5=nn.MaxPool2d(pool_size, stride=2),  # (B, c5, 6, 6)
    )
    return nn.Sequential(layers)


def make_classifier(in_features, num_classes, dropout, dropout_first, activation):
    """Return the three linear layers: (B, in_features) -> (B, num_classes)."""
    hidden = []
    for name, c_in in [("6", in_features), ("7", 4096)]:
        layers = [("fc" + name, nn.Linear(c_in, 4096)), ("relu" + name, activation())]
        position = 0 if dropout_first else len(layers)
        layers.insert(position, ("drop" + name, nn.Dropout(dropout)))
        hidden += layers  # (B, 4096)
    return nn.Sequential(OrderedDict([*hidden, ("fc8", nn.Linear(4096, num_classes))]))


class AlexNet(nn.Module):
    """AlexNet (Krizhevsky et al. 2012; Krizhevsky 2014, arXiv:1404.5997).

    Args:
        channels: output channels of the five convolutions.
        towers: groups of convolutions 2, 4 and 5; 2 in the network of 2012.
        norm: whether LRN follows the ReLU of convolutions 1 and 2.
        padding: of convolution 1: 0 for 227-pixel images, 2 for 224.
        dropout: probability in the classifier.
        dropout_first: drop the inputs of fc6 and fc7 rather than their outputs.
        activation: module class of the nonlinearity.
        pool_size: window of the max pooling; the stride is 2.
        stem: "imagenet" (conv1 is 11x11 with stride 4), or "cifar" for images of about
            32 pixels (5x5 with stride 1, and 3x3 positions before the classifier).
        num_classes, in_channels: numbers of outputs and of the images' channels.

    Shape: (B, C, H, W) -> (B, num_classes).
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
        stem="imagenet",
        num_classes=1000,
        in_channels=3,
    ):
        super().__init__()
        kernel, stride, padding, side = by_stem(
            stem, imagenet=(11, 4, padding, 6), cifar=(5, 1, 2, 3)
        )
        conv1 = nn.Conv2d(in_channels, channels[0], kernel, stride, padding)
        self.features = make_features(
            conv1, channels, towers, norm, activation, pool_size
        )
        self.resize = nn.AdaptiveAvgPool2d(side)
        self.classifier = make_classifier(
            channels[4] * side**2, num_classes, dropout, dropout_first, activation
        )
        # One position behind three poolings takes this many pixels in front of conv1.
        after = 7 * pool_size - 6
        self.least = (after - 1) * stride + kernel - 2 * padding

    def forward(self, x):
        require_side(x, self.least)
        x = self.resize(self.features(x))  # (B, c5, 6, 6)
        return self.classifier(x.flatten(1))  # (B, num_classes)


ALEXNET_2014 = dict(channels=(64, 192, 384, 256, 256))
ALEXNET_2012 = dict(
    channels=(96, 256, 384, 384, 256),
    towers=2,
    norm=True,
    padding=0,
    dropout_first=False,
)
register(AlexNet, {"alexnet": ALEXNET_2014}, image_size=224, protocol="center")
register(AlexNet, {"alexnet_2012": ALEXNET_2012}, image_size=227, protocol="ten_crop")


def init_2012(network):
    """Initialize as the paper: N(0, 0.01) weights, some biases 1, others 0."""
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, float(name.split(".")[-1] in ones))


def init_he(network):
    """Initialize as He et al. 2015: variance 2 / fan-in for layers before a ReLU.

    No ReLU follows fc8. It begins near zero, so that all classes are equally likely.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    nn.init.normal_(network.classifier.fc8.weight, std=0.01)
