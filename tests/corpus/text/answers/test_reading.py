"""Answers as they are compared: by number, text or set, within tolerances, and in classes."""

from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from helpers.components import components
from limbeck.corpus.text.answers.math_equality import MathEquality
from limbeck.corpus.text.answers.reading import Answer, Compare, Extract, Reader, items, text_key


def read(text: str, extract: Extract = "last_number", compare: Compare = "number", **given: object) -> Answer:
    answer = Reader(extract, compare, **given).read(text)
    assert answer is not None
    return answer


def test_each_way_to_extract_and_to_compare() -> None:
    text = r"Step 1: 6 × 7. So the answer is \boxed{42.0}. Final: B, that is 42"
    assert read(text).key == 42 and read(text).text == "42"
    assert read(text, "boxed").key == 42 and read(text, "boxed", "text").key == "42.0"
    assert read(text, "pattern", "text", pattern=r"Final: (\w)").key == "b"
    assert read(r"\boxed{3, 1, 2}", "boxed", "set").key == frozenset({1, 2, 3})
    assert read("It is (c).", "choice", "text", choices="ABCD").key == "c"
    assert read("It is (c).", "choice", "text", choices="ABCD").text == "C"


def test_an_answer_that_is_no_number_is_none_where_numbers_are_compared() -> None:
    assert Reader("boxed", "number").read(r"\boxed{x + 1}") is None
    assert Reader("boxed", "number").read("42") is None
    assert Reader("last_number", "number").read("") is None
    assert Reader("boxed", "text").read(r"\boxed{x + 1}") == Answer("x + 1", "x + 1", None)


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        ("42", 42),
        (r"6 * 7 = 42, so \boxed{42}", 42),
        ("The result is 42.", 42),
        ("1 000", 1000),
        ("Paris", None),
        ("", None),
        (" \u200b", None),
    ],
)
@pytest.mark.parametrize("extract", ["last_number", "boxed"])
def test_a_reference_is_extracted_if_it_can_be_and_else_taken_whole(extract: Extract, reference: str, key: int | None) -> None:
    answer = Reader(extract, "number").read_reference(reference)
    assert (answer and answer.key) == key


def test_a_reference_without_the_pattern_is_the_answer() -> None:
    reader = Reader("pattern", "text", r"####\s*(.+)")
    assert reader.read_reference("Long story.\n#### Paris").key == reader.read_reference("Paris.").key == "paris"
    assert reader.read("Paris") is None


def test_a_whole_text_may_be_a_number_that_prose_cannot_contain() -> None:
    assert read("1 000 000").key == 1_000_000 and read("- 5").key == -5
    assert read("from 1 000 to 2 000 in 5").key == 5


@pytest.mark.parametrize("group", ["5 100", "10 200", "12 345", "1 234 567"])
@pytest.mark.parametrize(
    "form", ["{}", "{}.", "**{}**", "({})", "${}$", r"\$ {}", "€{}", "{} €", "{}%", "{} km", "{} m²", "{} km/h", "{} EUR"]
)
def test_spaces_separate_thousands_beside_currency_and_unit_signs(form: str, group: str) -> None:
    text = form.format(group)
    assert read(text).key == int(group.replace(" ", "")) and read(text).text == text
    assert read(f"- {group} €").key == -int(group.replace(" ", ""))


@pytest.mark.parametrize("group", ["5 100", "10 200", "12 345", "1 234 567", "- 5 100"])
@pytest.mark.parametrize(
    "form",
    ["She gave him {} dollar bills.", "room {}", "The answer is: {}", "There are {}", "{} apples", "of {} euro", "{} in all"],
)
def test_words_keep_neighbouring_numbers_apart(form: str, group: str) -> None:
    last = group.rpartition(" ")[2]
    answer = read(form.format(group))
    assert answer.key == int(last) and answer.text == last
    assert Reader("boxed", "number").read(rf"\boxed{{{form.format(group)}}}") is None


@pytest.mark.parametrize("text", [",,", ";", "{,}", " , ; ", "、"])
def test_separators_alone_are_no_set(text: str) -> None:
    reader = Reader("boxed", "set")
    assert reader.read(rf"\boxed{{{text}}}") is None and reader.read_reference(text) is None


@pytest.mark.parametrize("text", ["{}", r"\{\}", r"\{ \}", "[]"])
def test_empty_brackets_are_the_empty_set(text: str) -> None:
    assert read(rf"\boxed{{{text}}}", "boxed", "set").key == frozenset()


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Paris", "  paris. ", True),
        ("New  York", "new york", True),
        ("caf\u00e9", "CAFE\u0301", True),
        ("“Paris”", "'Paris'", True),
        *((f"Paris{stop}", "Paris", True) for stop in ("!", "?", ",", ";", ":", "...", "!?")),
        (r"\text{Paris}", "**Paris**", True),
        ("$x + 1$", r"\(x + 1\)", True),
        ("巴黎。", "巴黎", True),
        ("?", "!", False),
        ("1,000", "1000", False),
        ("Paris", "Rome", False),
    ],
)
def test_texts_are_equal_up_to_case_space_form_and_what_surrounds_them(first: str, second: str, same: bool) -> None:
    assert (text_key(first) == text_key(second)) == same
    assert text_key(first)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1, 2, 3", ["1", "2", "3"]),
        ("{1, 2, 3}", ["1", "2", "3"]),
        (r"\{1, 2\}", ["1", "2"]),
        (r"$\left\{ \frac{1}{2}, 3 \right\}$", [r"\frac{1}{2}", "3"]),
        ("[red; green, or blue]", ["red", "green, or blue"]),
        ("red, green, and blue.", ["red", "green", "blue"]),
        ("x or y", ["x", "y"]),
        ("(1, 2), (3, 4)", ["(1, 2)", "(3, 4)"]),
        ("- red\n- green", ["red", "green"]),
        ("红、绿，蓝", ["红", "绿", "蓝"]),
        ("١، ٢", ["١", "٢"]),
        ("{}", []),
        ("(1, 2)", ["(1, 2)"]),
        ("[1], [2]", ["[1]", "[2]"]),
        ("sand", ["sand"]),
        ("1)", ["1)"]),
    ],
)
def test_the_items_of_a_set(text: str, found: list[str]) -> None:
    assert items(text) == found


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=6),
    st.randoms(),
    st.sampled_from([", ", ",", "; ", "\n", ", and ", " or "]),
)
@settings(max_examples=80)
def test_a_set_has_neither_order_nor_multiplicity(numbers: list[int], random: object, separator: str) -> None:
    shuffled = [*numbers, numbers[0]]
    random.shuffle(shuffled)
    one = read(rf"\boxed{{{separator.join(map(str, shuffled))}}}", "boxed", "set")
    other = read(rf"\boxed{{\{{{', '.join(f'{number}.0' for number in numbers)}\}}}}", "boxed", "set")
    assert one.key == other.key == frozenset(map(Fraction, numbers))


