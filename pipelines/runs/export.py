"""Export a round's dataset in a format that trainers read: messages, Alpaca, or a Hugging Face folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa

from limbeck.corpus.config import nearest
from limbeck.corpus.earlier_runs import dataset_folder
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import DONE, publishing, read_table
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.folder import existing

Turns = list[dict[str, str]]
FORMATS = ("messages", "alpaca", "huggingface")


def export(run: Path, round: int | None, format: str, out: Path, selection: str | None = None) -> Path:
    """Write the dataset of a round (None: the last that has one), or a selection of it, and return its path.

    messages: `out` is a JSONL file with one {"messages": [{role, content}, ...]} per row, for chat trainers. alpaca: `out` is a
    folder with dataset.json (instruction, input, output and optional system) and the dataset_info.json that LLaMA-Factory reads.
    huggingface: `out` is a copy of the folder that `datasets.load_dataset` opens. Raises LimbeckError if there is no such
    dataset or selection, or if `out` exists.
    """
    if format not in FORMATS:
        near = nearest(format, FORMATS)
        raise LimbeckError(
            f"unknown format {format!r}; {f'did you mean {near}?' if near else 'known formats: ' + ', '.join(FORMATS)}"
        )
    folder = existing(run)
    dataset = dataset_folder(folder.path, "last" if round is None else round, selection)
    if selection is None and not (dataset / DONE).exists():
        raise LimbeckError(f"{dataset} is not finished yet; resume the run, or choose another --round")
    with publishing(out, once="export to another path, or remove it first") as temporary:
        if format == "huggingface":
            shutil.copytree(dataset, temporary, ignore=shutil.ignore_patterns(DONE))
        elif format == "alpaca":
            temporary.mkdir()
            _write_alpaca(temporary, _name(folder.path, dataset), read_table(dataset / DATA))
        else:
            rows = _conversations(read_table(dataset / DATA))
            lines = (json.dumps({"messages": prompt + completion}, ensure_ascii=False) + "\n" for _, prompt, completion in rows)
            temporary.write_text("".join(lines), encoding="utf-8")
    return out


def _name(run: Path, dataset: Path) -> str:
    """The run, the round, and the selection if it is one."""
    _, number, *inner = dataset.relative_to(run).parts
    return "-".join((run.name, "round", str(int(number)), *inner[1:-1]))


def _conversations(table: pa.Table) -> list[tuple[str, Turns, Turns]]:
    """Candidate id, prompt and completion of each row as turns; plain text becomes one turn."""
    rows = table.select(["candidate_id", "prompt", "completion"]).to_pylist()
    return [(row["candidate_id"], _turns("user", row["prompt"]), _turns("assistant", row["completion"])) for row in rows]


def _turns(role: str, said: Any) -> Turns:
    return [{"role": role, "content": said.strip()}] if isinstance(said, str) else list(said)


def _write_alpaca(folder: Path, name: str, table: pa.Table) -> None:
    rows = _instructions(table) if "instruction" in table.column_names else [_alpaca(*row) for row in _conversations(table)]
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    described = {name: {"file_name": "dataset.json", "formatting": "alpaca", "columns": columns}}
    (folder / "dataset.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _instructions(table: pa.Table) -> list[dict[str, str]]:
    """Instruction and input of rows whose prompt is made of them by a template."""
    return [
        {"instruction": row["instruction"], "input": row.get("input") or "", "output": row["output"], "system": ""}
        for row in table.to_pylist()
    ]


def _alpaca(candidate_id: str, prompt: Turns, completion: Turns) -> dict[str, str]:
    """One Alpaca row; raises LimbeckError for several turns, which the format cannot represent."""
    by_role = {message["role"]: message["content"] for message in prompt}
    if len(by_role) != len(prompt) or set(by_role) - {"system", "user"} or len(completion) != 1:
        raise LimbeckError(
            f"candidate {candidate_id} has several turns, which the Alpaca format cannot represent; export as messages"
        )
    said, answered = by_role.get("user", ""), completion[0]["content"]
    return {"instruction": said, "input": "", "output": answered, "system": by_role.get("system", "")}
