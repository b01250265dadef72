"""The local tokenizer: counts prompts, checks that they fit, and tokenises pairs for scoring."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, resolve
from limbeck.cluster.engines.pairs import Query, query
from limbeck.cluster.engines.protocol import Message, Pair, UserTurn
from limbeck.cluster.engines.rendering import ChatTemplate, Rendered, no_template
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.tokenizer import Tokenizer

TURN_TOKENS = 8  # tokens that a template adds per message, if it cannot be rendered here
_TOKENIZER_FILES = ("*.json", "*.jinja", "*.txt", "*.model")


@dataclass(frozen=True)
class Prompts:
    """A model's tokenizer, chat template and limit; `first` is the context token of a target without context."""

    model: str
    tokenizer: Tokenizer
    template: jinja2.Template | None
    specials: dict[str, str]
    first: int
    context_tokens: int

    @classmethod
    def load(cls, model: str) -> "Prompts":
        """Read them; raises LimbeckError if there is no such model, or it has no tokenizer.json."""
        folder = locate(model)
        tokenizer, settings = Tokenizer.load(folder), _json(folder / "tokenizer_config.json")
        config = _json(folder / "config.json")
        text = config.get("text_config", config)
        limits = [text.get("max_position_embeddings"), text.get("n_positions"), settings.get("model_max_length")]
        specials = {name: _content(settings.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        specials = {name: value for name, value in specials.items() if value}
        known = (tokenizer.backend.token_to_id(specials[name]) for name in ("bos_token", "eos_token") if name in specials)
        return cls(
            model=model,
            tokenizer=tokenizer,
            template=_template(folder, settings),
            specials=specials,
            first=next((token for token in known if token is not None), 0),
            context_tokens=next((int(n) for n in limits if n and n < NO_LIMIT_TOKENS), NO_LIMIT_TOKENS),
        )

    def count(self, prompt: tuple[Message, ...] | str | UserTurn) -> int:
        """Token count of a rendered prompt; an estimate if the server's template is not known here."""
        if isinstance(prompt, str):
            return len(self.tokenizer.backend.encode(prompt))
        if isinstance(prompt, UserTurn):
            return len(self.cut(prompt).tokens)
        if self.template is not None:
            try:
                return sum(self.tokenizer.count([self._conversation(prompt)]))
            except (jinja2.TemplateError, TypeError, ValueError):  # a template that needs more than is worth for a count
                pass
        return sum(self.tokenizer.count([message.content for message in prompt])) + TURN_TOKENS * (len(prompt) + 1)

    def cut(self, turn: UserTurn) -> Rendered:
        """The prompt of a user's turn, by the template of `model`; raises LimbeckError if it cannot be cut."""
        if self.template is None:
            raise no_template(self.model)
        backend = self.tokenizer.backend
        special = frozenset(token for token, added in backend.get_added_tokens_decoder().items() if added.special)
        return ChatTemplate(self.model, self._conversation, self.tokenizer.encode_with_offsets, special).cut(turn)

    def _conversation(self, conversation: Sequence[Message]) -> str:
        """The text of a conversation, up to the header of the assistant's next turn."""
        assert self.template is not None
        turns = [{"role": message.role, "content": message.content} for message in conversation]
        return self.template.render(messages=turns, add_generation_prompt=True, tools=None, **self.specials)

    def tokenise(self, pairs: Sequence[Pair]) -> list[Query]:
        """Return the tokens of each pair as one sequence, and the positions of the requested target tokens.

        A target without context gets the tokenizer's first special token (beginning, otherwise end) as its context.
        """
        encodings = self.tokenizer.backend.encode_batch([pair.context + pair.target for pair in pairs])
        return [query(pair, code.ids, code.offsets, self.first) for pair, code in zip(pairs, encodings, strict=True)]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens."""
        text: str = self.tokenizer.backend.decode(list(tokens), skip_special_tokens=skip_special_tokens)
        return text

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of an output, without special tokens."""
        return tuple(self.tokenizer.encode_with_offsets(text)[0])


def locate(model: str) -> Path:
    """Folder of a model's tokenizer: it needs no weights, and only the small files of a Hugging Face id are fetched.

    Raises LimbeckError if it does not exist.
    """
    folder = Path(model).expanduser()
    if (folder / "tokenizer.json").exists():
        return folder.resolve()
    if model.startswith(("embedded:", "/", ".", "~")) or folder.is_dir() or model.count("/") > 1:
        return resolve(model)
    return _from_hub(model)


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted: dict[str, Any] = {"allow_patterns": list(_TOKENIZER_FILES), "ignore_patterns": ["*.index.json"]}
    try:
        cached = Path(snapshot_download(model, local_files_only=True, **wanted))
        if (cached / "tokenizer.json").exists():
            return cached
    except Exception:  # absent: the hub gives a better reason
        pass
    try:
        return Path(snapshot_download(model, etag_timeout=10, **wanted))
    except Exception as error:  # the hub client raises its own errors and its transport's
        raise LimbeckError(
            f"the tokenizer of {model} is not cached and cannot be fetched from the hub ({type(error).__name__}); set model to a "
            "folder with the server's tokenizer.json, or to the id of a model that shares it"
        ) from error


def _template(folder: Path, settings: dict[str, Any]) -> jinja2.Template | None:
    """The chat template as transformers renders it (sandboxed), or None if it is missing or not accepted by Jinja."""
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.exists() else settings.get("chat_template")
    if isinstance(source, list):
        source = next((entry.get("template") for entry in source if entry.get("name") == "default"), None)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda _: "01 January 2026"  # only used for counting
    try:
        return environment.from_string(source) if isinstance(source, str) else None
    except jinja2.TemplateError:
        return None


def _raise(words: str) -> None:
    raise jinja2.TemplateError(words)


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except ValueError as error:
        raise LimbeckError(f"{path} is not valid JSON ({error}); copy or download the model again") from error


def _content(token: Any) -> str:
    """A special token's text; a saved tokenizer stores it plain or with flags."""
    return str(token.get("content") or "") if isinstance(token, dict) else str(token or "")
