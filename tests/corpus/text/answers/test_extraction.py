"""Where an answer is found: after a pattern, in the last box, or as one letter of a choice."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from limbeck.corpus.text.answers.extraction import boxed, choice, matched, unwrapped


@pytest.mark.parametrize(
    ("text", "pattern", "found"),
    [
        ("#### 41\n#### 42 ", r"####\s*(.+)", "42"),
        ("<answer> a\nb </answer>", r"(?s)<answer>(.*?)</answer>", "a\nb"),
        ("all of it\n", r"(?s)(.*)", "all of it"),
        ("no mark", r"####\s*(.+)", None),
        ("A:", r"A:(.*)", None),
        ("A: \u200b", r"A:(.*)", None),
        ("A: 1 B", r"A: (\d)|B", None),  # the last match has no group
    ],
)
def test_the_last_match_of_a_pattern(text: str, pattern: str, found: str | None) -> None:
    assert matched(text, pattern) == found


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{5}", "5"),
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1}, no: \boxed{ 2 }", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a{b{c}}d}", "a{b{c}}d"),
        (r"\boxed{\left\{x : x > 0\right\}}", r"\left\{x : x > 0\right\}"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\fbox{5}", "5"),
        (r"\boxed {5}", "5"),
        (r"$\boxed 5$.", "5"),
        (r"\boxed{4", None),  # cut off
        (r"\boxed{3} and \boxed{4", None),  # the last one is the answer, and it was cut off
        (r"\boxed{x\}", None),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        (r"\boxed", None),
        (r"\boxedx{5}", None),
        ("no box", None),
        ("", None),
    ],
)
def test_the_content_of_the_last_box(text: str, content: str | None) -> None:
    assert boxed(text) == content


nested = st.recursive(
    st.text("ab1 \\frac", max_size=4).map(lambda text: text.replace("\\", "")),
    lambda inner: st.lists(st.one_of(inner, inner.map("{{{}}}".format), st.just(r"\{"), st.just(r"\}")), max_size=4).map("".join),
    max_leaves=12,
)


@given(nested, st.text(max_size=20), st.text("}{ab\\ ", max_size=20))
@settings(max_examples=200)
def test_nested_braces_are_matched(content: str, before: str, after: str) -> None:
    text = rf"{before}\boxed{{{content}}}{after}"
    assert boxed(text) == (content.strip() or None)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        # alone, or alone on the last line
        *(("B", "B"), ("b", "B"), ("(b)", "B"), ("B.", "B"), ("b)", "B"), ("**B**", "B"), ("[B]", "B"), (" (B).\n", "B")),
        ("Let me think.\nIt is not A.\n\nB", "B"),
        # stated; the last statement counts
        *(("The answer is B", "B"), ("the answer is (B).", "B"), ("Answer: B", "B"), ("Answer - b", "B"), ("ANSWER: [B]", "B")),
        *(("**Answer:** B", "B"), ("The answer is:\n\n(B)", "B"), ("Answer is **(B) Paris**", "B"), ("The answer is “B”", "B")),
        *(("The correct answer is option **D**.", "D"), ("The correct option is D", "D"), ("Option: C", "C")),
        *(("I choose option C because A is wrong", "C"), ("I would pick E.", "E"), ("answer is b because A is wrong", "B")),
        ("The answer is A... no, wait, the answer is C.", "C"),
        ("A. x\nB. y\nC. z\nAnswer: B", "B"),
        ("The best choice is therefore: B) Paris", "B"),
        ("The correct option is B. Option A is wrong.", "B"),
        # in a box
        *((r"\boxed{B}", "B"), (r"The answer is A. \boxed{\text{(C)}}", "C"), (r"$\boxed{\mathrm{B}}$", "B")),
        # the only one that is marked, or in capitals
        *(("B. Paris", "B"), ("(B) Paris", "B"), ("  b) Paris", "B"), ("I think it is (B), not something else", "B")),
        *(("Option B fits all", "B"), ("I would go with D here", "D"), ("It is A", "A")),
        *(("答案是B。", "B"), ("选B", "B"), ("정답은 C입니다", "C"), ("Ответ: C", "C")),
        # not clear
        *(
            ("A. x\nB. y", None),
            ("It could be A or B", None),
            ("(A) or (B)", None),
            ("Option B is right. Option A is wrong.", None),
        ),
        # articles, pronouns, words and other letters
        *(("the answer is a dog", None), ("A dog", None), ("A choice a person makes", None), ("Answer: Because", None)),
        *(
            ("Answer: Bob", None),
            ("The answer is F", None),
            ("x", None),
            ("", None),
            (" ", None),
            ("Option B's text is long", None),
        ),
        ("the answer is a.", "A"),
    ],
)
def test_the_letter_of_a_choice(text: str, letter: str | None) -> None:
    assert choice(text, "ABCDE") == letter


JOINS = (
    *(
        " and ",
        " or ",
        " and/or ",
        ", ",
        ",",
        "/",
        " / ",
        " & ",
        "; ",
        ", and ",
        ", or ",
        " or (",
        " nor ",
        " + ",
        "–",
        " to ",
        " plus ",
    ),
    *(" as well as ", " and maybe ", ", or possibly ", " or option ", " and the answer ", "、", "，", " | "),
)
WRAPS = ("{}", "({})", "[{}]", "**{}**", "“{}”", r"$\text{{{}}}$", r"\textbf{{({})}}")
STATEMENTS = (
    *(
        "The answer is {}",
        "Answer: {}",
        "**Answer:** {}",
        "I choose {}.",
        "Answer is {} because of it.",
        "The correct option is {}.",
    ),
    *("The answer is both {}", "The answer is either {}.", "The answers are {}", "Answers: {}", "Option {}", "{}", "So it is {}"),
    *(
        r"\boxed{{{}}}",
        r"The answer is D. So \boxed{{{}}}",
        "The answer is D.\n{}",
        "D. No, the answer is {}",
        "both {}",
        "Choice: {}",
    ),
)


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("wrap", WRAPS)
def test_two_or_more_letters_are_no_answer(statement: str, wrap: str) -> None:
    for join in JOINS:
        for letters in ("AC", "BA", "ACE"):
            text = statement.format(join.join(wrap.format(letter) for letter in letters))
            assert choice(text, "ABCDE") is None, text


@pytest.mark.parametrize("statement", STATEMENTS[:8])
def test_letters_in_a_row_are_no_answer_and_one_letter_twice_is(statement: str) -> None:
    for several in ("A C", "(A)(C)", "(A) (C)", "AC", "a, c", "(a) and (c)", "A and c"):
        assert choice(statement.format(several), "ABCDE") is None, several
    assert choice(statement.format("(B), B"), "ABCDE") == choice("B, (b)", "ABCDE") == "B"


NEGATIONS = (
    *(
        "The answer is not {}",
        "The answer isn't {}.",
        "the answer isn’t {}",
        "The answer cannot be {}",
        "The answer can't be {}.",
    ),
    *(
        "The answer is certainly not {}",
        "The answer is not option {}",
        "The correct option is not {}",
        "Answer: not {}",
        "Answer ≠ {}",
    ),
    *(
        "It is not {}.",
        "Not {}",
        "Everything except {}",
        "except for {}",
        "Never {}",
        "Any other than {}",
        "I would not choose {}",
    ),
    *(
        "I don't pick {}.",
        "You cannot select {}",
        "I do not think it is {}",
        "I don't believe that it's {}",
        "I am not sure if it is {}",
    ),
    *(
        "I doubt it, and it could not be {}",
        r"\boxed{{\text{{not }} {}}}",
        r"answer \neq {}",
        "We can rule out {}",
        "This eliminates {}",
    ),
    *("{} is not the answer.", "{} is wrong", "{} isn't the correct one, nor the right answer", "Option {} is incorrect."),
    *("The answer {} is wrong", "{} cannot be right", "The answer is {}. No wait, the answer is not {}."),
)


@pytest.mark.parametrize("negation", NEGATIONS)
@pytest.mark.parametrize("wrap", ["{}", "({})", "**{}**"])
def test_a_negated_letter_is_no_answer(negation: str, wrap: str) -> None:
    for letter in "ABE":
        text = negation.replace("{}", wrap.format(letter)).replace("{{", "{").replace("}}", "}")
        assert choice(text, "ABCDE") is None, text


@pytest.mark.parametrize(
    "form", ["neither {} nor {}", "The answer is neither {} nor {}.", "not {} or {}", "The answer is not {}, {}"]
)
def test_a_negation_holds_for_all_letters_of_its_list(form: str) -> None:
    assert choice(form.format("A", "C"), "ABCDE") is choice(form.format("(A)", "(C)"), "ABCDE") is None
    assert choice(f"{form.format('A', 'C')}. The answer is D.", "ABCDE") == "D"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        # one statement, with other letters in other clauses
        *(("The answer is A, because C is wrong.", "A"), ("The answer is A and it is right because B is wrong", "A")),
        *(("The answer is B, not A.", "B"), ("The answer is B and not A", "B"), ("Answer: B rather than C", "B")),
        *(("The answer is A, and B is wrong.", "A"), ("The answer is A, B is wrong.", "A"), ("Answer: B (A is wrong)", "B")),
        *(
            ("The answer is A, B is also right.", None),
            ("Answer: A, a dog", "A"),
            ("Answer: B, A dog", "B"),
            ("Answer: B - a dog", "B"),
        ),
        *(("Answer: B or A because of it", None), ("Answer: B\nA: what?", "B"), ("Answer: B; it is as good as A", "B")),
        *(
            ("I choose B over A and C", "B"),
            ("Answer: A. B. King wrote it", "A"),
            ("(B) and so on", "B"),
            ("B) and B) again", "B"),
        ),
        # a negation elsewhere does not undo a statement, and a list after it does
        *(("It is not A. The answer is C.", "C"), ("The answer is not A. The answer is C.", "C"), ("Not A, so I choose C.", "C")),
        *(("The answer is C. The answer is not B.", "C"), ("I first thought the answer is not B, but the answer is B.", "B")),
        *(("The answer is A or C. So the answer is C.", "C"), ("The answer is C. So the answer is A or C.", None)),
        *(
            ("All except B are cold, so the answer is B.", "B"),
            ("It is not that hard: the answer is B", "B"),
            ("Not sure, but B", "B"),
        ),
        *(
            ("No, the answer is B", "B"),
            ("There is no doubt: the answer is B", "B"),
            ("The option that is not correct is B", "B"),
        ),
        *(("The answer is A.\nIt is not C.\n\nB", "B"), ("(B) is not a mammal.", "B"), ("Option B does not fit C's text", "B")),
        # letters beside a negated one stay unclear
        *(("The answer cannot be B, so C", None), ("It is B, not A", None), ("The answer is not A, and C is impossible", None)),
    ],
)
def test_lists_and_negations_end_where_their_clause_ends(text: str, letter: str | None) -> None:
    assert choice(text, "ABCDE") == letter


def test_lists_and_negations_of_other_letters_and_digits() -> None:
    assert choice("The answer is 3 or 4.", "1234") is choice("Answer: 1/2", "1234") is choice("Not 3", "1234") is None
    assert choice("Answer: А, В", "АБВ") is choice("Answer: not Б", "АБВ") is None
    assert choice("The answer is 3, since 12 is more.", "1234") == "3"
    assert choice("Answer: B, I think.", "ABCDEFGHIJ") == "B"


def test_choices_may_be_other_letters_or_digits() -> None:
    assert choice("Правильный ответ: (б)", "АБВГ") == "Б"
    assert choice("الجواب (ب)", "أبجد") == "ب"
    assert choice("The answer is 3.", "1234") == "3"
    assert choice("The answer is B.", "abcd") == "b"


@pytest.mark.parametrize(
    "form", ["{}", "({})", "{}.", "The answer is {}.", "Answer: ({})", r"\boxed{{{}}}", "**{}**", "I choose {}", "{}) it"]
)
@pytest.mark.parametrize("letter", "ABCDE")
def test_every_form_gives_every_letter_in_both_cases(form: str, letter: str) -> None:
    assert choice(form.format(letter), "ABCDE") == letter
    assert choice(form.format(letter.lower()), "ABCDE") == letter


@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(["answer", "is", "A", "b", "(", ")", ":", "\n", " ", r"\boxed{", "}", "option", "中"])).map(
            "".join
        ),
    )
)
@settings(max_examples=300)
def test_any_text_gives_a_known_letter_or_none(text: str) -> None:
    assert choice(text, "ABCDE") in {*"ABCDE", None}


LONG = (
    "not ",
    "(A),",
    "A,",
    "answer is A or ",
    "not A or ",
    "except ",
    "A is ",
    "(A)",
    "≠",
    "a  ",
    "not think that it is ",
    "A/or/",
)


@pytest.mark.parametrize(
    "piece", ["answer ", "answer is the ", "(", "A ", r"\boxed{", "option ", "\n", "_", r"\text{", " ", *LONG]
)
def test_long_texts_of_one_piece_are_read_in_linear_time(piece: str) -> None:
    """A quadratic pattern would take hours here."""
    text = piece * (300_000 // len(piece))
    assert choice(text, "ABCDE") in {None, *"A"[: "A" in piece]}
    assert boxed(text) is None


def test_wrappers_of_text_are_removed() -> None:
    assert unwrapped(r"\text{Paris} \mathrm{x} \frac{1}{2} \textbf{(B)}") == r"Paris x \frac{1}{2} (B)"
