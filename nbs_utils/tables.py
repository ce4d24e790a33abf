"""Tables for people: grouped digits on the page, plain numbers underneath."""

from html import escape
from numbers import Integral, Real

import pandas as pd


class Table(pd.DataFrame):
    """A DataFrame that shows integers with grouped digits and headers for readers.

    Everything that a DataFrame does works on the raw numbers; only the display
    differs: 714188480 reads 714,188,480, there is no index column, and the first
    column holds the header of its row, as screen readers need it.
    """

    @property
    def _constructor(self):
        return Table

    @staticmethod
    def _show(value) -> str:
        """Write one cell: grouped integers, four significant digits for fractions."""
        if isinstance(value, bool) or not isinstance(value, Real):
            return "" if value is None else str(value)
        if pd.isna(value):
            return ""
        if isinstance(value, Integral):
            return f"{value:,}"
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"

    def _cells(self) -> list[list[str]]:
        """Return the table as text: a header row, then the body."""
        columns = [self.iloc[:, i].tolist() for i in range(self.shape[1])]
        body = [[self._show(value) for value in row] for row in zip(*columns)]
        return [[str(name) for name in self.columns], *body]

    def _numeric(self) -> list[bool]:
        return [pd.api.types.is_numeric_dtype(dtype) for dtype in self.dtypes]

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(len(row[i]) for row in cells) for i in range(self.shape[1])]
        numeric = self._numeric()
        return "\n".join(
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric)
            ).rstrip()
            for row in cells
        )

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        align = [
            f' style="text-align: {"right" if right else "left"}"'
            for right in self._numeric()
        ]
        lines = ['<table class="dataframe">', "<thead>", "<tr>"]
        lines += [
            f'<th scope="col"{a}>{escape(name)}</th>' for name, a in zip(head, align)
        ]
        lines += ["</tr>", "</thead>", "<tbody>"]
        for row in body:
            first = f'<th scope="row"{align[0]}>{escape(row[0])}</th>'
            rest = (f"<td{a}>{escape(c)}</td>" for c, a in zip(row[1:], align[1:]))
            lines.append(f"<tr>{first}{''.join(rest)}</tr>")
        return "\n".join([*lines, "</tbody>", "</table>"])
