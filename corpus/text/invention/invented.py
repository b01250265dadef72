"""The names and numbers of an output that its document does not contain: a measure of invention that needs no model.

It is lenient: what is perhaps an ordinary word, or perhaps another form of something in the document, is not reported. The rules,
and what they miss, are in docs/filters/invention.md.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from limbeck.corpus.text.invention import amounts
from limbeck.corpus.text.invention.ordinary import (
    ABSTRACT_ENDINGS,
    ENGLISH,
    FINITE_VERBS,
    GERMAN,
    MASS_ENDINGS,
    NOT_NAMED,
    ORDINARY,
    UNITS,
)
from limbeck.corpus.text.invention.readable import TOKENS, key_of, pieces, readable, written_in
from limbeck.corpus.text.invention.stock import Stock, stock_of
from limbeck.corpus.text.invisible import is_blank
from limbeck.corpus.text.words import SENTENCE_STOPS, one_line

_MASK = "|"  # joins neither words nor numbers
_ADDRESS = re.compile(
    r"(?<![a-z0-9+.-])(?:[a-z][a-z0-9+.-]*://|www\.)[^\s<>\"'|\])}]+|(?<![\w.+-])[\w.+-]++@[\w-]+(?:\.[\w-]+)+", re.IGNORECASE
)
_SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*://)?(?:www\.)?", re.IGNORECASE)
_ORDINAL = re.compile(
    r"(?m)^(?:[^\w\n]*)(?:(?:step|part|option|example|figure|point|tip|note|question|answer|q|a)[^\S\n]*)?\(?(\d{1,3})[.):](?=\s|\*|$)",
    re.IGNORECASE,
)
_RUNNING_ORDINAL = re.compile(r"(?<!\S)\(?(\d{1,2})[.)](?=\s)|\((\d{1,2})\)")
_QUOTED = re.compile(r"[「『《〈]([^「」『』《》〈〉\n。！？]{2,20})[」』》〉]")
_TRANSLITERATED = re.compile(r"(?<=[\u3400-\u9fff])·(?=[\u3400-\u9fff])")
_BREAK = re.compile(rf"[\n.!?:…•|{SENTENCE_STOPS}]")
_OPENING = re.compile(r"[\"“”„«»‹›'(\[{「『《〈]\s*[*_]*$")
_CLOSING = re.compile(r"[*_]*[\"“”»«‹›')\]}」』》〉]")
_TITLE_PUNCTUATION = re.compile(r"[,;.!?]")
_NUMBER_WITH_SUFFIX = re.compile(r"\d+[^\W\d_]*")
_JOINT = re.compile(r"[^\S\n]+|[-./]")
_CUT_OFF = re.compile(r"[^\W_][\w.]*\Z")
_LONGEST_ACRONYM = 6
_SHARE_OF_TITLE = 0.75


@dataclass(frozen=True)
class _Word:
    """A word of an output, without the text after an apostrophe; `initial`: where any word may have a capital."""

    text: str
    start: int
    end: int
    initial: bool
    quoted: bool  # alone in quotation marks or brackets

    @property
    def unusual(self) -> bool:
        """Whether no ordinary word is written so: an acronym, capitals inside, letters with digits or underscores."""
        text = self.text.strip("_")
        if not text or _NUMBER_WITH_SUFFIX.fullmatch(text):
            return False
        if "_" in text or any(map(str.isdecimal, text)):
            return any(map(str.isalpha, text))
        if text.isupper():
            return len(text) > 1
        return any(map(str.isupper, text[1:])) and any(map(str.islower, text))

    @property
    def capitalised(self) -> bool:
        """Whether it begins with a capital and has more than one letter."""
        return len(self.text) > 1 and (self.text[0].isupper() or self.text[0].istitle())


def invented(document: str, output: str) -> list[str]:
    """Return the names and numbers of an output that its document lacks, in their order, each once.

    Words that follow each other are one name. O(characters of both); a document is read once for its consecutive outputs.
    """
    if is_blank(output):
        return []
    stock = stock_of(document)
    text = readable(output)
    found = list(_quotations(text, stock))
    text, addresses = _without_addresses(text, stock)
    found += addresses
    found += _names(text, stock)
    found += _numbers(_without_ordinals(text), stock, found)
    if (last := _CUT_OFF.search(text)) and stock.begins(last[0]):
        found = [(start, end) for start, end in found if end <= last.start()]
    return list(dict.fromkeys(_joined(readable(output), sorted(set(found)))))


def _quotations(text: str, stock: Stock) -> Iterator[tuple[int, int]]:
    """Titles and terms in the brackets of Chinese and Japanese, and the middle of transliterated names."""
    if text.isascii():
        return
    for match in _QUOTED.finditer(text):
        if not stock.quotes(match[1]):
            yield match.start(1), match.end(1)
    for match in _TRANSLITERATED.finditer(text):
        if not stock.quotes(text[match.start() - 1 : match.end() + 1]):
            yield match.start() - 1, match.end() + 1


def _without_addresses(text: str, stock: Stock) -> tuple[str, list[tuple[int, int]]]:
    """The text without web and mail addresses, whose words are not judged, and those that the document lacks."""
    absent = []
    for match in list(_ADDRESS.finditer(text)):
        address = match[0].rstrip(".,;:!?*_/'\"")
        if not stock.quotes(_SCHEME.sub("", address)):
            absent.append((match.start(), match.start() + len(address)))
        text = text[: match.start()] + _MASK * len(match[0]) + text[match.end() :]
    return text, absent


def _without_ordinals(text: str) -> str:
    """The text without the numbers of list items: at the beginning of a line, or (1) to (n) in running text."""
    for match in _ORDINAL.finditer(text):
        text = text[: match.start(1)] + _MASK * len(match[1]) + text[match.end(1) :]
    following = 1
    for match in _RUNNING_ORDINAL.finditer(text):
        group = 1 if match[1] else 2
        if int(match[group]) == following:
            following += 1
            text = text[: match.start(group)] + _MASK * len(match[group]) + text[match.end(group) :]
    return text


def _numbers(text: str, stock: Stock, names: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    taken = [(start, end) for start, end, value in amounts.wholes(text) if value in stock.numbers] + list(names)
    for start, end, values in amounts.spans(text):
        if not values & stock.numbers and not any(first <= start and end <= last for first, last in taken):
            yield start, end


def _names(text: str, stock: Stock) -> Iterator[tuple[int, int]]:
    words = list(_words(text))
    if not words:
        return
    lower = {word.text for word in words if word.text.islower()}
    plain = written_in(text, stock.script) and not _is_german(lower)
    titled = _titled(text, words)
    spelled = _spelled(words, stock) if stock.acronyms else frozenset[int]()
    for at, word in enumerate(words):
        if (word.text.islower() and word.text.isalpha()) or at in spelled:
            continue
        if word.unusual:
            shouted = word.text.isupper() and len(word.text) > _LONGEST_ACRONYM and at in titled
            if not shouted and not _forgiven(word, text, stock) and not _written_apart(words, at, stock):
                yield word.start, word.end
        elif plain and word.capitalised and at not in titled and key_of(word.text) not in lower:
            counts = not word.initial or _is_quotation(word) or _is_subject(words, at, text)
            if counts and not _is_ordinary(word.text) and not _known(word.text, stock) and not _written_apart(words, at, stock):
                yield word.start, word.end


def _words(text: str) -> Iterator[_Word]:
    end = 0
    for match in TOKENS.finditer(text):
        gap = text[end : match.start()]
        initial = not end or _BREAK.search(gap) is not None or _OPENING.search(gap) is not None
        quoted = _OPENING.search(gap) is not None and _CLOSING.match(text, match.end()) is not None
        end = match.end()
        if "'" in match[0] and match[0].lower() in ORDINARY:
            continue
        for start, part in pieces(match.start(), match[0]):
            yield _Word(part, start, start + len(part), initial, quoted)
            initial = False


def _is_german(lower: set[str]) -> bool:
    german = len(GERMAN & lower)
    return german >= 2 and german > len(ENGLISH & lower)


def _titled(text: str, words: Sequence[_Word]) -> set[int]:
    """The words of lines, and of labels before a colon, in which nearly every word has a capital."""
    found: set[int] = set()
    line: list[int] = []
    for at, word in enumerate(words):
        gap = text[words[at - 1].end : word.start] if at else ""
        if "\n" in gap or ":" in gap:
            found.update(_of_title(text, words, line))
            line = []
        line.append(at)
    found.update(_of_title(text, words, line))
    return found


def _of_title(text: str, words: Sequence[_Word], line: Sequence[int]) -> Sequence[int]:
    if not line or _TITLE_PUNCTUATION.search(text[words[line[0]].start : words[line[-1]].end + 1]):
        return ()
    content = [at for at in line if words[at].text.isalpha() and words[at].text.lower() not in ORDINARY or words[at].capitalised]
    capitals = sum(words[at].capitalised for at in content)
    return line if capitals >= 2 and capitals >= _SHARE_OF_TITLE * len(content) else ()


def _spelled(words: Sequence[_Word], stock: Stock) -> frozenset[int]:
    """The words whose initials are an acronym of the document."""
    initials = "".join(word.text[0].casefold() for word in words)
    if len(initials) != len(words):
        return frozenset()
    found: set[int] = set()
    for acronym in stock.acronyms:
        at = initials.find(acronym)
        while at >= 0:
            if words[at].capitalised and len(acronym) > 1:
                found.update(range(at, at + len(acronym)))
            at = initials.find(acronym, at + 1)
    return frozenset(found)


def _is_subject(words: Sequence[_Word], at: int, text: str) -> bool:
    """Whether the first word of a sentence is a possessive, or a subject: a name, unless it is a mass noun or a plural."""
    if at + 1 >= len(words) or words[at].text.lower().endswith(MASS_ENDINGS):
        return False
    gap = text[words[at].end : words[at + 1].start].strip('*_`"”)')
    if words[at + 1].text == "s":
        return gap == "'"
    return words[at + 1].text in FINITE_VERBS and gap.isspace() and "\n" not in gap


def _is_quotation(word: _Word) -> bool:
    return word.quoted and not word.text.lower().endswith(MASS_ENDINGS)


def _is_ordinary(word: str) -> bool:
    lower = word.lower()
    return lower in ORDINARY or lower in NOT_NAMED or lower.endswith(ABSTRACT_ENDINGS)


def _known(word: str, stock: Stock) -> bool:
    return stock.has(word) or stock.has_form(word) or stock.has_date(word)


def _written_apart(words: Sequence[_Word], at: int, stock: Stock) -> bool:
    """Whether the document has the word joined with its neighbours: "Beautiful Soup" and beautifulsoup4."""
    return any(
        stock.has("".join(word.text for word in words[first:last]))
        for first in range(max(0, at - 2), at + 1)
        for last in range(max(at + 1, first + 2), min(len(words), first + 3) + 1)
    )


def _forgiven(word: _Word, text: str, stock: Stock) -> bool:
    """Whether a word that is written like no ordinary one is in the document, or is an acronym, a unit or a numeral of it."""
    name = word.text.strip("_")
    lower = name.lower()
    if stock.has(name) or stock.has_plural(name) or (name.isupper() and name.isalpha() and _is_ordinary(name)):
        return True
    if name.isalpha() and name.isupper():
        numeral = amounts.roman(name)
        unit = lower in UNITS and text[: word.start].rstrip(" -")[-1:].isdecimal()
        known = (numeral and str(numeral) in stock.numbers) or stock.spells(name) or stock.has_date(name)
        return bool(unit or known) or (len(name) > _LONGEST_ACRONYM and stock.has_form(name))
    if name.endswith("s") and name[:-1].isupper() and (stock.has(name[:-1]) or stock.spells(name[:-1])):
        return True
    if name[:1] in "vV" and name[1:].isdecimal():
        return True  # a version, read as a number
    abbreviates = len(name) <= _LONGEST_ACRONYM and sum(map(str.isupper, name)) * 2 >= len(name) and stock.spells(name)
    return abbreviates or (name.isalpha() and stock.has_long_form(name))


def _joined(text: str, found: Sequence[tuple[int, int]]) -> Iterator[str]:
    """The found spans as texts; those that only a space, a hyphen, a point or a slash separates are one."""
    start, end = -1, -1
    for first, last in found:
        if start >= 0 and (first <= end or _JOINT.fullmatch(text, end, first)):
            end = max(end, last)
            continue
        if start >= 0:
            yield one_line(text[start:end])
        start, end = first, last
    if start >= 0:
        yield one_line(text[start:end])
