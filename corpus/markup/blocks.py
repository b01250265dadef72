"""The blocks of a marked-up text, and the rules shared by Markdown and reStructuredText."""

import html
import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Block:
    """A paragraph, list item or heading; a gap marks removed content that is not prose (code, a table)."""

    kind: Literal["heading", "text", "item", "gap"]
    text: str = ""
    level: int = 0  # heading level; 1 is the title


GAP = Block("gap")

COMMAND = re.compile(
    r"\s*(?:[$%] \S|>>> |In \[\d+\]:|python3? (?:-m|\S+\.py)\b|"
    r"(?:pip3?|conda|uv|brew|apt|apt-get|npm|cargo) (?:install|add|pip)\b)"
)
_BREAKING_TAG = re.compile(
    r"(?i)</?(?:p|div|br|hr|li|ul|ol|h[1-6]|tr|td|th|center|summary|details|blockquote|dl|dt|dd|section)\b[^<>]*>"
)
_TAG = re.compile(r"</?[a-zA-Z][\w-]*(?:\s[^<>]*|/)?>")
_SHORTCODE = re.compile(r"(?<![\w:]):[a-z][a-z0-9_+-]*:(?![\w:])")
_PICTOGRAPH = re.compile("[\U0001f000-\U0001faff\u2300-\u23ff\u2600-\u27bf\ufe0f\u200d\u2b06\u2b50\u2190-\u21ff]")
_CODE_MARK = "\ue000{}\ue001"
_CODE_MARKED = re.compile("\ue000(\\d+)\ue001")


def hide_code(text: str, pattern: re.Pattern[str]) -> tuple[str, list[str]]:
    """Replace code spans (group "code" of `pattern`: their content) by placeholders that other rules ignore; see `show_code`."""
    spans: list[str] = []

    def mark(match: re.Match[str]) -> str:
        spans.append(" ".join(match["code"].split()))
        return _CODE_MARK.format(len(spans) - 1)

    return pattern.sub(mark, text), spans


def show_code(text: str, spans: list[str]) -> str:
    """Put the content of hidden code spans back, without its back-ticks."""
    return _CODE_MARKED.sub(lambda match: spans[int(match[1])], text)


def break_tags(text: str) -> str:
    """Turn HTML tags that end a line into line breaks, so that the text around them stays separated."""
    return _BREAKING_TAG.sub("\n", text)


def without_tags(text: str) -> str:
    """Drop the remaining HTML tags and resolve the entities."""
    return html.unescape(_TAG.sub("", text))


def tidy(text: str) -> str:
    """One line of plain text: no pictographs, empty brackets, doubled spaces, or spaces before a full stop."""
    text = _PICTOGRAPH.sub("", _SHORTCODE.sub("", text))
    text = " ".join(text.split())
    text = re.sub(r"\(\s*[,;]?\s*\)|\[\s*\]", "", text)
    text = re.sub(r"\s+([.,;:!?)])(?=\s|$)", r"\1", text)
    return " ".join(text.split())