def test_tolerances_are_exact_and_the_larger_one_counts() -> None:
    def equal(reference: str, answer: str, absolute: str = "0", relative: str = "0") -> bool:
        reader = Reader("last_number", "number", absolute=Fraction(absolute), relative=Fraction(relative))
        return reader.equal(reader.read_reference(reference), reader.read(answer))

    assert equal("0.3", "0.4", "0.1") and not equal("0.3", "0.4000001", "0.1")  # in floats 0.4 - 0.3 is above 0.1
    assert equal("100", "101", relative="0.01") and not equal("100", "101.1", relative="0.01")
    assert equal("-100", "-101", relative="0.01") and equal("100", "103", "3", "0.01")
    assert equal("1/3", "\\frac{2}{6}") and not equal("1/3", "0.3333333333333333")


answers = st.lists(st.sampled_from(["1", "1.0", "2", "2/2", "10/5", "\\frac{4}{4}", "3", "03", "300%"]), max_size=8)


@given(answers)
@settings(max_examples=100)
def test_classes_are_those_of_equal_pairs_named_by_their_first_member(texts: list[str]) -> None:
    reader = Reader("last_number", "number")
    found = [reader.read(text) for text in texts]
    pairs = [(i, j) for i, one in enumerate(found) for j, other in enumerate(found) if i < j and reader.equal(one, other)]
    assert reader.classes(found) == components(len(found), pairs)


class Listed(MathEquality):
    """Equal pairs from a list, in one direction only, with a count of what was asked."""

    def __init__(self, pairs: set[tuple[str, str]]) -> None:
        super().__init__()
        self.pairs, self.asked = pairs, []

    def equal(self, reference: str, answer: str) -> bool:
        self.asked.append((reference, answer))
        return (reference, answer) in self.pairs


expressions = st.sampled_from([*"abcdef"])


@given(st.lists(expressions, max_size=8), st.sets(st.tuples(expressions, expressions), max_size=6))
@settings(max_examples=150)
def test_classes_of_mathematics_are_the_transitive_closure_of_what_is_equal(
    texts: list[str], pairs: set[tuple[str, str]]
) -> None:
    """math-verify's equality is neither symmetric nor transitive; votes need a partition that does not depend on the order."""
    reader = Reader("boxed", "math", _math=Listed(pairs))
    found = [reader.read(rf"\boxed{{{text}}}") for text in texts]
    joined = [(i, j) for i, a in enumerate(texts) for j, b in enumerate(texts) if i < j and (a == b or {(a, b), (b, a)} & pairs)]
    expected = components(len(texts), joined)
    assert reader.classes(found) == expected
    backwards = reader.classes(found[::-1])[::-1]
    groups = [
        {place for place, name in enumerate(names) if name == chosen} for names in (expected, backwards) for chosen in set(names)
    ]
    assert all(groups.count(group) == 2 for group in groups)


def test_equal_numbers_are_not_asked_about() -> None:
    listed = Listed(set())
    reader = Reader("boxed", "math", _math=listed)
    half, other, root = (reader.read(rf"\boxed{{{text}}}") for text in (r"\frac{1}{2}", "0.5", r"\sqrt{2}"))
    assert reader.equal(half, other) and not listed.asked
    assert not reader.equal(half, root) and listed.asked == [(r"\frac{1}{2}", r"\sqrt{2}")]


pieces = st.sampled_from([*"{}[](),;12½٣.-$%= \n", r"\boxed{", r"\{", r"\frac", r"\text{", "answer is", " and ", "B", "中"])


@given(
    st.one_of(st.text(), st.lists(pieces).map("".join)),
    st.sampled_from([("last_number", ""), ("boxed", ""), ("choice", ""), ("pattern", "(?s)(.*)")]),
    st.sampled_from(["number", "text", "set", "math"]),
)
@settings(max_examples=300)
def test_any_text_is_read_or_refused_and_equals_itself(text: str, how: tuple[Extract, str], compare: Compare) -> None:
    reader = Reader(how[0], compare, how[1], "ABCD", _math=Listed(set()))
    answer, expected = reader.read(text), reader.read_reference(text)
    if answer is not None:
        assert expected == answer and reader.equal(expected, answer) and reader.classes([answer, answer]) == [0, 0]
        assert hash(answer.key) is not None and answer.text.strip()
