"""The numbers of the invention measure: by value, whatever their notation, their unit and their sign."""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from limbeck.corpus.text.invention.ordinary import COUNTED, FOREIGN, MONTHS
from limbeck.corpus.text.numbers import readings
from limbeck.corpus.text.words import WORD

_GROUPED = re.compile(r"(?<=\d)['_](?=\d{3}(?!\d))")
_INDIAN = re.compile(r"(?<![\d.,])\d{1,2}(?:,\d{2})+,\d{3}(?!\d)(?![.,]\d)")
_VERSION_MARK = re.compile(r"(?<![^\W_])[vV]\.?(?=\d)")
_POINTS = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+(?!\d)(?![.,]\d)")
_SPACED = re.compile(r"(?<![\d.,] )(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)(?![.,]\d)")
_COMMA = re.compile(r"(?<![\d.,])(\d++),(\d++)(?!\d)(?![.,]\d)")
_POINTS_AND_COMMA = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d+(?!\d)(?![.,]\d)")
_DOTTED = re.compile(r"(?<!\d)\d++(?:\.\d++)+")
_SUFFIX = re.compile(r"\d\s?([kKmMbBgGtT])(?:\b|_)")
_POWERS = {"k": 3, "m": 6, "b": 9, "g": 9, "t": 12}
_LONGEST_VERSION = 8  # parts
_FRACTION = re.compile(r"(?<![\d./])(\d{1,3})/(\d{1,3})(?![\d./])")
_HAN = {character: value for value, character in enumerate("〇一二三四五六七八九")} | {"零": 0, "两": 2, "兩": 2}
_HAN_POWERS = {"十": 10, "百": 100, "千": 1000}
_HAN_NUMBER = re.compile(f"[{''.join(_HAN)}{''.join(_HAN_POWERS)}]{{1,24}}[万萬億亿]?")
_ROMAN = re.compile(r"X{0,3}(?:IX|IV|V?I{0,3})")
ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10}


def spans(text: str) -> Iterator[tuple[int, int, set[str]]]:
    """Yield the numbers that a text states, in order: start, end, and the values any of which a document may have for it.

    `text` has the form of `readable`.
    """
    bare = _plain(text)
    for reading in readings(bare):
        if reading.certain and not any(map(str.isalpha, reading.value)):
            yield reading.start, reading.end, _values(reading.value, bare[reading.start : reading.end])


def wholes(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield what `spans` may read as several numbers, but is perhaps one: start, end and its value (`1 000`, `3,5`)."""
    bare = _plain(text)
    for pattern, separator in ((_SPACED, " "), (_INDIAN, ",")):
        for match in pattern.finditer(bare):
            yield match.start(), match.end(), _shortest(match[0].replace(separator, ""))
    for match in _COMMA.finditer(bare):
        yield match.start(), match.end(), _shortest(f"{match[1]}.{match[2]}")
    for match in _POINTS_AND_COMMA.finditer(bare):
        yield match.start(), match.end(), _shortest(match[0].replace(".", "").replace(",", "."))
    for match in _FRACTION.finditer(bare):
        if int(match[2]):
            yield match.start(), match.end(), f"{int(match[1]) / int(match[2]):g}"


def offered(text: str) -> frozenset[str]:
    """The values of all numbers that a document has, in any reading. `text` has the form of `readable`."""
    found: set[str] = set()
    bare = _plain(text)
    for reading in readings(bare):
        found |= _values(reading.value, bare[reading.start : reading.end])
    for _, _, value in wholes(text):
        found.add(value)
    for match in _DOTTED.finditer(bare):
        pieces = match[0].split(".")
        found.update(map(_shortest, pieces))
        for count in range(2, min(len(pieces), _LONGEST_VERSION) + 1):
            found.update((".".join(pieces[:count]), _shortest(".".join(pieces[:count]))))
    found.update(_shortest(match[0]) for match in re.finditer(r"\d+", bare))
    for _, _, word in WORD.spans(text):
        found.update(COUNTED.get(word, ()))
        found.update(value for table in (FOREIGN, MONTHS) if (value := str(table.get(word, ""))))
    for match in re.finditer(r"(?<![^\W_])[IVX]+(?![^\W_])", text):
        if number := roman(match[0]):
            found.add(str(number))
    found.update(str(_han(match[0])) for match in _HAN_NUMBER.finditer(text))
    return frozenset(found)


def roman(word: str) -> int:
    """The value of a Roman numeral up to 39; 0 if it is none."""
    if not word or not _ROMAN.fullmatch(word):
        return 0
    values = [ROMAN_DIGITS[letter] for letter in word]
    return sum(-value if value < max(values[at:]) else value for at, value in enumerate(values))


def _plain(text: str) -> str:
    """The text with the separators that `corpus.text.numbers` knows, and without version marks; no character moves."""
    return _VERSION_MARK.sub(lambda match: " " * len(match[0]), _GROUPED.sub(",", text))


def _values(value: str, written: str) -> set[str]:
    """The value without its sign and per cent sign, and the other readings of how it is written."""
    percent = value.endswith("%")
    value = value.removesuffix("%").removeprefix("-")
    found = {value}
    while value.endswith(".0") and value.count(".") > 1:  # 1.0.0 is version 1.0, but not every 1
        value = value.removesuffix(".0")
        found.add(value)
    if percent and value.count(".") < 2:
        found.add(f"{float(value) / 100:g}")
    if match := _POINTS.search(written):
        found.add(_shortest(match[0].replace(".", "")))
    if (match := _SUFFIX.search(written)) and value.count(".") < 2:
        found.add(_shifted(value, _POWERS[match[1].lower()]))
    return found


def _shifted(value: str, power: int) -> str:
    whole, _, fraction = value.partition(".")
    fraction = fraction.ljust(power, "0")
    return _shortest(f"{whole}{fraction[:power]}.{fraction[power:]}")


def _shortest(number: str) -> str:
    """A number in digits of any script, without needless zeros."""
    number = "".join(c if c == "." else str(unicodedata.decimal(c, "")) for c in number)
    if number.count(".") != 1:
        return number.removesuffix(".0") if "." in number else number.lstrip("0") or "0"
    whole, _, fraction = number.partition(".")
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")


@cache
def _han(number: str) -> int:
    """The value of a number in Chinese characters: 十二 is 12, 二〇二四 is 2024, 三万 is 30000."""
    scale = {"万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8}.get(number[-1], 1)
    number = number if scale == 1 else number[:-1]
    if all(character in _HAN for character in number):
        return int("".join(str(_HAN[character]) for character in number)) * scale
    total, digit = 0, -1
    for character in number:
        if character in _HAN:
            digit = _HAN[character]
        else:
            total += (1 if digit < 0 else digit) * _HAN_POWERS[character]
            digit = -1
    return (total + max(digit, 0)) * scale
