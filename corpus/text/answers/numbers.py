"""Numbers as answers: read exactly, as fractions, from the notations that models and datasets use.

It reads digits of every script, thousands separators, signs, decimals, fractions (`3/4`, `\\frac{3}{4}`, `1 1/2`, `½`),
scientific notation, percentages and amounts of money. Values are `Fraction`, so equality is exact and transitive. What is not
plainly one number (`x86`, `1.2.3`, a date, `2\\pi`, `5x`, `x^2`) is none: a wrong answer that passes costs more than a right one
that is lost. `corpus/text/numbers.py` has another task: it collects the numbers that prose states, in words too.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice

from limbeck.corpus.text.invisible import without_invisible
from limbeck.corpus.text.words import spaced

_LONGEST = 1000  # characters of a number; Python converts at most 4,300 digits
_LARGEST_EXPONENT = 1000  # 1e999999999 would fill the memory

_THIN = "\u2009"
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_UNIT_LETTERS = "mgslhLKCFNJWV"  # 5m, 5g, 5s, ...; any other single letter is a variable or a scale: 5x, 5k, 5B

_REPLACED = {
    **dict.fromkeys("−﹣－‐‑‒–", "-"),
    **dict.fromkeys("＋﹢", "+"),
    **dict.fromkeys("％﹪٪", "%"),
    **dict.fromkeys("⁄∕／", "/"),
    **dict.fromkeys("✕✖⋅∗", "×"),
    **dict.fromkeys("\u00a0\u2005\u2006\u2007\u2008\u200a\u202f", _THIN),
    **dict.fromkeys("’ʼ＇", "'"),
    **{"．": ".", "，": ",", "٫": ".", "٬": ",", "＝": "=", "＾": "^"},
}
_SWAPPED = str.maketrans({",": ".", ".": ",", "，": "．", "．": "，"})
_VULGAR = re.compile(r"(\d?)([¼-¾⅐-⅞↉])")
_LATEX = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:left|right)(?![A-Za-z])|\\!"), ""),
    (re.compile(r"\\[,;: ]"), _THIN),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "×"),
    (re.compile(r"\\pm(?![A-Za-z])"), "±"),
)

_INTEGER = rf"(?>\d{{1,3}}(?:[,'_{_THIN}]\d{{3}}){{1,40}}+(?!\d)|\d{{1,2}}(?:,\d{{2}}(?!\d)){{1,40}}+,\d{{3}}(?!\d)|\d++)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d++)?+|\.\d++)"
_EXPONENT = rf"(?:\s?(?:\^|\*\*)\s?(?:\{{\s?[-+]?\d++\s?\}}|[-+]?\d++)|[⁺⁻]?[{_SUPERSCRIPTS}]++)"
_MAGNITUDE = rf"(?:10{_EXPONENT}|{_DECIMAL}(?:[eE][-+]?\d++(?![^\W\d])|\s?[×*xX]\s?10{_EXPONENT})?+)"
_NUMERATOR, _DENOMINATOR = (rf"(?:\{{\s?(?P<{name}>[-+]?{_MAGNITUDE})\s?\}}|(?P<{name}_digit>\d))" for name in ("top", "bottom"))

_EXPRESSION = re.compile(
    r"\d|[\^+<>≤≥≠√π∞±×÷∑∫|]|(?<!\*)\*(?!\*)|(?<![A-Za-z])/|/(?![A-Za-z])"
    r"|\\(?!(?:text[a-z]*|math(?:rm|bf|it)|mbox|boxed|circ|degree|q?quad|approx|displaystyle)(?![A-Za-z]))[A-Za-z]"
)
"""What a plain number has not beside it: other digits, operators, commands of mathematics."""

_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])(?:\^\{?-?[1-4]\}?|[⁻]?[¹²³⁴])|\^\{?\s?(?:\\circ|°)\s?\}?")
_SPACED_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3}){1,40}+(?!\d)")
_SPACED_SIGN = re.compile(r"^([-+])\s+(?=[\d.\\])")
_UNIT = r"[^\W\d_]{1,2}[23²³]?(?:/[^\W\d_]{1,3})?|[A-Z]{3}"  # kg, m², km/h, EUR
_UNWORDED = re.compile(rf"[^\w.]*+(?:(?:[A-Z]{{3}}|US|R)(?!\w)[^\w.]*+)?[\d.,][\d., ]*+[^\w]*+(?:(?:{_UNIT})(?!\w))?[\W_]*+")
"""A number without words, perhaps with currency or unit signs: only there may spaces separate its thousands or its sign."""

_YEAR, _MONTH, _DAY = r"(?:1[5-9]|2[01])\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
_ZONE = r"(?:\s?Z\b|\s?[-+]\d\d:?\d\d(?!\d))?"
_SUFFIX = r"(?:[-+]\w++(?:[.,]\w++)*+)*+"
_DATED = "|".join(
    (
        rf"\d{{4}}-(?:0[1-9]|1[0-2])-{_DAY}(?!\d)|{_YEAR}-{_MONTH}-{_DAY}(?!\d)",
        rf"{_YEAR}-(?:0[1-9]|1[0-2])(?![-\d])|{_YEAR}-W\d\d(?:-[1-7])?(?!\d)",
        rf"{_DAY}-{_MONTH}-\d{{4}}(?!\d)|{_MONTH}-{_DAY}-\d{{4}}(?!\d)|{_DAY}-[A-Za-z]{{3}}-\d{{2,4}}(?!\d)",
        r"\d{2,4}年\s?\d{1,2}月(?:\s?\d{1,2}[日号號])?|\d{1,2}月\s?\d{1,2}[日号號]",
        rf"\d{{1,2}}:\d\d(?::\d\d(?:[.,]\d++)?)?{_ZONE}(?![\d:])",
        rf"\d++(?:\.\d++){{2,}}+{_SUFFIX}|(?<=(?<![A-Za-z])[vV])\d++(?:[.,]\d++)*+{_SUFFIX}",
    )
)
"""Dates (2024-01-05, 2024-01, 5-1-2024, 5-Jan-2024, 2024年1月5日), times of day with their zone, and versions (1.2.3-4, v2)."""

_SWAPPED_VERSION = rf"(?!{_INTEGER}(?![,\d]))\d++(?:,\d++){{2,}}+{_SUFFIX}"
"""5.1.2024 and 1.2.3 after `_SWAPPED`; 1.000.000 is a number there."""

_HUNDREDTHS = r"\s?[%‰‱؉]|[\s-]?(?:\\(?:text|mathrm|mbox)\s?\{\s?)?(?i:per[ -]?cent|pct|per[ -]?mil(?:le)?)\b\}?"
_PER_MILLE = re.compile("[‰؉]|mil", re.IGNORECASE)
_SEVERAL = re.compile(r"[,;<>≤≥≠]|\b(?:or|and)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Notation:
    """How numbers are written where it is ambiguous.

    `decimal_comma`: the comma is the decimal mark and the point separates thousands. `hundredths`: 50% is 1/2; else it is 50.
    """

    decimal_comma: bool = False
    hundredths: bool = False


def number(text: str, notation: Notation = Notation()) -> Fraction | None:
    """The value of a text that states one number, perhaps with a unit, words or `x =` around it; None if it is not one.

    O(characters).
    """
    before, equals, after = normalised(text, notation).strip("$*_ \t\r\n").rpartition("=")
    if equals and _SEVERAL.search(before):
        return None
    text = _without_spaces(after.strip())
    found = list(islice(_pattern(notation).finditer(text), 2))
    if len(found) != 1:
        return None
    rest = f"{text[: found[0].start()]} {text[found[0].end() :]}"
    return None if _EXPRESSION.search(_UNIT_POWER.sub("", rest)) else _value(found[0], notation)


def last_number(text: str, notation: Notation = Notation()) -> str | None:
    """The last number of a text, in the normalised form that `number` reads, or None. O(characters)."""
    found = [*_pattern(notation).finditer(normalised(text, notation))]
    last = next((match[0] for match in reversed(found) if _value(match, notation) is not None), None)
    return last.translate(_SWAPPED) if last is not None and notation.decimal_comma else last


def normalised(text: str, notation: Notation = Notation()) -> str:
    """The text with ASCII digits, signs and decimal points, and LaTeX's spaces, escapes and variants of `\\frac` resolved."""
    text = without_invisible(text)
    if "\\" in text or "{,}" in text:
        text = text.replace("{,}", ",")
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    if notation.decimal_comma:
        text = text.translate(_SWAPPED)
    if text.isascii():
        return text
    return _VULGAR.sub(_in_digits, text).translate(_TABLE)


