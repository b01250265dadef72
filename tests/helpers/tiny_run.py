"""Recipes of whole runs on a model of a few thousand weights, for tests of the machinery."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

from helpers.tiny_students import make_model

WORDS = """
        alpha beta gamma delta stone cloud tree house light water bread north south east west river kappa lambda sigma
        tau
    """.split()


def write_documents(path: Path, count: int = 26, seed: int = 0) -> Path:
    """Dissimilar documents of four sentences, with references."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        sentences = [" ".join(rng.choices(WORDS, k=7)).capitalize() + "." for _ in range(4)]
        rows.append({"text": " ".join(sentences), "summary": " ".join(rng.choices(WORDS, k=6))})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe for `folder`; its model and documents are made if missing; `changes` replace whole sections."""
    model, documents = folder / "model", folder / "documents.jsonl"
    if not model.exists():
        make_model(model, max_position_embeddings=1024)
    if not documents.exists():
        write_documents(documents)
    return {
        "name": "tiny",
        "rounds": 2,
        "sources": {
            "kind": "jsonl", "path": str(documents), "reference_column": "summary", "max_source_tokens": 200,
            "split": {"train": 12, "dev": 4, "test": 6},
        },
        "teacher": {"kind": "transformers", "model": str(model), "dtype": "float32"},
        "generator": {"kind": "summaries", "samples": 3, "max_new_tokens": 12},
        "filters": [
            {"kind": "heuristics", "max_cut_off": None, "max_repeated": None, "max_copied": None, "max_echo_of_prompt": None},
            {"kind": "length", "min_output_tokens": 1, "max_compression": 5.0},
            {"kind": "pmi"},
        ],
        "calibration": {"pass_rate": 0.5},
        "student": {"kind": "sft", "epochs": 1, "batch_size": 4, "checkpoint_steps": 1},
        "evaluation": {"samples": 2, "dev_samples": 1},
        "cluster": {"rows_per_part": 4, "threads_per_worker": 1},
        **changes,
    }  # fmt: skip


def write_recipe(folder: Path, **changes: Any) -> Path:
    """The recipe as a file."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(folder, **changes)))
    return path
