"""Chat templates of the shapes of well-known models, written for tests, and a tokenizer that joins words like theirs."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<s>", "</s>"),
)

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a small helper.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's shape: a default system text, written while the first message is."""

QWEN = (
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}\n"
    "{%- else %}\n"
    "    {{- '<|im_start|>system\nYou are a helper.<|im_end|>\n' }}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'user' or message.role == 'assistant' or (message.role == 'system' and not loop.first) %}\n"
    "        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\n' }}\n"
    "{%- endif %}\n"
)
"""Qwen2.5's shape: a default system text before the loop, and whitespace control throughout."""

LLAMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""Llama 3's shape: a beginning-of-text token, and texts that are trimmed."""

BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('no system texts here') }}{% endif %}{% endfor %}"
)
"""Mistral's first shape: the turn ends in text, and a space before the user's text belongs to its first word."""

_TRAINING = (
    "Name three rivers of Asia. Sentinel number one, which no template may change. Another one that begins and ends.\n\n"
    "What is the capital of France? Write a poem about the sea.\n\nsystem user assistant You are a small helper."
)


def tokenizer(template: str | None, bos: str = "<|begin_of_text|>", adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose words begin with their space; `adds_bos`: it puts a `bos` before every text, as Llama 3's does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False)
    backend.train_from_iterator([_TRAINING] * 8, trainer)
    if adds_bos:
        from tokenizers.processors import TemplateProcessing

        backend.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token="</s>")
    fast.chat_template = template
    return fast


def save_tokenizer(folder: Path, template: str | None, bos: str = "<|begin_of_text|>", adds_bos: bool = False) -> Path:
    """The tokenizer as a model folder without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(template, bos, adds_bos).save_pretrained(folder)
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    return folder
