"""What a comparison found: values by seed, paired differences, a table, a sentence."""

import html
import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..tables import Table
from .intervals import Interval, holm, image_error, paired, smallest_effect

# metric -> (for people, shown in percent)
METRICS = {"top1": ("Top-1", True), "loss": ("Loss", False)}
_MOST_COLUMNS = 5  # seeds that have a column of their own
_Z = 1.96  # standard errors to either side that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Difference:
    """A variant against the baseline, in the unit of the values.

    Attributes:
        name: of the variant.
        by_seed: (seeds,) the variant minus the baseline, NaN where one diverged.
        interval: the t interval of their mean; see `intervals.paired`.
        images: half of the 95 % interval that comes from the choice of images; NaN
            where nothing is known of the images.
        visible: the smallest true difference that these seeds would have shown in
            four of five repetitions; see `intervals.smallest_effect`.
        told_apart: True where zero lies outside of both intervals, after Holm's
            correction for the number of comparisons.
    """

    name: str
    by_seed: np.ndarray
    interval: Interval
    images: float
    visible: float
    told_apart: bool


@dataclass(frozen=True, eq=False)
class Comparison:
    """Values of several variants over the same seeds; in a notebook, a table.

    Attributes:
        values: one row for each seed, one column for each variant; fractions for
            top-1. NaN where training diverged.
        metric: what the values are; percent: shown times 100, differences in points.
        against: the variant that the others are compared with.
        n_images: what the values were measured on, or None.
        per_image: variant -> (seeds, N) scores of each image, where they are known.
        setting, remark: how the values came about, for the text below the table; a
            clause and a sentence.
        runs: variant -> seed -> `Run`; networks: the same with the trained networks,
            where they were kept.
    """

    values: pd.DataFrame
    metric: str
    percent: bool
    against: str
    n_images: int | None = None
    per_image: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    setting: str = ""
    remark: str = ""
    runs: dict = field(default_factory=dict, repr=False)
    networks: dict = field(default_factory=dict, repr=False)

    @property
    def seeds(self) -> list:
        return list(self.values.index)

    @property
    def label(self) -> str:
        """The metric and its unit, for an axis."""
        name = METRICS.get(self.metric, (self.metric, False))[0]
        return f"{name}, %" if self.percent else name

    @property
    def difference_unit(self) -> str:
        """What differences are counted in: points of percent, or as the values."""
        return "points" if self.percent else self.metric

    def last(self, column: str) -> pd.DataFrame:
        """Return what all runs reached in their last epoch, as `values` is laid out.

        Args:
            column: of a run's history, as in "train_top1"; see `Run`.

        Raises:
            ValueError: the values are not those of training runs, or no history has
                this column.
        """
        done = [r for by_seed in self.runs.values() for r in by_seed.values() if r]
        known = list(done[0].history) if done else []
        if column not in known:
            raise ValueError(
                f"There is no history with the column '{column}'; known are: "
                f"{', '.join(known) or 'none, since nothing was trained here'}."
            )
        rows = {
            name: [r.history[column].iloc[-1] if r else math.nan for r in runs.values()]
            for name, runs in self.runs.items()
        }
        return pd.DataFrame(rows, index=self.values.index)

    def differences(self) -> list[Difference]:
        """Return each other variant against the baseline, in their order."""
        others = [name for name in self.values if name != self.against]
        base = self.values[self.against].to_numpy(float)
        by_seed = [self.values[name].to_numpy(float) - base for name in others]
        intervals = [paired(d) for d in by_seed]
        adjusted = holm([1.0 if math.isnan(i.p) else i.p for i in intervals])
        found = []
        for name, d, interval, p in zip(others, by_seed, intervals, adjusted):
            images = _Z * self._image_error(name)
            outside = math.isnan(images) or abs(interval.mean) > images
            told = bool(p < 0.05 and outside)
            visible = smallest_effect(d)
            found.append(Difference(name, d, interval, images, visible, told))
        return found

    def _image_error(self, name: str, against: bool = True) -> float:
        """Return the standard error that the choice of images adds."""
        pair = (name, self.against) if against else (name,)
        if all(one in self.per_image for one in pair):
            return image_error(*(self.per_image[one] for one in pair))
        if not (self.percent and self.n_images):
            return math.nan
        # Which images were right is not known: as if each had images of its own,
        # which is too much where the networks agree.
        p = self.values[list(pair)].mean()
        return math.sqrt((p * (1 - p) / self.n_images).sum())

    def table(self) -> Table:
        """Return the table for readers, numbers as text; `values` holds them raw."""
        write = self._writer()
        found = {one.name: one for one in self.differences()}
        rows = []
        for name in self.values:
            column = self.values[name]
            row = {"variant": name}
            if len(column) <= _MOST_COLUMNS:
                row |= {f"seed {seed}": write(v) for seed, v in column.items()}
            else:  # a cell that wraps instead of a table that does not fit
                row["by seed"] = " ".join(map(write, column))
            if len(column) > 1:
                row["mean"] = write(column.mean())
            if found:
                row |= self._difference_cells(found.get(name), write)
            rows.append(row)
        return _Rows(rows)

    def _difference_cells(self, one: Difference | None, write) -> dict[str, str]:
        several = len(self.values) > 1
        names = ["difference"]
        names += ["95 % interval"] if several else []
        names += ["images"] if self._knows_images() else []
        names += ["visible from", "told apart"] if several else []
        if one is None:
            return dict.fromkeys(names, "")
        low, high = write(one.interval.low, True), write(one.interval.high, True)
        cells = {
            "difference": write(one.interval.mean, True),
            "95 % interval": f"{low} to {high}",
            "images": f"± {write(one.images)}",
            "visible from": write(one.visible),
            "told apart": "yes" if one.told_apart else "no",
        }
        return {name: cells[name] for name in names}

    def _knows_images(self) -> bool:
        return bool(self.per_image) or bool(self.percent and self.n_images)

    def _writer(self):
        """Return how values are written: percent with one digit, or as they differ."""
        factor, digits = (100, 1) if self.percent else (1, self._digits())

        def write(value: float, signed: bool = False) -> str:
            if math.isnan(value):
                return "–"
            text = f"{factor * value:{'+' if signed else ''},.{digits}f}"
            return text.replace("-", "−")

        return write

    def _digits(self) -> int:
        """Return how many decimals show the differences with three digits."""
        flat = self.values.to_numpy(float)
        flat = flat[np.isfinite(flat)]
        size = max(np.ptp(flat), 0.01 * np.abs(flat).max(initial=0)) if len(flat) else 1
        return int(np.clip(2 - math.floor(math.log10(size)), 0, 6)) if size > 0 else 2

    def notes(self) -> list[str]:
        """Return the sentences that stand below the table."""
        label = METRICS.get(self.metric, (self.metric, False))[0]
        unit = " in percent" if self.percent else ""
        on = f" on {self.n_images:,} images" if self.n_images else ""
        seeds = f"{len(self.values)} seed{'s' if len(self.values) != 1 else ''}"
        setting = f", {self.setting}" if self.setting else ""
        lines = [f"{label}{unit}{on}, {seeds}{setting}."]
        found = self.differences()
        if found:
            lines += self._explain(found)
        if self.remark:
            lines.append(self.remark)
        lost = [
            f"{name} (seed {seed})"
            for name in self.values
            for seed in self.values.index[self.values[name].isna()]
        ]
        if lost:
            lines.append(
                f"Training diverged for {', '.join(lost)}; such seeds are left out of "
                "means and differences."
            )
        return lines

    def _explain(self, found: list[Difference]) -> list[str]:
        points = " in points" if self.percent else ""
        if len(self.values) == 1:
            text = f"Differences{points} to {self.against}; one seed has no spread, "
            return [text + "so that nothing can be said about other seeds."]
        write = self._writer()
        text = f"Differences{points} to {self.against}, paired by seed, "
        text += "with the 95 % t interval of their mean"
        if self._knows_images():
            single = max(_Z * self._image_error(name, False) for name in self.values)
            how = "paired" if self.per_image else "not paired"
            text += (
                f"; images: half of the 95 % interval that their choice adds, {how} "
                f"(of a single value: at most ± {write(single)})"
            )
        text += "; visible from: what four of five such experiments would show."
        lines = [text]
        if len(found) > 1:
            lines.append(
                f"{len(found)} comparisons: told apart is corrected for their number "
                "(Holm), the intervals are not."
            )
        if any(one.interval.low == one.interval.high for one in found):
            lines.append(
                "Where an interval has no width, all seeds gave the same difference."
            )
        return lines

    def figure(self) -> None:
        """Draw the values by seed and the paired differences."""
        from ..figures import show_experiment

        show_experiment(self)

    def describe(self) -> str:
        """Return the alt text of the figure: means and differences in words."""
        write = self._writer()
        unit = " %" if self.percent else ""
        parts = [f"{n} {write(self.values[n].mean())}{unit}" for n in self.values]
        text = f"Mean over {len(self.values)} seeds: {', '.join(parts)}."
        for one in self.differences():
            text += (
                f" {one.name} minus {self.against}: {write(one.interval.mean, True)}"
            )
            if one.interval.n > 1:
                low, high = one.interval.low, one.interval.high
                text += f", interval {write(low, True)} to {write(high, True)}"
            text += "."
        return text

    def __repr__(self) -> str:
        return "\n".join([repr(self.table()), *self.notes()])

    def _repr_html_(self) -> str:
        notes = html.escape(" ".join(self.notes()))
        return f"{self.table()._repr_html_()}\n<p>{notes}</p>"


