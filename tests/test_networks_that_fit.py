"""Networks of every kind can be trained: auxiliary heads, `view`, what bfloat16 lacks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy_data import ToyData, same, toy_network

import nbs_utils as nbs
from nbs_utils.training import fit
from nbs_utils.training.preparing import prepare
from nbs_utils.training.recipe import Recipe

PLAIN = Recipe(
    name="plain", epochs=1, lr=0.05, schedule="constant", precision="float32"
)


def quiet(network, recipe=PLAIN, data=None, **kw):
    return fit(network, data or ToyData(), recipe, progress="off", **kw)


class TwoHeads(nn.Module):
    """A network with an auxiliary head, which it returns in training mode."""

    def __init__(self, always=False, aux_classes=10):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
        self.head, self.aux = nn.LazyLinear(10), nn.LazyLinear(aux_classes)
        self.head(torch.zeros(2, 144)), self.aux(torch.zeros(2, 144))
        self.always = always

    def forward(self, x):
        x = self.body(x).flatten(1)
        if self.training or self.always:
            return self.head(x), self.aux(x), None  # a third head is switched off
        return self.head(x)


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"label_smoothing": 0.1}])
def test_auxiliary_losses_are_added_with_their_weight(changes):
    data, recipe = ToyData(train=32), PLAIN.replace(aux_weight=0.4, keep="last")
    network, hand = TwoHeads(), TwoHeads()
    network.body[1] = hand.body[1] = nn.Identity()  # batch norm would see the parts
    run = quiet(network, recipe.replace(momentum=0, **changes), data)

    x, y = next(data.train.batches(32, epoch=0))
    logits, aux, _ = hand.train()(x)
    smoothing = changes.get("label_smoothing", 0)
    main = F.cross_entropy(logits, y, label_smoothing=smoothing)
    more = F.cross_entropy(aux, y, label_smoothing=smoothing)
    (main + 0.4 * more).backward()
    for trained, p in zip(network.parameters(), hand.parameters(), strict=True):
        wanted = p.detach() - 0.05 * p.grad
        torch.testing.assert_close(trained.detach(), wanted, rtol=1e-5, atol=1e-6)
    # the history compares with validation, which has no auxiliary head
    assert run.history["train_loss"][0] == pytest.approx(main.item(), rel=1e-5)
    hits = (logits.argmax(1) == y).float().mean().item()
    assert run.history["train_top1"][0] == pytest.approx(hits)


def test_an_auxiliary_head_learns_from_mixed_images_too():
    network = TwoHeads()
    before = network.aux.weight.detach().clone()
    run = quiet(network, PLAIN.replace(mixup=0.4, ema=0.9, precision="float16"))
    assert run.status == "finished"
    assert not torch.equal(network.aux.weight, before)


def test_auxiliary_outputs_in_evaluation_mode_are_refused():
    said = r"in evaluation mode, returned tuple.*where self.training is False"
    with pytest.raises(ValueError, match=said):
        quiet(TwoHeads(always=True))


def test_an_auxiliary_head_with_other_classes_is_refused():
    said = r"in training mode, returned \(2, 7\).*10 classes; expected \(2, 10\)"
    with pytest.raises(ValueError, match=said):
        quiet(TwoHeads(aux_classes=7))


class View(nn.Module):
    """Flattens with `view`, which takes no image that lies in memory channels last."""

    def forward(self, x):
        return x.view(len(x), -1)


def with_view():
    network = toy_network()
    network[4] = View()
    return network


def test_a_network_with_view_is_trained_in_the_usual_layout(capsys):
    network, plain = with_view(), toy_network()
    fit(network, ToyData(), PLAIN, progress="lines")
    said = capsys.readouterr().err
    assert "view size is not compatible" in said
    assert "trained with channels_last=false instead" in said
    quiet(plain, PLAIN.replace(channels_last=False))
    assert same(network, plain)


def test_channels_last_that_was_asked_for_is_not_silently_dropped():
    said = r"channels_last=true \(view size.*channels_last=false: .*x.flatten\(1\)"
    with pytest.raises(ValueError, match=said):
        quiet(with_view(), PLAIN.replace(channels_last=True))


class OnlyFloat32(nn.Module):
    """Computes in float32 only, as `deform_conv2d` does on a CPU."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        x = self.layer(x)
        if x.dtype != torch.float32:
            raise NotImplementedError(f"not implemented for {x.dtype}.")
        return x


def only_float32():
    return nn.Sequential(OnlyFloat32(), *toy_network())


def test_what_bfloat16_lacks_is_trained_in_float32(capsys, monkeypatch):
    real = nbs.runtime.precision
    bfloat16 = nbs.runtime.Precision(torch.bfloat16, False, "for this test")
    monkeypatch.setattr(
        nbs.runtime,
        "precision",
        lambda word, device: bfloat16 if word == "auto" else real(word, device),
    )
    recipe = PLAIN.replace(precision="auto")
    run = fit(only_float32(), ToyData(), recipe, progress="lines")
    assert run.precision == "float32"
    assert "trained with precision=float32 instead" in capsys.readouterr().err
    assert quiet(toy_network(), recipe).precision == "bfloat16"  # the usual network


@pytest.mark.parametrize("word", ["bfloat16", "float16"])
def test_a_precision_that_was_asked_for_is_not_silently_changed(word):
    said = rf"precision={word} \(not implemented.*It works with precision=float32"
    with pytest.raises(ValueError, match=said):
        quiet(only_float32(), PLAIN.replace(precision=word))


def test_deformable_convolutions_can_be_trained_on_a_cpu():
    from torchvision.ops import DeformConv2d

    class Deformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Conv2d(1, 18, 3, padding=1)
            self.layer = DeformConv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.layer(x, self.offset(x))

    network = nn.Sequential(Deformed(), *toy_network())
    assert quiet(network, PLAIN.replace(precision="auto")).status == "finished"


def test_a_network_that_fails_in_training_only_is_refused():
    class Broken(nn.Module):
        def forward(self, x):
            return x.reshape(3, -1) if self.training else x

    with pytest.raises(ValueError, match="does not take images of Toy.*invalid for"):
        quiet(nn.Sequential(*toy_network(), Broken()))


def test_the_look_before_training_leaves_buffers_and_modes_alone():
    network, untouched = toy_network(), toy_network()
    network[3].eval()
    prepare(network, ToyData(), PLAIN, progress="off")
    assert same(network, untouched)
    assert network[1].training
    assert not network[3].training


def test_a_network_whose_shapes_come_with_the_first_images_is_trained():
    network = nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10)
    )
    assert quiet(network).status == "finished"


def test_cudnns_search_for_kernels_ends_with_the_training(monkeypatch):
    seen = []
    network = toy_network()
    network[0].register_forward_hook(
        lambda *_: seen.append(torch.backends.cudnn.benchmark)
    )
    for before in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
        quiet(network)
        assert torch.backends.cudnn.benchmark is before
        assert seen[-1] is True
