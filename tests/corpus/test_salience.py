"""Salient words against a brute-force oracle."""

import math

from hypothesis import given
from hypothesis import strategies as st

from limbeck.corpus.salience import STOP_WORDS, document_frequencies, salient_spans
from limbeck.corpus.text.words import WORD

TEXTS = st.lists(
    st.sampled_from(["The", "wheel", "Wheel", "turns,", "don't", "of", "x1", "snake_case", "—", "naïve"]), max_size=30
).map(" ".join)


@given(TEXTS, st.lists(TEXTS, max_size=5), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_spans_equal_the_oracle(document: str, train: list[str], fraction: float) -> None:
    frequencies, documents = document_frequencies(train)
    spans = salient_spans(document, frequencies, documents, fraction)

    occurrences = [(m.start(), m.end()) for m in WORD.finditer(document)]
    chosen: list[tuple[int, int]] = []
    left = [(s, e) for s, e in occurrences if document[s:e].lower() not in STOP_WORDS]

    def weight(span: tuple[int, int]) -> float:
        word = document[span[0] : span[1]].lower()
        count = sum(document[s:e].lower() == word for s, e in occurrences)
        holding = sum(any(m[0].lower() == word for m in WORD.finditer(text)) for text in train)
        return count * (math.log((1 + len(train)) / (1 + holding)) + 1)

    while left and len(chosen) < max(1, round(fraction * len(occurrences))):
        best = left[0]
        for span in left[1:]:
            if weight(span) > weight(best):
                best = span
        chosen.append(best)
        left.remove(best)
    assert list(zip(spans[::2], spans[1::2], strict=True)) == sorted(chosen)


def test_a_rare_word_beats_a_common_one() -> None:
    frequencies, documents = document_frequencies(["python library", "python tool", "python wheel"])
    document = "Python has a gyroscope."
    (start, end) = salient_spans(document, frequencies, documents, 0.25)
    assert document[start:end] == "gyroscope"


def test_only_stop_words_have_nothing_salient() -> None:
    assert salient_spans("It is what it is.", *document_frequencies([]), 0.5) == []
