"""reStructuredText, and plain text in its style, to blocks of plain text."""

import re

from limbeck.corpus.markup.blocks import COMMAND, GAP, Block, break_tags, hide_code, show_code, tidy, without_tags

_PROSE_DIRECTIVE = re.compile(r"\.\. (?:note|warning|tip|important|hint|attention|caution|danger|epigraph|container)::\s*(.*)$")
_EXPLICIT = re.compile(r"\.\.(?:\s|$)")
_ANONYMOUS_TARGET = re.compile(r"__ \S+$")
_UNDERLINE = re.compile(r"([=\-`:.'\"~^_*+#])\1{2,}\s*$")
_SIMPLE_TABLE = re.compile(r"=+(?:\s+=+)+\s*$")
_TABLE_LINE = re.compile(r"\+[-=+]{3,}|\|.*\|$")
_FIELD = re.compile(r":[A-Za-z][\w -]*:(?:\s|$)")
_ITEM = re.compile(r"(?:[-*+•]|\d{1,3}[.)]|#\.|\(\d+\))\s+(.*)")

_CODE = re.compile(r"``(?P<code>.+?)``", re.S)
_ROLE = re.compile(r":[a-zA-Z][\w:.+-]*:`([^`<]*?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{0,2}")
_REFERENCE = re.compile(r"`([^`]+)`_{0,2}")
_WORD_REFERENCE = re.compile(r"(?<![\w_])([A-Za-z0-9][\w.-]*[A-Za-z0-9])__?(?![\w_])")
_SUBSTITUTION = re.compile(r"\|[^|\s](?:[^|\n]*[^|\s])?\|_{0,2}")
_FOOTNOTE = re.compile(r"\s?\[(?:\d+|#\w*|\*)\]_")
_STRAY_TARGET = re.compile(r"\s*<https?://[^>\s]*>`?_{0,2}")  # of a malformed link
_ESCAPE = re.compile(r"\\(?:\s|(\S))")
_EMPHASIS = [re.compile(r"(\*\*)(?=\S)(.+?)(?<=\S)\*\*"), re.compile(r"(?<![\w*])(\*)(?=[^\s*])([^*]+?)(?<=\S)\*(?![\w*])")]
_ONLY_LINKS = re.compile(r"(?:\s|[|,·•-])*(?:(?::[\w:]+:)?`[^`]+`_{0,2}(?:\s|[|,·•.-])*)+$")


def rst_blocks(text: str) -> list[Block]:
    """Split reStructuredText into blocks of plain text; literal blocks, directives, tables and targets become gaps."""
    lines = _without_tables([line.rstrip() for line in text.expandtabs(8).split("\n")])
    blocks: list[Block] = []
    levels: dict[tuple[str, bool], int] = {}
    index = 0
    while index < len(lines):
        line = lines[index]
        stripped = line.strip()
        if not stripped:
            index += 1
            continue
        heading, after = _heading(lines, index, levels)
        if heading is not None:
            blocks.append(heading)
            index = after
        elif prose := _PROSE_DIRECTIVE.match(stripped):
            lines[index] = " " * _indent(line) + prose[1]  # its body is treated as text
        elif _EXPLICIT.match(stripped) or _FIELD.match(stripped):
            blocks.append(GAP)
            index = _after_indented(lines, index + 1, _indent(line))
        elif stripped == "\x00" or _UNDERLINE.match(stripped) or _ANONYMOUS_TARGET.match(stripped):
            blocks.append(GAP)
            index += 1
        elif COMMAND.match(stripped):
            blocks.append(GAP)
            index = _after_paragraph(lines, index + 1)
        else:
            index = _paragraph(lines, index, blocks)
    return blocks


def inline(text: str) -> str:
    """The plain text of a span of reStructuredText: no roles, link targets, substitutions, emphasis or back-ticks."""
    text, code = hide_code(text, _CODE)
    text = _FOOTNOTE.sub("", _SUBSTITUTION.sub("", text))
    for pattern in (_ROLE, _LINK, _REFERENCE, _WORD_REFERENCE):
        text = pattern.sub(r"\1", text)
    for pattern in _EMPHASIS:
        text = pattern.sub(r"\2", text)
    text = _STRAY_TARGET.sub("", text).replace("`", "")
    return tidy(show_code(without_tags(_ESCAPE.sub(r"\1", text)), code))


def _paragraph(lines: list[str], index: int, blocks: list[Block]) -> int:
    """Read a paragraph or one list item, and the literal block introduced by `::`; returns the line after."""
    base = _indent(lines[index])
    item = _ITEM.match(lines[index].strip())
    held = [item[1] if item else lines[index].strip()]
    index += 1
    while index < len(lines) and lines[index].strip():
        stripped = lines[index].strip()
        if _ITEM.match(stripped) and (item or _indent(lines[index]) != base) or _EXPLICIT.match(stripped) or stripped == "\x00":
            break
        held.append(stripped.removeprefix("| "))
        index += 1
        if stripped.endswith("::"):
            break
    raw = " ".join(held).removeprefix("| ")
    literal = raw.endswith("::")
    plain = raw.removesuffix("::") + ":" if literal else raw
    text = "" if _ONLY_LINKS.match(raw) else inline(break_tags(plain))
    if text.strip(":"):
        blocks.append(Block("item" if item else "text", text))
    if literal or not text:
        blocks.append(GAP)
    return _after_indented(lines, index, base) if literal else index


def _heading(lines: list[str], index: int, levels: dict[tuple[str, bool], int]) -> tuple[Block | None, int]:
    """The heading that starts at this line, if any, and the line after it."""

    def block(title: str, mark: str, overlined: bool) -> Block:
        return Block("heading", inline(title), levels.setdefault((mark, overlined), len(levels) + 1))

    line, below = lines[index], lines[index + 1].strip() if index + 1 < len(lines) else ""
    if _UNDERLINE.match(line) and index + 2 < len(lines) and below and not _UNDERLINE.match(below):
        if _UNDERLINE.match(lines[index + 2]) and lines[index + 2][0] == line[0]:
            return block(below, line[0], True), index + 3
    above = lines[index - 1].strip() if index else ""
    starts = above in ("", "\x00") or bool(_UNDERLINE.match(above))
    underlined = _UNDERLINE.match(below) and not _UNDERLINE.match(line) and len(below) >= min(len(line) - 3, 8)
    if starts and underlined and _indent(line) == 0:
        return block(line.strip(), below[0], False), index + 2
    return None, index


def _without_tables(lines: list[str]) -> list[str]:
    """Replace the lines of grid tables and simple tables by a placeholder."""
    kept: list[str] = []
    inside = False
    for number, line in enumerate(lines):
        stripped = line.strip()
        if _SIMPLE_TABLE.match(stripped):
            inside = any(lines[number + 1 : number + 2]) and bool(lines[number + 1].strip())
            kept.append("\x00")
        elif inside or (_TABLE_LINE.match(stripped) and not _SUBSTITUTION.fullmatch(stripped)):
            inside = inside and bool(stripped)
            kept.append("\x00" if stripped else "")
        else:
            kept.append(line)
    return kept


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _after_indented(lines: list[str], index: int, base: int) -> int:
    """The first line at or left of `base`, skipping blank ones."""
    while index < len(lines) and (not lines[index].strip() or _indent(lines[index]) > base):
        index += 1
    return index


def _after_paragraph(lines: list[str], index: int) -> int:
    while index < len(lines) and lines[index].strip():
        index += 1
    return index
