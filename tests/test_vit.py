"""ViT: the counts and the function of torchvision and timm, and what attention is."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.parity.calibration import vary
from nbs_utils.zoo import create_model
from nbs_utils.zoo.vit import (
    EncoderBlock,
    MultiHeadSelfAttention,
    PatchEmbedding,
    VisionTransformer,
    attention,
    attention_maps,
)

SMALL = dict(
    image_size=64, patch_size=16, embed_dim=48, depth=3, num_heads=4, mlp_dim=96
)


def small(**changes) -> VisionTransformer:
    """A small network whose head and biases are not zero."""
    torch.manual_seed(0)
    network = VisionTransformer(num_classes=10, **SMALL | changes)
    vary(network)
    return network.eval()


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def by_hand(patch, d, depth, side=224, classes=1000):
    """Parameters and multiply-adds of a ViT, written down from its definition."""
    n, values = (side // patch) ** 2, 3 * patch * patch
    qkv, out, mlp = d * 3 * d + 3 * d, d * d + d, (d * 4 * d + 4 * d) + (4 * d * d + d)
    parameters = values * d + d + d + (n + 1) * d
    parameters += depth * (qkv + out + mlp + 4 * d) + 2 * d + d * classes + classes
    tokens = n + 1
    per_block = tokens * (3 * d * d + d * d + 8 * d * d) + 2 * tokens * tokens * d
    return parameters, n * values * d + depth * per_block + d * classes


@pytest.mark.parametrize(
    ("name", "patch", "d", "depth", "parameters"),
    [
        ("vit_b_16", 16, 768, 12, 86_567_656),  # torchvision's documentation
        ("vit_b_32", 32, 768, 12, 88_224_232),
        ("vit_l_16", 16, 1024, 24, 304_326_632),
        ("vit_l_32", 32, 1024, 24, 306_535_400),
        ("vit_h_14", 14, 1280, 32, 632_045_800),
        ("vit_s_16", 16, 384, 12, 22_050_664),  # DeiT-S
        ("vit_ti_16", 16, 192, 12, 5_717_416),  # DeiT-Ti
    ],
)
def test_parameters(name, patch, d, depth, parameters):
    assert nbs.count_parameters(on_meta(name)) == parameters
    assert by_hand(patch, d, depth)[0] == parameters


@pytest.mark.parametrize(
    ("name", "patch", "d", "depth", "macs"),
    [
        ("vit_b_16", 16, 768, 12, 17_563_828_224),  # torchvision prints 17.564 billion
        ("vit_b_32", 32, 768, 12, 4_409_186_304),  # 4.409
        ("vit_l_16", 16, 1024, 24, 61_554_712_576),  # 61.555
    ],
)
def test_multiply_adds(name, patch, d, depth, macs):
    assert nbs.count_macs(on_meta(name)) == macs
    assert by_hand(patch, d, depth)[1] == macs


def test_small_network_counts():
    network = on_meta("vit_mini_16", num_classes=10)
    assert (
        nbs.count_parameters(network),
        nbs.count_macs(network, (3, 128, 128)),
    ) == by_hand(16, 192, 6, side=128, classes=10)


@pytest.mark.parametrize("name", ["vit_b_16", "vit_b_32", "vit_l_16"])
def test_same_tensors_as_torchvision(name):
    def shapes(network):
        # the class token, the positions and the patches are registered in other orders
        return sorted(
            tuple(p.flatten(1).shape) for p in network.parameters() if p.dim() > 1
        )

    assert shapes(on_meta(name)) == shapes(nbs.reference_network(name, device="meta"))


def test_same_logits_as_torchvision():
    from torchvision.models.vision_transformer import VisionTransformer as Reference

    torch.manual_seed(1)
    reference = Reference(
        image_size=64,
        patch_size=16,
        num_layers=3,
        num_heads=4,
        hidden_dim=48,
        mlp_dim=96,
        num_classes=10,
    ).eval()
    vary(reference)
    network = small()
    report = nbs.transplant(reference, network, (3, 64, 64))
    assert report.complete
    comparison = nbs.compare(network, reference, input_size=(3, 64, 64))
    assert comparison.agrees, comparison


def test_same_logits_as_timm():
    timm = pytest.importorskip("timm.models.vision_transformer")
    torch.manual_seed(2)
    reference = timm.VisionTransformer(
        img_size=64,
        patch_size=16,
        embed_dim=48,
        depth=3,
        num_heads=4,
        mlp_ratio=2,
        num_classes=10,
    ).eval()
    vary(reference)
    network = small()
    assert nbs.transplant(reference, network, (3, 64, 64)).complete
    comparison = nbs.compare(network, reference, input_size=(3, 64, 64))
    assert comparison.agrees, comparison


def test_mean_pooling_is_that_of_timm():
    timm = pytest.importorskip("timm.models.vision_transformer")
    reference = timm.VisionTransformer(
        img_size=64,
        patch_size=16,
        embed_dim=48,
        depth=3,
        num_heads=4,
        mlp_ratio=2,
        num_classes=10,
        class_token=False,
        global_pool="avg",
        fc_norm=False,  # timm would normalize after the mean; the paper's code before
        final_norm=True,
    ).eval()
    vary(reference)
    network = small(class_token=False)
    assert nbs.transplant(reference, network, (3, 64, 64)).complete
    comparison = nbs.compare(network, reference, input_size=(3, 64, 64))
    assert comparison.agrees, comparison


def test_attention_by_hand():
    # one query, two keys: scores (2, 0) / sqrt(4) = (1, 0)
    q = torch.tensor([[2.0, 0, 0, 0]])
    k = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]])
    v = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]])
    y, weights = attention(q, k, v)
    first = math.e / (math.e + 1)
    torch.testing.assert_close(weights, torch.tensor([[first, 1 - first]]))
    torch.testing.assert_close(y, torch.tensor([[first, 0, 0, 1 - first]]))


def test_attention_is_that_of_pytorch():
    q, k, v = torch.randn(3, 2, 4, 17, 8)
    y, weights = attention(q, k, v)
    torch.testing.assert_close(y, F.scaled_dot_product_attention(q, k, v))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 17))


def test_heads_are_slices_of_the_width():
    layer = MultiHeadSelfAttention(embed_dim=12, num_heads=3)
    x = torch.randn(2, 5, 12)
    y, weights = layer(x, return_weights=True)
    q, k, v = layer.qkv(x).split(12, dim=-1)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        out, one = attention(q[..., part], k[..., part], v[..., part])
        heads.append(out)
        torch.testing.assert_close(weights[:, h], one)
    torch.testing.assert_close(y, layer.proj(torch.cat(heads, dim=-1)))


def test_fused_attention_gives_the_outputs_of_the_explicit_products():
    torch.manual_seed(0)
    layer = MultiHeadSelfAttention(embed_dim=12, num_heads=3).double()
    x = torch.randn(2, 5, 12).double()
    torch.testing.assert_close(layer(x), layer(x, return_weights=True)[0])


def test_encoder_ends_in_a_normalization_and_keeps_the_order_of_its_parts():
    network = small(depth=2)
    x = torch.randn(2, 5, 48)
    by_hand = network.encoder.blocks[1](network.encoder.blocks[0](x))
    torch.testing.assert_close(network.encoder(x), network.encoder.norm(by_hand))


def test_permuted_patches_with_permuted_positions_give_the_same_logits():
    x = torch.randn(2, 3, 64, 64).double()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    network, moved = small().double(), small().double()
    grid = network.tokens.positions.pos_embed.detach()[:, 1:]
    moved.tokens.positions.pos_embed.data[:, 1:] = grid[:, order]
    torch.testing.assert_close(network(x), moved(shuffle_patches(x, order)))
    assert (network(x) - network(shuffle_patches(x, order))).abs().max() > 1e-3


def test_patches_are_those_of_a_convolution():
    embedding = PatchEmbedding(patch_size=4, embed_dim=10)
    x = torch.randn(2, 3, 12, 8)  # not square: rows and columns must not be exchanged
    filters = embedding.proj.weight.view(10, 3, 4, 4)
    maps = F.conv2d(x, filters, embedding.proj.bias, stride=4)
    torch.testing.assert_close(embedding(x), maps.flatten(2).transpose(1, 2))


def test_patch_order_is_row_by_row():
    embedding = PatchEmbedding(patch_size=2, embed_dim=12)
    nn.init.eye_(embedding.proj.weight)
    x = torch.arange(3 * 4 * 4.0).view(1, 3, 4, 4)
    second = embedding(x)[0, 1]  # the patch right of the first one
    torch.testing.assert_close(second, x[0, :, 0:2, 2:4].flatten())


def shuffle_patches(x, order, p=16):
    columns = F.unfold(x, p, stride=p)[:, :, order]
    return F.fold(columns, x.shape[-2:], p, stride=p)


def test_without_positions_the_order_of_patches_does_not_matter():
    x = torch.randn(2, 3, 64, 64)
    shuffled = shuffle_patches(x, torch.randperm(16))
    blind = small(positions=False)
    torch.testing.assert_close(blind(x), blind(shuffled), atol=1e-5, rtol=0)
    network = small()
    nn.init.normal_(network.tokens.positions.pos_embed)
    assert (network(x) - network(shuffled)).abs().max() > 1e-3


def test_block_moves_information_between_tokens_only_by_attention():
    block = EncoderBlock(embed_dim=16, num_heads=2, mlp_dim=32).eval()
    x = torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, 3] += torch.randn(16)  # not a constant: layer norm would remove that
    assert (block(x) - block(changed))[:, 0].abs().max() > 1e-4
    nn.init.zeros_(block.attention.proj.weight)
    difference = (block(x) - block(changed)).abs().amax(-1)[0]
    assert (difference > 1e-4).tolist() == [False, False, False, True, False, False]


def test_first_loss_is_that_of_guessing():
    torch.manual_seed(0)
    network = create_model("vit_mini_16", num_classes=10, depth=1)
    loss = F.cross_entropy(network(torch.randn(4, 3, 128, 128)), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(10))


def test_start_gives_scores_of_variance_one():
    torch.manual_seed(0)
    layer = MultiHeadSelfAttention(embed_dim=256, num_heads=4)
    q, k, _ = layer.qkv(torch.randn(4, 100, 256)).view(4, 100, 3, 4, 64).unbind(2)
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / 8
    assert scores.var().item() == pytest.approx(1, abs=0.1)


def test_attention_maps_of_all_blocks():
    network, x = small(), torch.randn(2, 3, 64, 64)
    maps = attention_maps(network, x)
    assert maps.shape == (3, 2, 4, 17, 17)  # blocks, images, heads, tokens, tokens
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 2, 4, 17))
    # the weights of the last block are those that the network itself has used
    used = []
    block = network.encoder.blocks[-1]
    block.attention.register_forward_pre_hook(lambda _, inputs: used.append(inputs[0]))
    network(x)
    _, weights = block.attention(used[0], return_weights=True)
    torch.testing.assert_close(maps[-1], weights)


def test_an_image_of_another_size_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="5 tokens, but there are positions for 17"):
        small()(torch.randn(1, 3, 32, 32))


def test_gradients_reach_every_parameter():
    network = small().train()
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    without = [n for n, p in network.named_parameters() if not p.grad.abs().max() > 0]
    # a shift of all keys moves all scores of a query alike, which softmax ignores, so
    # only the middle third of the qkv bias may stay without gradient
    assert without == []
    bias = network.encoder.blocks[0].attention.qkv.bias.grad.view(3, -1).abs().amax(1)
    assert bias[1] < 1e-3 * bias[0].clamp_min(bias[2])
