"""Edit distances of trees and tags, against a published implementation and against the definition."""

from functools import cache

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.models.edit_distance import ParserConfig, tag_distance, tree, tree_distance

Forest = tuple[tuple[str, "Forest"], ...]


@st.composite
def words(draw: st.DrawFn, most: int = 9) -> tuple[list[int], list[str]]:
    """Heads without circles, in any order, and labels."""
    size = draw(st.integers(0, most))
    order = draw(st.permutations(range(size)))
    heads = [-1] * size
    for place, word in enumerate(order):
        heads[word] = draw(st.sampled_from([-1, *order[:place]]))
    return heads, draw(st.lists(st.sampled_from("abc"), min_size=size, max_size=size))


def forest(heads: list[int], labels: list[str], of: int = -1) -> Forest:
    return tuple((labels[word], forest(heads, labels, word)) for word, head in enumerate(heads) if head == of)


def size(of: Forest) -> int:
    return sum(1 + size(children) for _, children in of)


@cache
def naive(a: Forest, b: Forest) -> int:
    """The definition: delete or insert the last root, or match the two."""
    if not a or not b:
        return size(a) + size(b)
    (a_label, a_children), (b_label, b_children) = a[-1], b[-1]
    return min(
        naive(a[:-1] + a_children, b) + 1,
        naive(a, b[:-1] + b_children) + 1,
        naive(a[:-1], b[:-1]) + naive(a_children, b_children) + (a_label != b_label),
    )


@given(words(), words())
@settings(deadline=None, max_examples=150)
def test_the_distance_is_the_definition(a: tuple[list[int], list[str]], b: tuple[list[int], list[str]]) -> None:
    found = tree_distance(tree(*a), tree(*b))
    assert found == naive(forest(*a), forest(*b)) == tree_distance(tree(*b), tree(*a))


@given(words(16), words(16))
@settings(deadline=None, max_examples=60)
def test_the_distance_is_that_of_a_published_implementation(
    a: tuple[list[int], list[str]], b: tuple[list[int], list[str]]
) -> None:
    zss = pytest.importorskip("zss")

    def nodes(heads: list[int], labels: list[str]) -> object:
        made, root = [zss.Node(label) for label in labels], zss.Node("")
        for word, head in enumerate(heads):
            (made[head] if head >= 0 else root).addkid(made[word])
        return root

    expected = zss.simple_distance(nodes(*a), nodes(*b), label_dist=lambda x, y: int(x != y))
    assert tree_distance(tree(*a), tree(*b)) == expected


@given(words(), words(), words())
@settings(deadline=None, max_examples=60)
def test_it_is_a_distance(x: tuple[list[int], list[str]], y: tuple[list[int], list[str]], z: tuple[list[int], list[str]]) -> None:
    a, b, c = tree(*x), tree(*y), tree(*z)
    assert tree_distance(a, a) == 0
    assert tree_distance(a, c) <= tree_distance(a, b) + tree_distance(b, c)
    assert tree_distance(a, b) >= abs(len(a.labels) - len(b.labels))


def test_a_deep_tree_needs_no_recursion() -> None:
    chain = tree([-1, *range(299)], ["a"] * 300)
    assert tree_distance(chain, tree([], [])) == 300


def test_tags() -> None:
    assert tag_distance(["DET", "NOUN", "VERB"], ["NOUN", "VERB", "ADV"]) == 2
    assert tag_distance([], []) == 0


def test_real_syntax() -> None:
    pytest.importorskip("spacy")
    pytest.importorskip(ParserConfig().model)
    parser = ParserConfig(max_tokens=40).load()
    active, passive, copied = "The cat chased the mouse.", "The mouse was chased by the cat.", "A dog chased a bird."
    found = parser.parse([active, passive, copied, active, "", " ", "word " * 41, "x" * 100_000, "\u202eאבג\u202c שלום"])
    assert len(found) == 8
    syntax = {text: found[text] for text in (active, passive, copied)}
    assert all(syntax.values())
    assert syntax[active].tags == ("DET", "NOUN", "VERB", "DET", "NOUN", "PUNCT")
    assert syntax[active].tree == tree([1, 2, -1, 4, 2, 2], ["det", "nsubj", "ROOT", "det", "dobj", "punct"])
    assert tree_distance(syntax[active].tree, syntax[copied].tree) == 0  # built alike, whatever the words
    assert tree_distance(syntax[active].tree, syntax[passive].tree) >= 3
    assert found["word " * 41] is None
    assert found[""].tags == found[" "].tags == ()
    assert parser.usage.load_seconds > 0 and parser.usage.model_seconds > 0


def test_a_parser_that_is_not_installed_says_what_to_install() -> None:
    config = ParserConfig(model="no_such_parser")
    assert config.problem() == "the parser no_such_parser is not installed; run: pip install no-such-parser"
    assert config.release() == ""
    with pytest.raises(LimbeckError, match="pip install no-such-parser"):
        config.load()
    with pytest.raises(LimbeckError, match="is not a spaCy pipeline"):
        ParserConfig(model="json").load()
