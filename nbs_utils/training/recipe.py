"""How a network is trained, as data: optimizer, schedule, loss, regularization.

A recipe is a table of names and values. The recipes of the book and of the papers are
YAML files in `nbs_utils/training/recipes`; `Recipe.load("short")` reads one, `.replace(lr=0.05)`
gives a changed copy, and `fit(network, data, recipe)` follows it.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent / "recipes"
GOYAL_WARMUP = 5  # epochs in which a scaled learning rate is reached


def _number(value: Any) -> float | int:
    """Read a number; YAML takes 1e-3, without a point, for a word."""
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    if not math.isfinite(value):
        raise ValueError
    return value


def _whole(value: Any) -> int:
    value = _number(value)
    if value != int(value):
        raise ValueError
    return int(value)


def _rule(
    default: Any, allowed: str, read: Callable, accept: Callable = lambda v: True
) -> Any:
    """Declare a key: its default, what is allowed in words, and the check of it."""
    rule = {"allowed": allowed, "read": read, "accept": accept}
    return dataclasses.field(default=default, metadata=rule)


def _number_key(default: Any, allowed: str, accept: Callable) -> Any:
    return _rule(default, allowed, _number, accept)


def _whole_key(default: Any, allowed: str = "a whole number from 1") -> Any:
    return _rule(default, allowed, _whole, lambda v: v >= 1)


def _choice(default: Any, *choices: Any) -> Any:
    words = ["true" if c is True else "false" if c is False else c for c in choices]

    def accept(value: Any) -> bool:
        # 1 == True in Python, but 1 is not what is meant by true
        return any(value is c or (type(value) is str and value == c) for c in choices)

    return _rule(default, f"one of {', '.join(words)}", lambda v: v, accept)


def _optional(field: Any) -> Any:
    """Allow a key to be left empty (None)."""
    rule = dict(field.metadata)
    read, accept = rule["read"], rule["accept"]
    rule["allowed"] += ", or nothing"
    rule["read"] = lambda v: None if v is None else read(v)
    rule["accept"] = lambda v: v is None or accept(v)
    return dataclasses.field(default=field.default, metadata=rule)


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _pair(value: Any) -> tuple[float, float]:
    a, b = (_number(v) for v in value)
    return a, b


def _list(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        raise TypeError
    return tuple(_number(v) for v in value)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, except data and seed.

    Lengths of time are in epochs. The learning rate `lr` is the largest one of the
    schedule. See `nbs_utils.training.schedule` for what each schedule does.

    Attributes:
        name, source: what the recipe is called and where its values come from.
        epochs: passes over the training split.
        batch_size: images per step, of all processes together; None takes the
            data's own.
        optimizer: "sgd", "adamw" or "rmsprop"; `momentum` belongs to SGD and RMSProp,
            `nesterov` to SGD, `betas` to AdamW, and `alpha`, the decay of the mean
            squared gradient, to RMSProp (papers call it decay and take 0.9).
        eps: keeps AdamW and RMSProp from dividing by zero. As everywhere in PyTorch it
            is added to the root: g / (sqrt(v) + eps). TensorFlow, in which many papers
            with RMSProp were trained, adds it under the root, g / sqrt(v + eps), and
            begins with v = 1 instead of 0, which makes the first steps smaller.
        weight_decay: for the weights of convolutions and linear layers; also for
            biases and scales if `decay_norm_and_bias`. What a network names in
            `no_weight_decay` never decays; see `schedule.parameter_groups`.
        schedule: "constant", "step", "multistep", "plateau", "cosine", "linear" (to
            zero) or "onecycle", with a linear warm-up over `warmup_epochs`.
        step_epochs, milestones, gamma, patience: "step" multiplies the learning rate
            by gamma every `step_epochs`, "multistep" at each milestone, "plateau"
            when validation top-1 has not risen for more than `patience` epochs.
        loss: "cross_entropy" (with `label_smoothing`), "focal" (with `focal_gamma`)
            or "smooth_l1" (on probabilities).
        class_weights: "balanced" counts each image by N / (K n) in the loss, with n
            images of its class among N of K classes, so that every class weighs the
            same; "none" counts images alike.
        layer_decay: the learning rate falls by this factor with each group of layers
            from the output towards the input; 1 is off. For fine-tuning.
        aux_weight: of the loss of each auxiliary classifier, for networks that return
            a tuple in training mode: (logits, auxiliary logits, ...). GoogLeNet takes
            0.3 (Szegedy et al., 2015). It is in the gradient, not in the history.
        mixup, cutmix: alpha of the Beta distribution that the share is drawn from;
            0 is off. With both on, each step takes one of the two.
        ema: decay of the moving average of the weights; 0 is off. With it on, the
            average is what is validated and what the network holds at the end.
        clip_norm: largest norm of the gradient of all weights together.
        accumulate: work through each batch in this many parts whose gradients add
            up: the same step with less memory (batch norm then sees the parts).
        precision: "auto", "float32", "bfloat16" or "float16"; see `runtime`.
        channels_last: keep images and filters in memory as (B, H, W, C); "auto" does
            so where it is faster: on a CPU, and where the precision is reduced.
        compile: run the network through `torch.compile`.
        lr_batch_size: the batch size that `lr` is meant for. With another one, lr is
            multiplied by their ratio (the linear scaling rule of Goyal et al., 2017),
            and where it grows and nothing else warms it up, five epochs do.
        sync_batchnorm: with several processes, batch norm over the whole batch
            instead of over each process's share.
        keep: "best" leaves the network with the weights of the best epoch by
            validation top-1, "last" with those of the last.
    """

    name: str = _rule("unnamed", "a word", _word)
    source: str = _rule("", "text", _word)
    epochs: int = _whole_key(20)
    batch_size: int | None = _optional(_whole_key(None))
    optimizer: str = _choice("sgd", "sgd", "adamw", "rmsprop")
    lr: float = _number_key(0.1, "a number above 0", lambda v: v > 0)
    momentum: float = _number_key(0.9, "a number in [0, 1)", lambda v: 0 <= v < 1)
    nesterov: bool = _choice(False, True, False)
    betas: tuple[float, float] = _rule(
        (0.9, 0.999),
        "two numbers in [0, 1)",
        _pair,
        lambda v: all(0 <= b < 1 for b in v),
    )
    alpha: float = _number_key(0.99, "a number in [0, 1)", lambda v: 0 <= v < 1)
    eps: float = _number_key(1e-8, "a number above 0", lambda v: v > 0)
    weight_decay: float = _number_key(0.0, "a number from 0", lambda v: v >= 0)
    decay_norm_and_bias: bool = _choice(False, True, False)
    schedule: str = _choice(
        "onecycle",
        *("constant", "step", "multistep", "plateau", "cosine", "linear", "onecycle"),
    )
    warmup_epochs: float = _number_key(0, "a number from 0", lambda v: v >= 0)
    step_epochs: float = _number_key(30, "a number above 0", lambda v: v > 0)
    milestones: tuple[float, ...] = _rule(
        (),
        "a list of growing epochs above 0, as in [91, 137]",
        _list,
        lambda v: all(a < b for a, b in zip((0, *v), v)),
    )
    gamma: float = _number_key(0.1, "a number in (0, 1]", lambda v: 0 < v <= 1)
    patience: int = _rule(
        10, "a whole number from 0", _whole, lambda v: v >= 0
    )  # as in torch.optim.lr_scheduler.ReduceLROnPlateau
    loss: str = _choice("cross_entropy", "cross_entropy", "focal", "smooth_l1")
    label_smoothing: float = _number_key(0, "a number in [0, 1)", lambda v: 0 <= v < 1)
    focal_gamma: float = _number_key(2, "a number from 0", lambda v: v >= 0)
    class_weights: str = _choice("none", "none", "balanced")
    layer_decay: float = _number_key(1.0, "a number in (0, 1]", lambda v: 0 < v <= 1)
    aux_weight: float = _number_key(0.3, "a number from 0", lambda v: v >= 0)
    mixup: float = _number_key(0, "a number from 0", lambda v: v >= 0)
    cutmix: float = _number_key(0, "a number from 0", lambda v: v >= 0)
    ema: float = _number_key(0, "a number in [0, 1)", lambda v: 0 <= v < 1)
    clip_norm: float | None = _optional(
        _number_key(None, "a number above 0", lambda v: v > 0)
    )
    accumulate: int = _whole_key(1)
    precision: str = _choice("auto", "auto", "float32", "bfloat16", "float16")
    channels_last: str | bool = _choice("auto", "auto", True, False)
    compile: bool = _choice(False, True, False)
    lr_batch_size: int | None = _optional(_whole_key(None))
    sync_batchnorm: bool = _choice(False, True, False)
    keep: str = _choice("best", "best", "last")

    def __post_init__(self) -> None:
        for key in dataclasses.fields(self):
            value = getattr(self, key.name)
            try:
                read = key.metadata["read"](value)
                good = key.metadata["accept"](read)
            except (TypeError, ValueError):
                good = False
            if not good:
                raise ValueError(
                    f"Recipe '{self.name}': {key.name} is {value!r}; "
                    f"it must be {key.metadata['allowed']}."
                )
            object.__setattr__(self, key.name, read)  # frozen, but still being made
        self._check_together()

    def _check_together(self) -> None:
        """Refuse values that are fine alone but not together."""
        problem = None
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum > 0):
            problem = "nesterov is true; it needs optimizer sgd and momentum above 0"
        elif self.warmup_epochs > self.epochs:
            problem = (
                f"warmup_epochs is {self.warmup_epochs:g}; it must be at most "
                f"epochs ({self.epochs})"
            )
        elif self.schedule == "multistep" and not self.milestones:
            problem = (
                "milestones is empty; schedule multistep needs at least one, "
                "as in [91, 137]"
            )
        elif self.schedule == "multistep" and self.milestones[-1] >= self.epochs:
            problem = (
                f"milestones ends with {self.milestones[-1]:g}; it must lie before "
                f"epochs ({self.epochs}). Recipe.stretched({self.epochs}), or "
                f"fit(epochs={self.epochs}), moves the milestones along"
            )
        elif self.label_smoothing and self.loss != "cross_entropy":
            problem = (
                f"label_smoothing is {self.label_smoothing:g}; it must be 0 with loss "
                f"{self.loss}: only cross_entropy smooths"
            )
        elif self.class_weights != "none" and self.loss == "smooth_l1":
            problem = (
                f"class_weights is {self.class_weights}; it must be none with loss "
                "smooth_l1: only cross_entropy and focal weigh classes"
            )
        elif self.batch_size and self.accumulate > self.batch_size:
            problem = (
                f"accumulate is {self.accumulate}; it must be at most "
                f"batch_size ({self.batch_size})"
            )
        if problem:
            raise ValueError(f"Recipe '{self.name}': {problem}.")

    @classmethod
    def load(cls, name: "str | Path | Recipe") -> "Recipe":
        """Read a recipe of the book by name, or any from a YAML file.

        Args:
            name: one of `list_recipes()`, or the path of a .yml file. A file may begin
                from another recipe: the line `base: short` takes all of its values,
                stretched to the file's epochs, and the other lines change them.

        Raises:
            ValueError: there is none of this name (the message lists them), the file
                is no table, or a key or a value in it is wrong.
        """
        if isinstance(name, Recipe):
            return name
        path = Path(name)
        if path.suffix not in (".yml", ".yaml"):
            path = _FOLDER / f"{name}.yml"
        if not path.is_file():
            raise ValueError(
                f"There is no recipe '{name}'. The book has "
                f"{', '.join(list_recipes())}; a recipe of your own is given by the "
                "path of its .yml file."
            )
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"Recipe file {path} is no valid YAML: {error}") from error
        if not hasattr(values, "items"):
            raise ValueError(f"Recipe file {path} must hold lines such as 'lr: 0.1'.")
        base, name = values.pop("base", None), values.pop("name", path.stem)
        if base is None:
            return cls(name=name).replace(**values)
        return cls._based_on(base, path, epochs=values.get("epochs")).replace(
            name=name, **values
        )

    @classmethod
    def _based_on(cls, base: Any, path: Path, epochs: int | None) -> "Recipe":
        """Read the recipe that a file changes, stretched to the file's epochs.

        A name of the book comes before a file; a path counts from the file's folder.
        """
        if not isinstance(base, str):
            raise ValueError(  # noqa: TRY004  (a file's value, as for its other keys)
                f"Recipe file {path}: base is {base!r}; it must be the name of a "
                "recipe or the path of a .yml file."
            )
        own = Path(base).suffix in (".yml", ".yaml")
        if own and (path.parent / base).resolve() == path.resolve():
            raise ValueError(f"Recipe file {path} is its own base; name another one.")
        recipe = cls.load(path.parent / base if own else base)
        return recipe if epochs is None else recipe.stretched(_whole(epochs))

    def replace(self, **changes: Any) -> "Recipe":
        """Return a copy with some values changed, as in `replace(lr=0.05)`.

        Raises:
            ValueError: a key is unknown (the nearest are named) or a value is out of
                range (the message says what is allowed).
        """
        keys = [key.name for key in dataclasses.fields(self)]
        for key, value in changes.items():
            if key not in keys:
                near = difflib.get_close_matches(str(key), keys, n=2, cutoff=0.5)
                hint = f" Did you mean {' or '.join(near)}?" if near else ""
                raise ValueError(
                    f"Recipe '{self.name}': there is no key '{key}' (value "
                    f"{value!r}).{hint} Allowed are {', '.join(keys)}."
                )
        return dataclasses.replace(self, **changes)

    def stretched(self, epochs: int) -> "Recipe":
        """Return the recipe for another number of epochs, in the same proportions.

        Warm-up, steps, milestones and patience keep their share of the whole, so that
        a paper's recipe of 182 epochs can be run in 10.
        """
        ratio = epochs / self.epochs
        return self.replace(
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * ratio,
            step_epochs=self.step_epochs * ratio,
            milestones=[m * ratio for m in self.milestones],
            patience=max(min(1, self.patience), round(self.patience * ratio)),
        )

    def scaled_to(self, batch_size: int) -> "Recipe":
        """Return the recipe with the learning rate for a batch size.

        The linear scaling rule (Goyal et al., 2017): k times as many images in a step,
        k times the learning rate, reached gradually over the first five epochs. It
        applies where `lr_batch_size` is set; the result has it empty.
        """
        if self.lr_batch_size is None:
            return self
        ratio = batch_size / self.lr_batch_size
        warmup = self.warmup_epochs
        if ratio > 1 and not warmup and self.schedule != "onecycle":
            warmup = min(GOYAL_WARMUP, self.epochs)
        return self.replace(
            lr=self.lr * ratio, warmup_epochs=warmup, lr_batch_size=None
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the values by key, as plain numbers, words and lists."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def save(self, path: str | Path) -> Path:
        """Write the recipe as YAML, to be read by `Recipe.load`; return the path."""
        path = Path(path)
        text = yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
        return path


def list_recipes() -> list[str]:
    """Return the names of the recipes that come with the book, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yml"))
