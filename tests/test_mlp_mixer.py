"""Mixer: the function of timm, and what its two MLPs may and may not touch."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.parity.calibration import vary
from nbs_utils.zoo import create_model
from nbs_utils.zoo.mlp_mixer import MIXERS, MixerBlock, MLPMixer, TokenMixing

SMALL = dict(image_size=80, embed_dim=48, depth=3, token_dim=24, channel_dim=192)


def small(**changes) -> MLPMixer:
    """A small network, on a grid of 5 by 5, whose head and biases are not zero."""
    torch.manual_seed(0)
    network = MLPMixer(num_classes=10, **SMALL | changes)
    vary(network)
    return network.eval()


def by_hand(patch, d, depth, token, channel, side=224, classes=1000):
    """Parameters and multiply-adds of a Mixer, written down from its definition."""
    n, values = (side // patch) ** 2, 3 * patch * patch
    token_mlp = (n * token + token) + (token * n + n)
    channel_mlp = (d * channel + channel) + (channel * d + d)
    parameters = values * d + d + depth * (token_mlp + channel_mlp + 4 * d)
    macs = n * values * d + depth * (d * 2 * n * token + n * 2 * d * channel)
    return parameters + 2 * d + d * classes + classes, macs + d * classes


@pytest.mark.parametrize(
    ("name", "sizes", "millions"),  # the last column: Table 1 of the paper
    [
        ("mixer_s32", (32, 512, 8, 256, 2048), 19),
        ("mixer_s16", (16, 512, 8, 256, 2048), 18),
        ("mixer_b32", (32, 768, 12, 384, 3072), 60),
        ("mixer_b16", (16, 768, 12, 384, 3072), 59),
        ("mixer_l16", (16, 1024, 24, 512, 4096), 207),
    ],
)
def test_counts(name, sizes, millions):
    with torch.device("meta"):
        network = create_model(name)
    parameters = nbs.count_parameters(network)
    assert (parameters, nbs.count_macs(network)) == by_hand(*sizes)
    without_head = parameters - nbs.count_parameters(network.head)
    assert round(without_head / 1e6) == millions


@pytest.mark.parametrize("name", [name for name in MIXERS if "mini" not in name])
def test_same_tensors_as_timm(name):
    pytest.importorskip("timm")
    with torch.device("meta"):
        ours = create_model(name)
    theirs = nbs.reference_network(f"timm/{name}_224", device="meta")
    shapes = [
        [p.flatten(1).shape for p in n.parameters() if p.dim() > 1]
        for n in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("side", [64, 80])
def test_same_logits_as_timm(side):
    timm = pytest.importorskip("timm.models.mlp_mixer")
    torch.manual_seed(1)
    reference = timm.MlpMixer(
        img_size=side, patch_size=16, num_blocks=3, embed_dim=48, num_classes=10
    ).eval()
    vary(reference)
    network = small(image_size=side)
    assert nbs.transplant(reference, network, (3, side, side)).complete
    comparison = nbs.compare(network, reference, input_size=(3, side, side))
    assert comparison.agrees, comparison


def test_a_block_is_the_papers_two_lines():
    torch.manual_seed(0)
    block = MixerBlock(6, 8, 5, 16).double()
    vary(block)
    x = torch.randn(6, 8).double()  # one table: the products need no batch
    w1, b1, w2, b2 = block.token_mixing.mlp.parameters()
    w3, b3, w4, b4 = block.channel_mixing.parameters()
    u = x + w2 @ F.gelu(w1 @ block.norm1(x) + b1[:, None]) + b2[:, None]
    y = u + F.gelu(block.norm2(u) @ w3.T + b3) @ w4.T + b4
    torch.testing.assert_close(block(x[None])[0], y)


def test_each_mlp_stays_on_its_axis():
    torch.manual_seed(0)
    block = MixerBlock(6, 8, 5, 16).double()
    x = torch.randn(1, 6, 8).double()
    changed = x.clone()
    changed[0, 2, 3] += 1

    def touched(layer):
        return ((layer(changed) - layer(x)).abs() > 1e-9)[0]

    columns, rows = touched(block.token_mixing), touched(block.channel_mixing)
    assert columns[:, 3].all() and columns.sum() == 6
    assert rows[2].all() and rows.sum() == 8


def permuted(network: MLPMixer, order: torch.Tensor) -> MLPMixer:
    """The network with its token mixing made for places in another order."""
    other = small().double()
    other.load_state_dict(network.state_dict())
    for block in other.blocks:
        widen, narrow = block.token_mixing.mlp[0], block.token_mixing.mlp[3]
        widen.weight.data = widen.weight.data[:, order]
        narrow.weight.data = narrow.weight.data[order]
        narrow.bias.data = narrow.bias.data[order]
    return other


def test_permuted_patches_with_permuted_weights_give_the_same_logits():
    x = torch.randn(2, 3, 80, 80).double()
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    patches = F.unfold(x, 16, stride=16)[:, :, order]
    shuffled = F.fold(patches, (80, 80), 16, stride=16)
    network = small().double()
    torch.testing.assert_close(network(x), permuted(network, order)(shuffled))
    assert (network(x) - network(shuffled)).abs().max() > 1e-3


def test_the_head_reads_the_mean_behind_the_last_norm():
    network, x = small(), torch.randn(2, 3, 80, 80)
    tokens = network.norm(network.blocks(network.patches(x)))
    torch.testing.assert_close(network(x), network.head(tokens).mean(dim=1))


def test_first_loss_is_that_of_guessing():
    torch.manual_seed(0)
    network = create_model("mixer_mini_16", num_classes=10, depth=1)
    loss = F.cross_entropy(network(torch.randn(4, 3, 128, 128)), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(10))


def test_another_number_of_tokens_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="16 tokens, but .* made for 25"):
        small()(torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match="5 tokens"):
        TokenMixing(4, 3)(torch.randn(1, 5, 2))


def test_small_images_get_small_patches():
    network = create_model("mixer_s16", num_classes=10, image_size=32, depth=1)
    assert network.patches.patch_size == 4
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_gradients_reach_every_parameter():
    network = small().train()
    network(torch.randn(2, 3, 80, 80)).square().sum().backward()
    without = [n for n, p in network.named_parameters() if not p.grad.abs().max() > 0]
    assert without == []


def test_dropout_stands_behind_both_layers_of_both_mlps():
    network = small(dropout=0.3)
    drops = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    assert [m.p for m in drops] == [0.3] * 4 * SMALL["depth"]
