"""A table as a value, and its five forms: text, CSV, JSON, Markdown and HTML."""

import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from zoo.errors import unknown

Item = TypeVar("Item")
Value = str | int | float | bool | tuple[int, ...] | None

FORMATS = ("text", "csv", "json", "markdown", "html")
MISSING = "-"


@dataclass(frozen=True)
class Column:
    """name: the key in CSV and JSON, with its unit in it. title: its heading elsewhere.

    drop: 0 for a column that stays; of the others the highest go first where the width does not suffice.
    """

    name: str
    title: str
    drop: int = 0
    right: bool = True


@dataclass(frozen=True)
class Table:
    """Raw values for machines, texts for people, cell by cell.

    reasons: for each row, column name -> why the value is missing. notes: what the reader needs to know besides.
    keyed: the first column names its row, so JSON is an object and not a list.
    """

    columns: tuple[Column, ...]
    values: tuple[tuple[Value, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    name: str = "table"
    title: str = ""
    reasons: tuple[Mapping[str, str], ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    keyed: bool = False


def render(tables: Table | Sequence[Table], format: str, *, width: int | None = None, terminal: bool = False) -> str:
    """Tables in one of FORMATS, ending in a newline.

    width: columns of characters to stay within, by leaving columns out; None sets no limit. Only text heeds it.
    terminal: whether text may carry colour, which `rich` gives. Several tables follow one another; in JSON they are
    one object by table name. Raises UnknownNameError for any other format.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    several = [tables] if isinstance(tables, Table) else list(tables)
    if format == "json":
        content = _records(tables) if isinstance(tables, Table) else {t.name: _records(t) for t in several}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if format == "html":
        return _html_page(several)
    if format == "text":
        return "\n".join(table_text(table, width=width, terminal=terminal) for table in several)
    one = table_csv if format == "csv" else table_markdown
    return "\n".join(one(table) for table in several)


def table_text(table: Table, *, width: int | None = None, terminal: bool = False) -> str:
    """Aligned columns; the columns that matter least are left out, and named, where the width does not suffice."""
    fitted, dropped = _fit(table, width)
    notes = footnotes(fitted)
    if dropped:
        notes.append(f"left out for want of width: {', '.join(dropped)} (a wider window or `--format csv` shows them)")
    body = _rich_text(fitted, width) if terminal else _plain_text(fitted)
    heading = f"{table.title}\n" if table.title else ""
    return heading + body + "".join(f"  {note}\n" for note in notes)


def table_csv(table: Table) -> str:
    """Raw values under the columns' names; a missing value is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    writer.writerows(
        [["" if v is None else json.dumps(v) if _structured(v) else v for v in row] for row in table.values]
    )
    return file.getvalue()


def table_json(table: Table) -> str:
    """Raw values by column name, with a row's `missing` reasons where it has any."""
    return render(table, "json")


def table_markdown(table: Table) -> str:
    """A GitHub table, with its notes as a list below."""
    heading = f"**{table.title}**\n\n" if table.title else ""
    lines = [_pipes(column.title for column in table.columns)]
    lines.append("|" + "|".join("---:" if column.right else "---" for column in table.columns) + "|")
    lines += [_pipes(row) for row in table.texts]
    notes = "".join(f"\n* {note}" for note in footnotes(table))
    return heading + "\n".join(lines) + "\n" + (f"{notes}\n" if notes else "")


def table_html(table: Table) -> str:
    """A `<table>` with every text escaped, and its notes as a list."""
    sides = ['class="number"' if column.right else "" for column in table.columns]
    caption = f"<caption>{html.escape(table.title)}</caption>\n" if table.title else ""
    head = "".join(_tag("th", side, c.title) for side, c in zip(sides, table.columns, strict=True))
    body = "".join(
        "<tr>" + "".join(_tag("td", side, text) for side, text in zip(sides, row, strict=True)) + "</tr>\n"
        for row in table.texts
    )
    notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in footnotes(table))
    listed = f"<ul>\n{notes}</ul>\n" if notes else ""
    return f"<table>\n{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n{listed}"


def footnotes(table: Table) -> list[str]:
    """The notes on the columns shown, then each reason for a missing value once, with the columns it concerns."""
    shown = [column.name for column in table.columns]
    titles = {column.name: column.title for column in table.columns}
    concerned: dict[str, list[str]] = {}
    for row, reasons in zip(table.values, table.reasons, strict=False):
        for name, value in zip(shown, row, strict=True):
            if value is None and name in reasons:
                titles_so_far = concerned.setdefault(reasons[name], [])
                if titles[name] not in titles_so_far:
                    titles_so_far.append(titles[name])
    notes = [note for name, note in table.notes.items() if name in shown]
    return notes + [f"missing ({MISSING}) in {', '.join(names)}: {reason}" for reason, names in concerned.items()]


def replace_block(text: str, marker: str, body: str) -> str:
    """`text` with what stands between `<!-- zoo:MARKER -->` and `<!-- /zoo:MARKER -->` replaced by `body`.

    Raises UnknownNameError if the pair of comments is not there, once and in this order.
    """
    start, end = f"<!-- zoo:{marker} -->", f"<!-- /zoo:{marker} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed or start in after or end in before:
        raise unknown("block", marker, _blocks(text))
    return f"{before}{start}\n{body.strip()}\n{end}{after}"


def _blocks(text: str) -> list[str]:
    return [piece.partition(" -->")[0] for piece in text.split("<!-- zoo:")[1:]]


def _fit(table: Table, width: int | None) -> tuple[Table, list[str]]:
    """The table without the columns that do not fit, and the titles of those."""
    dropped: list[str] = []
    while width is not None and _width(table) > width and any(column.drop for column in table.columns):
        worst = max(range(len(table.columns)), key=lambda i: (table.columns[i].drop, i))
        dropped.append(table.columns[worst].title)
        table = replace(
            table,
            columns=_without(table.columns, worst),
            values=tuple(_without(row, worst) for row in table.values),
            texts=tuple(_without(row, worst) for row in table.texts),
        )
    return table, dropped


def _without(items: tuple[Item, ...], index: int) -> tuple[Item, ...]:
    return items[:index] + items[index + 1 :]


def _widths(table: Table) -> list[int]:
    cells = [[column.title for column in table.columns], *table.texts]
    return [max(map(len, cells_of_column)) for cells_of_column in zip(*cells, strict=True)]


def _width(table: Table) -> int:
    return sum(_widths(table)) + 2 * (len(table.columns) - 1)


def _plain_text(table: Table) -> str:
    widths = _widths(table)
    titles = [column.title for column in table.columns]
    head = [titles, ["-" * width for width in widths]] if any(titles) else []
    return "".join(
        "  ".join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, table.columns, strict=True)
        ).rstrip()
        + "\n"
        for line in [*head, *table.texts]
    )


