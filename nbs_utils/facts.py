"""A small table of facts for people: a name and a value in each row."""

import html


class Facts:
    """Facts as a table of two columns, shown as the result of a cell.

    Args:
        rows: name -> value. A tuple `(text, url)` is a link.
        label: what the table is, read out by screen readers.
    """

    def __init__(self, rows: dict, label: str = ""):
        self.rows, self.label = dict(rows), label

    def __repr__(self) -> str:
        width = max((len(str(name)) for name in self.rows), default=0)
        return "\n".join(f"{n!s:<{width}}  {_plain(v)}" for n, v in self.rows.items())

    def _repr_html_(self) -> str:
        body = "".join(
            f'<tr><th scope="row" style="text-align:left;vertical-align:top">'
            f"{html.escape(str(name))}</th>"
            f'<td style="text-align:left">{_marked(value)}</td></tr>'
            for name, value in self.rows.items()
        )
        label = f' aria-label="{html.escape(self.label)}"' if self.label else ""
        return f'<table class="nbs-table"{label}><tbody>{body}</tbody></table>'


def _plain(value) -> str:
    if isinstance(value, tuple):
        return f"{value[0]} ({value[1]})"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _marked(value) -> str:
    if isinstance(value, tuple):
        text, url = value
        return f'<a href="{html.escape(url)}">{html.escape(str(text))}</a>'
    return html.escape(_plain(value)).replace("\n", "<br>")
