"""Where an output states its answer: after a pattern, in `\\boxed{}`, as its last number, or as one letter of a choice."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from limbeck.corpus.text.invisible import is_blank, stripped, without_invisible
from limbeck.corpus.text.words import spaced

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BARE_BOX = re.compile(r"[^\s{}$]+")
_WRAPPED = re.compile(r"\\(?:text[a-z]*|math(?:rm|bf|it|sf)|mbox|hbox)\s*\{([^{}]*)\}")

_BETWEEN = r"[\s:=*_\"'“‘`(\[{{\\$-]*+"
_FILLERS = (
    "is|are|was|would|should|must|be|the|option|choice|letter|number|most|likely|correct|therefore|thus|clearly|probably|both|either"
    "|definitely|certainly|best|text[a-z]*|math[a-z]*|boxed"
)
_NOT = (
    r"(?:\b(?:not|cannot|never|neither|nor|except(?:\s+for)?|excluding|without|(?:rather|other)\s+than|instead\s+of"
    r"|(?:eliminat|exclud|reject|discard)(?:e|es|ed|ing|s)?|rul(?:e|es|ed|ing)\s+out"
    r"|(?:is|are|was|ca|do|does|did|wo|would|could|should|must)n['’]?t|neq?)\b|≠|!=)"
)
_NO_ARTICLE = r"(?!(?<=[ai])\s+{word})"  # a lower-case a or i before a word
_ENDS = r"(?!{word}|['’]{word})"
_LETTER = rf"(?P<letter>{{letters}}){_ENDS}{_NO_ARTICLE}"
_WRAPPING = r"[\s*_\"'“”’`$(\[{{)\]}}]*+"
_AFTER_A = "(?:because|and|or|nor|are|as|since|but|both|if)"  # words after the letter A, not after the article
_ANOTHER = (
    rf"(?:{_WRAPPING}(?:[,;/&+|、，；／＆–—-]|\b(?:and(?:\s*/\s*or)?|or|nor|plus|to|through|as\s+well\s+as)\b){_WRAPPING}"
    r"(?:(?:and|or|nor|(?:the\s+)?(?:option|choice|answer|letter)|also|maybe|perhaps|possibly|both|either)(?!{word})"
    rf"{_WRAPPING}){{{{0,4}}}}"
    r"|[*_]*+[)\]][*_ \t]*+[(\[]|(?<={letters})[ \t]++)"
    rf"(?<!{{word}}){{letters}}{_ENDS}(?!(?<=[aAiI])\s+(?!{_AFTER_A}\b)[a-z])"
)
_LIST = rf"(?<!{{word}}){_LETTER}(?P<others>(?i:{_ANOTHER})++)"
"""Two or more letters: "A and C", "(A), (B) or (C)", "A/B", "(A)(C)", "A C"."""

_KEYWORD = (
    r"(?:\b(?:answer|choose|select|pick)\b|\banswers\b(?=\s+(?:are|were|would|should)\b)"
    r"|\b(?:option|choice)\b(?=[\s:*_]*(?:[:=]|(?:is|would|should|must|cannot|isn['’]?t|can['’]?t)\b)))"
)
_STATED = rf"(?i:{_KEYWORD}){_BETWEEN}(?:(?i:(?:{_FILLERS})\b|{_NOT}){_BETWEEN}){{{{0,8}}}}{_LETTER}"
"""Letters after "answer is", "Answer:", "correct option is", "I choose", ..., perhaps negated."""

_MARKED = (
    rf"[(\[](?P<closed>{{letters}})(?=[)\]])|(?m:^)[ \t*_]*+(?P<listed>{{letters}})(?=[*_]*[).:](?!{{word}}))"
    rf"|\b(?i:option|choice)\s+[*_]*(?P<named>{{letters}}){_ENDS}{_NO_ARTICLE}"
)
_ALONE = rf"(?<!{{word}})(?P<alone>{{capitals}}){_ENDS}(?P<article>(?<=[AI])\s+[a-z])?"

_NEGATED = (
    rf"(?i:{_NOT}){_BETWEEN}"
    r"(?:(?i:(?:think|believe|say|sure|certain)\b\s*(?:(?:that|if|whether)\s+)?"
    r"(?:it|this|that|the\s+(?:correct\s+|right\s+|best\s+)?answer)(?:['’]s|\s+(?:is|was|would\s+be))\b){_between})?"
    r"(?:(?i:be|been|the|an?(?=\s+(?:option|choice|answer))|option|choice|letter|answer|choose|choosing|select(?:ing)?|pick(?:ing)?"
    r"|go(?:ing)?\s+with|both|either|necessarily|actually|really|possibly|likely)\b{_between}){{0,6}}"
).replace("{_between}", _BETWEEN) + _LETTER
"""Letters after "not", "cannot be", "neither", "except", "I do not think that it is", ..."""

_REFUTED = (
    rf"(?<!{{word}}){_LETTER}(?i:"
    r"[*_)\]\"'”’`]*+\s+(?:(?:is|was|are|were)(?:\s+not|n['’]?t)\s+(?:the\s+|an?\s+)?(?:\w+\s+)?"
    r"(?:correct|right|answers?|choices?|options?|possible|valid)\b"
    r"|(?:is|was|are|were)\s+(?:\w+ly\s+)?(?:wrong|incorrect|false|impossible|invalid|excluded|eliminated|ruled\s+out)\b"
    r"|(?:cannot|can['’]t|can\s+not|couldn['’]t|could\s+not)\s+be\b))"
)
"""A letter before "is not the answer", "is wrong", "cannot be", ..."""

_LONE = r"[\W_]*+(?P<letter>{letters})[\W_]*+"
_SEVERAL = rf"[\W_]*+(?i:(?:both|either)\b[\W_]*+)?{{letters}}{_ENDS}(?i:{_ANOTHER})++[\W_]*+"
_CLAUSE = re.compile(
    r"[*_)\]\"'”’`]*+\s+(?:is(?!\s+also\b)|isn['’]?t|was|wasn['’]?t|has|does|doesn['’]?t|cannot|can['’]t)\b", re.IGNORECASE
)


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
    "B. Paris"); the only capital letter that stands alone. A place with two letters, or with a negated one, gives none.
    O(characters).
    """
    text = unwrapped(without_invisible(text))
    box = boxed(text)
    patterns = _choice_patterns(choices)
    ends = [] if is_blank(text) else [text, text.strip().rpartition("\n")[2]]
    for whole in (*([] if box is None else [box]), *ends):
        if patterns.several.fullmatch(whole) is not None and len({*map(str.upper, patterns.letter.findall(whole))}) > 1:
            return None
        if (found := patterns.lone.fullmatch(whole)) is not None:
            return None if patterns.negated.search(whole) else _named(found["letter"], choices)
    lists = patterns.lists(text)
    denied = patterns.denied(text, lists)
    statement = patterns.statement(text, lists, denied)
    letters = patterns.mentioned(text, lists, denied) if statement is None else statement
    return _named(next(iter(letters)), choices) if len(letters) == 1 else None


