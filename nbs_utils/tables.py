"""Tables for people: grouped digits on the page, plain numbers underneath."""

from __future__ import annotations

from html import escape
from numbers import Integral, Real

import pandas as pd


class Table(pd.DataFrame):
    """A DataFrame that shows integers with grouped digits and headers for readers.

    Everything that a DataFrame does works on the raw numbers; only the display
    differs: 714188480 reads 714,188,480, and the first column holds the header of its
    row, as screen readers need it. An index is shown where it says something: one with
    a name, as after `set_index` or `groupby`, or one of words. Rows that are only
    numbered are not. A cell `(text, url)` is a link.
    """

    @classmethod
    def of_facts(cls, facts: dict, label: str = "") -> Table:
        """Return a table of two columns without a heading: a name and a value.

        Args:
            facts: name -> text, number or `(text, url)`.
            label: what the table is, read out by screen readers.
        """
        values = pd.Series(list(facts.values()), dtype=object)
        table = cls({"fact": list(facts), "value": values})
        table.attrs = {"heading": False, "label": label}
        return table

    @property
    def _constructor(self):
        return Table

    def _columns(self) -> list[tuple[str | None, list, bool]]:
        """Return (heading, values, whether they are numbers) of what is shown.

        The heading of an index without a name is None.
        """
        shown = []
        index = self.index
        words = not pd.api.types.is_integer_dtype(index.dtype)
        if len(self) and (words or any(name is not None for name in index.names)):
            for level, name in enumerate(index.names):
                values = index.get_level_values(level)
                number = pd.api.types.is_numeric_dtype(values.dtype)
                shown.append(
                    (None if name is None else str(name), list(values), number)
                )
        for i, name in enumerate(self.columns):
            parts = name if isinstance(name, tuple) else (name,)
            heading = ", ".join(str(part) for part in parts if part != "")
            column = self.iloc[:, i]
            number = pd.api.types.is_numeric_dtype(column.dtype)
            shown.append((heading, column.tolist(), number))
        return shown

    def cells(self) -> list[list[str]]:
        """Return what is shown as text: a row of headings, then the rows."""
        columns = self._columns()
        body = zip(*([_text(value) for value in values] for _, values, _ in columns))
        return [[heading or "" for heading, _, _ in columns], *map(list, body)]

    def __repr__(self) -> str:
        rows = self.cells()
        rows = rows if self.attrs.get("heading", True) else rows[1:]
        widths = [max(map(len, column)) for column in zip(*rows)]
        numbers = [number for _, _, number in self._columns()]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(row, widths, numbers)
            ).rstrip()
            for row in rows
        )

    def _repr_html_(self) -> str:
        if not self.attrs.get("heading", True):
            return self._facts_html()
        columns = self._columns()
        align = [f' style="text-align: {("left", "right")[n]}"' for _, _, n in columns]
        heads = [
            "<td></td>" if head is None else f'<th scope="col"{a}>{escape(head)}</th>'
            for (head, _, _), a in zip(columns, align)
        ]
        lines = ['<table class="dataframe">', "<thead>", "<tr>", *heads]
        lines += ["</tr>", "</thead>", "<tbody>"]
        for row in zip(*(values for _, values, _ in columns)):
            first, *rest = (f"{a}>{_marked(v)}" for a, v in zip(align, row))
            rest = "".join(f"<td{cell}</td>" for cell in rest)
            lines.append(f'<tr><th scope="row"{first}</th>{rest}</tr>')
        return "\n".join([*lines, "</tbody>", "</table>"])

    def _facts_html(self) -> str:
        """Return a table whose rows alone have headers."""
        body = "".join(
            '<tr><th scope="row" style="text-align:left;vertical-align:top">'
            f'{_marked(name)}</th><td style="text-align:left">{_marked(value)}</td></tr>'
            for name, value in self.itertuples(index=False)
        )
        label = self.attrs.get("label")
        label = f' aria-label="{escape(label)}"' if label else ""
        return f'<table class="nbs-table"{label}><tbody>{body}</tbody></table>'


def _is_link(value) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and "://" in str(value[1])


def _text(value) -> str:
    """Write one cell: grouped integers, four significant digits for fractions."""
    if _is_link(value):
        return f"{value[0]} ({value[1]})"
    if isinstance(value, bool) or not isinstance(value, Real):
        return "" if value is None else str(value)
    if pd.isna(value):
        return ""
    if isinstance(value, Integral):
        return f"{value:,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _marked(value) -> str:
    """Write one cell for a page."""
    if _is_link(value):
        return f'<a href="{escape(value[1])}">{escape(str(value[0]))}</a>'
    return escape(_text(value)).replace("\n", "<br>")
