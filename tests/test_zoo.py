"""The register of networks, and what every network in the zoo keeps to."""

import ast
import sys
import types
from pathlib import Path

import pytest
from torch import nn

from nbs_utils import zoo
from nbs_utils.zoo import create_model, list_models, model_entry, register, registry

MODULES = sorted(Path(zoo.__file__).parent.glob("*.py"))


class Line(nn.Module):
    """A network of one layer whose width is an argument."""

    def __init__(self, num_classes: int = 1000, width: int = 2):
        super().__init__()
        self.layer = nn.Linear(width, num_classes)


@pytest.fixture(autouse=True)
def own_register(monkeypatch):
    """Each test sees the zoo's networks and adds to a copy."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))


def test_create_model_joins_variant_and_changes():
    register(Line, {"line_a": {}, "line_b": {"width": 5}})
    assert create_model("line_a").layer.weight.shape == (1000, 2)
    assert create_model("line_b", num_classes=3).layer.weight.shape == (3, 5)
    assert create_model("line_b", 3, width=7).layer.weight.shape == (3, 7)
    assert create_model("line_b").layer.weight.shape == (1000, 5)  # nothing stuck


def test_a_network_for_data_has_their_classes_channels_and_size():
    class Fitted(Line):
        def __init__(
            self, num_classes=1000, in_channels=3, image_size=224, stem="imagenet"
        ):
            super().__init__(num_classes)
            self.got = (in_channels, image_size, stem)

    register(Fitted, {"fitted": {}})
    data = types.SimpleNamespace(num_classes=10, channels=1, image_size=32)
    network = create_model("fitted", data=data)
    assert (network.layer.out_features, network.got) == (10, (1, 32, "cifar"))
    assert create_model("fitted", 10, image_size=64).got == (3, 64, "cifar")
    assert create_model("fitted", 10, image_size=65).got == (3, 65, "imagenet")
    assert create_model("fitted").got == (3, 224, "imagenet")
    # What is asked for by name wins.
    network = create_model("fitted", 7, data=data, stem="imagenet", image_size=96)
    assert (network.layer.out_features, network.got) == (7, (1, 96, "imagenet"))


def test_the_native_size_and_the_protocol_belong_to_the_variant():
    register(Line, {"line_a": {}}, image_size=299, protocol="ten_crop")
    assert model_entry("line_a").image_size == 299
    assert model_entry("line_a").protocol == "ten_crop"
    assert model_entry("alexnet_2012").image_size == 227
    assert model_entry("cifar_resnet20").image_size == 32
    assert model_entry("vit_mini_16").image_size == 128
    assert model_entry("resnet50").image_size == 224


def test_the_register_keeps_its_own_copy_of_a_configuration():
    configuration = {"width": 5}
    register(Line, {"line": configuration})
    configuration["width"] = 9
    model_entry("line").configuration["width"] = 9
    assert create_model("line").layer.in_features == 5


def test_list_models_matches_a_shell_pattern_and_sorts():
    register(Line, {"line_b": {}, "line_a": {}, "curve_a": {}})
    assert list_models("line_*") == ["line_a", "line_b"]
    assert set(list_models()) >= {"line_a", "line_b", "curve_a"}
    assert list_models("nothing*") == []


def test_a_later_registration_wins_so_that_a_chapter_uses_its_own_class():
    class Mine(Line):
        pass

    register(Line, {"line": {}})
    register(Mine, {"line": {}})
    assert type(create_model("line")) is Mine


def test_two_modules_of_the_zoo_cannot_share_a_name():
    def from_module(name):
        return type("Net", (Line,), {"__module__": f"nbs_utils.zoo.{name}"})

    register(from_module("one"), {"line": {}})
    register(from_module("one"), {"line": {"width": 3}})  # the module, loaded again
    with pytest.raises(ValueError, match=r"zoo\.one and by nbs_utils\.zoo\.two"):
        register(from_module("two"), {"line": {}})


def test_unknown_names_get_the_nearest_ones():
    register(Line, {"straight_line": {}})
    with pytest.raises(ValueError, match="Did you mean straight_line"):
        create_model("straigt_line")
    with pytest.raises(ValueError, match="Did you mean straight_line"):
        create_model("Straight_Line")
    with pytest.raises(ValueError, match="'zzzzzz'. `nbs list`"):
        create_model("zzzzzz")


@pytest.mark.parametrize("number", [0, -1, 2.5, "10"])
def test_the_number_of_classes_must_be_a_positive_whole_number(number):
    register(Line, {"line": {}})
    with pytest.raises(ValueError, match="whole number of at least 1"):
        create_model("line", num_classes=number)


def test_arguments_that_a_network_does_not_take_are_named():
    with pytest.raises(ValueError, match="no argument 'depth'.*takes: width"):
        register(Line, {"line": {"depth": 3}})
    register(Line, {"line": {}})
    with pytest.raises(ValueError, match="no argument 'widht'.*takes: width"):
        create_model("line", widht=3)


@pytest.mark.parametrize("name", ["ResNet", "resnet-18", "18resnet", "", "a b"])
def test_a_name_must_be_one_that_python_can_import(name):
    with pytest.raises(ValueError, match="cannot be the name"):
        register(Line, {name: {}})


def test_networks_can_be_imported_as_functions():
    register(Line, {"line": {"width": 5}})
    from nbs_utils.zoo import line

    assert line(num_classes=4).layer.weight.shape == (4, 5)
    assert line.__name__ == "line"
    with pytest.raises(ImportError):
        from nbs_utils.zoo import no_such_network  # noqa: F401


@pytest.mark.parametrize("name", list_models())
def test_a_name_is_a_function_also_where_a_module_is_called_the_same(name):
    assert not isinstance(getattr(zoo, name), types.ModuleType)
    assert getattr(zoo, name).__name__ == name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_zoo_stands_on_torch_alone(path):
    allowed = {"torch", "einops"} | set(sys.stdlib_module_names)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        else:
            continue
        for name in names:
            assert name.split(".")[0] in allowed or name.startswith("nbs_utils.zoo")
