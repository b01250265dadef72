"""The chat template cut before the user's text: by hand for every shape of template, and refused if there is no such place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.chat_templates import BRACKETS, CHATML, LLAMA, QWEN, SMOLLM, save_tokenizer, tokenizer
from limbeck.cluster.engines import chat
from limbeck.cluster.engines.config import AutoConfig, EndpointConfig, EngineConfig, TransformersConfig, VllmConfig
from limbeck.cluster.engines.endpoint.prompts import Prompts
from limbeck.cluster.engines.protocol import Message, UserTurn
from limbeck.cluster.engines.rendering import Rendered
from limbeck.corpus.errors import LimbeckError

SYSTEM = Message("system", "Talk like a pirate.")
EXCHANGE = (Message("user", "Name three rivers."), Message("assistant", "Rhine, Nile, Ganges."))
FIRST, STEERED, NEXT = UserTurn(), UserTurn((SYSTEM,)), UserTurn(EXCHANGE)
TEXTS = (
    "What is the capital of France?",
    "write a poem",
    "7 times 8",
    "“Quoted”, and more",
    "Ünïcode",
    "一個問題",
    "- a list",
    "A",
)

Cutter = Callable[[str, UserTurn, bool], tuple[str, Rendered]]


def by_transformers(folder: Path, template: str, turn: UserTurn, adds_bos: bool) -> tuple[str, Rendered]:
    found = tokenizer(template, adds_bos=adds_bos)
    rendered = chat.render(turn, found)
    return found.decode(rendered.tokens), rendered


def by_endpoint(folder: Path, template: str, turn: UserTurn, adds_bos: bool) -> tuple[str, Rendered]:
    prompts = Prompts.load(str(save_tokenizer(folder, template, adds_bos=adds_bos)))
    rendered = prompts.cut(turn)
    return prompts.decode(rendered.tokens, skip_special_tokens=False), rendered


@pytest.fixture(params=[by_transformers, by_endpoint])
def cut(request: pytest.FixtureRequest, tmp_path: Path) -> Cutter:
    """Cut a template as the engines in this process do, or as the endpoint does, which loads no transformers."""
    return lambda template, turn, adds_bos=False: request.param(tmp_path, template, turn, adds_bos)


EXCHANGE_ML = "<|im_start|>user\nName three rivers.<|im_end|>\n<|im_start|>assistant\nRhine, Nile, Ganges.<|im_end|>\n"
PIRATE_ML = "<|im_start|>system\nTalk like a pirate.<|im_end|>\n"
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"


@pytest.mark.parametrize(
    ("template", "turn", "expected"),
    [
        (CHATML, FIRST, "<|im_start|>user\n"),
        (CHATML, STEERED, PIRATE_ML + "<|im_start|>user\n"),
        (CHATML, NEXT, EXCHANGE_ML + "<|im_start|>user\n"),
        (SMOLLM, FIRST, "<|im_start|>system\nYou are a small helper.<|im_end|>\n<|im_start|>user\n"),
        (SMOLLM, STEERED, PIRATE_ML + "<|im_start|>user\n"),
        (SMOLLM, NEXT, "<|im_start|>system\nYou are a small helper.<|im_end|>\n" + EXCHANGE_ML + "<|im_start|>user\n"),
        (QWEN, FIRST, "<|im_start|>system\nYou are a helper.<|im_end|>\n<|im_start|>user\n"),
        (QWEN, STEERED, PIRATE_ML + "<|im_start|>user\n"),
        (QWEN, NEXT, "<|im_start|>system\nYou are a helper.<|im_end|>\n" + EXCHANGE_ML + "<|im_start|>user\n"),
        (LLAMA, FIRST, "<|begin_of_text|>" + HEADER.format("user")),
        (
            LLAMA,
            STEERED,
            "<|begin_of_text|>" + HEADER.format("system") + "Talk like a pirate.<|eot_id|>" + HEADER.format("user"),
        ),
        (
            LLAMA,
            NEXT,
            f"<|begin_of_text|>{HEADER.format('user')}Name three rivers.<|eot_id|>"
            f"{HEADER.format('assistant')}Rhine, Nile, Ganges.<|eot_id|>{HEADER.format('user')}",
        ),
        (BRACKETS, FIRST, "<|begin_of_text|>[INST]"),
        (BRACKETS, NEXT, "<|begin_of_text|>[INST] Name three rivers. [/INST] Rhine, Nile, Ganges.</s>[INST]"),
    ],
)
@pytest.mark.parametrize("adds_bos", [False, True])
def test_the_cut_is_before_the_user_s_text(cut: Cutter, template: str, turn: UserTurn, expected: str, adds_bos: bool) -> None:
    text, _ = cut(template, turn, adds_bos)
    assert text == expected, "a beginning-of-text token is written by the template alone, never by the tokenizer again"


@pytest.mark.parametrize("template", [CHATML, SMOLLM, QWEN, LLAMA, BRACKETS])
@pytest.mark.parametrize("turn", [FIRST, NEXT])
def test_every_conversation_begins_with_the_cut_and_continues_with_its_text(template: str, turn: UserTurn) -> None:
    found = tokenizer(template, adds_bos=True)
    rendered = chat.render(turn, found)
    for text in TEXTS:
        whole = chat.render((*turn.before, Message("user", text)), found).tokens
        assert whole[: len(rendered.tokens)] == rendered.tokens, text
        rest = found.decode(whole[len(rendered.tokens) :])
        assert rest.lstrip(" ").startswith(text), "the next token is the first of the user's text, with its space"


def special(names: set[str], rendered: Rendered) -> set[str]:
    found = tokenizer(CHATML)
    assert {found.convert_tokens_to_ids(name) for name in names} == set(rendered.end_tokens)
    return names


def test_a_turn_ends_at_the_special_tokens_of_the_template_or_at_its_text(cut: Cutter) -> None:
    for template in (CHATML, SMOLLM, QWEN):
        _, rendered = cut(template, FIRST)
        special({"<|im_start|>", "<|im_end|>"}, rendered)
        assert rendered.stop == ()
    _, rendered = cut(LLAMA, FIRST)
    special({"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, rendered)
    assert rendered.stop == ()
    _, rendered = cut(BRACKETS, NEXT)
    special({"<|begin_of_text|>", "</s>"}, rendered)
    assert rendered.stop == ("[/INST]",)
    _, rendered = cut("{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}### assistant:\n", FIRST)
    assert (set(rendered.end_tokens), rendered.stop) == (set(), ("### assistant:",))


MOVED = "{% set t = messages[-1].content %}<|im_start|>{{ t | length }}\n{{ t }}<|im_end|>"
REFUSED = {
    "{{ messages[-1].role }}\n{{ messages[-1].content[:40] }}<|im_end|>": "drops or changes the user's text",
    "<|im_start|>user\n{{ messages[-1].content | upper }}<|im_end|>": "drops or changes the user's text",
    "<|im_start|>user\n<|im_end|>": "drops or changes the user's text",
    "<|im_start|>{{ messages[-1].content }}\n{{ messages[-1].content }}<|im_end|>": "repeats the user's text",
    MOVED: "depends on the user's text",
    "{{ messages[-1].content }}<|im_end|>": "writes nothing before the user's text",
    "<|im_start|>user\nName thr{{ messages[-1].content.replace('Sen', 'ee').replace('Ano', 'ee') }}": "drops or changes",
    "<|im_start|>user:S{{ messages[-1].content }}<|im_end|>": None,  # a letter that joins no word of the vocabulary
}


@pytest.mark.parametrize(("template", "fault"), REFUSED.items())
def test_a_template_without_such_a_place_is_refused_in_one_sentence(cut: Cutter, template: str, fault: str | None) -> None:
    if fault is None:
        assert cut(template, FIRST)[0] == "<|im_start|>user:S"
        return
    with pytest.raises(LimbeckError, match=fault) as refused:
        cut(template, FIRST)
    assert "so it cannot be cut before it; use another model" in str(refused.value) and "\n" not in str(refused.value)


def test_a_token_that_reaches_into_the_text_is_no_place_to_cut() -> None:
    found = tokenizer("<|im_start|>user:Sen{{ messages[-1].content[3:] if false else messages[-1].content }}<|im_end|>")
    template = chat.template(found)
    joined = template.encode

    def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        tokens, offsets = joined(text)
        place = next(n for n, (begin, _) in enumerate(offsets) if begin >= text.index(":Sen") + 1)
        return [*tokens[:place], 9, *tokens[place + 4 :]], [
            *offsets[:place],
            (offsets[place][0], offsets[place + 3][1]),
            *offsets[place + 4 :],
        ]

    with pytest.raises(LimbeckError, match="ends in a token that reaches into the user's text"):
        type(template)(template.name, template.render, encode, template.special).cut(FIRST)


def test_a_template_that_fails_is_refused_with_its_words(cut: Cutter) -> None:
    with pytest.raises(LimbeckError, match=r"does not render a conversation of system, user: no system texts here; use"):
        cut(BRACKETS, STEERED)


def test_an_earlier_turn_may_contain_the_sentinels() -> None:
    from limbeck.cluster.engines.rendering import SENTINELS

    found = tokenizer(CHATML)
    before = (Message("user", f"{SENTINELS[0]} still {SENTINELS[1]}"), Message("assistant", "Yes."))
    assert found.decode(chat.render(UserTurn(before), found).tokens).endswith("Yes.<|im_end|>\n<|im_start|>user\n")


@pytest.mark.parametrize("kind", [TransformersConfig, VllmConfig, AutoConfig, EndpointConfig])
def test_every_kind_of_engine_answers_check(kind: type[EngineConfig], tmp_path: Path) -> None:
    good, plain, broken = (tmp_path / name for name in ("good", "plain", "broken"))
    for folder, template in ((good, CHATML), (plain, None), (broken, MOVED)):
        save_tokenizer(folder, template)
        (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert kind(model=str(good)).user_turn_problem(FIRST) is None
    assert "has no chat template, so it has no user's turn" in str(kind(model=str(plain)).user_turn_problem(FIRST))
    assert "depends on the user's text" in str(kind(model=str(broken)).user_turn_problem(FIRST))
