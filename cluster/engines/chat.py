"""A model's tokenizer for engines on this machine: prompts and pairs to tokens, and the end tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from limbeck.cluster.engines.pairs import Query, query
from limbeck.cluster.engines.protocol import Message, Pair, UserTurn
from limbeck.cluster.engines.rendering import ChatTemplate, Rendered, no_template
from limbeck.corpus.errors import LimbeckError

_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>")


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """Load a model folder's tokenizer; raises LimbeckError unless it is a fast one, which is needed for character ranges."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    if not tokenizer.is_fast:
        raise LimbeckError(f"the tokenizer of {folder} has no tokenizer.json; save the model with its fast tokenizer")
    return tokenizer


def end_tokens(tokenizer: PreTrainedTokenizerFast, *configs: Any) -> frozenset[int]:
    """The end tokens of the configs and the tokenizer, and the token with which the chat template ends a turn."""
    found: set[int] = set()
    for named in (*(getattr(config, "eos_token_id", None) for config in configs), tokenizer.eos_token_id):
        found.update([named] if isinstance(named, int) else named or [])
    template = tokenizer.chat_template or ""
    for turn_end in _TURN_ENDS:
        token = tokenizer.convert_tokens_to_ids(turn_end)
        if turn_end in str(template) and isinstance(token, int) and token != tokenizer.unk_token_id:
            found.add(token)
    return frozenset(found)


def render(prompt: tuple[Message, ...] | str | UserTurn, tokenizer: PreTrainedTokenizerFast) -> Rendered:
    """Return the tokens of a conversation, ready for the assistant's turn, of a plain prompt, or up to a user's turn.

    Raises LimbeckError for a conversation or a user's turn if the model has no chat template, or none that can be cut.
    """
    if isinstance(prompt, str):
        return Rendered(tuple(tokenizer(prompt)["input_ids"]))
    if isinstance(prompt, UserTurn):
        return template(tokenizer).cut(prompt)
    if not tokenizer.chat_template:
        raise LimbeckError(
            f"{tokenizer.name_or_path} has no chat template; use an instruction-tuned model or a recipe with plain prompts"
        )
    text = _conversation(tokenizer, prompt)
    return Rendered(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))


def template(tokenizer: PreTrainedTokenizerFast) -> ChatTemplate:
    """A tokenizer's chat template; raises LimbeckError if it has none."""
    if not tokenizer.chat_template:
        raise no_template(tokenizer.name_or_path)

    def encode(text: str) -> tuple[Sequence[int], Sequence[tuple[int, int]]]:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]

    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return ChatTemplate(
        name=tokenizer.name_or_path,
        render=lambda turns: _conversation(tokenizer, turns),
        encode=encode,
        special=frozenset(special.union(tokenizer.all_special_ids)),
    )


def user_turn_problem(folder: Path, turn: UserTurn, trust_remote_code: bool = False) -> str | None:
    """Why the model of a folder cannot write this user's turn, in one sentence, or None."""
    try:
        template(load_tokenizer(folder, trust_remote_code)).cut(turn)
    except LimbeckError as error:
        return str(error)
    return None


def _conversation(tokenizer: PreTrainedTokenizerFast, conversation: Sequence[Message]) -> str:
    """The text of a conversation, up to the header of the assistant's next turn."""
    turns = [{"role": message.role, "content": message.content} for message in conversation]
    text: str = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return text


def tokenise(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast) -> list[Query]:
    """Return each pair's tokens as one sequence, and the positions of the requested target tokens.

    A target without context gets the tokenizer's first special token (beginning, otherwise end) as its context.
    """
    if not pairs:
        return []
    encoded = tokenizer([pair.context + pair.target for pair in pairs], return_offsets_mapping=True)
    first = next((token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None), 0)
    return [query(*known, first) for known in zip(pairs, encoded["input_ids"], encoded["offset_mapping"], strict=True)]


def count_tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the token count of each text, without special tokens."""
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []
