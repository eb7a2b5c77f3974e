"""The zoo on one page: a single HTML file that opens from disk and asks for nothing else.

records    rows, costs and cards as plain values
blocks     what a README holds between markers: text, tables, pictures
networks   a trained network as a list of operators that the page's own engine runs
*.mjs      the page's scripts, a job each; main.mjs is the last
page.html, page.css
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

SCRIPTS = (
    "numbers",
    "dom",
    "charts",
    "models",
    "pareto",
    "layers",
    "cards",
    "engine",
    "drawing",
    "drawbox",
    "studies",
    "main",
)
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def page_html(content: Mapping[str, Any], title: str) -> str:
    """The whole file. content: what the scripts show, as plain JSON values.

    The file forbids itself the network and any script but its own, whatever a name or a note in `content` holds.
    """
    script, style = script_text(), asset("page.css")
    filled = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        "style": style,
        "script": script,
        "data": json_text(content),
    }
    parts = re.split(r"\{\{(\w+)\}\}", asset("page.html"))
    return "".join(filled[part] if i % 2 else part for i, part in enumerate(parts))


def script_text() -> str:
    """The modules as one, in the order in which they need each other: what they import from one another is at hand."""
    parts = (_EXPORT.sub("", _IMPORT.sub("", asset(f"{name}.mjs"))).strip() for name in SCRIPTS)
    return "\n" + "\n\n".join(parts) + "\n"


def json_text(value: Any) -> str:
    """JSON that is safe inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def asset(name: str) -> str:
    """The text of a file of this package."""
    return (files(__name__) / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a content security policy names the inline element that it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
