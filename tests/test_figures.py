"""Figures: the numbers behind them, and the files that a notebook stores."""

import io
import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from nbs_utils import figures
from nbs_utils.figures import live, style
from nbs_utils.figures.inside import colorize, mosaic


@pytest.fixture
def shown(monkeypatch):
    """Pretend to be a notebook and collect what would be stored in it."""
    bundles = []
    monkeypatch.setattr(style, "in_notebook", lambda: True)
    monkeypatch.setattr(style, "emit", lambda bundle, *_, **__: bundles.append(bundle))
    return bundles


def svg_of(bundles: list[dict]) -> str:
    """Return the one SVG that was shown, which is well-formed."""
    assert len(bundles) == 1
    svg = bundles[0]["image/svg+xml"]
    ET.fromstring(svg)
    return svg


def history(epochs: int = 3) -> pd.DataFrame:
    top1 = np.linspace(0.2, 0.8, epochs)
    return pd.DataFrame(
        {
            "epoch": range(1, epochs + 1),
            "train_loss": 2 - top1,
            "val_loss": 2.1 - top1,
            "train_top1": top1,
            "val_top1": top1 - 0.05,
        }
    )


# --- files -------------------------------------------------------------------------


def test_a_figure_is_one_small_svg_with_real_text(shown):
    figures.plot_history(history(), title="A title of its own")
    svg = svg_of(shown)
    assert ">A title of its own</text>" in svg
    assert ">best 75.0 %</text>" in svg
    assert len(svg) < 25_000
    assert "metadata" not in svg
    assert not re.search(r'[dxy]="[^"]*\d\.\d{3}', svg)  # coordinates are rounded


def test_the_same_figure_is_the_same_file(shown):
    for _ in range(2):
        figures.plot_history(history())
    first, second = (b["image/svg+xml"] for b in shown)
    assert first == second


def test_the_session_keeps_its_own_style(shown):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    plt.close("all")  # of other tests in this process
    before = mpl.rcParams["axes.grid"], mpl.rcParams["font.size"]
    figures.plot_history(history())
    assert (mpl.rcParams["axes.grid"], mpl.rcParams["font.size"]) == before
    assert plt.get_fignums() == []


def test_photographs_shrink_and_small_images_stay_exact():
    from PIL import Image

    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(128), np.arange(128))[:, :, None]
    photo = (smooth + rng.integers(0, 40, (128, 128, 3))).clip(0, 255).astype(np.uint8)
    kind, data = style.encode(Image.fromarray(photo))
    assert kind == "jpeg"
    assert len(data) < photo.size / 4
    tiny = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for exact in (tiny, np.repeat(np.repeat(tiny[:8, :8], 16, 0), 16, 1)):
        kind, data = style.encode(Image.fromarray(exact))
        assert kind == "png"
        back = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        assert (back == exact).all()


def test_photographs_fill_the_place_that_they_have(shown):
    """Rounding of their scale would leave a gap or hide a strip."""
    figures.show_images(torch.rand(3, 3, 224, 224), columns=3)
    svg = svg_of(shown)
    places = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', svg)]
    scales = re.findall(r'width="(\d+)"[^>]*transform="matrix\((\S+)', svg)
    assert len(scales) == 3
    for pixels, scale in scales:
        assert int(pixels) * float(scale) == pytest.approx(places[0], abs=0.05)


def test_image_grid_and_its_complaints(shown):
    photos = torch.randint(0, 256, (8, 3, 20, 20), dtype=torch.uint8)
    figures.show_images(photos, [f"class {i}" for i in range(8)])
    svg = svg_of(shown)
    assert svg.count("<image") == 8
    assert svg.count(">class ") == 8
    with pytest.raises(ValueError, match=r"run from -2\.00 to 2\.00.*denormalize"):
        figures.show_images(
            torch.full((1, 3, 4, 4), -2.0).index_fill(3, torch.tensor(0), 2)
        )
    with pytest.raises(ValueError, match="1 images came with 2 labels"):
        figures.show_images(photos[:1], ["a", "b"])
    with pytest.raises(ValueError, match="no image to show"):
        figures.show_images([])
    with pytest.raises(ValueError, match=r"shape \(2, 4, 4\)"):
        figures.show_images([torch.zeros(2, 4, 4)])


