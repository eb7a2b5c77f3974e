"""One number to text: the only functions that know of k, M, % and kB."""

import math

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count_text(number: float) -> str:
    """A count to three digits with its SI letter: 61706 -> "61.7 k", 412 -> "412"."""
    return _scaled(number, "")


def size_text(number: float) -> str:
    """Bytes to three digits, a kB being 1000 of them: 123412 -> "123 kB"."""
    return _scaled(number, "B")


def exact_text(number: int) -> str:
    """A count to the last digit, in threes: 61706 -> "61,706"."""
    return f"{number:,}"


def percent_text(share: float) -> str:
    """A share in percent to two decimals: 0.94164 -> "94.16 %"."""
    return f"{100 * share:.2f} %"


def ratio_text(ratio: float) -> str:
    """A ratio to three digits, with no exponent: 0.01234 -> "0.0123x", 1234.5 -> "1,230x"."""
    return f"{_digits(ratio)}x"


def score_text(score: float) -> str:
    """A score to one decimal."""
    return f"{score:.1f}"


def image_text(image: tuple[int, int, int]) -> str:
    """(channels, height, width) as "3 x 32 x 32"."""
    return " x ".join(str(side) for side in image)


def _scaled(number: float, unit: str) -> str:
    for step, letter in _STEPS:
        if round(abs(number) / step, 3) >= 0.9995:
            return f"{_digits(number / step)} {letter}{unit}"
    return f"{_digits(number)} {unit}".rstrip() if number % 1 else f"{int(number)} {unit}".rstrip()


def _digits(number: float, digits: int = 3) -> str:
    """To so many significant digits, without an exponent; whole digits beyond them become zeros."""
    if number == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(number)))
    rounded = round(number, decimals)
    if rounded and math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(number))):
        decimals -= 1
    return f"{rounded:,.{max(decimals, 0)}f}"
