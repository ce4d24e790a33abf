"""Weights find their places: auxiliary heads, branches in another order, q, k and v."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbs_utils.parity import WrongWeights, compare, transplant
from nbs_utils.parity.calibration import enliven
from nbs_utils.parity.weights import carry


class Aux(nn.Module):
    """A network with a head that only training uses, of the classifier's shape."""

    def __init__(self, aux: bool):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        if aux:
            self.aux = nn.Linear(8, 5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.stem(x)).mean((2, 3))
        if self.training and hasattr(self, "aux"):
            return self.fc(x), self.aux(x)
        return self.fc(x)


def test_auxiliary_heads_are_set_aside():
    source, target = Aux(aux=True), Aux(aux=False)
    report = transplant(source, target, (3, 8, 8))
    assert report.complete
    assert list(report.aside) == ["aux.weight", "aux.bias"]
    assert "evaluation does not use them" in repr(report)
    assert torch.equal(target.fc.weight, source.fc.weight)
    both = Aux(aux=True)
    assert not transplant(source, both, (3, 8, 8)).aside
    assert torch.equal(both.aux.weight, source.aux.weight)


class NormAct(nn.BatchNorm2d):
    """A norm that holds its activation, as timm's BatchNormAct2d does."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


def test_a_norm_that_holds_its_activation_is_a_layer():
    def network(*norm):
        return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), *norm)

    source = network(NormAct(8)).eval()
    enliven(source)
    target = network(nn.BatchNorm2d(8), nn.ReLU())
    report = transplant(source, target, (3, 8, 8))
    assert report.complete
    assert torch.equal(target[1].weight, source[1].weight)
    assert compare(target, source, torch.randn(3, 3, 8, 8)).agrees


class Branches(nn.Module):
    """Two branches of one shape, of which one sees the image through a tanh."""

    def __init__(self, order: str, called: str = "ab"):
        super().__init__()
        for name in order:
            setattr(self, name, nn.Conv2d(3, 4, 3))
        self.fc = nn.Linear(8, 5)
        self.called = called

    def forward(self, x):
        inputs = {"a": x, "b": x.tanh()}
        parts = {name: getattr(self, name)(inputs[name]) for name in self.called}
        return self.fc(torch.cat([parts["a"], parts["b"]], 1).mean((2, 3)))


def test_branches_registered_in_another_order():
    source, target = Branches("ab"), Branches("ba")
    report = transplant(source, target, (3, 8, 8))
    assert report.complete and not report.doubt
    assert report.order == "execution"
    assert torch.equal(target.a.weight, source.a.weight)
    # called in another order, too: registration has it right
    target = Branches("ab", called="ba")
    assert transplant(source, target, (3, 8, 8)).order == "registration"
    assert compare(target, source, torch.randn(3, 3, 8, 8)).agrees


def test_what_cannot_be_decided_is_said_and_can_be_named():
    source, target = Branches("ab"), Branches("ba")
    target.fc = nn.Sequential(nn.Linear(8, 5), nn.Tanh())  # another fault
    report = transplant(source, target, (3, 8, 8))
    assert "Doubtful" in report.doubt and "pairs=" in repr(report)
    report = transplant(source, target, (3, 8, 8), pairs={"a": "a", "b": "b"})
    assert report.complete and not report.doubt
    assert torch.equal(target.a.weight, source.a.weight)
    assert torch.equal(target.b.weight, source.b.weight)
    with pytest.raises(ValueError, match="has no layer there that holds tensors"):
        transplant(source, target, (3, 8, 8), pairs={"a": "c"})
    with pytest.raises(ValueError, match="do not fit"):
        transplant(source, target, (3, 8, 8), pairs={"a": "fc"})


def test_kernels_of_one_by_three_are_not_those_of_three_by_one():
    class Crossed(nn.Module):
        def __init__(self, order):
            super().__init__()
            sizes = {"row": (1, 3), "column": (3, 1)}
            for name in order:
                kernel = sizes[name]
                padding = kernel[0] // 2, kernel[1] // 2
                setattr(self, name, nn.Conv2d(4, 4, kernel, padding=padding))

        def forward(self, x):
            return torch.cat([self.row(x), self.column(x)], 1)

    source, target = Crossed(["row", "column"]), Crossed(["column", "row"])
    assert transplant(source, target, (4, 8, 8)).complete
    assert torch.equal(target.row.weight, source.row.weight)


class Attention(nn.Module):
    """Attention with one matrix for q, k and v or with three."""

    def __init__(self, fused: bool, width: int = 12):
        super().__init__()
        self.fused = fused
        self.norm = nn.LayerNorm(width)
        if fused:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.key = nn.Linear(width, width)  # not in the order q, k, v
            self.query = nn.Linear(width, width)
            self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        x = self.norm(x)
        if self.fused:
            q, k, v = self.qkv(x).chunk(3, -1)
        else:
            k, q, v = self.key(x), self.query(x), self.value(x)
        return self.out((q @ k.transpose(1, 2) / 12**0.5).softmax(-1) @ v)


@pytest.mark.parametrize("fused", [True, False])
def test_query_key_and_value_together_and_apart(fused):
    source, target = Attention(fused), Attention(not fused)
    report = transplant(source, target, (5, 12))
    assert report.complete
    assert report.parameters == sum(p.numel() for p in source.parameters())
    x = torch.randn(3, 5, 12)
    torch.testing.assert_close(target(x), source(x))
    assert compare(target, source, x).agrees


def test_multihead_attention_apart():
    class Torchs(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(12)
            self.attention = nn.MultiheadAttention(12, 1, batch_first=True)

        def forward(self, x):
            x = self.norm(x)
            return self.attention(x, x, x, need_weights=False)[0]

    source, target = Torchs(), Attention(fused=False)
    nn.init.normal_(source.attention.in_proj_bias)
    assert transplant(source, target, (5, 12)).complete
    x = torch.randn(3, 5, 12)
    torch.testing.assert_close(target(x), source.eval()(x))


def test_weights_are_loaded_only_when_everything_fits():
    source = Aux(aux=False)
    target = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = target[0].weight.clone()
    with pytest.raises(WrongWeights, match=r"no place for fc.weight.*left as it was"):
        carry(source, target, "aux", "a file", (3, 8, 8))
    assert torch.equal(target[0].weight, before)
    larger = nn.Sequential(*target, nn.Linear(8, 5), nn.Linear(5, 5))
    with pytest.raises(WrongWeights, match=r"nothing was found for 4.weight"):
        carry(source, larger, "aux", "a file", (3, 8, 8))
