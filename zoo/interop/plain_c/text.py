"""Numbers, names and strings as C writes them."""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

LINE = 110
C_TYPES = {torch.int8: "int8_t", torch.uint8: "uint8_t", torch.int16: "int16_t", torch.int32: "int32_t"}


def array(name: str, values: Tensor) -> str:
    """A constant array of one dimension or two."""
    sizes = "".join(f"[{size}]" for size in values.shape)
    rows = [wrapped(map(str, row.tolist())) for row in values.reshape(-1, values.shape[-1])]
    body = rows[0] if values.ndim == 1 else "\n".join(f"    {{\n{row}\n    }}," for row in rows)
    return f"static const {C_TYPES[values.dtype]} {name}{sizes} = {{\n{body}\n}};"


def wrapped(words: Iterable[str]) -> str:
    """Words with commas after them, in indented lines of at most LINE characters."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) + 2 > LINE:
            lines.append("")
        lines[-1] += f"{word}, "
    return "\n".join(f"    {line.rstrip()}" for line in lines)


def c_string(text: str) -> str:
    """A string literal of any text, in UTF-8: what C could misread is written as octal numbers of three digits."""
    safe = re.compile(r"[ !#-\[\]-~]")
    letters = (chr(byte) if safe.match(chr(byte)) and byte != ord("?") else f"\\{byte:03o}" for byte in text.encode())
    return '"' + "".join(letters) + '"'


def c_name(text: str) -> str:
    """A name that C allows."""
    found = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower() or "network"
    return f"network_{found}" if found[0].isdigit() else found


def comment(text: str) -> str:
    """Text that cannot end a comment, nor hide what follows it."""
    return re.sub(r"[^\x20-\x7e]|[*/\\?]", "_", text)


def listed(numbers: Sequence[float]) -> str:
    """Numbers for people."""
    return ", ".join(f"{number:.6g}" for number in numbers)
