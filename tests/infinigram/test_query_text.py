"""Text in, text out: tokenizers, spellings, tracing with whole words, removal and builds as construction makes them."""

import numpy as np
import pytest

from helpers import ngram_oracle as naive
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.index import Index
from limbeck.infinigram.maintain import append, remove
from limbeck.infinigram.trace import bm25

TEXTS = [
    "The limbeck is a still. The still is old.\n",
    "A limbeck of glass. the still burns; THE END\n",
    "Nothing of that kind here, or nearly nothing.\n",
    "The limbeck is a still. The still is old. So it ends.\n",
]


@pytest.fixture(params=[4, 5])
def folder(tmp_path, request):
    sources = tmp_path / "texts"
    sources.mkdir()
    for number, text in enumerate(TEXTS):
        (sources / f"{number}.txt").write_text(text)
    build([sources], tmp_path / "index", Settings(tokenizer="bytes", shards=2, version=request.param))
    return tmp_path / "index"


def test_text_goes_in_and_comes_out(folder):
    index = Index.open(folder)
    assert index.count("limbeck") == 3
    assert index.count("The still is old. So") == 1
    assert index.find("still").count == 5
    assert index.prob("limbec", ord("k")).probability == 1.0
    assert {index.document(number).text for number in range(4)} == set(TEXTS)
    found = index.search("glass", max_tokens=20)
    document = found.documents[0]
    assert document.text is not None
    assert document.text[document.needle :].startswith("glass")
    assert index.count_cnf([["limbeck"], ["still"]]) == (3, False)


def test_text_without_a_tokenizer_is_refused(tmp_path):
    index = Index.open(naive.write_index(tmp_path / "ids", [[1, 2]]))
    with pytest.raises(BadQuery, match="tokenizer"):
        index.count("text")


def test_spellings(folder):
    index = Index.open(folder)
    assert index.count_any(index.variants("the still")) == 1
    assert index.count_any(index.variants("the still", any_case=True)) == 3
    assert index.count_any(index.variants("the", any_case=True, word_start=True)) == 6
    assert index.count_any(["still", "still is", "still"]) == 5
    assert index.search_cnf([index.variants("the still", any_case=True)]).count == 3
    with pytest.raises(BadQuery):
        index.variants("")


def test_documents_are_taken_down_and_added(folder, tmp_path):
    index = Index.open(folder)
    gone = next(number for number in range(4) if index.document(number).text == TEXTS[0])
    remove(folder, [gone])
    after = Index.open(folder)
    assert (index.count("still"), after.count("still")) == (5, 3)
    assert after.document_count == 3
    assert after.tokens == index.tokens - len(TEXTS[0]) - 1
    with pytest.raises(BadQuery, match="was removed"):
        after.document(gone)
    assert {document.number for document in after.search("still", limit=9).documents} == set(range(4)) - {gone} - {
        number for number in range(4) if index.document(number).text == TEXTS[2]
    }
    (tmp_path / "more.txt").write_text("still more")
    append(folder, [tmp_path / "more.txt"], Settings(shards=1))
    added = Index.open(folder)
    assert added.count("still") == 4
    assert added.document(4).text == "still more"
    assert np.array_equal(added.score("The still is").suffix_tokens, np.arange(12))


def test_trace_finds_whole_words_and_ranks_documents(folder):
    index = Index.open(folder)
    text = "xx limbeck is a still. The stills yy"
    spans = index.trace(text, spans_per_token=None, min_tokens=4)
    assert text[spans[0].begin : spans[0].end] == " limbeck is a still."
    assert all(span.count <= 10 and len(span.documents) == span.count for span in spans)
    for span in spans:
        relevance = [one.relevance for one in span.documents]
        assert relevance == sorted(relevance, reverse=True)
        for one in span.documents:
            assert one.document.text is not None
            assert text[span.begin : span.end] in one.document.text
    rarest = index.trace(text, spans_per_token=1 / len(text), min_tokens=4)
    assert len(rarest) == 1
    assert rarest[0].unigram_log_probability == min(span.unigram_log_probability for span in spans)


def test_bm25_prefers_the_rarer_and_the_shorter():
    query = np.array([1, 2, 3])
    scores = bm25(query, [np.array([1, 9, 9]), np.array([1, 2, 9]), np.array([9, 9, 9]), np.array([1, 2, 9, 9, 9, 9, 9])])
    assert scores[1] > scores[3] > scores[0] > scores[2] == 0
