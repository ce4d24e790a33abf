"""Counts against hand computation and against what torchvision documents."""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.ops import DeformConv2d

from nbs_utils.counting import (
    count_macs,
    count_parameters,
    on_meta,
    peak_memory,
    stage_table,
    throughput,
    trace,
)
from nbs_utils.tables import Table


class Attention(nn.Module):
    """Self-attention through a fused or a written-out product."""

    def __init__(self, width: int, heads: int, fused: bool):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class TorchAttention(nn.Module):
    """The same with the module of PyTorch, whose fast path hides its products."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize(
    ("layer", "size", "parameters", "macs"),
    [
        # D H W (C k k) multiply-adds and D (C k k + 1) parameters
        (nn.Conv2d(3, 8, 3, padding=1), (3, 16, 16), 8 * 28, 8 * 256 * 27),
        (nn.Conv2d(8, 8, 3, stride=2, groups=4), (8, 9, 9), 8 * 19, 8 * 16 * 18),
        (nn.Conv2d(6, 6, 5, groups=6, bias=False), (6, 9, 9), 6 * 25, 6 * 25 * 25),
        (
            nn.ConvTranspose2d(4, 5, 2, stride=2),
            (4, 3, 3),
            4 * 5 * 4 + 5,
            9 * 4 * 5 * 4,
        ),
        (nn.Linear(100, 7), (100,), 707, 700),
        (nn.Linear(100, 7, bias=False), (5, 100), 700, 5 * 700),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), (4, 8, 8), 8, 0),
    ],
)
def test_layers_counted_by_hand(layer, size, parameters, macs):
    assert count_parameters(layer) == parameters
    assert count_macs(layer, size) == macs


@pytest.mark.parametrize(
    "network", [Attention(12, 3, True), Attention(12, 3, False), TorchAttention(12, 3)]
)
def test_attention_counts_both_products_however_it_is_written(network):
    n, d = 10, 12
    expected = {
        "convolution": 0,
        "linear": 4 * n * d * d,  # q, k, v and the projection
        "products": 2 * n * n * d,  # scores, and weights times values
    }
    assert count_macs(network, (n, d), by_kind=True) == expected
    assert count_macs(network, (n, d)) == sum(expected.values())


def test_deformable_convolution_counts_like_a_convolution():
    class Deformable(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = DeformConv2d(4, 6, 3, padding=1)

        def forward(self, x):
            return self.conv(x, x.new_zeros(x.shape[0], 18, *x.shape[2:]))

    assert count_macs(Deformable(), (4, 5, 5)) == 6 * 25 * 4 * 9


@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet152", "resnext50_32x4d"),
        *("densenet121", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small"),
        *("shufflenet_v2_x1_0", "efficientnet_b0", "convnext_tiny", "vit_b_16"),
        *("vit_l_32", "swin_t", "maxvit_t"),
    ],
)
def test_counts_equal_what_torchvision_documents(name):
    meta = models.get_model_weights(name).DEFAULT.meta
    with torch.device("meta"):
        network = models.get_model(name)
    assert count_parameters(network) == meta["num_params"]
    assert round(count_macs(network) / 1e9, 3) == meta["_ops"]


def test_counting_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    network[1].eval()  # a mixture of modes must survive
    fired = []
    network[0].register_forward_hook(lambda *_: fired.append(1))
    before = {name: t.clone() for name, t in network.state_dict().items()}
    state = torch.get_rng_state()
    count_macs(network, (3, 8, 8))
    stage_table(network, (3, 8, 8))
    assert [m.training for m in network] == [True, False, True]
    assert not fired
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(t.is_meta for t in network.state_dict().values())


def test_a_copy_on_meta_keeps_shared_tensors_shared():
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    network[1].weight = network[0].weight
    network[0].scale = torch.ones(6)  # neither parameter nor buffer
    clone = on_meta(network)
    assert clone[0].weight is clone[1].weight
    assert clone[0].scale.is_meta
    assert count_parameters(clone) == count_parameters(network) == 36 + 6 + 6


def test_frozen_parameters_count_only_when_asked_for():
    network = nn.Linear(3, 2)
    network.weight.requires_grad_(False)
    assert count_parameters(network) == 2
    assert count_parameters(network, trainable=False) == 8


def test_wrong_input_names_the_layer_and_restores_the_fast_path():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(10, 2))
    with pytest.raises(ValueError, match=r"3 x 9 x 9 \(it stops in 2\)"):
        count_macs(network, (3, 9, 9))
    assert torch.backends.mha.get_fastpath_enabled()


def test_trace_notes_calls_in_order_with_shapes():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU()))
    calls = trace(network, (3, 8, 8))
    assert [call.name for call in calls] == ["", "0", "1", "1.0"]
    assert calls[1].inputs == ((1, 3, 8, 8),)
    assert calls[1].outputs == ((1, 4, 6, 6),)
    assert calls[0].macs == calls[1].macs == {"convolution": 4 * 36 * 27}


@pytest.mark.parametrize("written", ["einsum", "matmul", "linear", "batched"])
def test_a_product_with_a_weight_is_linear_however_it_is_written(written):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6, 4))

        def forward(self, x):  # (B, 5, 4)
            weight = self.weight * 2  # still the same for every image
            if written == "einsum":
                x = torch.einsum("bnc,dc->bnd", x, weight)
            elif written == "matmul":
                x = x @ weight.T
            elif written == "linear":
                x = F.linear(x, weight)
            else:
                x = torch.bmm(x, weight.T[None].expand(len(x), -1, -1))
            return torch.einsum("bnd,bmd->bnm", x, x)

    assert count_macs(Mixed(), (5, 4), by_kind=True) == {
        "convolution": 0,
        "linear": 5 * 6 * 4,
        "products": 5 * 5 * 6,
    }


def test_what_is_written_into_a_constant_is_an_activation():
    class Buffered(nn.Module):
        def forward(self, x):
            y = torch.zeros(x.shape, device=x.device)
            y[:, :2] = x[:, :2]
            return y @ x.transpose(1, 2)

    assert count_macs(Buffered(), (5, 4), by_kind=True)["products"] == 5 * 5 * 4


# --- the stage table ------------------------------------------------------------


def test_stage_table_of_resnet18():
    with torch.device("meta"):
        table = stage_table(models.resnet18())
    assert list(table.columns) == ["stage", "output shape", "parameters", "MACs"]
    by_stage = table.set_index("stage")
    assert by_stage.loc["layer1", "output shape"] == "64 x 56 x 56"
    # two blocks of two 3x3 convolutions 64 -> 64 with batch norm, 56 x 56 positions
    assert by_stage.loc["layer1", "parameters"] == 4 * (64 * 64 * 9 + 2 * 64)
    assert by_stage.loc["layer1", "MACs"] == 4 * 64 * 64 * 9 * 56 * 56
    assert by_stage.loc["fc", "output shape"] == "1000"
    assert by_stage.loc["total", "parameters"] == 11_689_512
    assert table["parameters"][:-1].sum() == table["parameters"].iloc[-1]
    assert table["MACs"][:-1].sum() == table["MACs"].iloc[-1]


def test_stage_table_with_named_stages_and_depth():
    with torch.device("meta"):
        network = models.alexnet()
    stages = {"conv1": ["features.0", "features.1"], "classifier": "classifier"}
    table = stage_table(network, stages=stages)
    assert table["stage"].tolist()[:2] == ["conv1", "classifier"]
    assert table["output shape"][0] == "64 x 55 x 55"
    assert table["parameters"].tolist()[-2] == 61_100_840 - 23_296 - 58_631_144
    deep = stage_table(network, depth=2)
    assert "features.12" in deep["stage"].tolist()
    assert deep["MACs"].iloc[-1] == 714_188_480
    with pytest.raises(ValueError, match="'features.99', which is not a module"):
        stage_table(network, stages={"a": "features.99"})


def test_stage_table_shows_loose_parameters_unused_modules_and_lists():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 4))
            self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 6)])
            self.spare = nn.Linear(2, 2)

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x @ x.transpose(-2, -1)  # outside all modules

    table = stage_table(Odd(), (5, 4)).set_index("stage")
    assert table.loc["blocks.1", "output shape"] == "5 x 6"
    assert table.loc["spare", "output shape"] == "not used"
    assert table.loc["token", "parameters"] == 4
    assert table.loc["token", "MACs"] == 5 * 5 * 6
    whole = stage_table(Odd(), (5, 4), stages={"body": "blocks"}).set_index("stage")
    assert whole.loc["body", "MACs"] == 5 * 4 * 4 + 5 * 4 * 6
    assert whole.loc["body", "output shape"] == "5 x 6"


def test_auxiliary_heads_that_evaluation_does_not_use_add_nothing():
    with torch.device("meta"):
        network = models.googlenet(init_weights=False, aux_logits=True)
        without = models.googlenet(init_weights=False, aux_logits=False)
    table = stage_table(network).set_index("stage")
    assert count_parameters(network) == 13_004_888
    assert table.loc["total", "parameters"] == count_parameters(without) == 6_624_904
    assert table.loc["aux1", "output shape"] == "not used"
    assert table.loc["aux1", "parameters"] == table.loc["aux1", "MACs"] == 0
    same = stage_table(without).set_index("stage")
    assert table.drop(["aux1", "aux2"]).equals(same)


def test_parameters_that_are_read_without_a_call_are_used():
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    table = stage_table(network, (5, 8), depth=2).set_index("stage")
    assert table.loc["self_attn.out_proj", "parameters"] == 72  # never called
    assert table.loc["self_attn.out_proj", "output shape"] == ""
    assert table.loc["total", "parameters"] == count_parameters(network)


def test_tables_group_digits_but_keep_the_numbers():
    table = Table(
        [("a", 714188480, 0.12345678), ("<b>", 7, float("nan"))],
        columns=["name", "MACs", "share"],
    )
    assert "714,188,480" in repr(table)
    assert "0.1235" in repr(table)
    html = table._repr_html_()
    assert '<th scope="col" style="text-align: right">MACs</th>' in html
    assert '<th scope="row" style="text-align: left">&lt;b&gt;</th>' in html
    assert "nan" not in html
    assert table["MACs"].sum() == 714188487
    assert isinstance(table[["name", "MACs"]], Table)


def test_tables_show_an_index_that_says_something():
    table = Table({"network": ["a", "b", "a"], "MACs": [1000, 2000, 3000]})
    assert repr(table).splitlines()[0] == "network   MACs"
    assert repr(table[table["MACs"] > 1500]).splitlines() == [
        "network   MACs",
        "b        2,000",
        "a        3,000",
    ]
    named = table.set_index("network")
    assert repr(named) == repr(table)
    assert '<th scope="row" style="text-align: left">b</th>' in named._repr_html_()
    grouped = Table(table.groupby("network").agg({"MACs": ["mean", "max"]}))
    assert repr(grouped).splitlines() == [
        "network  MACs, mean  MACs, max",
        "a             2,000      3,000",
        "b             2,000      2,000",
    ]
    words = Table({"MACs": [1, 2]}, index=["x", "y"])
    assert repr(words).splitlines()[1] == "x     1"
    assert "<thead>\n<tr>\n<td></td>\n<th" in words._repr_html_()  # no empty header
    two = table.set_index(["network", "MACs"]).assign(top1=0.5)
    assert repr(two).splitlines()[0] == "network   MACs  top1"


# --- speed and memory -----------------------------------------------------------


class Slow(nn.Module):
    """A network whose speed is known: it waits 10 ms per batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        time.sleep(0.01)
        return self.linear(x)


