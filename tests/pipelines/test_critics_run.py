"""All filters in one real run of tiny models: each scores every candidate, and `ngrams` reads earlier rounds."""

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest

from helpers.commands import limbeck
from helpers.tiny_classifier import make_classifier
from helpers.tiny_encoder import make_encoder
from helpers.tiny_masked import save
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import read_parts, read_table

ROUNDS = 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("critics")


@pytest.fixture(scope="module")
def run(home: Path, ray_address: str) -> Path:
    classifier = {"model": str(make_classifier(home / "classifier")), "dtype": "float32"}
    masked = {"model": str(save(home / "masked", "bert")), "dtype": "float32"}
    encoder = {"model": str(make_encoder(home / "encoder")), "dtype": "float32"}
    (home / "words.txt").write_text("# unwanted\nzzz*\n")
    filters = [
        {"kind": "grade", "lazy": True, "self_test": 3},
        {"kind": "judge", "compare": "reference", "self_test": 3},
        {"kind": "instruction_likeness", "max_broken_rules": None, "min_log_odds": None},
        {"kind": "heuristics", "max_cut_off": None, "max_repeated": None, "max_copied": None, "max_echo_of_prompt": None},
        {"kind": "length", "min_output_tokens": 1, "max_compression": 5.0},
        {"kind": "attributes"},
        {"kind": "repetition", "min_words": None, "min_stop_words": None, "max_symbols_per_word": None},
        {
            "kind": "instructions",
            **dict.fromkeys(("min_words", "max_truncated", "max_starts_with_punctuation", "max_empty_output")),
        },
        {"kind": "language", "min_probability": None},
        {"kind": "privacy", "redact": True, "max_found": None},
        {"kind": "toxicity", "words": str(home / "words.txt")},
        {"kind": "ngrams", "index": "run:earlier", "span_tokens": 2},
        {"kind": "embedding", "encoder": encoder},
        {"kind": "pmi", "min_faithfulness": {"false_acceptance": 0.9}, "min_saliency": None},
        {"kind": "masked_pmi", "masked": masked, "min_faithfulness": None, "min_saliency": None, "max_brevity": None},
        {"kind": "bottleneck", "max_bottleneck_nats": None},
        {"kind": "fluency", "max_fluency": None},
        {"kind": "nli", "classifier": classifier, "windows": "sentences", "direction": "both", "min_entailment": None},
        {
            "kind": "equivalence",
            "classifier": classifier,
            "graph": {"ask": "edges"},
            "parser": {},
            **dict.fromkeys(("min_forward", "min_backward", "max_rouge_l", "min_numbers_agree")),
        },
    ]
    select = [
        {"kind": "duplicates", "method": "minhash", "shingle": "character"},
        {"kind": "diversity"},
        {"kind": "novelty", "nearest": 2},
    ]
    changes = {"rounds": ROUNDS, "student": None, "next_teacher": "teacher", "filters": filters, "select": select}
    done = limbeck("run", write_recipe(home, **changes), "--out", home / "run", "--no-panel", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    return home / "run"


def test_every_critic_scores_every_candidate(run: Path) -> None:
    for number in range(ROUNDS):
        folder = run / f"rounds/{number:03d}"
        ids = sorted(read_parts(folder / "candidates")["candidate_id"].to_pylist())
        found = {path.name: read_parts(path) for path in (folder / "scores").iterdir()}
        assert len(found) == 19
        for name, table in found.items():
            assert sorted(table["candidate_id"].to_pylist()) == ids, name
            assert not table["error"].drop_null().to_pylist(), name
            skipped = pc.sum(pc.is_valid(table["skipped_by"])).as_py() or 0
            assert skipped == 0 or name == "grade", name


def test_the_rounds_before_are_an_index_from_the_second_round_on(run: Path) -> None:
    first, second = (read_parts(run / f"rounds/{number:03d}/scores/ngrams") for number in range(ROUNDS))
    assert pc.max(first["longest_tokens"]).as_py() == 0, "there is no earlier round"
    kept = read_table(next((run / "rounds/000/dataset/data").glob("*.parquet")))["output"].to_pylist()
    outputs = dict(
        zip(*(read_parts(run / "rounds/001/candidates")[name].to_pylist() for name in ("candidate_id", "output")), strict=True)
    )
    spans = dict(zip(second["candidate_id"].to_pylist(), second["longest_span"].to_pylist(), strict=True))
    assert any(spans.values()), "some output repeats a beginning of what round 0 kept"
    for id_, span in spans.items():
        assert not span or (span in outputs[id_] and any(span in text for text in kept))


def test_what_set_wise_filters_found_is_kept(run: Path) -> None:
    novelty = read_table(run / "rounds/000/choices/novelty.parquet")
    assert {"rouge_l", "neighbour_ids", "neighbour_rouge_l"} <= set(novelty.column_names)
    decisions = {row["candidate_id"]: row for row in read_table(run / "rounds/000/decisions.parquet").to_pylist()}
    for id_, score in zip(novelty["candidate_id"].to_pylist(), novelty["rouge_l"].to_pylist(), strict=True):
        assert decisions[id_]["kept"] == (score is None or score <= 0.7)
    calibration = json.loads((run / "calibration.json").read_text())
    assert calibration["bounds"]["pmi"]["faithfulness"]["minimum"] is not None


def test_a_what_if_on_every_critic_needs_no_model(run: Path) -> None:
    done = limbeck("filter", run, "--set", "select=[]", "--set", "filters.pmi.min_faithfulness=null", "--json", "--examples", 0)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["after"]["kept"] >= found["before"]["kept"] and "pmi" not in found["after"]["rejected_by"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("filters.length.max_compression={false_acceptance: 0.1}", "it scores no mismatched pairs, so compression"),
        ("filters.toxicity.words=nowhere.txt", "the word list nowhere.txt does not exist"),
        ("select.diversity.graph=equivalence.entail", "did you mean 'equivalence.entails'"),
        ("select.novelty.pool=[nowhere.txt]", "nowhere.txt"),
        ("filters.nli.classifier.model=/nowhere/model", "/nowhere/model"),
    ],
)
def test_what_cannot_be_scored_is_said_before_a_run(run: Path, home: Path, override: str, words: str) -> None:
    done = limbeck("check", home / "recipe.yaml", "--set", override)
    assert done.returncode == 1 and words in done.stdout + done.stderr and "Traceback" not in done.stderr