def test_labels_stand_below_their_pictures_in_one_line(shown):
    photos = torch.zeros(3, 3, 20, 20, dtype=torch.uint8)
    figures.show_images(photos, ["one", "two words\nand more", "ends with g"])
    svg = svg_of(shown)
    bottom = max(
        float(top) + float(height)
        for height, top in re.findall(r"matrix\(\S+ 0 0 (\S+) \S+ (\S+)\)", svg)
    )
    places = [float(y) for y in re.findall(r'<text[^>]* y="([\d.]+)"', svg)]
    first, second = places[0], places[2]
    assert places == [first, first, second, first]
    assert bottom + 7 < first < second - 10  # a line of 10 points fits between


def test_ablation_rows_carry_mean_and_spread(shown):
    table = pd.DataFrame(
        {"mean": [0.918, 0.874], "spread": [0.002, np.nan]}, index=["whole", "no skip"]
    )
    figures.plot_ablation(table)
    svg = svg_of(shown)
    assert ">91.8 ± 0.2 %</text>" in svg
    assert ">87.4 %</text>" in svg
    with pytest.raises(ValueError, match="no column 'top1'; it has mean, spread"):
        figures.plot_bars(table, "top1")


def test_confusion_matrix_shows_percent_of_each_row(shown):
    figures.plot_confusion(np.array([[3, 1], [0, 0]]), ["cat", "dog"])
    svg = svg_of(shown)
    assert ">75</text>" in svg
    assert ">25</text>" in svg  # and the row without images divides by nothing
    assert ">cat</text>" in svg


# --- the growing curve -------------------------------------------------------------


def test_live_curve_is_silent_outside_a_notebook(monkeypatch):
    monkeypatch.setattr(live, "_in_notebook", lambda: False)
    curve = figures.live_curve("x", epochs=2)
    assert curve.update([]) is False
    curve.finish(history())


def test_live_curve_leaves_one_static_figure(monkeypatch):
    import IPython.display as ipython

    calls = []
    monkeypatch.setattr(live, "_in_notebook", lambda: True)
    monkeypatch.delenv("NBS_QUICK", raising=False)
    monkeypatch.setattr(
        ipython, "display", lambda bundle, **kw: calls.append((bundle, kw))
    )
    rows = history().to_dict("records")
    curve = figures.live_curve("a < b", epochs=3)
    assert curve.update([], note="step 1")
    assert not curve.update(rows[:1])  # too soon
    assert curve.update(rows[:2], force=True)
    curve.finish(rows)
    ids = {kw["display_id"] for _, kw in calls}
    assert len(ids) == 1
    assert [kw["update"] for _, kw in calls] == [False, True, True]
    assert "a &lt; b" in calls[0][0]["text/html"]
    assert "image/svg+xml" in calls[-1][0]
    assert "text/html" not in calls[-1][0]

    calls.clear()
    monkeypatch.setenv("NBS_QUICK", "1")
    curve = figures.live_curve("quick")
    assert not curve.update(rows)
    curve.finish(rows)
    assert len(calls) == 1
    assert calls[0][1]["update"] is False


