"""Markdown (as README files write it, with HTML in it) to blocks of plain text."""

import re

from limbeck.corpus.markup.blocks import COMMAND, GAP, Block, break_tags, hide_code, show_code, tidy, without_tags

_FENCE = re.compile(r"\s*(?:>\s?)*(?:[-*+]\s+)?(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_HTML_HEADING = re.compile(r"(?is)<h([1-6])\b[^<>]*>(.{0,300}?)</h\1\s*>")
_NOT_PROSE = re.compile(r"(?is)<(pre|table|script|style|svg|picture)\b.{0,50000}?</\1\s*>|<!--.{0,50000}?-->")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?(.*)")
_DEFINITION = re.compile(r" {0,3}\[[^\]]+\]:\s*\S+.*$")
_DELIMITER_ROW = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(?:\|\s*:?-{2,}:?\s*)*\|?\s*$")
_RULE = re.compile(r" {0,3}([-*_=])(?:\s*\1){2,}\s*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)\s*$")
_QUOTE = re.compile(r"\s*>\s?")
_ALERT = re.compile(r"\[!\w+\]")

_CODE = re.compile(r"(?<!`)(?P<ticks>`{1,3})(?!`)(?P<code>.+?)(?<!`)(?P=ticks)(?!`)", re.S)
_TARGET = r"\((?:[^()\s]|\([^()\s]*\))*(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)"
_IMAGE = re.compile(r"!\[[^\[\]]*\](?:\s?" + _TARGET + r"|\[[^\]]*\])")
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\](?:" + _TARGET + r"|\s?\[[^\]]*\])")
_SHORT_LINK = re.compile(r"\[([^\[\]]{2,})\](?!\()")
_FOOTNOTE = re.compile(r"\[\^[^\]]+\]")
_AUTOLINK = re.compile(r"<((?:https?|mailto):[^<>\s]+)>")
_ONLY_LINKS = re.compile(
    r"[\s|,·•—-]*(?:(?:\*\*|`)?\[(?:[^\[\]]|\[[^\[\]]*\])*\](?:" + _TARGET + r"|\[[^\]]*\])(?:\*\*|`)?[\s|,·•.—-]*)+$"
)
_EMPHASIS = [
    re.compile(r"(\*\*\*|\*\*|__)(?=\S)(.+?)(?<=\S)\1"),
    re.compile(r"(?<![\w*])(\*)(?=[^\s*])([^*]+?)(?<=\S)\*(?![\w*])"),
    re.compile(r"(?<![\w_])(_)(?=[^\s_])([^_]+?)(?<=\S)_(?![\w_])"),
    re.compile(r"(~~)(?=\S)(.+?)(?<=\S)~~"),
]
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>~])")


def markdown_blocks(text: str) -> list[Block]:
    """Split Markdown into blocks of plain text; code, tables, images, rules and lists of links only become gaps."""
    lines = _without_fences(text.split("\n"))
    text = _NOT_PROSE.sub("\n\n\x00\n\n", "\n".join(lines))
    text = _HTML_HEADING.sub(lambda match: f"\n\n{'#' * int(match[1])} {' '.join(match[2].split())}\n\n", text)
    text = _IMAGE.sub("", text)
    blocks: list[Block] = []
    held: list[str] = []  # the lines of the paragraph or item being read
    kind = "text"

    def close() -> None:
        nonlocal kind
        if held:
            blocks.append(_block(kind, held))
        held.clear()
        kind = "text"

    after_blank = True
    for line in break_tags(text).split("\n"):
        line = _QUOTE.sub("", line, count=1) if line.lstrip().startswith(">") else line
        line = _ALERT.sub("", line)
        atx, item, setext = _ATX.match(line), _ITEM.match(line), _SETEXT.match(line)
        if not line.strip() or _RULE.match(line) and not setext:
            close()
        elif setext and held and kind == "text":
            level = 1 if "=" in line else 2
            heading = " ".join(held)
            held.clear()
            blocks.append(Block("heading", inline(heading), level))
        elif _is_no_prose(line) or setext or (after_blank and kind != "item" and _is_indented_code(line, blocks)):
            close()
            blocks.append(GAP)
        elif atx:
            close()
            blocks.append(Block("heading", inline(atx[2]), len(atx[1])))
        elif item:
            close()
            kind = "item"
            held.append(item[1])
        else:
            held.append(line.strip())
        after_blank = not line.strip()
    close()
    return blocks


def inline(text: str) -> str:
    """The plain text of a span of Markdown: link texts without targets, no images, emphasis, back-ticks or tags."""
    text, code = hide_code(text, _CODE)
    text = _IMAGE.sub("", text)
    text = _AUTOLINK.sub(r"\1", _FOOTNOTE.sub("", text))
    for _ in range(2):  # a link around a link text with brackets
        text = _LINK.sub(r"\1", text)
    text = _SHORT_LINK.sub(r"\1", text)
    for _ in range(2):  # emphasis within emphasis
        for pattern in _EMPHASIS:
            text = pattern.sub(r"\2", text)
    return tidy(show_code(without_tags(_ESCAPE.sub(r"\1", text)), code))


def _block(kind: str, lines: list[str]) -> Block:
    raw = " ".join(lines)
    if _ONLY_LINKS.match(raw):
        return GAP
    text = inline(raw)
    if not text:
        return GAP
    return Block("item" if kind == "item" else "text", text)


def _is_no_prose(line: str) -> bool:
    stripped = line.strip()
    return (
        stripped == "\x00"
        or stripped.startswith("|")
        or bool(_DELIMITER_ROW.match(line) and "|" in line)
        or bool(_DEFINITION.match(line))
        or bool(COMMAND.match(line))
    )


def _is_indented_code(line: str, blocks: list[Block]) -> bool:
    """Four spaces after a blank line are code, unless they continue a list."""
    continues_list = bool(blocks) and blocks[-1].kind == "item"
    return line.expandtabs(4).startswith("    ") and not continues_list


def _without_fences(lines: list[str]) -> list[str]:
    """Replace fenced code by a placeholder; an unclosed fence runs to the end, as in CommonMark."""
    kept: list[str] = []
    fence = ""
    for line in lines:
        match = _FENCE.match(line)
        if fence:
            if match and match[1].startswith(fence) and not line[match.end() :].strip("`~ \t\r"):
                fence = ""
        elif match and "`" not in line[match.end() :]:
            fence = match[1]
            kept += ["", "\x00", ""]
        else:
            kept.append(line)
    return kept
