"""Whether one text copies another, in any script: a change of case, spacing, punctuation or invisible characters hides none."""

import unicodedata

from limbeck.corpus.text.invisible import without_invisible

_WORDS, _SYMBOLS = "LMN", "S"
"""First letters of Unicode's general categories: letters, marks and numbers; symbols, such as emoji."""


def same_text(a: str, b: str) -> bool:
    """Whether two texts have the same letters, marks and digits in the same order, in any case and any Unicode form.

    Texts without any are compared by their symbols; two texts of punctuation alone are the same. O(characters).
    """
    return key(a) == key(b)


def key(text: str) -> tuple[str, str]:
    """What copies of a text share: its letters, marks and digits, or its symbols if it has none."""
    visible = without_invisible(text)
    words = _folded(visible, _WORDS)
    return words, "" if words else _folded(visible, _SYMBOLS)


def _folded(text: str, categories: str) -> str:
    """The characters of these categories, in upper case first, since some letters have no lower case of their own."""
    upper = unicodedata.normalize("NFKC", _only(text, categories)).upper()
    return _only(unicodedata.normalize("NFKC", upper.casefold()), categories)


def _only(text: str, categories: str) -> str:
    return "".join(character for character in text if unicodedata.category(character)[0] in categories)
