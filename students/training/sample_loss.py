"""The loss of a model on a sample of documents: used to choose layers and to measure a healed student."""

from pathlib import Path
from typing import Any

from limbeck.corpus.parts import read_table

_ROWS_PER_FORWARD = 8


def nats_per_token(model: Any, sample: list[list[int]]) -> float:
    """Return the mean negative log-likelihood of every token but the first of each sequence."""
    import torch

    total = 0.0
    with torch.inference_mode():
        for ids, labels in batches(sample, model.device):
            total += summed_loss(model, ids, labels)
    return total / sum(len(row) - 1 for row in sample)


def read_sample(file: Path) -> list[list[int]]:
    """The token ids of the sample's documents."""
    return list(read_table(file)["input_ids"].to_pylist())


def summed_loss(model: Any, ids: Any, labels: Any) -> float:
    """The summed negative log-likelihood of the labelled tokens.  # ids, labels: [batch, tokens]"""
    import torch

    wanted = labels[:, 1:] != -100
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1][wanted].float()  # [labels, vocabulary]
    return float(torch.nn.functional.cross_entropy(logits, labels[:, 1:][wanted], reduction="sum"))


def batches(sample: list[list[int]], device: Any) -> Any:
    """Yield (ids, labels) of a few sequences, padded on the right, which causal attention ignores. [batch, tokens]"""
    import torch

    for start in range(0, len(sample), _ROWS_PER_FORWARD):
        rows = [torch.tensor(row, device=device) for row in sample[start : start + _ROWS_PER_FORWARD]]
        yield (
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0),
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100),
        )