class _Table(dict[int, str]):
    """Translates one character, and remembers it."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        decimal = unicodedata.decimal(character, None)
        self[point] = _REPLACED.get(character, character) if decimal is None else str(decimal)
        return self[point]


_TABLE = _Table()


def _in_digits(match: re.Match[str]) -> str:
    """½ as 1/2, and 1½ as 1 1/2."""
    fraction = unicodedata.normalize("NFKC", match[2]).replace("⁄", "/")
    return f"{match[1]} {fraction}" if match[1] else fraction


def _without_spaces(text: str) -> str:
    """The text without the spaces in a number or after its sign, if there are no words beside the number."""
    if _UNWORDED.fullmatch(text) is None:
        return text
    return _SPACED_GROUPS.sub(lambda match: match[0].replace(" ", _THIN), _SPACED_SIGN.sub(r"\1", text))


@cache
def _pattern(notation: Notation) -> re.Pattern[str]:
    """One number, at a place where it is not part of a name, date, time, version, exponent, index or expression.

    A date, time or version is one match, with a group of its own, so that nothing inside it is found.
    """
    word, letter = spaced(), spaced(r"\d_")
    currency = "[$¢-¥֏؋৲৳฿₠-₿﷼﹩＄￠￡￥￦]"
    before = rf"(?<!{word})(?<![\^_/√±])(?<!±\s)(?<!\d[.:])(?<![\^_]\{{)(?<!\^[-+])(?<!\^\{{[-+])(?<!\\sqrt\{{)(?<!{letter}-)"
    sign = rf"(?:(?<!{word})(?<![)\]}}%])(?P<sign>[-+])(?:{currency}\s?)?)?"
    forms = (
        rf"(?:(?P<whole>{_INTEGER})\s?)?\\frac\s?{_NUMERATOR}\s?{_DENOMINATOR}",
        r"(?P<units>\d{1,3})\s(?P<part>\d++)\s?/\s?(?P<of>\d++)",
        rf"(?P<over>{_MAGNITUDE})\s?/\s?(?P<under>{_MAGNITUDE})",
        rf"(?P<alone>{_MAGNITUDE})",
    )
    variable = rf"[A-Za-z](?<![{_UNIT_LETTERS}])(?!{word})"
    after = (
        rf"(?!\d|[.:]\d|\s?/\s?\d|{letter}\d|{variable}|[⁺⁻]?[{_SUPERSCRIPTS}]|\s?\*\*\s?[-+]?\d"
        r"|\s?\^(?!\s?\{?\s?(?:\\circ|°))|\s?(?:\\(?:pi|sqrt|frac)|[π√]))"
    )
    percent = _HUNDREDTHS if notation.hundredths else r"\s?%"
    number = rf"(?=[-+.\d\\]){before}{sign}(?:{'|'.join(forms)})(?P<percent>{percent})?{after}"
    dated = f"{_DATED}|{_SWAPPED_VERSION}" if notation.decimal_comma else _DATED
    return re.compile(rf"(?P<dated>(?=\d)(?<!\d)(?:{dated}))|{number}")


def _value(match: re.Match[str], notation: Notation) -> Fraction | None:
    """The value of a match of `_pattern`; None if it is out of range or divides by zero."""
    part = match.groupdict()
    if len(match[0]) > _LONGEST or part["dated"] is not None:
        return None
    if part["alone"] is not None:
        value = _magnitude(part["alone"])
    elif part["over"] is not None:
        value = _ratio(part["over"], part["under"])
    elif part["units"] is not None:
        value = _ratio(part["part"], part["of"])
        if value is not None and value < 1:  # 1 1/2; but in "of 20 3/2" they are two numbers
            value += int(part["units"])
    else:
        value = _ratio(part["top"] or part["top_digit"], part["bottom"] or part["bottom_digit"])
        if value is not None and part["whole"] is not None:
            value += _plain(part["whole"])
    if value is None:
        return None
    value = -value if part["sign"] == "-" else value
    return value * _share(part["percent"]) if part["percent"] and notation.hundredths else value


def _share(sign: str) -> Fraction:
    """What 1 of a sign or word for percent or per mille is."""
    return Fraction(1, 10_000 if "‱" in sign else 1000 if _PER_MILLE.search(sign) else 100)


def _ratio(top: str, bottom: str) -> Fraction | None:
    over, under = _magnitude(top), _magnitude(bottom)
    return None if over is None or not under else over / under


def _magnitude(text: str) -> Fraction | None:
    """The value of an optional sign, a decimal number and an optional power of ten."""
    sign, text = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    text = text if text.isascii() else _RAISED.sub(lambda match: f"^{match[0].translate(_LOWERED)}", text)
    if _DIGITS.fullmatch(text):
        return sign * _plain(text)
    power = _POWER.fullmatch(text)
    assert power is not None, f"{text!r} is not a number"
    exponent = int(power["exponent"])
    if abs(exponent) > _LARGEST_EXPONENT:
        return None
    return sign * _plain(power["factor"] or "1") * Fraction(10) ** exponent


_RAISED = re.compile(rf"[⁺⁻{_SUPERSCRIPTS}]+")
_LOWERED = str.maketrans(f"{_SUPERSCRIPTS}⁺⁻", "0123456789+-")
_DIGITS = re.compile(rf"[\d.,'_{_THIN}]+")
_POWER = re.compile(
    rf"(?:(?P<factor>[\d.,'_{_THIN}]+)(?:[eE]|\s?[×*xX]\s?(?=10)))?(?:10\s?(?:\^|\*\*)[\s{{]*)?(?P<exponent>[-+]?\d+)[\s}}]*"
)


def _plain(text: str) -> Fraction:
    """The value of digits with separators and at most one decimal point."""
    whole, _, fraction = re.sub(rf"[,'_{_THIN}]", "", text).partition(".")
    return Fraction(int(f"{whole}{fraction}" or "0"), 10 ** len(fraction))