def _visible(text: str | None) -> str | None:
    return None if text is None else stripped(text) or None


def _named(letter: str, choices: str) -> str:
    """The letter as it is written in `choices`."""
    return next(known for known in choices if known.lower() == letter.lower())


Names = Mapping[int, str]
"""Letters of a text in upper case, by their offsets."""


@dataclass(frozen=True)
class _Listed:
    """The letters of one list, or a letter that is in no list."""

    names: Names

    @cached_property
    def letters(self) -> frozenset[str]:
        """The different letters; a list may be met at each of its letters, and is read once."""
        return frozenset(self.names.values())


@dataclass(frozen=True)
class _ChoicePatterns:
    """The regular expressions of a set of choices, and the letters that they find."""

    letter: re.Pattern[str]
    lone: re.Pattern[str]
    several: re.Pattern[str]
    listed: re.Pattern[str]
    stated: re.Pattern[str]
    marked: re.Pattern[str]
    alone: re.Pattern[str]
    negated: re.Pattern[str]
    refuted: re.Pattern[str]

    def lists(self, text: str) -> Mapping[int, _Listed]:
        """The lists of letters that a text has, by the offset of each of their letters."""
        found: dict[int, _Listed] = {}
        for match in self.listed.finditer(text):
            others = self.letter.finditer(text, match.start("others"), match.end())
            names = {match.start(): match["letter"].upper(), **{other.start(): other[0].upper() for other in others}}
            if _CLAUSE.match(text, match.end()):
                names.popitem()  # "A, and B is wrong"
            found |= dict.fromkeys(names, _Listed(names))
        return found

    def denied(self, text: str, lists: Mapping[int, _Listed]) -> Names:
        """The letters that a text negates: "not B", "neither A nor B", "B is wrong"."""
        found: dict[int, str] = {}
        for match in self.negated.finditer(text):
            start, listed = _listed(match, lists)
            found |= {place: name for place, name in listed.names.items() if place >= start}
        return found | {match.start("letter"): match["letter"].upper() for match in self.refuted.finditer(text)}

    def statement(self, text: str, lists: Mapping[int, _Listed], denied: Names) -> frozenset[str] | None:
        """The letters of the last statement that is not negated; none if it is taken back, None if there is no statement."""
        letters: frozenset[str] | None = None
        for match in self.stated.finditer(text):
            start, listed = _listed(match, lists)
            if start not in denied:
                letters = listed.letters
            elif letters == frozenset((listed.names[start],)):
                letters = frozenset()
        return letters

    def mentioned(self, text: str, lists: Mapping[int, _Listed], denied: Names) -> frozenset[str]:
        """The letters that are marked, else those that stand alone; none if one of them is negated anywhere."""
        letters = frozenset[str]().union(*(_listed(match, lists)[1].letters for match in self.marked.finditer(text)))
        if not letters:
            capitals = [*self.alone.finditer(text)]
            some = any(not match["article"] for match in capitals)
            letters = frozenset(match["alone"] for match in capitals) if some else frozenset()
        return frozenset() if letters & {*denied.values()} else letters


def _listed(match: re.Match[str], lists: Mapping[int, _Listed]) -> tuple[int, _Listed]:
    """The offset of the letter of a match, and the list that it is in; without a list, the letter alone."""
    group = next(name for name, letter in match.groupdict().items() if letter)
    start = match.start(group)
    return start, lists.get(start) or _Listed({start: match[group].upper()})


@cache
def _choice_patterns(choices: str) -> _ChoicePatterns:
    letters = f"[{re.escape(''.join(dict.fromkeys(choices.lower() + choices.upper())))}]"
    capitals = f"[{re.escape(choices.upper())}]"
    word = "[0-9A-Za-z_À-ɏ]" if choices.isascii() else spaced()  # C입니다 has the letter C, and no Latin word
    names = {"letters": letters, "capitals": capitals, "word": word}
    patterns = (r"(?<!{word}){letters}(?!{word})", _LONE, _SEVERAL, _LIST, _STATED, _MARKED, _ALONE, _NEGATED, _REFUTED)
    return _ChoicePatterns(*(re.compile(pattern.format(**names)) for pattern in patterns))