def test_a_moving_curve_needs_no_matplotlib():
    import subprocess

    code = (
        "import sys; from nbs_utils.figures import live_curve; "
        "from nbs_utils.figures.live import sketch; "
        "sketch([{'epoch': 1, 'train_loss': 1.0, 'val_loss': float('nan')}], 't', 3, '')"
        "; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- inside a network --------------------------------------------------------------


def tiny_network() -> nn.Sequential:
    """A convolution 1×1 with two maps, in-place ReLU, mean, and a linear layer."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 2, bias=False),
    )
    network[0].weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    network[4].weight.data = torch.tensor([[2.0, -4.0], [-2.0, 4.0]])
    return network


IMAGE = torch.tensor([[[[4.0, -2.0], [0.5, -1.0]]]])


def test_grad_cam_by_hand():
    # After ReLU, A_0 = [4, 0; .5, 0] and A_1 = [0, 2; 0, 1]. The logit of class 0 is
    # 2 mean(A_0) - 4 mean(A_1), so dy/dA_0 = 2/4 and dy/dA_1 = -4/4 everywhere:
    # alpha = (1/2, -1), and the map is ReLU(A_0 / 2 - A_1).
    network = tiny_network().train()
    found = figures.grad_cam(network, network[1], IMAGE, 0)
    assert torch.allclose(found, torch.tensor([[[2.0, 0.0], [0.25, 0.0]]]))
    other = figures.grad_cam(network, "1", IMAGE, [1])
    assert torch.allclose(other, torch.tensor([[[0.0, 2.0], [0.0, 1.0]]]))
    # Before ReLU the gradient is zero where the unit is off: alpha_0 = (2 · 1/2) / 4,
    # alpha_1 = (2 · -1) / 4, and the maps keep their negative values although the
    # ReLU after them works in place.
    before = figures.grad_cam(network, "0", IMAGE, 0)
    expected = (0.25 * IMAGE[0] - 0.5 * -IMAGE[0]).relu()
    assert torch.allclose(before, expected)
    assert network.training
    assert network[4].weight.grad is None


def test_grad_cam_asks_for_the_predicted_class_by_default_and_needs_no_gradients():
    network = tiny_network().requires_grad_(False)
    target = network(IMAGE).argmax(1)
    default = figures.grad_cam(network, "1", IMAGE)
    assert torch.equal(default, figures.grad_cam(network, "1", IMAGE, target))


def test_grad_cam_on_tokens_leaves_the_class_token_out():
    class Tokens(nn.Module):
        def forward(self, x):  # (B, 1, 2, 2) -> (B, 5, 1), a class token first
            tokens = x.flatten(2).transpose(1, 2)
            return torch.cat([100 + 0 * tokens[:, :1], tokens], 1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = Tokens()

        def forward(self, x):
            mean = self.tokens(x)[:, 1:].mean(1)
            return torch.cat([4 * mean, -mean], 1)

    found = figures.grad_cam(Net(), "tokens", IMAGE, 0)
    assert torch.allclose(found[0], IMAGE[0, 0].relu())  # alpha = 4 / 4


class ChannelsLast(nn.Module):
    """The same network as `tiny_network`, or with its maps' channels last."""

    def __init__(self, last: bool):
        super().__init__()
        self.net, self.last, self.maps = tiny_network(), last, nn.Identity()

    def forward(self, x):
        x = self.net[1](self.net[0](x))
        if self.last:
            x = self.maps(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        else:
            x = self.maps(x)
        return self.net[2:](x)


@pytest.mark.parametrize("size", [(2, 2), (2, 5), (3, 2)])  # 2 channels: all alike
def test_maps_with_channels_last_give_the_same(size):
    x = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0))
    first, last = ChannelsLast(False), ChannelsLast(True)
    wanted = figures.grad_cam(first, "maps", x, 0)
    assert wanted.shape == (3, *size)
    assert torch.equal(figures.grad_cam(last, "maps", x, 0), wanted)
    dead = torch.full((1, 1, *size), -1.0)  # map 0 is dead, map 1 is not
    for network in (first, last):
        table = figures.activation_statistics(network, dead, ["maps"])
        assert table["dead"].tolist() == [0.5]


def test_grad_cam_and_statistics_of_swin_have_its_positions():
    from torchvision.models import SwinTransformer

    network = SwinTransformer([4, 4], 12, [2, 2], [2, 2], [4, 4], num_classes=3)
    x = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    assert figures.grad_cam(network, "features.1", x).shape == (2, 16, 8)
    assert figures.grad_cam(network, "features.3", x).shape == (2, 8, 4)
    maps = figures.activations(network, x, ["features.3"])["features.3"]
    units = (maps.amax((0, 1, 2)) <= 0).float().mean().item()  # of 24 channels
    table = figures.activation_statistics(network, x, ["features.3"])
    assert table["dead"].item() == pytest.approx(units)


def test_tokens_of_an_image_that_is_not_square():
    class Tokens(nn.Module):
        """Patches of 1 x 1 after a class token and a register."""

        def __init__(self):
            super().__init__()
            self.tokens = nn.Identity()

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            tokens = self.tokens(torch.cat([9 * tokens[:, :2], tokens], 1))
            mean = tokens[:, 2:].mean(1)
            return torch.cat([mean, -mean], 1)

    x = torch.arange(1.0, 33.0).view(1, 1, 8, 4)
    found = figures.grad_cam(Tokens(), "tokens", x, 0)
    assert torch.allclose(found[0] / found[0, 0, 0], x[0, 0])