@pytest.mark.parametrize("training", [False, True])
def test_throughput_of_a_network_of_known_speed(training):
    network = Slow()
    before = network.linear.weight.clone()
    options = dict(device="cpu", precision="float32", seconds=0.2, repeats=3)
    speed = throughput(network, (4,), 8, training=training, **options)
    assert 200 < speed.images_per_second < 800  # 8 images in 10 ms, and overhead
    assert speed.lowest <= speed.images_per_second <= speed.highest
    assert torch.equal(network.linear.weight, before)
    assert network.linear.weight.grad is None
    assert network.training
    assert "images/s" in repr(speed)


def test_peak_memory_counted_by_hand():
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))
    memory = peak_memory(network, (10,), 16, device="cpu")
    weights = 4 * (10 * 20 + 20 + 20 * 3 + 3)
    # the first layer keeps its input, the ReLU and the second layer the same output
    kept = 4 * 16 * (10 + 20)
    assert (memory.parameters, memory.gradients) == (weights, weights)
    assert memory.activations == kept
    assert memory.peak == 2 * weights + kept
    assert not memory.measured
    inference = peak_memory(network, (10,), 16, training=False, device="cpu")
    assert inference.gradients == 0
    assert inference.activations == 4 * 16 * (20 + 20)  # in and out of the ReLU
    assert all(not p.is_meta and p.grad is None for p in network.parameters())


def test_peak_memory_grows_with_the_batch_only_in_its_activations():
    with torch.device("meta"):
        network = models.resnet18()
    one, two = (peak_memory(network, (3, 64, 64), n, device="cpu") for n in (8, 16))
    assert one.parameters == two.parameters == 4 * (11_689_512 + 9_600) + 8 * 20
    ratio = two.activations / one.activations
    assert 1.99 < ratio < 2.0  # batch statistics do not grow
