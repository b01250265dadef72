"""Sentence ends, and cutting a document at one. All functions take time linear in the text.

The rules for `.!?…` (abbreviations, initials) are those of English. The stops of other scripts always end a sentence.
"""

import re
from bisect import bisect_right

from limbeck.corpus.text.words import CLOSERS, SENTENCE_STOPS, ends_of_characters
from limbeck.corpus.tokenizer import Tokenizer

_END = re.compile(rf"[.!?…]+[\"'”’)\]]*(?=\s|$)|(?P<other>[{SENTENCE_STOPS}][{SENTENCE_STOPS}!?…]*[{CLOSERS}]*)")
_PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=- )")
_OPENERS = "\"'“‘([*_-"
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘]*$")
_ABBREVIATIONS = frozenset(
    """
        e.g i.e eg ie vs cf al viz ca mr mrs ms dr prof st sr jr inc ltd co corp no nos fig figs eq eqs sec ch vol pp
        p ed eds approx dept est gen col sgt capt rep sen gov rev hon jan feb mar apr jun jul aug sep sept oct nov dec
        u.s u.k a.k.a resp incl max min univ assn intl
    """.split()
)
_MAY_END = frozenset(["etc", "a.m", "p.m", "no", "co", "max", "min", "mar", "sec", "est"])  # an end if a capital follows
_LONG_WORD = 5
_CHARACTERS_PER_TOKEN = 12  # first guess of how much text to tokenise; increased if too small


def sentence_ends(text: str) -> list[int]:
    """Offsets directly after each sentence (its stop and closing quotes), ascending; an unfinished last sentence has none."""
    return [match.end() for match in _END.finditer(text) if _ends(text, match)]


def ends_like_a_sentence(text: str) -> bool:
    """Whether a text, without whitespace around it, ends with a sentence; an empty one does not."""
    text = text.strip()
    return bool(text) and sentence_ends(text)[-1:] == [len(text)]


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, stripped; paragraphs end sentences too."""
    breaks = sorted({0, len(text), *sentence_ends(text), *(match.start() for match in _PARAGRAPH_END.finditer(text))})
    pieces = (text[start:end].strip() for start, end in zip(breaks, breaks[1:], strict=False))
    return [piece for piece in pieces if piece]


def cut(text: str, tokenizer: Tokenizer, max_tokens: int | None) -> tuple[str, int]:
    """Return the longest prefix of `text` that ends with a sentence and has at most `max_tokens` tokens, and its token count.

    If the first sentence is too long, the cut is between two paragraphs, or between two words; if there is hardly a
    space, between two characters of a script written without spaces. A text whose first word is too
    long is returned empty, with 0 tokens.
    """
    if max_tokens is None:
        return text, tokenizer.count([text])[0]
    window = max_tokens * _CHARACTERS_PER_TOKEN
    while True:
        head = text[:window]
        offsets = [end for start, end in tokenizer.encode_with_offsets(head)[1] if end > start]
        if len(offsets) > max_tokens or window >= len(text):
            break
        window *= 4
    if window >= len(text) and (tokens := tokenizer.count([text])[0]) <= max_tokens:
        return text, tokens
    limit = offsets[min(max_tokens, len(offsets)) - 1] if offsets else 0
    for end in _cut_places(head, limit):
        piece = head[:end].rstrip()
        if piece and (tokens := tokenizer.count([piece])[0]) <= max_tokens:  # a tokenizer may split a shorter text differently
            return piece, tokens
    return "", 0


def _cut_places(text: str, limit: int) -> list[int]:
    """Possible cut positions at or before `limit`, best first: sentence ends, paragraph ends, ends of words (the last few)."""
    ends = sentence_ends(text)
    ends = ends[: bisect_right(ends, limit)][::-1]
    paragraphs = [match.start() for match in _PARAGRAPH_END.finditer(text, 0, limit + 2) if match.start() <= limit][::-1]
    if ends and paragraphs and ends[0] < paragraphs[0] // 2:  # a list without full stops: a sentence end loses too much
        ends = paragraphs[:3] + ends
    words = [match.start() for match in re.finditer(r"\s+", text) if match.start() <= limit][::-1]
    if not words or words[0] < limit // 2:  # hardly a space: between characters of a script that has none
        words = [end for end in ends_of_characters(text) if end <= limit][:-21:-1] + words
    if not ends and paragraphs and paragraphs[0] >= limit // 2:
        ends = paragraphs
    return ends + words[:20]


def _ends(text: str, match: re.Match[str]) -> bool:
    if match["other"]:
        return True
    stop = match[0]
    following = text[match.end() : match.end() + 40]
    rest = following.lstrip()
    if not rest or "\n" in following[: len(following) - len(rest)]:
        follows = ""
    else:
        follows = rest.lstrip(_OPENERS)[:1]
    if stop[0] != "." or stop.startswith(".."):
        return not follows.islower()
    start = max(0, match.start() - 24)
    found = _LAST_WORD.search(text[start : match.start()])
    word = found[0] if found else ""
    before = text[start : match.start() - len(word)]
    if word.isdigit() and ("\n" in before or start == 0) and not before.rpartition("\n")[2].strip():
        return False  # "1." opens a list item
    if follows.islower():  # a sentence may begin with a name such as "pip"; after a short word, an abbreviation is more likely
        return len(word) >= _LONG_WORD and word.isalpha() and word.lower() not in _ABBREVIATIONS
    if not follows:
        return word.lower() not in _ABBREVIATIONS or word.lower() in _MAY_END
    if len(word) == 1 and word.isupper() and word != "I":
        return False  # an initial
    return word.lower() not in _ABBREVIATIONS or (word.lower() in _MAY_END and follows.isupper())
