"""SENet: the counts of the references, the same function, what a gate does."""

import pytest
import torch
from torch import nn

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.senet import SEBottleneck, SENet, SENet154Block, SqueezeExcite


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def shapes(network):
    return [tuple(p.shape) for p in network.parameters()]


REFERENCES = [
    ("se_resnet50", "timm/seresnet50"),
    ("se_resnext50_32x4d", "timm/seresnext50_32x4d"),
    ("senet154", "timm/legacy_senet154"),
]


@pytest.mark.parametrize(("name", "there"), REFERENCES)
def test_same_tensors_as_the_reference(name, there):
    assert shapes(on_meta(name)) == shapes(nbs.reference_network(there, device="meta"))


@pytest.mark.parametrize(
    ("name", "there", "ours", "theirs"),
    [
        ("se_resnet50", "timm/seresnet50", {}, {}),
        ("se_resnext50_32x4d", "timm/seresnext50_32x4d", {}, {}),
        (
            *("senet154", "timm/legacy_senet154"),
            *({"depths": (1, 2, 1, 1)}, {"layers": (1, 2, 1, 1)}),
        ),
        pytest.param(
            *("senet154", "timm/legacy_senet154", {}, {}), marks=pytest.mark.slow
        ),
    ],
)
def test_same_logits_as_the_reference(name, there, ours, theirs):
    reference = nbs.reference_network(there, **theirs)
    network = create_model(name, **ours).eval()
    assert nbs.transplant(reference, network, (3, 64, 64)).complete
    comparison = nbs.compare(network, reference, input_size=(3, 64, 64))
    assert comparison.agrees, comparison


@pytest.mark.parametrize(
    ("name", "options", "parameters", "macs"),
    [
        ("se_resnet50", {}, 28_088_024, 4_091_699_200),
        ("se_resnet50", {"stride_on": "1x1"}, 28_088_024, 3_860_488_192),
        ("se_resnext50_32x4d", {}, 27_559_896, 4_232_994_816),
        ("senet154", {}, 115_088_984, 20_688_363_520),
    ],
)
def test_counts(name, options, parameters, macs):
    network = on_meta(name, **options)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network) == macs


@pytest.mark.parametrize("ratio", [2, 8, 16])
def test_gates_add_what_the_formula_says(ratio):
    stages = {256: 3, 512: 4, 1024: 6, 2048: 3}
    added = sum(n * (2 * c * c // ratio + c // ratio + c) for c, n in stages.items())
    excess = nbs.count_parameters(
        on_meta("se_resnet50", reduction=ratio)
    ) - nbs.count_parameters(on_meta("resnet50"))
    assert excess == added


def test_the_gate_is_the_formula():
    torch.manual_seed(0)
    block = SqueezeExcite(12, 3).double()
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64)
    u = x.mean(dim=(2, 3))
    hidden = (u @ block.reduce.weight[..., 0, 0].T + block.reduce.bias).clamp_min(0)
    logits = hidden @ block.expand.weight[..., 0, 0].T + block.expand.bias
    s = 1 / (1 + torch.exp(-logits))
    expected = torch.einsum("bchw,bc->bchw", x, s)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_activation_and_gate_are_arguments():
    torch.manual_seed(0)
    block = SqueezeExcite(8, 2, activation=nn.SiLU, gate=nn.Hardsigmoid)
    x = torch.randn(2, 8, 4, 4)
    means = x.mean(dim=(2, 3), keepdim=True)
    gates = nn.functional.hardsigmoid(
        block.expand(nn.functional.silu(block.reduce(means)))
    )
    torch.testing.assert_close(block(x), gates * x)


def test_a_hidden_layer_without_channels_is_named():
    with pytest.raises(ValueError, match="a gate for 8 channels has 0"):
        SEBottleneck(8, 2)


def test_open_gates_leave_resnet50():
    torch.manual_seed(0)
    gated = create_model("se_resnet50").eval()
    for module in gated.modules():
        if isinstance(module, SqueezeExcite):
            nn.init.zeros_(module.expand.weight)
            nn.init.constant_(module.expand.bias, 100)
    resnet = create_model("resnet50").eval()
    kept = {
        key: value
        for key, value in gated.state_dict().items()
        if ".reduce." not in key and ".expand." not in key
    }
    resnet.load_state_dict(kept)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(gated(x), resnet(x))


@pytest.mark.parametrize("name", ["se_resnet50", "senet154"])
def test_gates_act_on_the_branch_alone(name):
    network = create_model(name, depths=(2,), zero_init_gamma=True).eval()
    x = torch.randn(2, 3, 64, 64)
    block = network.conv2_x[-1]
    seen = {}
    block.register_forward_hook(
        lambda module, args, out: seen.update(before=args[0], after=out)
    )
    with torch.no_grad():
        network(x)
    # the branch is zero and its shortcut the identity, whatever the gates are
    assert torch.equal(seen["before"], seen["after"])


def test_zero_init_gamma_sets_the_norm_before_every_gate():
    plain = create_model("se_resnext26_mini")
    zeroed = create_model("se_resnext26_mini", zero_init_gamma=True)
    for network, expected in ((plain, 0), (zeroed, 8)):
        zeros = sum(
            isinstance(m, nn.BatchNorm2d) and not m.weight.any()
            for m in network.modules()
        )
        assert zeros == expected


def test_what_senet154_changes():
    network = on_meta("senet154")
    stem = [m for m in network.conv1 if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size, c.stride) for c in stem] == [
        (64, (3, 3), (2, 2)),
        (64, (3, 3), (1, 1)),
        (128, (3, 3), (1, 1)),
    ]
    blocks = [m for m in network.modules() if isinstance(m, SENet154Block)]
    assert len(blocks) == 3 + 8 + 36 + 3
    shortcuts = [
        (i, block.shortcut[0].kernel_size[0])
        for i, block in enumerate(blocks)
        if isinstance(block.shortcut, nn.Sequential)
    ]
    assert shortcuts == [(0, 1), (3, 3), (11, 3), (47, 3)]
    for block in blocks:
        first, grouped = block.residual[0], block.residual[3]
        assert 2 * first.out_channels == grouped.out_channels
        assert grouped.groups == 64
    assert network.dropout.p == 0.2
    layers = 3 + 3 * len(blocks) + 1
    assert layers == 154


def test_a_cifar_stem_keeps_the_size():
    network = SENet(SEBottleneck, (1, 1), (16, 32), stem="cifar", num_classes=5)
    with torch.no_grad():
        assert network.conv2_x(network.conv1(torch.zeros(1, 3, 32, 32))).shape[2:] == (
            32,
            32,
        )
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
