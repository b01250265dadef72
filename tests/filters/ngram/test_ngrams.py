"""The n-gram critic against brute force over the corpus: spans, coverage, ∞-gram probabilities, contamination."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import Filter
from limbeck.filters.ngram.indexes import (
    NGRAM_TOKENS,
    WINDOW_CHARACTERS,
    covered_tokens,
    encode,
    index_datasets,
    longest_spans,
    ngram_share,
    open_index,
    row_sums,
    window_share,
)
from limbeck.filters.ngram.ngrams import EARLIER, ContaminationConfig, NgramsConfig
from limbeck.infinigram.build import Settings, build

FLOOR = 1e-6
CORPUS = [
    "Quern is a small library for reading weather station files.",
    "It parses METAR and SYNOP reports, checks their units, and returns plain tables.",
    "Install it with pip. There are no dependencies beyond the standard library, and it is small.",
    "Über Ähren, naïve cafés and 日本語 too.",
]


@pytest.fixture(scope="module")
def bytes_index(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory.mktemp("bytes"), CORPUS, "bytes")


@pytest.fixture(scope="module")
def words_index(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of words: a tokenizer trained on the corpus."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("words")
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=["<unk>", "</s>"], show_progress=False))
    tokenizer.save(str(folder / "tokenizer.json"))
    return made(folder, CORPUS, str(folder / "tokenizer.json"))


def made(folder: Path, documents: list[str], tokenizer: str) -> str:
    lines = folder / "corpus.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    build([lines], folder / "index", Settings(tokenizer=tokenizer, threads=1))
    return str(folder / "index")


def scored(config: NgramsConfig, outputs: list[str | None]) -> list[dict[str, object]]:
    candidates = pa.table({"candidate_id": [str(at) for at in range(len(outputs))], "output": pa.array(outputs, pa.string())})
    return list(config.build(engines=None).score(candidates).to_pylist())


def documents_of(folder: str) -> list[tuple[int, ...]]:
    tokenizer = open_index(folder).tokenizer
    return [tuple(tokenizer.encode(text)) for text in CORPUS]


def occurs(piece: tuple[int, ...], documents: list[tuple[int, ...]]) -> int:
    return sum(document[at : at + len(piece)] == piece for document in documents for at in range(len(document)))


def by_brute_force(output: str, folder: str, span_tokens: int) -> dict[str, float]:
    """Every piece of the output looked up in every document; a piece that crosses documents does not count, as in the index."""
    documents = documents_of(folder)
    ids = tuple(open_index(folder).tokenizer.encode(output))
    number = len(ids)
    spans = [(at, end) for at in range(number) for end in range(at + 1, number + 1) if occurs(ids[at:end], documents)]
    longest = max((end - at for at, end in spans), default=0)
    covered = {place for at, end in spans if end - at >= span_tokens for place in range(at, end)}
    total = sum(len(document) + 1 for document in documents)
    logs = []
    for at in range(number):
        size = max(n for n in range(at + 1) if n == 0 or occurs(ids[at - n : at], documents))
        prompts = occurs(ids[at - size : at], documents) if size else total
        logs.append(math.log(max(FLOOR, occurs(ids[at - size : at + 1], documents) / prompts)))
    return {
        "tokens": float(number),
        "longest_tokens": float(longest),
        "longest_share": longest / number if number else 0.0,
        "coverage": len(covered) / number if number else 0.0,
        "infgram_logprob": float(np.mean(logs)) if number else math.nan,
    }


OUTPUTS = [
    "Quern is a small library for reading weather station files.",
    "It parses weather station files and returns plain tables with pip.",
    "Nothing here at all?",
    "日本語 cafés",
    "Quern",
    "",
]


@pytest.mark.parametrize("kind", ["bytes_index", "words_index"])
@pytest.mark.parametrize("span_tokens", [1, 4])
def test_every_column_equals_brute_force(kind: str, span_tokens: int, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    config = NgramsConfig(index=folder, span_tokens=span_tokens, floor_probability=FLOOR)
    for output, row in zip(OUTPUTS, scored(config, OUTPUTS), strict=True):
        wanted = by_brute_force(output, folder, span_tokens)
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, nan_ok=True), output


@settings(max_examples=40, deadline=None)
@given(output=st.lists(st.sampled_from(" ".join(CORPUS).split() + ["zebra", "é"]), max_size=9).map(" ".join))
def test_random_outputs_equal_brute_force(words_index: str, output: str) -> None:
    (row,) = scored(NgramsConfig(index=words_index, span_tokens=2), [output])
    wanted = by_brute_force(output, words_index, 2)
    assert {name: row[name] for name in wanted} == pytest.approx(wanted, nan_ok=True)


def test_the_longest_span_is_shown_as_text(bytes_index: str) -> None:
    rows = scored(NgramsConfig(index=bytes_index), ["We say: it checks their units, always.", "Ähren!", "", None])
    assert [row["longest_span"] for row in rows] == [" checks their units, a", "Ähren", "", ""]
    assert rows[1]["longest_tokens"] == len("Ähren".encode())
    assert [row["tokens"] for row in rows[2:]] == [0.0, 0.0]


def test_rows_do_not_depend_on_the_rows_beside_them(words_index: str) -> None:
    config = NgramsConfig(index=words_index, contamination=ContaminationConfig(index=words_index))
    together = scored(config, OUTPUTS)
    apart = [scored(config, [output])[0] for output in OUTPUTS]
    backwards = scored(config, OUTPUTS[::-1])[::-1]
    for rows in (apart, backwards):
        for row, other in zip(together, rows, strict=True):
            assert repr({**row, "candidate_id": ""}) == repr({**other, "candidate_id": ""})


def test_contamination_by_13_grams(words_index: str) -> None:
    documents = documents_of(words_index)
    texts = [*OUTPUTS, CORPUS[2], f"{CORPUS[2]} And then some more words behind it.", f"Quern {CORPUS[1]} {CORPUS[2]}"]
    config = NgramsConfig(index=words_index, contamination=ContaminationConfig(index=words_index))
    for text, row in zip(texts, scored(config, texts), strict=True):
        ids = tuple(open_index(words_index).tokenizer.encode(text))
        grams = [ids[at : at + NGRAM_TOKENS] for at in range(len(ids) - NGRAM_TOKENS + 1)]
        wanted = sum(occurs(gram, documents) > 0 for gram in grams) / len(grams) if grams else 0.0
        assert row["contamination"] == pytest.approx(wanted), text


@settings(max_examples=40, deadline=None)
@given(
    text=st.lists(st.sampled_from([*CORPUS, "zebra", " \n", "é", "Install it with", "日本語 too. "]), max_size=5).map(" ".join)
)
def test_contamination_by_50_characters(bytes_index: str, text: str) -> None:
    starts = [at for at in range(len(text)) if not text[at].isspace() and (at == 0 or text[at - 1].isspace())]
    pieces = [text[at : at + WINDOW_CHARACTERS] for at in starts if at + WINDOW_CHARACTERS <= len(text)]
    wanted = sum(any(piece in document for document in CORPUS) for piece in pieces) / len(pieces) if pieces else 0.0
    assert window_share(open_index(bytes_index), [text, "", "zebra " * 20]).tolist() == [pytest.approx(wanted), 0.0, 0.0]


def test_an_injected_benchmark_item_is_always_found_and_shuffled_ones_never(bytes_index: str) -> None:
    contamination = ContaminationConfig(index=bytes_index, rule="50-characters")
    config = NgramsConfig(index=bytes_index, contamination=contamination, max_contamination=0.2)
    shuffled = ["".join(np.random.default_rng(0).permutation(list(text))) for text in CORPUS]
    rows = scored(config, [*CORPUS[:3], *shuffled])
    assert [row["contamination"] for row in rows] == [1.0] * 3 + [0.0] * 4
    assert [(bound.column, bound.maximum) for bound in config.bounds] == [("contamination", 0.2)]


def test_earlier_rounds_are_an_index_of_what_they_kept(tmp_path: Path) -> None:
    for number, outputs in enumerate((["The same old story."], ["A new tale.", "Another one."])):
        folder = tmp_path / f"rounds/{number:03d}/dataset"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"output": outputs, "prompt": ["p"] * len(outputs)}), folder / "train.parquet")
    datasets = sorted(tmp_path.glob("rounds/*/dataset"))
    index = index_datasets(datasets, tmp_path / "earlier", "bytes")
    assert index_datasets(datasets, tmp_path / "earlier", "bytes") == index  # finished already
    recipe = NgramsConfig(index=EARLIER, max_longest_share=0.5)
    assert recipe.against(None) is recipe and recipe.problems() == []
    config = recipe.against(str(index))
    rows = scored(config, ["The same old story.", "Never said before, I think?"])
    assert rows[0]["longest_share"] == 1.0
    assert rows[1]["longest_share"] < 0.5
    first = scored(recipe, ["The same old story.", ""])
    assert [row["longest_share"] for row in first] == [0.0, 0.0]
    assert first[0]["infgram_logprob"] == pytest.approx(math.log(FLOOR)) and math.isnan(first[1]["infgram_logprob"])
    assert set(first[0]) == set(rows[0])
    assert recipe.scoring() != config.scoring()


def test_scores_depend_on_the_content_of_the_index_not_on_where_it_lies(
    bytes_index: str, words_index: str, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(bytes_index, tmp_path / "copy")
    here, there = NgramsConfig(index=bytes_index), NgramsConfig(index=str(tmp_path / "copy"), max_coverage=0.5, name="other")
    assert here.scoring() == there.scoring() != NgramsConfig(index=words_index).scoring()
    assert here.scoring() != NgramsConfig(index=bytes_index, contamination=ContaminationConfig(index=words_index)).scoring()
    assert open_index(bytes_index) is open_index(bytes_index)


def test_problems_name_the_key_and_the_way_out(bytes_index: str, words_index: str, tmp_path: Path) -> None:
    assert NgramsConfig(index=bytes_index, contamination=ContaminationConfig(index=words_index)).problems() == []
    (missing,) = NgramsConfig(index=str(tmp_path / "no")).problems()
    assert missing.startswith("filters.ngrams.index: ") and "limbeck ngram build" in missing
    (wrong,) = NgramsConfig(
        index=bytes_index, contamination=ContaminationConfig(index=words_index, rule="50-characters")
    ).problems()
    assert wrong.startswith("filters.ngrams.contamination.index: ") and "does not use the bytes tokenizer" in wrong
    with pytest.raises(ValueError, match="max_contamination needs"):
        NgramsConfig(index=bytes_index, max_contamination=0.2)
    ids = tmp_path / "ids.npy"
    np.save(ids, np.array([1, 2, 3], np.int64))
    np.save(tmp_path / "ids.offsets.npy", np.array([0, 3], np.int64))
    build([ids], tmp_path / "untold", Settings(threads=1))
    with pytest.raises(LimbeckError, match="records no tokenizer"):
        NgramsConfig(index=str(tmp_path / "untold")).build(engines=None)


def test_limits_and_reasons(bytes_index: str) -> None:
    assert set(NgramsConfig.reasons) == set(NgramsConfig.limit_fields())
    assert isinstance(NgramsConfig(index=bytes_index).build(engines=None), Filter)
    assert NgramsConfig(index=bytes_index).bounds == ()


def test_hostile_rows_and_no_rows_are_scored(bytes_index: str) -> None:
    config = NgramsConfig(index=bytes_index, contamination=ContaminationConfig(index=bytes_index, rule="50-characters"))
    rows = scored(config, ["x" * 100_000, "a " * 50_000, "\u202eمرحبا\0", None, "\n"])
    assert all(math.isfinite(row["infgram_logprob"]) == bool(row["tokens"]) for row in rows)
    assert scored(config, []) == []
    assert scored(config, ["", None])[0]["coverage"] == 0.0


lengths = st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=5)


@settings(deadline=None)
@given(lengths, st.integers(1, 5))
def test_the_arithmetic_over_flat_rows(rows: list[list[int]], span_tokens: int) -> None:
    """For any rows of ends (cut at the row's end, and never falling, as longest matches do not)."""
    ends = [list(np.maximum.accumulate([min(len(row), at + end) for at, end in enumerate(row)]).astype(int)) for row in rows]
    offsets = np.cumsum([0, *map(len, rows)])
    flat = np.array([end for row in ends for end in row], dtype=np.int64)
    starts, longest = longest_spans(flat, offsets)
    for at, row in enumerate(ends):
        sizes = [end - place for place, end in enumerate(row)]
        assert longest[at] == max(sizes, default=0)
        if sizes:
            assert starts[at] - offsets[at] == sizes.index(max(sizes))
        covered = {p for place, end in enumerate(row) if end - place >= span_tokens for p in range(place, end)}
        assert covered_tokens(flat, offsets, span_tokens)[at] == len(covered)
        assert row_sums(flat, offsets)[at] == sum(row)


def test_an_index_without_a_document_has_nothing_in_common() -> None:
    tokenizer = SimpleNamespace(encode_batch=lambda texts: [np.frombuffer(text.encode(), np.uint8) for text in texts])
    nowhere = SimpleNamespace(tokenizer=tokenizer, creativity_batch=lambda ids, offsets: np.zeros(len(ids), np.int64))
    ids, offsets = encode(nowhere, ["ab", "", "c"])
    assert ids.tolist() == [97, 98, 99] and offsets.tolist() == [0, 2, 2, 3]
    assert ngram_share(nowhere, ["a" * 20, ""]).tolist() == [0.0, 0.0]
