"""Characters that print nothing: whitespace, control and format characters, fillers. A text of these alone is empty."""

import re

_FORMAT_RANGES = (
    *("\u00ad", "\u034f", "\u061c", "\u115f-\u1160", "\u17b4-\u17b5", "\u180b-\u180f"),
    *(
        "\u200b-\u200f",
        "\u202a-\u202e",
        "\u2060-\u206f",
        "\u2800",
        "\u3164",
        "\ufe00-\ufe0f",
        "\ufeff",
        "\uffa0",
        "\ufff0-\ufffb",
    ),
    *("\U00013430-\U0001343f", "\U0001bca0-\U0001bca3", "\U0001d173-\U0001d17a", "\U000e0000-\U000e0fff"),
)
FORMAT = "".join(_FORMAT_RANGES)
"""The inside of a regular expression's character class: characters that print nothing and take no space, such as U+200B, U+00AD
and U+FEFF (Unicode's default-ignorable code points, its other format characters without a glyph, and the empty Braille cell)."""

_CONTROL = "\x00-\x1f\x7f-\x9f"
_FORMAT = re.compile(f"[{FORMAT}]+")
_VISIBLE = re.compile(rf"[^\s{_CONTROL}{FORMAT}]")


def is_blank(text: str) -> bool:
    """Whether a text has no visible character. O(characters), and O(1) for a text that begins with one."""
    return _VISIBLE.search(text) is None


def stripped(text: str) -> str:
    """The text without whitespace at its ends; "" if it has no visible character."""
    return "" if is_blank(text) else text.strip()


def without_invisible(text: str) -> str:
    """The text without characters of `FORMAT`; whitespace and control characters stay."""
    return text if text.isascii() else _FORMAT.sub("", text)
