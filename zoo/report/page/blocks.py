"""What a README holds between its markers, read back: paragraphs, tables, pictures."""

import re
from collections.abc import Iterator
from typing import Any

from zoo.report.tables import Column, Table, footnotes

_BLOCK = re.compile(r"<!-- zoo:([a-z0-9-]+) -->\s*(.*?)\s*<!-- /zoo:\1 -->", re.DOTALL)
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
_HEADING = re.compile(r"\*\*([^*]+)\*\*")
_PIPE = re.compile(r"(?<!\\)\|")


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """(name, the paragraph before it or "", what stands between its markers) of every block, in order."""
    for found in _BLOCK.finditer(text):
        before = text[: found.start()].rstrip().rpartition("\n\n")[2]
        plain = not before.startswith(("#", "|", "<!--", "```", "!["))
        yield found[1], " ".join(before.split()) if plain else "", found[2]


def parts(body: str) -> list[dict[str, Any]]:
    """A block's content in order: {"text"}, {"table"} as `table_plain` gives it, {"picture", "path"}."""
    found: list[dict[str, Any]] = []
    title = ""
    for piece in filter(None, (piece.strip() for piece in re.split(r"\n\s*\n", body))):
        if piece.startswith("|"):
            found.append({"table": table_plain(markdown_table(piece, title))})
            title = ""
        elif picture := _PICTURE.fullmatch(piece):
            found.append({"picture": picture[1], "path": picture[2]})
        elif heading := _HEADING.fullmatch(piece):
            title = heading[1]
        elif piece.startswith("* ") and found and "table" in found[-1]:
            found[-1]["table"]["notes"] += [line.removeprefix("* ") for line in piece.splitlines()]
        else:
            found.append({"text": " ".join(piece.split())})
    return found


def markdown_table(text: str, title: str = "") -> Table:
    """The table that `table_markdown` wrote, its texts standing for its values."""
    head, sides, *rows = (_cells(line) for line in text.splitlines())
    columns = tuple(Column(name, name, right=side.endswith(":")) for name, side in zip(head, sides, strict=True))
    texts = tuple(tuple(row) for row in rows)
    return Table(columns, texts, texts, title=title)


def table_plain(table: Table) -> dict[str, Any]:
    """A table as the page shows it: title, columns, texts, notes."""
    return {
        "title": table.title,
        "columns": [{"title": column.title, "right": column.right} for column in table.columns],
        "rows": [list(row) for row in table.texts],
        "notes": footnotes(table),
    }


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in _PIPE.split(line)[1:-1]]
