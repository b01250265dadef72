"""The numbers of a text, in digits and in English words, to check that two texts state the same ones.

A number is represented by its value: `1,000`, `1000` and `a thousand` are all "1000", `21st` and `twenty-first` are "21", `50 %`
and `fifty percent` are "50%". A token with digits after letters (`x86`, `H1N1`, `3.11.2`) is a name and is kept in lower case.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from limbeck.corpus.text.words import alone, is_plain, run_of, spaced

_UNITS = "one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {"zero": 0} | {w: i for i, w in enumerate(_UNITS + _TEENS, 1)} | {w: 10 * i for i, w in enumerate(_TENS, 2)}
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
_ORDINALS |= {
    f"{w}th": _VALUES[w] for w in _UNITS + _TEENS if w not in ("one", "two", "three", "five", "eight", "nine", "twelve")
}
_ORDINALS |= {f"{w[:-1]}ieth": _VALUES[w] for w in _TENS}
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "bn": 9, "trillion": 12}  # powers of ten
_OPTIONAL = {"one": "1", "first": "1", "second": "2", "third": "3"}  # "no one", "at first", "ten seconds", "a third party"

_TOKEN = (
    r"(?P<name>(?<!WORD)(?<!\.)\d+(?:\.\d+){2,}(?!WORD))"
    r"|(?P<digits>(?:(?<!WORD)(?<![)\]])[-−])?(?:\d{1,3}(?:[,\u00a0\u202f]\d{3})+(?!\d)|\d+)(?:\.\d+)?"
    r"|(?<!WORD)(?<!\.)\.\d+)"
    r"|(?P<word>RUN)"
    r"|(?P<percent>[%％٪])"
    r"|(?P<joint>[ \t\n\u00a0\u202f]+|-)"
    r"|(?P<other>.)"
)


@dataclass(frozen=True)
class Numbers:
    """The numbers of a text: `stated` ones must occur in the other text, `possible` ones (a bare "one", "first", "half") may."""

    stated: frozenset[str]
    possible: frozenset[str]


@dataclass(frozen=True)
class Reading:
    """A number of a text by value, the characters [start, end) that state it, and whether they certainly are a number."""

    value: str
    certain: bool
    start: int
    end: int


def numbers(text: str) -> Numbers:
    """Return the numbers of a text by value. O(length)."""
    stated: set[str] = set()
    possible: set[str] = set()
    for reading in readings(text):
        (stated if reading.certain else possible).add(reading.value)
    return Numbers(frozenset(stated), frozenset(possible))


def readings(text: str) -> list[Reading]:
    """Return the numbers of a text in order, repeated ones too. O(length)."""
    matches = list(_tokens_of(text))
    tokens = [_token(match.lastgroup or "", match[0].lower()) for match in matches]
    return [Reading(value, certain, matches[at].start(), matches[end - 1].end()) for value, certain, at, end in _read(tokens)]


def missing(ours: Numbers, theirs: Numbers) -> list[str]:
    """The numbers stated in `ours` that do not occur in `theirs`, sorted."""
    return sorted(ours.stated - theirs.stated - theirs.possible)


def _read(tokens: list[tuple[str, str]]) -> Iterator[tuple[str, bool, int, int]]:
    """Yield (value, whether it is certainly a number, its first token, the one after its last) in order."""
    place = 0
    while place < len(tokens):
        kind, token = tokens[place]
        value, end = None, place + 1
        if kind == "name":
            yield token, True, place, end
        elif kind == "digits":
            value, end = _scaled(tokens, _plain(token), end)
        elif kind == "word" and (token in _VALUES or token in _ORDINALS or _starts_with_article(tokens, place)):
            value, end = _in_words(tokens, place)
            if token in _OPTIONAL and end == place + 1 and not _percent_end(tokens, end):
                yield _OPTIONAL[token], False, place, end
                value = None
        elif token == "half":
            yield "0.5", False, place, end
            yield "50%", False, place, end
        if value is not None:
            after_percent = _percent_end(tokens, end)
            end = after_percent or end
            yield (f"{value}%" if after_percent else value), True, place, end
        place = end


def _tokens_of(text: str) -> Iterator[re.Match[str]]:
    return (_pattern_of_words() if is_plain(text) else _pattern_of_all_scripts()).finditer(text)


@cache
def _pattern_of_words() -> re.Pattern[str]:
    return re.compile(_TOKEN.replace("WORD", r"\w").replace("RUN", r"[^\W\d]\w*"), re.DOTALL)


@cache
def _pattern_of_all_scripts() -> re.Pattern[str]:
    """A number touches no word if the character beside it is a word of its own."""
    run = rf"(?!\d){run_of()}|{alone()}"
    return re.compile(_TOKEN.replace("WORD", spaced()).replace("RUN", run), re.DOTALL)


def _token(kind: str, text: str) -> tuple[str, str]:
    if kind == "joint":
        return kind, " "
    if kind == "percent":
        return kind, "%"
    return ("name" if kind == "word" and any(c.isdecimal() for c in text) else kind), text


def _in_words(tokens: list[tuple[str, str]], place: int) -> tuple[str, int]:
    """Return the value of the number in words that starts at `place`, and the position after it."""
    total, group, end, scale, ended = 0, -1, place, 99, False  # group: the value before the next scale word; -1: none
    following = place
    while not ended and following < len(tokens):
        kind, word = tokens[following]
        if kind != "word":
            break
        if word in ("a", "an") and end == place:
            group = 1
        elif word == "hundred" and 1 <= group <= 99:
            group *= 100
        elif word in _SCALES and group >= 0 and _SCALES[word] < scale:
            scale = _SCALES[word]
            total, group = total + group * 10**scale, -1
        elif (word in _VALUES or word in _ORDINALS) and _adds(group, _VALUES.get(word, _ORDINALS.get(word, 0))):
            group = max(group, 0) + _VALUES.get(word, _ORDINALS.get(word, 0))
            ended = word in _ORDINALS
        else:
            break
        end = following + 1
        following = _next_word(tokens, end, word == "hundred" or word in _SCALES)
    return str(total + max(group, 0)), end


def _adds(group: int, value: int) -> bool:
    """Whether `value` below a hundred can follow `group`, as seven follows a hundred and twenty but not seventeen."""
    if group < 0:
        return True
    if group == 0 or value == 0:
        return False
    return group % 100 == 0 or (value < 10 and group % 10 == 0 and group % 100 >= 20)


def _next_word(tokens: list[tuple[str, str]], end: int, round_number: bool) -> int:
    """The position of the word after the joint at `end`, past an "and" after a round number; past the end if there is none."""
    if end >= len(tokens) or tokens[end][0] != "joint":
        return len(tokens)
    joined = [token for _, token in tokens[end + 1 : end + 4]]
    if round_number and joined[:2] == ["and", " "] and len(joined) == 3 and joined[2] in _VALUES:
        return end + 3
    return end + 1


def _starts_with_article(tokens: list[tuple[str, str]], place: int) -> bool:
    """Whether "a hundred", "a thousand" or "a million" starts here."""
    following = tokens[place + 1 : place + 3]
    return (
        tokens[place][1] in ("a", "an")
        and [kind for kind, _ in following] == ["joint", "word"]
        and (following[1][1] == "hundred" or following[1][1] in _SCALES)
    )


def _scaled(tokens: list[tuple[str, str]], value: str, end: int) -> tuple[str, int]:
    """Multiply a number in digits by the scale word after it, if any; return it and the position after it."""
    following = end + 1 if end < len(tokens) and tokens[end][0] == "joint" else end
    if following < len(tokens) and tokens[following][0] == "word":
        word = tokens[following][1]
        if word == "hundred" or word in _SCALES:
            return _shifted(value, _SCALES.get(word, 2)), following + 1
        if following == end:  # a unit without a space: 5kg, 21st, 1990s
            return value, end + 1
    return value, end


def _percent_end(tokens: list[tuple[str, str]], end: int) -> int:
    """The position after the per cent sign (or word) at `end`; 0 if there is none."""
    following = end + 1 if end < len(tokens) and tokens[end][0] == "joint" else end
    rest = [token for _, token in tokens[following : following + 3]]
    if rest[:1] == ["%"] or rest[:1] == ["percent"]:
        return following + 1
    return following + 3 if rest == ["per", " ", "cent"] else 0


def _plain(digits: str) -> str:
    """The shortest notation of digits' value: no separators, no redundant zeros."""
    sign = "-" if digits[0] in "-−" else ""
    ascii_digits = "".join(c if c == "." else str(unicodedata.decimal(c, "")) for c in digits)
    whole, _, fraction = ascii_digits.partition(".")
    value = _join(whole, fraction)
    return value if value == "0" else sign + value


def _shifted(value: str, power: int) -> str:
    """`value` times ten to the `power`, in text: any length, no rounding."""
    sign, digits = ("-", value[1:]) if value.startswith("-") else ("", value)
    whole, _, fraction = digits.partition(".")
    fraction = fraction.ljust(power, "0")
    return sign + _join(whole + fraction[:power], fraction[power:])


def _join(whole: str, fraction: str) -> str:
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole
