"""What a cached teacher loses: mass, gradient and bytes for several top_k, against a live teacher.

    python -m benchmarks.teacher_cache [--model NAME] [--layers 20] [--rows 24] [--top-k 8 20 30 64 256] [--json]

The rows are sentences of this repository's documents in docs/ as the teacher's chat template renders them; the student is the
teacher with evenly chosen layers, untrained, so its gradients are large. Gradients are those of the forward KL with respect to
the student's hidden states at every label, all positions in one vector; `cosine` compares them with those of a live teacher, with
the tail as its own class and with the top_k tokens normalised alone. Bytes are before compression.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import build
from limbeck.cluster.engines.protocol import TokenRow, TopLogprobs
from limbeck.students.base.layers import keep_evenly
from limbeck.students.losses.chunked import Head, cached_loss, distillation_loss
from limbeck.students.losses.divergences import Divergence
from limbeck.students.training.heads import head_of, hidden_states

FORWARD = Divergence("forward_kl")
DOCS = Path(__file__).resolve().parent.parent / "docs"


def rows_of(tokenizer: Any, number: int) -> list[TokenRow]:
    """Paragraphs as answers to a question, up to 96 tokens."""
    texts = [text for page in sorted(DOCS.glob("*.md")) for text in page.read_text().split("\n\n") if len(text.split()) > 25]
    made = []
    for text in texts[:: max(1, len(texts) // number)][:number]:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Explain: {text[:40]}"}], add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        made.append(TokenRow(tuple([*prompt, *tokenizer(text)["input_ids"]][:96]), len(prompt)))
    return made


def gradient(hidden: torch.Tensor, loss: Any) -> torch.Tensor:
    """The gradient of a loss of hidden states, as one vector."""
    hidden = hidden.detach().requires_grad_(True)
    loss(hidden).backward()
    assert hidden.grad is not None
    return hidden.grad.flatten()


def cached(hidden: torch.Tensor, head: Head, given: list[TopLogprobs], *, tail: bool) -> torch.Tensor:
    """The gradient from cached log-probabilities in float16; without the tail, the top_k are all tokens that there are."""
    ids, logs, rest = (np.concatenate([getattr(one, name) for one in given]) for name in ("ids", "logprobs", "tail"))
    kept = torch.from_numpy(logs.astype(np.float16).astype(np.float32))
    last = torch.from_numpy(rest.astype(np.float16).astype(np.float32))
    if tail:
        index = torch.from_numpy(ids.astype(np.int64))
        return gradient(hidden, lambda states: cached_loss(states, head, index, kept, last, FORWARD))
    index, p = torch.from_numpy(ids.astype(np.int64)), kept.softmax(-1)

    def loss(states: torch.Tensor) -> torch.Tensor:
        logits = torch.nn.functional.linear(states, head.weight).log_softmax(-1).gather(-1, index)
        return -(p * logits).sum()

    return gradient(hidden, loss)


def main() -> None:
    """Print one line per top_k."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--top-k", type=int, nargs="+", default=[8, 20, 30, 64, 256])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    engine = build(TransformersConfig(model=options.model, dtype="float32"))
    teacher = engine.loaded.model
    rows = rows_of(engine.loaded.tokenizer, options.rows)
    found = {k: [one for one in engine.top_logprobs(rows, k) if one is not None] for k in options.top_k}
    teacher.set_attn_implementation("sdpa")
    with torch.no_grad():
        theirs = states_of(teacher, rows)
        keep_evenly(teacher, options.layers)
        ours = states_of(teacher, rows)
    head = head_of(teacher)
    head = Head(head.weight.detach(), None if head.bias is None else head.bias.detach(), head.scale, head.soft_cap)
    live = gradient(ours, lambda states: distillation_loss(states, head, theirs, head, FORWARD))
    lines = []
    for k, given in found.items():
        mass = float(np.mean(1 - np.exp(np.concatenate([one.tail for one in given]).astype(np.float64))))
        cosines = (torch.cosine_similarity(cached(ours, head, given, tail=tail), live, dim=0) for tail in (True, False))
        with_tail, alone = (float(value) for value in cosines)
        lines.append({"top_k": k, "mass": mass, "cosine": with_tail, "cosine_without_tail": alone, "bytes": 4 * k + 2})
    facts = {"labels": sum(row.positions for row in rows), "layers": options.layers, "of": options.model}
    if options.json:
        print(json.dumps({**facts, "top_k": lines}))
        return
    print(facts)
    for line in lines:
        print(", ".join(f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in line.items()))


def states_of(model: Any, rows: list[TokenRow]) -> torch.Tensor:
    """The hidden states that predict every label.  # [labels, width]"""
    return torch.cat([hidden_states(model, input_ids=torch.tensor([row.tokens]))[0, row.first - 1 : -1] for row in rows])


if __name__ == "__main__":
    main()
