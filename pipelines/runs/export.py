"""Export a round's dataset in a format that trainers read: messages, Alpaca, or a Hugging Face folder (pairs: export_pairs)."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from limbeck.corpus.config import nearest
from limbeck.corpus.earlier_runs import dataset_folder
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import DONE, check_whole, publishing
from limbeck.pipelines.runs.card import DATA, PREFERENCES, ROWS_PER_GROUP
from limbeck.pipelines.runs.opening import existing

Turns = list[dict[str, str]]
FORMATS = ("messages", "alpaca", "huggingface")
PAIRS = "preferences"


def export(run: Path, round: int | None, format: str, out: Path, selection: str | None = None) -> Path:
    """Write the dataset of a round (None: the last that has one), or a selection of it, and return its path.

    messages: `out` is a JSONL file with one {"messages": [{role, content}, ...]} per row, for chat trainers. alpaca: `out` is a
    folder with dataset.json (instruction, input, output and optional system) and the dataset_info.json that LLaMA-Factory reads.
    huggingface: `out` is a copy of the folder that `datasets.load_dataset` opens. Raises LimbeckError if there is no such
    dataset or selection, or if `out` exists.
    """
    if format not in FORMATS:
        near, known = nearest(format, (*FORMATS, PAIRS)), ", ".join((*FORMATS, PAIRS))
        raise LimbeckError(f"unknown format {format!r}; {f'did you mean {near}?' if near else f'known formats: {known}'}")
    folder = existing(run)
    dataset = finished_dataset(folder.path, round, selection)
    if format != "huggingface" and (dataset / PREFERENCES).exists():
        raise LimbeckError(f"{dataset} holds preference pairs, which {format} cannot represent; use --format preferences")
    with publishing(out, once="export to another path, or remove it first") as temporary:
        if format == "huggingface":
            shutil.copytree(dataset, temporary, ignore=shutil.ignore_patterns(DONE))
        elif format == "alpaca":
            temporary.mkdir()
            _write_alpaca(temporary, _name(folder.path, dataset), dataset / DATA)
        else:
            with open(temporary, "w", encoding="utf-8") as file:
                for _, prompt, completion in _conversations(dataset / DATA):
                    file.write(json.dumps({"messages": prompt + completion}, ensure_ascii=False) + "\n")
    return out


def finished_dataset(run: Path, round: int | None, selection: str | None) -> Path:
    """The folder of a round's dataset (None: the last one), or of a selection of it; raises LimbeckError if it is unfinished."""
    dataset = dataset_folder(run, "last" if round is None else round, selection)
    if selection is None and not (dataset / DONE).exists():
        raise LimbeckError(f"{dataset} is not finished yet; resume the run, or choose another --round")
    check_whole(dataset / DATA)
    return dataset


def _name(run: Path, dataset: Path) -> str:
    """The run, the round, and the selection if it is one."""
    _, number, *inner = dataset.relative_to(run).parts
    return "-".join((run.name, "round", str(int(number)), *inner[1:-1]))


def dataset_file_rows(file: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset; raises LimbeckError if it is missing or truncated."""
    check_whole(file)
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(ROWS_PER_GROUP, columns=columns):
            yield from batch.to_pylist()


def _conversations(file: Path) -> Iterator[tuple[str, Turns, Turns]]:
    """Candidate id, prompt and completion of each row as turns; plain text becomes one turn."""
    for row in dataset_file_rows(file, ["candidate_id", "prompt", "completion"]):
        yield row["candidate_id"], _turns("user", row["prompt"]), _turns("assistant", row["completion"])


def _turns(role: str, said: Any) -> Turns:
    return [{"role": role, "content": said.strip()}] if isinstance(said, str) else list(said)


def _write_alpaca(folder: Path, name: str, file: Path) -> None:
    templated = "instruction" in pq.read_schema(file).names
    rows = _instructions(file) if templated else (_alpaca(*row) for row in _conversations(file))
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    described = {name: {"file_name": "dataset.json", "formatting": "alpaca", "columns": columns}}
    with open(folder / "dataset.json", "w", encoding="utf-8") as out:
        before = "["
        for row in rows:
            out.write(before + "\n  " + json.dumps(row, indent=2, ensure_ascii=False).replace("\n", "\n  "))
            before = ","
        out.write("[]\n" if before == "[" else "\n]\n")
    (folder / "dataset_info.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _instructions(file: Path) -> Iterator[dict[str, str]]:
    """Instruction and input of rows whose prompt is made of them by a template."""
    for row in dataset_file_rows(file):
        yield {"instruction": row["instruction"], "input": row.get("input") or "", "output": row["output"], "system": ""}


def _alpaca(candidate_id: str, prompt: Turns, completion: Turns) -> dict[str, str]:
    """One Alpaca row; raises LimbeckError for several turns, which the format cannot represent."""
    by_role = {message["role"]: message["content"] for message in prompt}
    if len(by_role) != len(prompt) or set(by_role) - {"system", "user"} or len(completion) != 1:
        raise LimbeckError(
            f"candidate {candidate_id} has several turns, which the Alpaca format cannot represent; export as messages"
        )
    said, answered = by_role.get("user", ""), completion[0]["content"]
    return {"instruction": said, "input": "", "output": answered, "system": by_role.get("system", "")}
