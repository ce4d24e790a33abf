"""What every network of the zoo keeps to; CONTRIBUTING.md says it in words.

Shapes are worked out on the `meta` device, where nothing is computed. Every variant is
tried on its native images, the smallest of each class on everything else; what compiles
and exports is tried in the slow tests (`pytest -m slow`).
"""

import pytest
import torch
from torch import nn

from nbs_utils.data.protocols import list_protocols
from nbs_utils.zoo import create_model, list_models, model_entry

NAMES = list_models()


def build(name: str, num_classes: int | None = 7, **changes) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, num_classes, **changes).eval()


def images(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def channels_of(name: str) -> int:
    return model_entry(name).arguments["in_channels"]


def size_of(name: str) -> int:
    return sum(p.numel() for p in build(name).parameters())


def smallest_of_each_class() -> list[str]:
    """Return, for each class and kind of image, the variant with the fewest weights."""
    kinds: dict[tuple, list[str]] = {}
    for name in NAMES:
        entry = model_entry(name)
        kinds.setdefault((entry.network_class, entry.image_size), []).append(name)
    return sorted(min(names, key=size_of) for names in kinds.values())


SMALLEST = smallest_of_each_class()


@pytest.mark.parametrize("name", NAMES)
def test_native_images_give_one_logit_per_class(name):
    entry = model_entry(name)
    side, channels = entry.image_size, channels_of(name)
    assert build(name)(images(2, channels, side, side)).shape == (2, 7)
    assert build(name)(images(1, channels, side, side)).shape == (1, 7)
    assert entry.protocol in list_protocols()


@pytest.mark.parametrize("name", SMALLEST)
def test_classes_and_channels_are_arguments(name):
    side = model_entry(name).image_size
    for channels in (1, 3, 4):
        network = build(name, 5, in_channels=channels)
        assert network(images(2, channels, side, side)).shape == (2, 5)


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("side", [32, 64])
def test_small_images_can_be_learned_from(name, side):
    """As `nbs train --model NAME --data cifar10` builds it, also gray."""
    for channels in (1, 3):
        network = build(name, image_size=side, in_channels=channels)
        assert network(images(2, channels, side, side)).shape == (2, 7)


@pytest.mark.parametrize("name", SMALLEST)
def test_image_size_is_an_argument_only_where_weights_depend_on_it(name):
    entry = model_entry(name)
    if "image_size" not in entry.arguments:
        return
    side = entry.image_size
    shapes = [
        {
            key: value.shape
            for key, value in build(name, image_size=s).state_dict().items()
        }
        for s in (side, 2 * side)
    ]
    assert shapes[0] != shapes[1]


@pytest.mark.parametrize("name", SMALLEST)
def test_training_returns_a_tuple_only_with_auxiliary_heads(name):
    entry = model_entry(name)
    x = images(4, channels_of(name), entry.image_size, entry.image_size)
    assert isinstance(build(name).train()(x), torch.Tensor)
    if "aux" in entry.arguments:
        network = build(name, aux=True)
        outputs = network.train()(x)
        assert isinstance(outputs, tuple) and len(outputs) > 1
        assert all(output.shape == (4, 7) for output in outputs)
        assert network.eval()(x).shape == (4, 7)


@pytest.mark.parametrize("name", SMALLEST)
def test_what_decays_nothing_exists(name):
    network = build(name)
    names = {key for key, _ in network.named_parameters()}
    assert set(getattr(network, "no_weight_decay", ())) <= names


@pytest.mark.parametrize("name", SMALLEST)
def test_bfloat16_and_channels_last(name):
    entry = model_entry(name)
    network = build(name).to(torch.bfloat16).to(memory_format=torch.channels_last)
    x = images(2, channels_of(name), entry.image_size, entry.image_size)
    x = x.to(torch.bfloat16).to(memory_format=torch.channels_last)
    assert network(x).dtype == torch.bfloat16


@pytest.mark.parametrize("name", SMALLEST)
def test_an_image_that_is_too_small_gets_a_sentence(name):
    network, channels = build(name), channels_of(name)
    for side in (1, 2, 3, 5, 8, 16, 24, 31):
        try:
            out = network(images(2, channels, side, side))
        except ValueError as error:
            assert str(error).endswith(".") and len(str(error)) > 40
        else:
            assert out.shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_it_compiles_and_exports(name):
    entry = model_entry(name)
    torch.manual_seed(0)
    network = create_model(name, 7).eval()
    x = torch.randn(2, channels_of(name), entry.image_size, entry.image_size)
    with torch.no_grad():
        expected = network(x)
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)(x)
        exported = torch.export.export(network, (x,)).module()(x)
    scale = expected.abs().max().clamp(min=1e-3)
    assert (compiled - expected).abs().max() <= 1e-4 * scale
    assert (exported - expected).abs().max() <= 1e-4 * scale
