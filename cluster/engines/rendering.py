"""Rendered prompts, and the chat template cut before the user's text, so that a model writes the user's turn.

The cut is read from the model's own template: a conversation is rendered with a sentinel in place of the text. No table of models
is needed, and earlier turns, default system texts and beginning-of-text tokens are what the template makes of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limbeck.cluster.engines.protocol import Message, UserTurn
from limbeck.corpus.errors import LimbeckError

# Ordinary words, so that a tokenizer joins their first one to a space before it as it does for real text; two, since a template
# may write something that depends on the text. Long, so that a template that shortens the text is noticed.
SENTINELS = (
    "Sentinel number one, which no template may change, repeat, move or shorten to fewer words",
    "Another one that begins and ends with different letters, and has more words, Commas and Capitals than the first",
)

Encode = Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]]


@dataclass(frozen=True)
class Rendered:
    """The tokens of a prompt. A completion also ends at one of `end_tokens`, and before one of the strings in `stop`."""

    tokens: tuple[int, ...]
    end_tokens: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatTemplate:
    """A model's chat template and tokenizer; `name` names the model in errors.

    `render` returns a conversation as text, with the header of the assistant's turn at its end; it may raise anything that a
    template can. `encode` returns tokens and their character ranges, without added special tokens. `special` are the ids of the
    special tokens.
    """

    name: str
    render: Callable[[Sequence[Message]], str]
    encode: Encode
    special: frozenset[int]

    def cut(self, turn: UserTurn) -> Rendered:
        """Return the prompt of a user's turn: all tokens of the conversation before the one in which the user's text begins.

        Whitespace before the text that the tokenizer joins to its first word is left to the model. Special tokens of the
        conversation end the completion, and so does the text with which the template ends the turn, if that is no special
        token. Raises LimbeckError if the template does not render the conversation, or has no such place: it drops, changes or
        repeats the text, or writes something else around another text.
        """
        first, second = (self._frame(turn, _unused(sentinel, turn)) for sentinel in SENTINELS)
        if first != second:
            raise self._refusal("depends on the user's text")
        return first

    def _frame(self, turn: UserTurn, sentinel: str) -> Rendered:
        conversation = (*turn.before, Message("user", sentinel))
        try:
            text = self.render(conversation)
        except Exception as error:  # templates raise their own errors, and those of Python
            roles = ", ".join(message.role for message in conversation)
            raise LimbeckError(
                f"the chat template of {self.name} does not render a conversation of {roles}: {' '.join(str(error).split())}; "
                "use another model, or no system text"
            ) from error
        start = text.find(sentinel)
        if text.count(sentinel) != 1:
            raise self._refusal("drops or changes the user's text" if start < 0 else "repeats the user's text")
        tokens, offsets = self.encode(text)
        place = next((place for place, (_, end) in enumerate(offsets) if end > start), len(tokens))
        if text[offsets[place][0] : start].strip():
            raise self._refusal("ends in a token that reaches into the user's text")
        if not place:
            raise self._refusal("writes nothing before the user's text")
        after = next((n for n, (begin, _) in enumerate(offsets) if begin >= start + len(sentinel)), len(tokens))
        frame = (*tokens[:place], *tokens[after:])
        return Rendered(
            tokens=tuple(tokens[:place]),
            end_tokens=self.special.intersection(frame),
            stop=self._stop(text, start + len(sentinel), tokens, offsets),
        )

    def _stop(self, text: str, end: int, tokens: Sequence[int], offsets: Sequence[tuple[int, int]]) -> tuple[str, ...]:
        """The first line of text after the user's, if it comes before a special token."""
        special = (begin for token, (begin, _) in zip(tokens, offsets, strict=True) if begin >= end and token in self.special)
        line = text[end : next(special, len(text))].strip().partition("\n")[0].strip()
        return (line,) if line else ()

    def _refusal(self, fault: str) -> LimbeckError:
        return LimbeckError(
            f"the chat template of {self.name} {fault}, so it cannot be cut before it; use another model, or a generator that "
            "asks for instructions"
        )


def no_template(name: str) -> LimbeckError:
    """The error for a model without a chat template."""
    return LimbeckError(f"{name} has no chat template, so it has no user's turn to draw; use an instruction-tuned model")


def _unused(sentinel: str, turn: UserTurn) -> str:
    """The sentinel, made longer until no earlier turn contains it."""
    while any(sentinel in message.content for message in turn.before):
        sentinel += " still"
    return sentinel
