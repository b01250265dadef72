"""Word lists: what a term matches, against trying every term at every place, and lists that cannot be used."""

from pathlib import Path

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import Filter
from limbeck.filters.text.toxicity import Terms, ToxicityConfig, normalised, read_terms

LIST = """
# things that we do not say
darn
heck*   # and heckish
son of a gun
bloody fool*
naïve
co-worker
"""


@pytest.fixture
def words(tmp_path: Path) -> str:
    path = tmp_path / "words.txt"
    path.write_text(LIST, encoding="utf-8")
    return str(path)


def scored(words: str, outputs: list[str | None]) -> list[dict[str, object]]:
    candidates = pa.table({"candidate_id": [str(at) for at in range(len(outputs))], "output": pa.array(outputs, pa.string())})
    return list(ToxicityConfig(words=words).build(engines=None).score(candidates).to_pylist())


@pytest.mark.parametrize(
    ("output", "matched", "covered", "number"),
    [
        ("Well, darn it.", ["darn"], 1, 3),
        ("DARN! Darn?", ["darn"], 2, 2),
        ("He is darning socks, undarned.", [], 0, 5),  # whole words
        ("What the HECK, heckishly", ["heck*"], 2, 4),
        ("You son of a gun!", ["son of a gun"], 4, 5),
        ("You son-of-a-gun!", ["son of a gun"], 4, 5),
        ("son of a gunner", [], 0, 4),
        ("bloody foolish, bloody  \n fools", ["bloody fool*"], 4, 4),
        ("nai\u0308ve and NA\u00cfVE", ["naïve"], 2, 3),  # composed and decomposed
        ("d\u200barn and da\u00adrn and ｄａｒｎ", ["darn"], 3, 5),  # zero width, soft hyphen, full width
        ("my co-workers and a co worker", ["co-worker"], 2, 7),
        ("", [], 0, 1),
        ("...", [], 0, 1),
        (None, [], 0, 1),
    ],
)
def test_what_matches(words: str, output: str | None, matched: list[str], covered: int, number: int) -> None:
    (row,) = scored(words, [output])
    assert row["matched"] == matched
    assert row["share"] == pytest.approx(covered / number)
    assert (row["terms"] > 0) == bool(matched)


def test_the_longest_term_at_a_place_counts_and_terms_do_not_overlap() -> None:
    terms = Terms(["a", "a b", "b c", "a b c*"])
    assert [(found.term, found.words) for found in terms.find("a b cd a b a")[0]] == [("a b c*", 3), ("a b", 2), ("a", 1)]


vocabulary = st.sampled_from(["a", "ab", "abc", "b", "bc", "c"])
patterns = st.lists(
    st.lists(st.tuples(vocabulary, st.booleans()).map(lambda pair: pair[0] + "*" * pair[1]), min_size=1, max_size=3).map(
        " ".join
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(patterns, st.lists(vocabulary, max_size=8))
def test_matches_equal_trying_every_term_at_every_place(terms: list[str], text: list[str]) -> None:
    def fits(term: str, at: int) -> bool:
        pattern = term.split()
        if at + len(pattern) > len(text):
            return False
        pairs = zip(pattern, text[at : at + len(pattern)], strict=True)
        return all(word.startswith(wanted[:-1]) if wanted.endswith("*") else word == wanted for wanted, word in pairs)

    covered, at = 0, 0
    while at < len(text):
        longest = max((len(term.split()) for term in terms if fits(term, at)), default=0)
        covered += longest
        at += max(1, longest)
    found, number = Terms(terms).find(" ".join(text))
    assert sum(one.words for one in found) == covered and number == len(text)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@pytest.mark.parametrize("content", ["", "\n# only a comment\n", "a$$\n", "*\n", "-\n", "ab*c\n", "good\nb@d\n"])
def test_a_list_that_cannot_be_used_is_reported_before_the_run(tmp_path: Path, content: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(content, encoding="utf-8")
    (problem,) = ToxicityConfig(words=str(path)).problems()
    assert problem.startswith("filter toxicity: ") and str(path) in problem
    with pytest.raises(LimbeckError):
        ToxicityConfig(words=str(path)).build(engines=None)


def test_a_missing_list_and_one_in_another_encoding(tmp_path: Path) -> None:
    assert "no.txt does not exist" in ToxicityConfig(words=str(tmp_path / "no.txt")).problems()[0]
    (tmp_path / "latin.txt").write_bytes(b"na\xefve\n")
    assert "UTF-8" in ToxicityConfig(words=str(tmp_path / "latin.txt")).problems()[0]
    assert "cannot be read" in ToxicityConfig(words=str(tmp_path)).problems()[0]


def test_scores_depend_on_the_words_not_on_the_path(words: str, tmp_path: Path) -> None:
    assert read_terms(Path(words)) == ["darn", "heck*", "son of a gun", "bloody fool*", "naïve", "co-worker"]
    (tmp_path / "copy.txt").write_text(LIST, encoding="utf-8-sig")
    one, copy = ToxicityConfig(words=words), ToxicityConfig(words=str(tmp_path / "copy.txt"), max_terms=2.0)
    assert one.problems() == []
    assert one.scoring() == copy.scoring()
    (tmp_path / "copy.txt").write_text(LIST + "drat\n", encoding="utf-8")
    assert one.scoring() != copy.scoring()
    assert set(one.reasons) == set(one.limit_fields())


def test_hostile_rows_and_no_rows_are_scored(words: str) -> None:
    rows = scored(words, ["darn " * 20_000, "x" * 100_000, "\u202eمرحبا\0", "son of a " * 20_000])
    assert [row["terms"] for row in rows] == [20_000.0, 0.0, 0.0, 0.0]
    assert scored(words, []) == []
    assert isinstance(ToxicityConfig(words=words).build(engines=None), Filter)
