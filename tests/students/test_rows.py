"""Rendered rows against TRL's own preparation of the same dataset."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.tiny_students import TEMPLATE, make_dataset, make_model
from limbeck.corpus.errors import LimbeckError
from limbeck.students.base.compatibility import end_tokens
from limbeck.students.training.driver import dataset_files
from limbeck.students.training.rows import Row, common_prefix, completion_end, read_rows, rendered

# a prompt alone ends with a thought that the whole conversation leaves out, so the completion begins before the prompt's end
THINKING = TEMPLATE.replace("'<|start|>assistant\n' }}", "'<|start|>assistant\n<think>\n' }}")


def prepared_by_trl(model: Path, table: pa.Table, folder: Path) -> list[tuple[list[int], list[int]]]:
    """The token ids and labels that TRL's trainer makes of a dataset."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    arguments = SFTConfig(output_dir=str(folder), use_cpu=True, bf16=False, max_length=None, report_to=[])
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(model), arguments, train_dataset=Dataset(table), processing_class=tokenizer
    )
    return [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]


def rendered_with(model: Path, table: pa.Table) -> list[Row]:
    from transformers import AutoTokenizer

    return rendered(table, AutoTokenizer.from_pretrained(model), end_tokens(model))


@pytest.mark.parametrize(("conversational", "template"), [(True, TEMPLATE), (True, THINKING), (False, TEMPLATE)])
def test_rows_are_what_trl_prepares_up_to_the_end_token(tmp_path: Path, conversational: bool, template: str) -> None:
    model = make_model(tmp_path / "model", template=template)
    make_dataset(tmp_path / "dataset", rows=12, conversational=conversational)
    table = read_rows(dataset_files(tmp_path / "dataset"))
    ends = end_tokens(model)
    rows = rendered_with(model, table)
    for row, (ids, labels) in zip(rows, prepared_by_trl(model, table, tmp_path / "out"), strict=True):
        stop = next(place for place, label in enumerate(labels) if label in ends) + 1
        assert row.ids.dtype == np.int32
        assert row.ids.tolist() == ids[:stop]
        assert row.labels == labels[:stop]
        assert conversational == (stop < len(ids)), "the template writes a newline after the end token"
        assert 0 < row.prompt_length < stop


def test_raw_text_is_learned_as_a_whole(tmp_path: Path) -> None:
    pq.write_table(pa.table({"input_ids": [[5, 6, 7], [8, 2]]}), tmp_path / "raw.parquet")
    rows = rendered(read_rows([tmp_path / "raw.parquet"]), None, frozenset({2}))
    assert [(row.ids.tolist(), row.labels) for row in rows] == [([5, 6, 7], [5, 6, 7]), ([8, 2], [8, 2])]


def test_completions_of_any_number_of_rows_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.students.training import rows as module

    model = make_model(tmp_path / "model")
    make_dataset(tmp_path / "dataset", rows=11)
    table = read_rows(dataset_files(tmp_path / "dataset"))
    whole = [row.ids.tolist() for row in rendered_with(model, table)]
    monkeypatch.setattr(module, "ROWS_PER_CALL", 4)
    assert [row.ids.tolist() for row in rendered_with(model, table)] == whole


def test_an_end_token_inside_a_completion_is_where_generation_stops() -> None:
    ids = [5, 2, 6, 2, 7, 3, 9]
    assert completion_end(ids, 2, frozenset({2, 3})) == 4
    with pytest.raises(LimbeckError, match="has no end token"):
        completion_end(ids, 2, frozenset({4}))


@pytest.mark.parametrize(("first", "second", "shared"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 5, 3], [1, 2, 3], 1)])
def test_a_common_prefix(first: Any, second: Any, shared: int) -> None:
    assert common_prefix(first, second) == common_prefix(second, first) == shared