class _Rows(Table):
    """A table whose cells are numbers written as text: all but the first right."""

    def _columns(self) -> list[tuple[str, list, bool]]:
        columns = super()._columns()
        return [(head, cells, i > 0) for i, (head, cells, _) in enumerate(columns)]


def compare_values(
    values: dict,
    *,
    metric: str = "top1",
    against: str | None = None,
    n_images: int | None = None,
    per_image: dict | None = None,
    seeds=None,
    percent: bool | None = None,
    setting: str = "",
) -> Comparison:
    """Return the table and figure of values that were measured in another way.

    Args:
        values: variant -> one value for each seed, in the same order for all.
        metric: "top1" (fractions), "loss", or the name and unit of another measure,
            as in "ms per image".
        against: the variant to compare with; by default the first.
        n_images: how many images each value was measured on, for their error.
        per_image: variant -> (seeds, N) scores of each image; then the error of the
            images is paired.
        seeds: their names; by default 0, 1, 2 and so on.
        percent: show values times 100; by default for top-1.
        setting: what else the line below the table says, as in "200 steps on a CPU".

    Raises:
        ValueError: no variant or value, lengths that differ, an unknown baseline,
            fractions outside [0, 1].
    """
    frame = _frame(values, seeds)
    against = check_against(against, list(frame))
    if percent is None:
        percent = METRICS.get(metric, ("", False))[1]
    outside = frame.min().min() < 0 or frame.max().max() > 1
    if percent and outside:
        raise ValueError(
            f"{metric} is shown in percent, so that its values must be fractions "
            f"between 0 and 1; they run from {frame.min().min():g} to "
            f"{frame.max().max():g}. Divide by 100, or say percent=False."
        )
    each = {name: np.atleast_2d(rows) for name, rows in (per_image or {}).items()}
    if each and n_images is None:
        n_images = next(iter(each.values())).shape[1]
    return Comparison(frame, metric, percent, against, n_images, each, setting)


def _frame(values: dict, seeds) -> pd.DataFrame:
    lengths = {str(name): len(list(column)) for name, column in values.items()}
    if not lengths or not max(lengths.values()):
        raise ValueError("There is nothing to compare: give variant -> values by seed.")
    if len(set(lengths.values())) > 1:
        raise ValueError(
            "Each variant needs one value for each seed, in the same order; found "
            f"{', '.join(f'{n} for {name}' for name, n in lengths.items())}."
        )
    count = next(iter(lengths.values()))
    index = list(range(count) if seeds is None else seeds)
    if len(index) != count:
        raise ValueError(f"There are {count} values for {len(index)} seeds.")
    columns = {str(name): list(map(float, v)) for name, v in values.items()}
    return pd.DataFrame(columns, index=pd.Index(index, name="seed"))


def check_against(against: str | None, names: list[str]) -> str:
    """Return the baseline, by default the first variant."""
    if against is None:
        return names[0]
    if against not in names:
        raise ValueError(
            f"against is {against!r}; it must be one of the variants: "
            f"{', '.join(names)}."
        )
    return against
