"""The LeNet chapter's networks against the paper's table and written-out arithmetic."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbs_utils import compare, count_macs, count_parameters, create_model
from nbs_utils.parity.calibration import vary
from nbs_utils.zoo.lenet import C3_TABLE, LeNet5, RadialBasis, ScaledTanh, Subsample

# Table I of the paper, row by row: for each map of S2 the maps of C3 that see it.
SEEN_BY = [
    {0, 4, 5, 6, 9, 10, 11, 12, 14, 15},
    {0, 1, 5, 6, 7, 10, 11, 12, 13, 15},
    {0, 1, 2, 6, 7, 8, 11, 13, 14, 15},
    {1, 2, 3, 6, 7, 8, 9, 12, 14, 15},
    {2, 3, 4, 7, 8, 9, 10, 12, 13, 15},
    {3, 4, 5, 8, 9, 10, 11, 13, 14, 15},
]


def squash(a):
    return 1.7159 * torch.tanh(2 * a / 3)


class Reference(nn.Module):
    """The network of 1998 with loops over maps, from the weights of another one."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def subsampled(self, x, name):
        w, b = (self.weights[f"{name}.0.{part}"] for part in ("coefficient", "bias"))
        total = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2]
        return squash(w * (total + x[..., 1::2, 1::2]) + b)

    def c3(self, x):
        rows = {n: iter(range(16)) for n in (3, 4, 6)}  # in the order of the table
        maps = []
        for out in range(16):
            seen = [i for i in range(6) if out in SEEN_BY[i]]
            conv = f"c3.0.convs.{(3, 4, 6).index(len(seen))}"
            row = next(rows[len(seen)])
            total = self.weights[f"{conv}.bias"][row].view(1, 1, 1)
            for i, kernel in zip(seen, self.weights[f"{conv}.weight"][row]):
                total = total + F.conv2d(x[:, i : i + 1], kernel[None, None])[:, 0]
            maps.append(total)
        return squash(torch.stack(maps, dim=1))

    def forward(self, x):
        w = self.weights
        x = squash(F.conv2d(x, w["c1.0.weight"], w["c1.0.bias"]))
        x = self.subsampled(self.c3(self.subsampled(x, "s2")), "s4")
        x = squash(x.flatten(1) @ w["c5.0.weight"].flatten(1).T + w["c5.0.bias"])
        x = squash(x @ w["f6.0.weight"].T + w["f6.0.bias"])
        return torch.stack([-((x - c) ** 2).sum(1) for c in w["output.codes"]], dim=1)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("lenet5", 61_706, 416_520), ("lenet5_1998", 60_000, 325_680)],
)
def test_counts(name, parameters, macs):
    network = create_model(name)
    assert count_parameters(network) == parameters
    assert count_macs(network, (1, 32, 32)) == macs


def test_every_layer_has_as_many_parameters_as_in_the_paper():
    network = create_model("lenet5_1998")
    paper = dict(c1=156, s2=12, c3=1516, s4=32, c5=48_120, f6=10_164, output=0)
    assert {n: count_parameters(getattr(network, n)) for n in paper} == paper


def test_the_table_is_the_papers():
    for i, maps in enumerate(SEEN_BY):
        assert {out for out, row in enumerate(C3_TABLE) if i in row} == maps


def test_logits_of_1998_equal_an_independent_implementation():
    torch.manual_seed(0)
    network = create_model("lenet5_1998").eval()
    vary(network)
    for layer in (network.s2[0], network.s4[0]):  # not where they start
        nn.init.uniform_(layer.coefficient, 0.1, 0.6)
        nn.init.uniform_(layer.bias, -0.5, 0.5)
    network.double()
    reference = Reference(network.state_dict()).eval()
    x = torch.randn(4, 1, 32, 32, dtype=torch.float64)
    comparison = compare(network, reference, x)
    assert comparison.agrees, comparison


def test_outputs_are_squared_distances():
    layer, x = RadialBasis(84, 12), torch.randn(3, 84)
    for k in range(12):
        expected = sum((x[:, j] - layer.codes[k, j]) ** 2 for j in range(84))
        torch.testing.assert_close(layer(x)[:, k], -expected)
    assert set(layer.codes.unique().tolist()) == {-1.0, 1.0}
    assert len(layer.codes.unique(dim=0)) == 12
    assert layer(layer.codes).argmax(dim=1).tolist() == list(range(12))


def test_subsampling_starts_as_an_average_and_is_trained():
    layer, x = Subsample(3), torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(layer(x), F.avg_pool2d(x, 2))
    layer(x).sum().backward()
    assert all(p.grad.abs().min() > 0 for p in layer.parameters())


def test_the_unit_is_one_at_one():
    a = torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(ScaledTanh()(a), a, atol=1e-4, rtol=0)


def test_resizing_changes_nothing_at_the_native_size():
    maps = torch.randn(1, 16, 5, 5)
    torch.testing.assert_close(LeNet5().resize(maps), maps)
