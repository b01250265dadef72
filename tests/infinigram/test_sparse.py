"""Sparse positions against a naive scan: whether one token alone follows the longest suffix."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import ngram_oracle as naive
from limbeck.infinigram.index import Index
from limbeck.infinigram.model import sparse_flags

EOS = 7
DOCUMENTS = st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=8)


def naive_flags(documents: list[list[int]], text: list[int]) -> list[bool]:
    flat = [token for document in documents for token in [65535, *document]]
    flags = []
    for at in range(len(text)):
        for begin in range(at + 1):
            suffix = text[begin:at]
            ends = [i + len(suffix) for i in range(len(flat) - len(suffix) + 1) if flat[i : i + len(suffix)] == suffix]
            if ends and (suffix or begin == at):
                followers = {
                    EOS if end == len(flat) or flat[end] == 65535 else flat[end] for end in ends if suffix or end < len(flat)
                }
                flags.append(len(followers) == 1)
                break
    return flags


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=DOCUMENTS, text=st.lists(st.integers(0, 4), min_size=1, max_size=20), version=st.sampled_from([4, 5]))
def test_flags_are_those_of_a_scan(documents, text, version, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    naive.write_index(folder, documents, "u16", version, 1)
    index = Index.open(folder, version=version, eos=EOS)
    assert sparse_flags(index, text, index.score(text)).tolist() == naive_flags(documents, text)


@pytest.mark.parametrize(("text", "expected"), [([1, 2, 3], [False, False, True]), ([5, 2], [False, False])])
def test_a_small_corpus(tmp_path, text, expected):
    naive.write_index(tmp_path, [[1, 2, 3], [1, 4]], "u16", 4, 1)
    index = Index.open(tmp_path, eos=EOS)
    assert sparse_flags(index, np.array(text), index.score(text)).tolist() == expected
