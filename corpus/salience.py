"""The salient words of a document: those with the highest TF-IDF weight, with document frequencies of the train split."""

import math
from collections import Counter
from collections.abc import Iterable

from limbeck.corpus.text.words import WORD

OWN_FRACTION = 0.25  # as `sources.salient_fraction` by default

STOP_WORDS = frozenset(
    """
        a about above after again against all almost along already also although always am among an and another any
        anyone anything are aren't around as at away back be became because become becomes been before being below
        best better between both but by came can can't cannot come comes could couldn't did didn't do does doesn't
        doing don't done down due during each either else enough etc even ever every everything far few first for from
        further gave get gets getting give given gives go goes going gone good got had hadn't has hasn't have haven't
        having he he's her here here's hers herself him himself his how however i i'd i'll i'm i've if in instead into
        is isn't it it's its itself just keep kept know last least less let let's like likely made make makes making
        many may maybe me might more most much must my myself near need needs neither never new next no nor not
        nothing now of off often on once one ones only onto or other others our ours ourselves out over own per
        perhaps please quite rather really same say says see seen several shall she should shouldn't since so some
        someone something still such take takes than that that's the their theirs them themselves then there there's
        therefore these they they'll they're they've thing things this those though through thus to together too
        toward towards two under unless until up upon us use used uses using very via want wants was wasn't way we
        we'd we'll we're we've well were weren't what what's when where whether which while who who's whole whom whose
        why will with within without won't would wouldn't yes yet you you'd you'll you're you've your yours yourself
    """.split()
)


def document_frequencies(documents: Iterable[str]) -> tuple[Counter[str], int]:
    """Number of documents that contain each word (in lower case), and number of documents."""
    frequencies: Counter[str] = Counter()
    number = 0
    for document in documents:
        number += 1
        frequencies.update({word for _, _, word in WORD.spans(document)})
    return frequencies, number


def own_salient_spans(document: str) -> list[int]:
    """The salient words of a text that is no document of the sources, such as one that a model wrote: its most frequent words.

    Document frequencies are those of the sources, which have none here; so a row's score depends on that row alone.
    """
    return salient_spans(document, Counter(), 0, OWN_FRACTION)


def salient_spans(document: str, frequencies: Counter[str], documents: int, fraction: float) -> list[int]:
    """Return start0, end0, start1, ...: the character spans of the salient words, ascending and disjoint.

    A word's weight is its count in the document times ln((1 + documents) / (1 + document frequency)) + 1. `fraction` of all word
    occurrences, stop words included, are chosen (rounded, at least one): those with the highest weight that are not stop words;
    ties go to the earlier one. Fewer are returned if the document has fewer.
    """
    words = WORD.spans(document)
    content = [word for word in words if word[2].replace("’", "'") not in STOP_WORDS]
    counts = Counter(word for _, _, word in content)
    weights = {word: count * (math.log((1 + documents) / (1 + frequencies[word])) + 1) for word, count in counts.items()}
    wanted = max(1, round(fraction * len(words)))
    best = sorted(content, key=lambda word: (-weights[word[2]], word[0]))[:wanted]
    return [offset for start, end, _ in sorted(best) for offset in (start, end)]
