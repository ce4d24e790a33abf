"""Weights carried between differently written networks, and wrong layers found."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from nbs_utils.parity import (
    compare,
    load_pretrained,
    reference_network,
    transplant,
)
from nbs_utils.parity.calibration import native_size


class Bottleneck(nn.Module):
    """A bottleneck whose shortcut is registered first and called last."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.shortcut = None
        if stride > 1 or channels != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False),
                nn.BatchNorm2d(4 * width),
            )
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.norm_a = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm_b = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.norm_c = nn.BatchNorm2d(4 * width)

    def forward(self, x):
        y = F.relu(self.norm_a(self.reduce(x)))
        y = F.relu(self.norm_b(self.conv(y)))
        y = self.norm_c(self.expand(y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet50(nn.Module):
    """ResNet-50 written in another way than torchvision's."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.norm = nn.BatchNorm2d(64)
        blocks, channels = [], 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            width = 64 * 2**stage
            for i in range(depth):
                stride = 2 if stage and i == 0 else 1
                blocks.append(Bottleneck(channels, width, stride))
                channels = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(2048, 1000)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 3, 2, 1)
        return self.head(self.blocks(x).mean(dim=(2, 3)))


class AlexNet(nn.Module):
    """The 2014 AlexNet with functions in place of modules."""

    def __init__(self, wrong: int | None = None):
        super().__init__()
        self.wrong = wrong  # the convolution whose ReLU is forgotten
        sizes = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1)]
        sizes += [(384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
        self.convs = nn.ModuleList([nn.Conv2d(*size) for size in sizes])
        self.linears = nn.ModuleList(
            [nn.Linear(9216, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 1000)]
        )

    def forward(self, x):
        for i, conv in enumerate(self.convs):
            x = conv(x) if i == self.wrong else F.relu(conv(x))
            if i in (0, 1, 4):
                x = F.max_pool2d(x, 3, 2)
        x = F.relu(self.linears[0](x.flatten(1)))
        return self.linears[2](F.relu(self.linears[1](x)))


class Block(nn.Module):
    """A pre-norm transformer block with a fused projection to q, k and v."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x):
        b, n, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """ViT whose patches are cut out first and embedded by a linear layer."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int):
        super().__init__()
        self.patch = patch
        self.position = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.embed = nn.Linear(3 * patch * patch, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 1000)

    def forward(self, x):
        x = self.embed(F.unfold(x, self.patch, stride=self.patch).transpose(1, 2))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        return self.head(self.norm(self.blocks(x + self.position))[:, 0])


@pytest.fixture(scope="module")
def resnet50():
    return reference_network("resnet50")


@pytest.fixture(scope="module")
def small_vit():
    torch.manual_seed(0)
    network = models.VisionTransformer(32, 8, 2, 4, 64, 256)
    nn.init.normal_(network.heads.head.weight, std=0.1)
    nn.init.normal_(network.class_token)
    return network


def test_resnet50_in_another_order(resnet50):
    ours = ResNet50()
    report = transplant(resnet50, ours, (3, 64, 64))
    assert report.complete
    assert report.order == "execution"
    assert report.parameters == 25_557_032
    assert "25,557,032 parameters" in repr(report)
    result = compare(ours, resnet50, input_size=(3, 64, 64))
    assert result.agrees, result
    names = dict(zip(result.layers["layer"], result.layers["counterpart"], strict=True))
    assert names["blocks.0.shortcut.0"] == "layer1.0.downsample.0"
    assert names["blocks.3.conv"] == "layer2.0.conv2"


def test_a_wrong_layer_is_named_in_both_networks(resnet50):
    ours = ResNet50()
    transplant(resnet50, ours, (3, 64, 64))
    ours.blocks[3].norm_b.eps = 0.1
    result = compare(ours, resnet50, input_size=(3, 64, 64))
    assert result.first_difference == "blocks.3.norm_b (there layer2.0.bn2)"
    assert not result.note  # the layer itself is wrong
    assert result.max_difference > 1e-4
    ours.blocks[3].norm_b.eps = 1e-5
    ours.blocks[1].conv.dilation = (2, 2)  # another output size
    ours.blocks[1].conv.padding = (1, 1)
    ours.blocks[1].shortcut = nn.ZeroPad2d(-1)
    found = compare(ours, resnet50, input_size=(3, 64, 64)).first_difference
    assert found.startswith("blocks.1.conv (there layer1.1.conv2), whose output is")


def test_a_forgotten_function_is_found_between_two_layers():
    torch.manual_seed(0)
    a, b = AlexNet(), AlexNet(wrong=2)
    transplant(a, b)
    result = compare(a, b, torch.randn(1, 3, 224, 224))
    assert result.first_difference == "convs.3"
    assert "What it is given differs already" in repr(result)


def test_alexnet_from_torchvision():
    reference, ours = reference_network("alexnet"), AlexNet()
    report = transplant(reference, ours)
    assert report.complete
    assert report.order == "registration"
    assert (len(report.copied), report.parameters) == (16, 61_100_840)
    x = torch.randn(1, 3, 224, 224)
    assert compare(ours, reference, x).agrees


def test_vit_with_linear_patches_and_fused_projection(small_vit):
    ours = ViT(32, 8, 64, 2, 4)
    report = transplant(small_vit, ours, (3, 32, 32))
    assert report.complete
    assert report.reshaped == [
        "conv_proj.weight (64 x 3 x 8 x 8) to embed.weight (64 x 192)"
    ]
    result = compare(ours, small_vit, input_size=(3, 32, 32))
    assert result.agrees, result
    layers = dict(
        zip(result.layers["layer"], result.layers["counterpart"], strict=True)
    )
    assert layers["embed"] == "conv_proj"  # (B, N, D) beside (B, D, H, W)
    assert layers["blocks.1.proj"] == "encoder.layers.encoder_layer_1.self_attention"
    back = models.VisionTransformer(32, 8, 2, 4, 64, 256)
    assert transplant(ours, back, (3, 32, 32)).complete
    assert torch.equal(back.conv_proj.weight, small_vit.conv_proj.weight)
    ours.blocks[1].heads = 2  # the same shapes everywhere, another attention
    found = compare(ours, small_vit, input_size=(3, 32, 32)).first_difference
    assert found.startswith("blocks.1.proj (there ")


@pytest.mark.parametrize(
    ("name", "timm_name", "options", "timm_options", "size"),
    [
        ("resnet50", "resnet50", {}, {}, 64),
        ("vgg11", "vgg11", {}, {}, 224),
        ("vit_b_16", "vit_base_patch16_224", {"image_size": 32}, {"img_size": 32}, 32),
    ],
)
def test_torchvision_and_timm(name, timm_name, options, timm_options, size):
    pytest.importorskip("timm", reason="pip install timm, the second reference")
    a = reference_network(name, **options)
    b = reference_network(f"timm/{timm_name}", **timm_options)
    assert transplant(a, b, (3, size, size)).complete
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    result = compare(a, b, x)
    assert result.agrees, result


def test_what_does_not_fit_is_reported_with_its_reason():
    a, b = models.squeezenet1_1(), models.squeezenet1_1(num_classes=10)
    report = transplant(a, b)
    assert not report.complete
    assert list(report.unused) == ["classifier.1.weight", "classifier.1.bias"]
    assert list(report.unfilled) == list(report.unused)
    assert "1000 x 512 x 1 x 1" in report.unused["classifier.1.weight"]
    assert "10 x 512 x 1 x 1" in report.unused["classifier.1.weight"]
    assert "Not filled in the target (2)" in repr(report)
    assert torch.equal(a.features[0].weight, b.features[0].weight)


def test_kernels_of_equal_size_and_other_shape_are_not_exchanged():
    a, b = nn.Conv2d(4, 8, 6), nn.Conv2d(16, 8, 3)
    assert a.weight.numel() == b.weight.numel()
    report = transplant(a, b)
    assert list(report.unused) == ["weight"]
    with pytest.raises(ValueError, match="meta device"):
        transplant(a, nn.Conv2d(4, 8, 6, device="meta"))


def test_running_statistics_travel_too():
    a, b = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    a(torch.randn(4, 3, 5, 5))
    report = transplant(a, b)
    assert torch.equal(a.running_var, b.running_var)
    assert b.num_batches_tracked == 1
    assert (report.parameters, report.buffers) == (6, 7)


def test_reference_networks_hide_nothing_behind_ones_and_zeros():
    network = reference_network("vit_b_16", image_size=32)
    assert network.heads.head.weight.std() > 0
    assert not network.training
    plain = reference_network("squeezenet1_1", vary=False)
    assert (plain.features[0].bias == 0).all()
    assert (reference_network("squeezenet1_1").features[0].bias != 0).any()
    meta = reference_network("regnet_y_400mf", device="meta")
    assert all(p.is_meta for p in meta.parameters())


def test_a_reference_built_for_other_images_says_so():
    pytest.importorskip("timm", reason="pip install timm, the second reference")
    network = reference_network("timm/mixer_s32_224", img_size=64)
    assert native_size(network) == (3, 64, 64)  # its configuration says 224


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(ValueError, match="torchvision .* 'resnet5'. Did you mean resn"):
        reference_network("resnet5")
    with pytest.raises(ValueError, match="no weights 'IMAGENET1K_V9' for alexnet"):
        load_pretrained(nn.Linear(1, 1), "alexnet", "IMAGENET1K_V9")


def test_compare_keeps_modes_and_refuses_other_outputs():
    a, b = nn.Sequential(nn.Linear(4, 3), nn.Dropout()), nn.Linear(4, 2)
    a[0].eval()
    with pytest.raises(ValueError, match="same number of classes"):
        compare(a, b, torch.randn(2, 4))
    assert compare(a, a, torch.randn(2, 4)).max_difference == 0
    assert (a.training, a[0].training, a[1].training) == (True, False, True)
    assert not a[0]._forward_hooks


def test_pytorchcv_is_the_third_reference():
    pytest.importorskip("pytorchcv", reason="pip install --no-deps pytorchcv")
    a = reference_network("ptcv/resnet18")
    b = reference_network("resnet18", vary=False)
    assert transplant(a, b).complete
    assert compare(b, a, input_size=(3, 224, 224)).agrees
    with pytest.raises(ValueError, match="pytorchcv has no .*'nin_cifar1'. Did you"):
        reference_network("ptcv/nin_cifar1")
    with pytest.raises(ValueError, match="names no reference"):
        reference_network("keras/resnet18")