def test_layers_are_found_by_name_or_named_in_the_complaint():
    network = tiny_network()
    with pytest.raises(ValueError, match="no layer 'layer4'"):
        figures.grad_cam(network, "layer4", IMAGE)
    with pytest.raises(ValueError, match=r"shape \(1, 2\).*earlier layer"):
        figures.grad_cam(network, "4", IMAGE)
    with pytest.raises(ValueError, match="outermost ones are called 0, 1, 2, 3, 4"):
        figures.activations(network, IMAGE, ["conv*"])


def test_activation_statistics_by_hand():
    network = tiny_network().train()
    x = torch.cat([IMAGE, -IMAGE.abs()])  # map 0 is on once, map 1 is on often
    table = figures.activation_statistics(network, x).set_index("layer")
    # after ReLU: map 0 holds 4 and .5, map 1 holds 2, 1, and 4, 2, .5, 1
    values = torch.tensor([4, 0, 0.5, 0, 0, 2, 0, 1, 0, 0, 0, 0, 4, 2, 0.5, 1])
    assert table.loc["1", "mean"] == pytest.approx(values.mean().item())
    assert table.loc["1", "std"] == pytest.approx(values.std(correction=0).item())
    assert table.loc["1", "dead"] == 0
    dead = figures.activation_statistics(network, IMAGE.abs(), "1")
    assert dead["dead"].tolist() == [0.5]  # map 1 is never above zero
    before = figures.activations(network, IMAGE, ["0"])["0"]
    assert before.min() < 0  # a copy from before the ReLU that works in place
    assert network.training


def test_plots_of_the_inside_are_drawn(shown):
    network = tiny_network()
    figures.plot_activation_statistics({"a": network, "b": tiny_network()}, IMAGE)
    figures.show_filters(torch.randn(8, 3, 5, 5))
    figures.show_feature_maps({"first": torch.randn(1, 4, 9, 9).relu()}, count=4)
    figures.show_grad_cam(
        network, "1", torch.rand(2, 1, 16, 16), classes=["on", "off"], labels=[0, 1]
    )
    assert len(shown) == 4
    for bundle in shown:
        ET.fromstring(bundle["image/svg+xml"])
    assert ">first: 4 × 9 × 9</text>" in shown[2]["image/svg+xml"]
    assert ">true: off</text>" in shown[3]["image/svg+xml"]
    with pytest.raises(ValueError, match="shape of|weight of shape"):
        figures.show_filters(torch.zeros(3, 3))


def test_colors_and_mosaic():
    colors = colorize(np.array([[0.0], [2.0]]), "gray", 0, 2)
    assert colors[0, 0].tolist() == [0, 0, 0]
    assert colors[1, 0].tolist() == [255, 255, 255]
    page = mosaic(np.zeros((3, 24, 24, 3), np.uint8), 2)
    gap = page.shape[1] - 2 * 24
    assert page.shape == (48 + gap, 48 + gap, 3)
    assert (page[24:, 24:] == 255).all()  # the fourth place is empty


def test_attention_rollout_by_hand():
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    keep = torch.eye(2)
    # heads are averaged: (swap + keep) / 2, then mixed with the identity
    layer = torch.stack([swap, keep])
    one = 0.5 * (swap + keep) / 2 + 0.5 * keep  # [.75 .25; .25 .75]
    found = figures.attention_rollout(torch.stack([layer, layer]))
    assert torch.allclose(found, one @ one)
    assert torch.allclose(found.sum(1), torch.ones(2))
    first = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])  # the order of layers matters
    later = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    found = figures.attention_rollout(torch.stack([first, later]))
    expected = (later[0] + torch.eye(2)) / 2 @ ((first[0] + torch.eye(2)) / 2)
    assert torch.allclose(found, expected)


def test_attention_needs_a_square_of_patches(shown):
    maps = torch.rand(3, 17, 17)
    figures.show_attention(maps, torch.rand(3, 16, 16), names=["a", "b", "c"])
    assert svg_of(shown).count("<image") == 4
    with pytest.raises(ValueError, match="16 tokens .* query="):
        figures.show_attention(maps[:, 1:, 1:], torch.rand(3, 16, 16))
    with pytest.raises(ValueError, match="N a square number"):
        figures.show_attention(torch.rand(2, 20, 20), torch.rand(3, 16, 16))
