"""Recipes: what they allow, and that their schedules are what they are called."""

import pytest
import torch
import yaml
from torch import nn
from torch.optim import lr_scheduler as reference

from nbs_utils.training.recipe import Recipe, list_recipes
from nbs_utils.training.schedule import (
    Plateau,
    learning_rate,
    make_optimizer,
    parameter_groups,
)
from nbs_utils.training.state import State

STEPS = 7  # in an epoch


def ours(recipe):
    total = recipe.epochs * STEPS
    return [learning_rate(recipe, step, STEPS) for step in range(total)]


def theirs(recipe, make, *, each="step"):
    """Return the learning rates of a scheduler of PyTorch over the same steps."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    scheduler = make(optimizer)
    rates = []
    for step in range(recipe.epochs * STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if each == "step" or (step + 1) % STEPS == 0:
            scheduler.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 2])
def test_onecycle_is_torchs(warmup):
    recipe = Recipe(epochs=10, lr=0.3, schedule="onecycle", warmup_epochs=warmup)
    share = warmup / 10 if warmup else 0.3

    def make(optimizer):
        return reference.OneCycleLR(
            optimizer, 0.3, 10 * STEPS, pct_start=share, cycle_momentum=False
        )

    assert ours(recipe) == pytest.approx(theirs(recipe, make), rel=1e-9)


def test_cosine_with_warmup_is_torchs():
    recipe = Recipe(epochs=6, lr=0.3, schedule="cosine", warmup_epochs=2)
    warm = 2 * STEPS

    def make(optimizer):
        up = reference.LinearLR(optimizer, 1 / (warm + 1), total_iters=warm)
        down = reference.CosineAnnealingLR(optimizer, T_max=6 * STEPS - warm)
        return reference.SequentialLR(optimizer, [up, down], milestones=[warm])

    assert ours(recipe) == pytest.approx(theirs(recipe, make), rel=1e-9)


@pytest.mark.parametrize("warmup", [0, 2])
def test_linear_is_torchs(warmup):
    recipe = Recipe(epochs=6, lr=0.3, schedule="linear", warmup_epochs=warmup)
    warm = warmup * STEPS

    def make(optimizer):
        down = reference.PolynomialLR(optimizer, total_iters=6 * STEPS - warm)
        if not warm:
            return down
        up = reference.LinearLR(optimizer, 1 / (warm + 1), total_iters=warm)
        return reference.SequentialLR(optimizer, [up, down], milestones=[warm])

    assert ours(recipe) == pytest.approx(theirs(recipe, make), rel=1e-9)
    assert ours(recipe)[-1] == pytest.approx(0.3 / (6 * STEPS - warm))


def test_steps_may_be_shorter_or_longer_than_whole_epochs():
    recipe = Recipe(epochs=8, lr=1.0, schedule="step", step_epochs=2.4, gamma=0.97)
    rates = ours(recipe)
    for step, rate in enumerate(rates):
        assert rate == pytest.approx(0.97 ** (10 * step // (24 * STEPS)))


def test_steps_and_milestones_are_torchs():
    recipe = Recipe(epochs=9, lr=0.3, schedule="step", step_epochs=2, gamma=0.5)
    expected = theirs(recipe, lambda o: reference.StepLR(o, 2, 0.5), each="epoch")
    assert ours(recipe) == pytest.approx(expected, rel=1e-9)

    recipe = recipe.replace(schedule="multistep", milestones=[3, 7], gamma=0.1)
    expected = theirs(
        recipe, lambda o: reference.MultiStepLR(o, [3, 7], 0.1), each="epoch"
    )
    assert ours(recipe) == pytest.approx(expected, rel=1e-9)


def test_constant_after_a_linear_warmup():
    recipe = Recipe(epochs=2, lr=0.8, schedule="constant", warmup_epochs=1)
    # 7 steps up by eighths of 0.8, then 0.8
    expected = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7] + 7 * [0.8]
    assert ours(recipe) == pytest.approx(expected)


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_plateau_is_torchs(patience):
    recipe = Recipe(schedule="plateau", lr=0.1, gamma=0.1, patience=patience)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = reference.ReduceLROnPlateau(
        optimizer, "max", factor=0.1, patience=patience, threshold=0, eps=0
    )
    plateau = Plateau(recipe)
    for score in [0.1, 0.3, 0.3, 0.2, 0.4, 0.4, 0.4, 0.4, 0.1, 0.1, 0.5, 0.2]:
        scheduler.step(score)
        plateau.update(score)
        rate = learning_rate(recipe, 0, STEPS, plateau.factor)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
    assert plateau.factor < 1


def test_plateau_goes_on_from_a_checkpoint():
    recipe = Recipe(schedule="plateau", patience=1)
    first, second = Plateau(recipe), Plateau(recipe)
    for score in (0.5, 0.4):
        first.update(score)
    second.load_state_dict(first.state_dict())
    second.update(0.4)
    assert second.factor == pytest.approx(0.1)


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_of_the_book_loads_and_says_where_it_is_from(name):
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert len(recipe.source) > 20


def test_the_cifar_recipe_is_the_usual_one():
    recipe = Recipe.load("cifar")
    assert (recipe.optimizer, recipe.lr, recipe.momentum) == ("sgd", 0.1, 0.9)
    assert (recipe.weight_decay, recipe.batch_size, recipe.epochs) == (5e-4, 256, 200)
    assert (recipe.schedule, recipe.gamma) == ("plateau", 0.1)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    recipe = Recipe.load("vit-imagenet").replace(betas=(0.8, 0.9), mixup=0.2)
    assert Recipe.load(recipe.save(tmp_path / "mine.yml")) == recipe


def test_yaml_may_write_numbers_as_words(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("lr: 1e-3\nweight_decay: 5e-4\nschedule: constant\n")
    assert isinstance(yaml.safe_load(path.read_text())["lr"], str)  # the trap
    recipe = Recipe.load(path)
    assert (recipe.lr, recipe.weight_decay, recipe.name) == (1e-3, 5e-4, "mine")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": -1}, ["lr is -1", "a number above 0"]),
        ({"lr": "fast"}, ["lr is 'fast'", "a number above 0"]),
        ({"lr": float("nan")}, ["lr is nan", "a number above 0"]),
        ({"epochs": 2.5}, ["epochs is 2.5", "a whole number from 1"]),
        ({"epochs": True}, ["epochs is True", "a whole number"]),
        ({"optimizer": "adam"}, ["optimizer is 'adam'", "one of sgd, adamw, rmsprop"]),
        ({"nesterov": "yes"}, ["nesterov is 'yes'", "one of true, false"]),
        ({"compile": 1}, ["compile is 1", "one of true, false"]),
        ({"betas": [0.9]}, ["betas is [0.9]", "two numbers in [0, 1)"]),
        ({"milestones": [5, 3]}, ["milestones is [5, 3]", "growing"]),
        ({"milestones": "91"}, ["milestones is '91'", "a list"]),
        ({"label_smoothing": 1.0}, ["label_smoothing is 1.0", "[0, 1)"]),
        ({"clip_norm": 0}, ["clip_norm is 0", "above 0, or nothing"]),
        ({"learning_rte": 1}, ["no key 'learning_rte' (value 1)", "Allowed are"]),
        ({"momentun": 0.9}, ["Did you mean momentum?"]),
        ({"warmup_epochs": 30}, ["warmup_epochs is 30", "at most epochs (20)"]),
        ({"schedule": "multistep"}, ["milestones is empty"]),
        (
            {"schedule": "multistep", "milestones": [10, 20]},
            ["milestones ends with 20", "before epochs (20)"],
        ),
        ({"optimizer": "adamw"}, ["nesterov is true", "needs optimizer sgd"]),
        ({"loss": "focal"}, ["label_smoothing is 0.1", "must be 0 with loss focal"]),
        ({"batch_size": 4, "accumulate": 8}, ["accumulate is 8", "batch_size (4)"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(changes, words):
    with pytest.raises(ValueError, match="Recipe 'short'") as error:
        Recipe.load("short").replace(**changes)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_recipe_names_those_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"no recipe 'shorty'.*resnet-imagenet, short"):
        Recipe.load("shorty")
    path = tmp_path / "list.yml"
    path.write_text("- lr\n- 0.1\n")
    with pytest.raises(ValueError, match=r"list\.yml must hold lines such as"):
        Recipe.load(path)
    path.write_text("lr: [0.1\n")
    with pytest.raises(ValueError, match=r"list\.yml is no valid YAML"):
        Recipe.load(path)


def test_a_stretched_recipe_keeps_its_proportions():
    short = Recipe.load("resnet-cifar").stretched(91)
    assert short.epochs == 91
    assert short.milestones == pytest.approx((45.5, 68.5))
    rates = [learning_rate(short, epoch * STEPS, STEPS) for epoch in (45, 46, 69)]
    assert rates == pytest.approx([0.1, 0.01, 0.001])
    assert Recipe.load("cifar").stretched(20).patience == 1
    assert Recipe.load("cifar").stretched(200) == Recipe.load("cifar")


def test_norms_and_biases_do_not_decay():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2))
    network[2].weight.requires_grad_(False)
    recipe = Recipe(weight_decay=0.5)
    decay, rest = parameter_groups(network, recipe)
    assert [p.shape for p in decay["params"]] == [(4, 3, 3, 3)]
    assert [p.shape for p in rest["params"]] == [(4,), (4,), (4,), (2,)]
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.5, 0.0)

    (everything,) = parameter_groups(network, recipe.replace(decay_norm_and_bias=True))
    assert len(everything["params"]) == 5
    assert everything["weight_decay"] == 0.5


class Scaled(nn.Module):
    """One parameter of each kind, with a name for what must not decay."""

    no_weight_decay = frozenset({"positions"})

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, 5, 8))
        self.layer_scale = nn.Parameter(torch.zeros(8, 1, 1))
        self.filters = nn.Conv2d(8, 8, 3, groups=8)
        self.temperature = nn.Parameter(torch.zeros(()))


class Inside(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Scaled()
        self.table = nn.Parameter(torch.zeros(9, 2))
        self.classifier = nn.Linear(8, 2)

    def no_weight_decay(self):  # a method, as in timm
        return {"table", "not there"}


@pytest.mark.parametrize("everything", [False, True])
def test_scales_and_what_a_network_names_do_not_decay(everything):
    network = Inside()
    names = {id(p): name for name, p in network.named_parameters()}
    recipe = Recipe(weight_decay=0.5, decay_norm_and_bias=everything)
    decay, rest = (
        {names[id(p)] for p in group["params"]}
        for group in parameter_groups(network, recipe)
    )
    named = {"inner.positions", "table"}
    weights = {"inner.filters.weight", "classifier.weight"}
    assert rest == (named if everything else set(names.values()) - weights)
    assert decay == set(names.values()) - rest


def test_rmsprop_steps_by_hand():
    recipe = Recipe(
        optimizer="rmsprop", lr=0.1, alpha=0.9, eps=0.5, momentum=0.8, weight_decay=0.01
    )
    layer = nn.Linear(2, 2, bias=False)
    w, square, velocity = layer.weight.detach().clone(), 0, 0
    optimizer = make_optimizer(layer, recipe)
    for scale in (1.0, 3.0, -2.0):
        (scale * layer.weight.square().sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
        gradient = 2 * scale * w + 0.01 * w
        square = 0.9 * square + 0.1 * gradient**2
        velocity = 0.8 * velocity + gradient / (square**0.5 + 0.5)
        w = w - 0.1 * velocity
    torch.testing.assert_close(layer.weight.detach(), w)


def test_a_first_step_that_overflows_leaves_no_momentum():
    recipe = Recipe(precision="float16", epochs=1, lr=0.1, momentum=0.9)
    full = [torch.full((64, 64), 7.0) for _ in range(99)]
    del full  # memory that PyTorch's fused SGD would take as it is
    layer = nn.Linear(64, 64, bias=False)
    state = State(layer, recipe, 1, torch.device("cpu"), scale=True)
    before = layer.weight.detach().clone()
    for factor in (float("inf"), 1.0):
        loss = (layer.weight * factor).sum()
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
    torch.testing.assert_close(layer.weight.detach(), before - 0.1)


def test_optimizers_get_what_the_recipe_says():
    network = nn.Linear(2, 2)
    sgd = make_optimizer(network, Recipe(momentum=0.8, nesterov=True, lr=0.2))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    adamw = make_optimizer(network, Recipe(optimizer="adamw", betas=(0.8, 0.95)))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["betas"] == (0.8, 0.95)


def test_a_frozen_network_is_refused():
    with pytest.raises(ValueError, match="requires_grad=False"):
        make_optimizer(nn.Linear(2, 2).requires_grad_(False), Recipe())
