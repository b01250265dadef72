"""How well `instruction_likeness` tells instructions from other texts: AUROC of each column on two halves of labelled texts.

    python -m benchmarks.instruction_likeness [--model M] [--half tune|held-out] [--limit N] [--json]

Instructions are those of the seed tasks of Self-Instruct; a hash of their ids divides them into the half on which the filter was
chosen (tune) and the other (held out). Against them stand: their words in random order (shuffled), the first 35 to 75 % of their
words (cut off), the same two with the case and the final stop of a sentence, so that no rule of form helps (shuffled or cut off,
tidied), plain sentences (plain_sentences.jsonl), and the first sentences of the answers of the tasks (answers).
"""

import argparse
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.critics import auroc
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.corpus.seed_texts import read_seed_tasks
from limbeck.corpus.sentences import split_sentences
from limbeck.filters.models.instruction_likeness import LISTS, InstructionLikenessConfig
from limbeck.generators.instruction_tasks import SEED_TASKS

SENTENCES = Path(__file__).with_name("plain_sentences.jsonl")
HALVES = {"tune": 0, "held-out": 1}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--half", choices=HALVES, default="held-out")
    parser.add_argument("--limit", type=int, help="texts per set")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sets = {name: texts[: arguments.limit] for name, texts in labelled(arguments.half).items()}
    config = InstructionLikenessConfig(engine=TransformersConfig(model=arguments.model))
    columns = measured(config, sets)
    if arguments.json:
        print(json.dumps({name: {c: values.tolist() for c, values in found.items()} for name, found in columns.items()}))
        return
    print(f"{arguments.half} half, model {arguments.model}; bounds as by default\n")
    print(table(sets, columns, float(str(config.min_log_odds))))


def labelled(half: str) -> dict[str, list[str]]:
    """The sets of texts of one half, instructions first."""
    rows = [row for row in read_seed_tasks(SEED_TASKS) if _half(row["id"]) == HALVES[half]]
    instructions = [" ".join(row["instruction"].split()) for row in rows]
    draw = random.Random(half)
    shuffled, cut = [_shuffled(text, draw) for text in instructions], [_cut(text, draw) for text in instructions]
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    named = half.replace("-", " ")
    answers = [" ".join(split_sentences(row["output"])[0].split()) for row in rows]
    return {
        "instructions": instructions,
        "shuffled": shuffled,
        "shuffled, tidied": [_tidied(text) for text in shuffled],
        "cut off": cut,
        "cut off, tidied": [_tidied(text) for text in cut],
        "plain sentences": [row["text"] for row in map(json.loads, lines) if row["half"] == named],
        "answers": [text for text in answers if len(text.split()) >= 4],
    }


def measured(
    config: InstructionLikenessConfig, sets: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """The columns of each set: those of the filter, higher is better, and whether the text ends like a sentence."""
    texts = [text for some in sets.values() for text in some]
    candidates = pa.table({"candidate_id": [str(place) for place in range(len(texts))], "prompt": texts})
    scores = config.build(Engines()).score(candidates)
    found, start = {}, 0
    for name, some in sets.items():
        part = scores.slice(start, len(some))
        start += len(some)
        found[name] = {
            "log_odds": part["log_odds"].to_numpy(),
            "rules": -part["broken_rules"].to_numpy(),
            "ends with a stop": np.array([float(text[-1:] in ".?!") for text in some]),
            "nearest": np.array([LISTS.index(one) for one in part["nearest"].to_pylist()], np.float64),
        }
    return found


def table(sets: Mapping[str, Sequence[str]], columns: Mapping[str, Mapping[str, npt.NDArray[np.float64]]], bound: float) -> str:
    """AUROC of each column against each set, and how many texts pass the bounds."""
    lines = [
        f"| texts | n | log_odds | broken_rules | ends with a stop (no column) | log_odds ≥ {bound:g} | 0 broken rules | both |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, some in sets.items():
        mine, own = columns["instructions"], columns[name]
        areas = [
            "–" if name == "instructions" else f"{auroc(mine[c], own[c]):.2f}" for c in ("log_odds", "rules", "ends with a stop")
        ]
        likely, formed = own["log_odds"] >= bound, own["rules"] == 0
        shares = [f"{100 * np.mean(one):.0f} %" for one in (likely, formed, likely & formed)]
        lines.append(f"| {name} | {len(some)} | " + " | ".join([*areas, *shares]) + " |")
    return "\n".join(lines)


def _half(id_: str) -> int:
    return hashlib.sha256(id_.encode()).digest()[0] % 2


def _shuffled(text: str, draw: random.Random) -> str:
    words = text.split()
    mixed = words[:]
    while mixed == words:
        draw.shuffle(mixed)
    return " ".join(mixed)


def _cut(text: str, draw: random.Random) -> str:
    words = text.split()
    return " ".join(words[: max(2, min(len(words) - 1, round(len(words) * draw.uniform(0.35, 0.75))))])


def _tidied(text: str) -> str:
    """The words as one sentence by its form: a capital first, no stops inside, a full stop at the end."""
    words = [word.rstrip(".?!,;:") for word in text.split()]
    joined = " ".join(words).strip()
    return f"{joined[:1].upper()}{joined[1:]}."


if __name__ == "__main__":
    main()
