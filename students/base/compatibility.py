"""Check, from model files alone, whether a student can learn from a teacher's text. Imports no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_object
from limbeck.corpus.tokenizer import Tokenizer

PROBES = (
    "The quick brown fox jumps over the lazy dog, 3.14 times.",
    "def f(x):\n    return x ** 2  # naïve café — “quoted”",
    "  leading spaces\tand\ttabs\r\n\r\n中文 русский 🙂",
)
_ANSWER = "limbeck-probe"


@dataclass(frozen=True)
class _Side:
    """Text-related facts from the files of a model folder."""

    folder: Path
    backend: Backend
    vocabulary: dict[str, int]
    chat_template: str | None
    special: dict[str, str]  # eos_token, bos_token, ... as text
    end_ids: frozenset[int]  # the tokens at which generation stops
    embedding_rows: int


def compare(teacher: Path, student: Path, conversational: bool = True) -> list[str]:
    """Return warnings about differences in tokenizers, chat templates and end tokens.

    Raises LimbeckError if training would be wrong for any teacher: the student has no chat template although the rows are
    conversations, its template or tokenizer gives it no end token to learn, or a token has no row in its embedding.
    """
    ours = _read(student)
    _refuse_untrainable(ours, conversational)
    if teacher.resolve() == student.resolve():
        return []
    theirs = _read(teacher)
    warnings = _compare_tokenizers(theirs, ours)
    if conversational and theirs.chat_template is None:
        warnings.append(f"the teacher {teacher} has no chat template, the student has one: their prompts differ")
    elif conversational and theirs.chat_template != ours.chat_template:
        warnings.append(
            "the chat templates of teacher and student differ: the student is trained on its own, and must be prompted with it"
        )
    theirs_end, ours_end = (sorted(_text(side, token) for token in side.end_ids) for side in (theirs, ours))
    if theirs_end != ours_end:
        warnings.append(f"the end tokens differ: {', '.join(theirs_end) or 'none'} (teacher), {', '.join(ours_end)} (student)")
    return warnings


def shared_vocabulary_problem(teacher: Path, student: Path) -> str | None:
    """Why the teacher cannot judge the student's token ids, without the way out, or None.

    Every token of the student's must have the same id in the teacher's tokenizer, which may have more, and both must split text
    alike. Embeddings may be padded to different sizes: rows beyond the shorter one belong to no token.
    """
    if teacher.resolve() == student.resolve():
        return None
    theirs, ours = _read(teacher), _read(student)
    other = [token for token, index in ours.vocabulary.items() if theirs.vocabulary.get(token) != index]
    if other:
        return (
            f"{len(other)} of the {len(ours.vocabulary)} tokens of {student}, such as {min(other)!r}, have another id, or none, "
            "in the teacher's tokenizer"
        )
    for probe in PROBES:
        if theirs.backend.encode(probe).ids != ours.backend.encode(probe).ids:
            return f"the tokenizers of the teacher and of {student} split {probe[:30]!r} differently"
    return None


def end_tokens(folder: Path) -> frozenset[int]:
    """The tokens at which a model stops: the tokenizer's end token, and those that its generation settings name."""
    return _read(folder).end_ids


def _compare_tokenizers(theirs: _Side, ours: _Side) -> list[str]:
    consequence = "numbers per token cannot be compared between them"
    if theirs.vocabulary != ours.vocabulary:
        shared = sum(ours.vocabulary.get(token) == index for token, index in theirs.vocabulary.items())
        return [
            f"the tokenizers differ: {shared} of the teacher's {len(theirs.vocabulary)} tokens have the same id in the student's "
            f"{len(ours.vocabulary)}; {consequence}"
        ]
    for probe in PROBES:
        if theirs.backend.encode(probe).ids != ours.backend.encode(probe).ids:
            return [
                f"the tokenizers share a vocabulary but split {probe[:30]!r} differently (merges, special tokens); {consequence}"
            ]
    return []


def _refuse_untrainable(side: _Side, conversational: bool) -> None:
    highest = max(side.vocabulary.values(), default=-1)
    if highest >= side.embedding_rows:
        raise LimbeckError(
            f"the tokenizer of {side.folder} has token id {highest}, but its model only {side.embedding_rows} embedding rows; "
            "save the model with the tokenizer it was trained with"
        )
    end = side.special.get("eos_token")
    if end is None or end not in side.vocabulary:
        raise LimbeckError(
            f"the tokenizer of {side.folder} has no end token (eos_token) in its vocabulary, so the student could "
            "never learn to stop; set eos_token in its tokenizer_config.json"
        )
    if not conversational:
        return
    if side.chat_template is None:
        raise LimbeckError(
            f"{side.folder} has no chat template, but the dataset holds conversations; choose an instruction-tuned base, or add "
            "a chat_template.jinja to it"
        )
    closing = side.backend.encode(_closing(side), add_special_tokens=False).ids
    if not side.end_ids.intersection(closing):
        raise LimbeckError(
            f"the chat template of {side.folder} does not close an answer with an end token ({_names(side)}), so the student "
            "could never learn to stop; end the assistant's turn with it, or name the template's token as eos_token_id"
        )


def _closing(side: _Side) -> str:
    """The text that the chat template appends to an assistant turn."""
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        rendered, _ = render_jinja_template(conversations=[turns], chat_template=side.chat_template, **side.special)
    except Exception as error:  # a template may raise anything
        raise LimbeckError(f"the chat template of {side.folder} fails on a user turn and its answer: {error}") from error
    _, found, closing = str(rendered[0]).rpartition(_ANSWER)
    if not found:
        raise LimbeckError(f"the chat template of {side.folder} drops the assistant turn; fix the template")
    return closing


def _read(folder: Path) -> _Side:
    tokenizer = Tokenizer.load(folder)
    settings, generation = (_optional(folder / name) for name in ("tokenizer_config.json", "generation_config.json"))
    model = read_object(folder / "config.json", "choose another model, or restore its folder")
    model = model.get("text_config", model)
    template_file = folder / "chat_template.jinja"
    template = template_file.read_text(encoding="utf-8") if template_file.exists() else settings.get("chat_template")
    special = {
        name: _token_text(settings[name]) for name in ("bos_token", "eos_token", "pad_token", "unk_token") if settings.get(name)
    }
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    ends = generation.get("eos_token_id", model.get("eos_token_id"))
    named = {vocabulary[special["eos_token"]]} if special.get("eos_token") in vocabulary else set()
    listed = set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
    return _Side(
        folder=folder,
        backend=tokenizer.backend,
        vocabulary=vocabulary,
        chat_template=template if isinstance(template, str) else None,
        special=special,
        end_ids=frozenset(named | listed),
        embedding_rows=int(model.get("vocab_size", 0)),
    )


def _optional(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _token_text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _text(side: _Side, token: int) -> str:
    return side.backend.id_to_token(token) or f"id {token}"


def _names(side: _Side) -> str:
    return ", ".join(sorted(_text(side, token) for token in side.end_ids))
