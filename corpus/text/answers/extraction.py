"""Where an output states its answer: after a pattern, in `\\boxed{}`, as its last number, or as one letter of a choice."""

import re
from functools import cache

from limbeck.corpus.text.invisible import is_blank, stripped, without_invisible
from limbeck.corpus.text.words import spaced

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BARE_BOX = re.compile(r"[^\s{}$]+")
_WRAPPED = re.compile(r"\\(?:text[a-z]*|math(?:rm|bf|it|sf)|mbox|hbox)\s*\{([^{}]*)\}")

_BETWEEN = r"[\s:=*_\"'“‘`(\[{{\\$-]*+"
_FILLERS = (
    "is|are|was|would|should|must|be|the|option|choice|letter|number|most|likely|correct|therefore|thus|clearly|probably"
    "|definitely|best|text[a-z]*|math[a-z]*|boxed"
)
_NO_ARTICLE = r"(?!(?<=[ai])\s+{word})"  # a lower-case a or i before a word
_STATED = (
    r"(?i:\b(?:answer|choose|select|pick)\b|\b(?:option|choice)\b(?=[\s:*_]*(?:[:=]|(?:is|would|should|must)\b)))"
    + rf"{_BETWEEN}(?:(?i:{_FILLERS})\b{_BETWEEN}){{{{0,8}}}}(?P<letter>{{letters}})(?!{{word}}|['’]{{word}}){_NO_ARTICLE}"
)
"""A letter after "answer is", "Answer:", "correct option is", "I choose", ..."""

_MARKED = (
    r"[(\[](?P<closed>{letters})[)\]]|(?m:^)[ \t*_]*+(?P<listed>{letters})[*_]*[).:](?!{word})"
    + rf"|\b(?i:option|choice)\s+[*_]*(?P<named>{{letters}})(?!{{word}}|['’]{{word}}){_NO_ARTICLE}"
)
_ALONE = r"(?<!{word})(?P<alone>{capitals})(?!{word}|['’]{word})(?P<article>(?<=[AI])\s+[a-z])?"


def matched(text: str, pattern: str) -> str | None:
    """What the one group of a regular expression captures where it matches last; None if it matches nowhere or nothing.

    An empty match is none: `(.*)` also matches after the end of a text.
    """
    last = None
    for match in re.finditer(pattern, text):
        last = match if match[0] else last
    return _visible(last[1] if last is not None else None)


def boxed(text: str) -> str | None:
    """The content of the last `\\boxed{...}`, whose braces may be nested; None if there is none or it is not closed.

    `\\boxed 5` without braces is read as well. O(characters).
    """
    boxes = [*_BOX.finditer(text)]
    if not boxes:
        return None
    box = boxes[-1]
    if not text.startswith("{", box.end()):
        bare = _BARE_BOX.match(text, box.end())
        return bare[0].rstrip(".,;:") or None if bare is not None and box[0][-1].isspace() else None
    depth, place = 0, box.end()
    while place < len(text):
        character = text[place]
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return _visible(text[box.end() + 1 : place])
        place += 2 if character == "\\" else 1  # \{ and \} are no braces of the box
    return None


def unwrapped(text: str) -> str:
    """The text with `\\text{...}`, `\\mathrm{...}` and the like replaced by their content."""
    return _WRAPPED.sub(r"\1", text) if "\\" in text else text


def choice(text: str, choices: str) -> str | None:
    """The letter of `choices` that a text gives as its answer, in the case of `choices`; None if it is not clear which.

    In this order: the letter in the last box; the letter alone, as the whole text or its last line; the last letter that is
    stated ("the answer is B", "Answer: (b)"); the only letter in brackets, at the start of a line or after "option" ("(B)",
    "B. Paris"); the only capital letter that stands alone. O(characters).
    """
    text = unwrapped(without_invisible(text))
    box = boxed(text)
    lone, stated, marked, alone = _choice_patterns(choices)
    ends = [] if is_blank(text) else [text, text.strip().rpartition("\n")[2]]
    for whole in (*([] if box is None else [box]), *ends):
        if (found := lone.fullmatch(whole)) is not None:
            return _named(found["letter"], choices)
    if said := [match["letter"] for match in stated.finditer(text)]:
        return _named(said[-1], choices)
    letters = {letter.upper() for match in marked.finditer(text) for letter in match.groups() if letter}
    if not letters:
        capitals = [*alone.finditer(text)]
        letters = {match["alone"] for match in capitals} if any(not match["article"] for match in capitals) else set()
    return _named(letters.pop(), choices) if len(letters) == 1 else None


def _visible(text: str | None) -> str | None:
    return None if text is None else stripped(text) or None


def _named(letter: str, choices: str) -> str:
    """The letter as it is written in `choices`."""
    return next(known for known in choices if known.lower() == letter.lower())


@cache
def _choice_patterns(choices: str) -> tuple[re.Pattern[str], ...]:
    letters = f"[{re.escape(''.join(dict.fromkeys(choices.lower() + choices.upper())))}]"
    capitals = f"[{re.escape(choices.upper())}]"
    word = "[0-9A-Za-z_À-ɏ]" if choices.isascii() else spaced()  # C입니다 has the letter C, and no Latin word
    names = {"letters": letters, "capitals": capitals, "word": word}
    lone = re.compile(rf"[\W_]*+(?P<letter>{letters})[\W_]*+")
    return lone, *(re.compile(pattern.format(**names)) for pattern in (_STATED, _MARKED, _ALONE))
