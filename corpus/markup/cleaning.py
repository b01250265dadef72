"""Convert a marked-up README to paragraphs of readable prose."""

import re
from collections.abc import Sequence

from limbeck.corpus.markup.blocks import Block
from limbeck.corpus.markup.markdown import markdown_blocks
from limbeck.corpus.markup.restructured import rst_blocks
from limbeck.corpus.sentences import split_sentences
from limbeck.corpus.text.invisible import stripped
from limbeck.corpus.text.words import Words, is_mark, is_plain

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffc-\uffff\ue000-\ue00f]")
_WORD = Words(without="_")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_URL = re.compile(r"(?:https?|ftp|git)://\S+|www\.\S+|\S+@\S+\.\w+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|dev|ai)\b\S*")
_VERSION = re.compile(r"v?\d+(?:\.\d+)+\S*(?:\W.*)?", re.S)  # the heading of a release
_BAR = re.compile(r"\s[|•·]\s|^[|•·]\s|\s[|•·]$")  # between the links of a navigation bar, or the cells of a table

_SECTION = (
    r"(?:table of )?contents|(?:quick |useful )?links|(?:project )?resources|badges|licen[cs](?:e|es|ing)(?: information)?|"
    r"copyright|legal|disclaimer|trademarks?|security(?: .*)?|code of conduct|(?:how to )?contribut(?:e|ing|ions?|ors?)|"
    r"authors?|credits?|acknowledge?ments?|(?:core )?maintainers?|citation|citing.*|how to cite.*|references|thanks|"
    r"(?:\w+ )?sponsors?(?:hip)?|backers|funding|donat(?:e|ions?)|support(?:ing)?|community(?: .*)?|contact|"
    r"bugs?|bug reports?|(?:reporting )?issues|feedback|(?:getting |for )?help|documentation|docs|translations?|"
    r"change ?log|changes|release notes|history|news|what'?s new|releas(?:es?|ing)|(?:project )?status|"
    r"(?:source )?code|source|development(?: .*)?|developing|(?:running (?:the )?)?tests|testing|build(?:ing)?(?: from source)?|"
    r"download(?:s|ing)?|dependencies|prerequisites|(?:system )?requirements|who uses.*|used by|see also|further reading"
)
_SKIPPED_SECTION = re.compile(
    rf"(?i)(?:(?:{_SECTION})(?:\s+(?:and|or)\s+(?:the\s+)?(?:{_SECTION}))*|(?:quick )?(?:how to )?install(?:ation|ing)?\b.*)"
)

_BOILERPLATE = re.compile(
    r"(?i)\b(?:pip3?|conda|mamba|brew|apt|apt-get|uv|npm|cargo|poetry) (?:install|add)\b|"
    r"^(?:licen[cs]ed|distributed|released) under\b|^(?:copyright\b|\(c\)|©)|\bunder the (?:terms|conditions) of\b|"
    r"^all rights reserved|\blicen[cs]e\b.{0,60}\bfile\b|^(?:apache|mit|bsd|gpl)\b.{0,30}\blicen[cs]e\b"
)
_POINTER = re.compile(
    r"(?i)^(?:please )?(?:see|read|visit|check (?:out|the)|refer to|consult|click|learn more|read more|more (?:info|details)|"
    r"for (?:more|further|additional|full|the full|complete)\b.{0,40}(?:see|visit|check|refer|read|consult)|(?:you can )?find|"
    r"to (?:learn|read|find out) more|(?:the )?(?:full |complete |latest )?documentation (?:is|can be|may be))\b"
)
_POINTER_WORDS = 18  # a longer sentence of that kind has content of its own
_MIN_WORDS = 3  # minimum for a paragraph that does not introduce a list
_MOSTLY = 0.6  # share of letters and whitespace in prose