def _rich_text(table: Table, width: int | None) -> str:
    """The same columns, coloured, where `rich` is installed."""
    try:
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text
    except ImportError:
        return _plain_text(table)
    grid = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    grid.show_header = any(column.title for column in table.columns)
    for column in table.columns:
        grid.add_column(Text(column.title), justify="right" if column.right else "left", no_wrap=True)
    for row in table.texts:
        grid.add_row(
            *(Text(text, "dim" if text == MISSING else "cyan" if i == 0 else "") for i, text in enumerate(row))
        )
    file = io.StringIO()
    Console(file=file, force_terminal=True, width=max(width or 0, _width(table))).print(grid)
    return file.getvalue()


def _records(table: Table) -> object:
    records = []
    for i, row in enumerate(table.values):
        record: dict[str, object] = {column.name: value for column, value in zip(table.columns, row, strict=True)}
        reasons = table.reasons[i] if i < len(table.reasons) else {}
        lacking = {name: reasons[name] for name, value in record.items() if value is None and name in reasons}
        records.append(record | ({"missing": lacking} if lacking else {}))
    if not table.keyed:
        return records
    key = table.columns[0].name
    rest = [{name: value for name, value in record.items() if name != key} for record in records]
    single = len(table.columns) == 2
    values = [next(iter(record.values())) for record in rest] if single else rest
    return {str(record[key]): value for record, value in zip(records, values, strict=True)}


def _structured(value: Value) -> bool:
    return isinstance(value, bool | tuple | list)


def _pipes(cells: Iterable[str]) -> str:
    texts = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
    return f"| {' | '.join(texts)} |"


def _tag(name: str, attributes: str, text: str) -> str:
    return f"<{name}{' ' if attributes else ''}{attributes}>{html.escape(text)}</{name}>"


def _html_page(tables: Sequence[Table]) -> str:
    style = (
        "body{font-family:sans-serif;margin:2em} table{border-collapse:collapse} "
        "th,td{padding:.2em .8em;text-align:left;border-bottom:1px solid #ccc} .number{text-align:right}"
    )
    title = html.escape(next((table.title for table in tables if table.title), "zoo"))
    head = f'<meta charset="utf-8">\n<title>{title}</title>\n<style>{style}</style>'
    body = "".join(map(table_html, tables))
    return f"<!doctype html>\n<html>\n<head>\n{head}\n</head>\n<body>\n{body}</body>\n</html>\n"
