"""Other spellings of a text that a tokenizer encodes differently: at the start of a word, in another case."""

from collections.abc import Sequence
from typing import Any

from limbeck.infinigram.errors import BadQuery


def variants(tokenizer: Any, text: str, *, word_start: bool = False, any_case: bool = False) -> list[list[int]]:
    """The distinct encodings of a text and its variants, none of which contains another.

    `word_start` adds the text after a space, which most tokenizers encode differently; `any_case` adds it in lower case, upper
    case, with a capital first letter, and with every word capitalised. Raises BadQuery if nothing is left to encode.
    """
    spellings = [text]
    if any_case:
        spellings += [text.lower(), text.upper(), text[:1].upper() + text[1:].lower(), text.title()]
    if word_start:
        spellings += [f" {spelling.lstrip()}" for spelling in spellings]
    encodings = {tuple(tokenizer.encode(spelling)) for spelling in spellings}
    if () in encodings:
        raise BadQuery("the text encodes to no tokens; give some text")
    return shortest(list(encodings))


def shortest(queries: Sequence[Sequence[int]]) -> list[list[int]]:
    """Queries without those that contain another one: wherever these occur, the other does too. O(queries^2 * tokens)."""
    kept: list[tuple[int, ...]] = []
    for query in sorted({tuple(query) for query in queries}, key=lambda ids: (len(ids), ids)):
        if not any(query[at : at + len(other)] == other for other in kept for at in range(len(query) - len(other) + 1)):
            kept.append(query)
    return [list(query) for query in kept]