def clean_text(text: str) -> str:
    """Plain text without control characters, carriage returns, and leading or trailing whitespace of the text and its lines.

    "" if no character is visible.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return stripped(re.sub(r"[^\S\n]+\n", "\n", _CONTROL.sub("", text)))


def clean_markup(text: str, content_type: str = "") -> str:
    """The prose of a README: paragraphs separated by blank lines, list items on lines that begin with "- "; or "".

    `content_type` is that of the metadata (`text/markdown`, `text/x-rst`, `text/plain`); "" guesses it. Code, tables, headings,
    badges, link targets, and the sections and sentences that every README has (installation, licence, location of the
    documentation) are omitted.
    """
    text = clean_text(text)
    blocks = markdown_blocks(text) if _is_markdown(text, content_type) else rst_blocks(text)
    return _join(_prose(_without_skipped_sections(blocks)))


def without_verbatim(document: str, phrase: str) -> str:
    """Remove every sentence of `document` that contains `phrase`, or a part of it that continues in the next sentence.

    Letter case, whitespace and punctuation are ignored; a phrase without words removes nothing. Linear time per removal.
    """
    wanted = [match[0].casefold() for match in _WORD.finditer(phrase)]
    while wanted and (span := _find(document, wanted)):
        start, end = _sentence_around(document, *span)
        before, after = document[:start].rstrip(" "), document[end:].lstrip(" ")
        joint = "" if not before or before.endswith("\n") or after.startswith("\n") else " "
        document = re.sub(r"\n{3,}", "\n\n", before.removesuffix("- ").removesuffix("-") + joint + after).strip()
    return document


def _find(document: str, wanted: Sequence[str]) -> tuple[int, int] | None:
    """The character span of the first run of words in `document` that equals `wanted`."""
    words = list(_WORD.finditer(document))
    spaced = [match[0].casefold() for match in words]
    haystack, needle = "\n" + "\n".join(spaced) + "\n", "\n" + "\n".join(wanted) + "\n"
    at = haystack.find(needle)
    if at < 0:
        return None
    first = haystack.count("\n", 0, at)
    return words[first].start(), words[first + len(wanted) - 1].end()


def _sentence_around(document: str, start: int, end: int) -> tuple[int, int]:
    cursor = 0
    low, high = start, end
    for sentence in split_sentences(document):
        at = document.index(sentence, cursor)
        cursor = at + len(sentence)
        if at <= start < cursor:
            low = at
        if at < end <= cursor:
            return low, cursor
    return low, high


def _is_markdown(text: str, content_type: str) -> bool:
    kind = content_type.split(";")[0].strip().lower()
    if kind:
        return kind == "text/markdown"
    rst = len(re.findall(r"(?m)^\.\. |::$|^(?:={4,}|-{4,})$|`_\b", text))
    return len(re.findall(r"(?m)^#{1,4} |^```|\]\(http", text)) > rst


def _without_skipped_sections(blocks: Sequence[Block]) -> list[Block]:
    kept: list[Block] = []
    skipping: int | None = None  # the level of the heading whose section is being skipped
    for block in blocks:
        if block.kind == "heading":
            if skipping is None or block.level <= skipping:
                title = re.sub(r"[^\w']+", " ", block.text.replace("&", " and ")).strip().lstrip("0123456789 ")
                skipped = _SKIPPED_SECTION.fullmatch(title) or _VERSION.fullmatch(block.text)
                skipping = block.level if skipped else None
        if skipping is None:
            kept.append(block)
    return kept


def _prose(blocks: Sequence[Block]) -> list[Block]:
    """The paragraphs and items worth reading, in order, without the sentences that introduce removed content."""
    kept: list[Block] = []
    gap = True  # whether the following content was removed
    for block in reversed(blocks):
        sentences = split_sentences(block.text) if block.kind in ("text", "item") else []
        if gap and sentences and sentences[-1].endswith((":", "：")):
            sentences.pop()
        text = " ".join(sentence for sentence in sentences if not _is_boilerplate(sentence))
        too_few = _words_of_letters(text) < (_MIN_WORDS if block.kind == "text" and not text.endswith(":") else 1)
        gap = too_few or not _mostly_letters(text) or len(_BAR.findall(text)) > 1
        if not gap:
            kept.append(Block(block.kind, text))
    return kept[::-1]


def _is_boilerplate(sentence: str) -> bool:
    words = _words_of_letters(_URL.sub("", sentence))
    if _URL.search(sentence) and words < 8:
        return True
    return bool(_BOILERPLATE.search(sentence)) or (words <= _POINTER_WORDS and bool(_POINTER.match(sentence)))


def _mostly_letters(text: str) -> bool:
    marks = 0 if is_plain(text) else sum(map(is_mark, text))
    return sum(character.isalpha() or character.isspace() for character in text) + marks >= _MOSTLY * len(text)


def _words_of_letters(text: str) -> int:
    """The number of words of at least two letters; in scripts written without spaces, of characters."""
    if is_plain(text):
        return len(_LETTERS.findall(text))
    return sum(not is_plain(word[0]) or _LETTERS.search(word[0]) is not None for word in _WORD.finditer(text))


def _join(blocks: Sequence[Block]) -> str:
    pieces: list[str] = []
    previous = ""
    for block in blocks:
        if pieces:
            pieces.append("\n" if block.kind == previous == "item" else "\n\n")
        pieces.append(f"- {block.text}" if block.kind == "item" else block.text)
        previous = block.kind
    return "".join(pieces)
