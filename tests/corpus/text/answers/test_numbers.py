"""Numbers as answers: every notation of a number has its value, and what is not plainly one number has none."""

import datetime
import sys
import unicodedata
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from limbeck.corpus.text.answers.numbers import Notation, last_number, number

COMMA = Notation(decimal_comma=True)
ZEROS = [chr(point) for point in range(sys.maxunicode + 1) if unicodedata.decimal(chr(point), None) == 0]
"""The digit zero of every script; its nine successors are the other digits."""

VALUES = {
    **{"42": 42, "42.": 42, "007": 7, "-0": 0, ".5": Fraction(1, 2), "5.": 5, "0.50": Fraction(1, 2), "+7": 7, "- 5": -5},
    **{"1,000": 1000, "1,234,567.5": Fraction(2469135, 2), "1,00,000": 100000, "12,34,567": 1234567, "1 000 000": 1000000},
    **{"1'000": 1000, "1’000": 1000, "1_000": 1000, "1\u202f000": 1000, "1{,}000": 1000, r"1\,000": 1000, r"1,\!000": 1000},
    **{"−42": -42, "－42": -42, "–42": -42, "‑42": -42, "-$5": -5, "$-5": -5, "−€ 5": -5, r"\$1,234.50": Fraction(2469, 2)},
    **{"50%": 50, r"50\%": 50, "50 ％": 50, "٤٢٪": 42, "US$5": 5, "5 €": 5, "₹1,00,000": 100000},
    **{"3/4": Fraction(3, 4), "-3/4": Fraction(-3, 4), "3 / 4": Fraction(3, 4), "3⁄4": Fraction(3, 4), "1.5/2": Fraction(3, 4)},
    **{r"\frac{3}{4}": Fraction(3, 4), r"\dfrac34": Fraction(3, 4), r"-\tfrac{1}{2}": Fraction(-1, 2)},
    **{r"\frac{-1}{2}": Fraction(-1, 2), r"\frac1{20}": Fraction(1, 20), r"3\frac{1}{2}": Fraction(7, 2)},
    **{"1 1/2": Fraction(3, 2), "-1 1/2": Fraction(-3, 2), "½": Fraction(1, 2), "2½": Fraction(5, 2), "-⅔": Fraction(-2, 3)},
    **{"1e5": 100000, "1.5E-3": Fraction(3, 2000), "1.5 × 10^3": 1500, r"1.5 \times 10^{-3}": Fraction(3, 2000)},
    **{"1.5×10³": 1500, "2*10**3": 2000, "2 x 10^3": 2000, "10^6": 10**6, "10⁻²": Fraction(1, 100), "10²": 100},
    **{"٣٫١٤": Fraction(157, 50), "१२३": 123, "４２．５": Fraction(85, 2), "๔๒": 42},
    **{"5 apples": 5, "5kg": 5, "12 cm^2": 12, r"12\text{ cm}^2": 12, "7 m²": 7, "60 km/h": 60, r"90^\circ": 90, "5th": 5},
    **{"x = 5": 5, "2 + 3 = 5": 5, "≈ 5": 5, "about 5.": 5, "**5**": 5, "(5)": 5, "$5$": 5, r"\boxed{5}": 5, r"\(5\)": 5},
    **{"答案是42个": 42, "答案是-5。": -5, "정답은 42입니다": 42, "उत्तर ४२ है।": 42, "الجواب هو ٤٢": 42, "คำตอบคือ๔๒": 42},
}

NOT_A_NUMBER = [
    *(
        "",
        " ",
        "five",
        "x",
        "H1N1",
        "x86",
        "COVID-19",
        "GPT-4",
        "1.2.3",
        "12:30",
        "1/2/2020",
        "2020-01-05",
        "10-20",
        "0x1F",
        "5B",
    ),
    *(
        "5x",
        "3n",
        "x^2",
        "2^10",
        "2**10",
        r"2\pi",
        "2π",
        r"\sqrt{2}",
        r"3\sqrt{2}",
        "√2",
        r"\frac{\pi}{2}",
        "5²",
        "x_2",
        "2x + 3",
    ),
    *("±5", r"\pm 5", "x = 5 or x = 3", "x <= 5", "5 < x", "5 and 6", "3,14", "1,0000", "1,00", "5 per 3", "1/0", r"\frac{1}{0}"),
    *("1e999999999", "10^{999999}", "9" * 2000, "infinity", "nan", "|5|", "5 / x"),
]


@pytest.mark.parametrize("text", VALUES)
def test_the_value_of_each_notation(text: str) -> None:
    assert number(text) == VALUES[text]


@pytest.mark.parametrize("text", NOT_A_NUMBER)
def test_what_is_not_plainly_one_number_has_no_value(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("There are 3 boxes of 4, so 3 × 4 = 12 apples.", "12"),
        ("It costs $1,250.50 in total.", "1,250.50"),
        ("She lost $5, so the change is -$5.", "-$5"),
        ("From 10-20 take 5-3.", "3"),
        ("The answer is 1 1/2 cups.", "1 1/2"),
        ("In 2020, 3/4 of them", "3/4"),
        ("So \\frac{1}{2} remains", "\\frac{1}{2}"),
        ("It fell to −3.5%.", "-3.5%"),
        ("答案是４２。", "42"),
        ("The H1N1 virus of version 1.2.3", None),
        ("It is 7, as in x^2 or 5x.", "7"),
        ("It is 7 and 1/0.", "7"),
        ("No number.", None),
        ("- 5 apples", "5"),
    ],
)
def test_the_last_number_of_prose(text: str, last: str | None) -> None:
    assert last_number(text) == last


DATED = (
    *("2024-01-05", "2024-1-5", "0999-12-31", "2024-01", "2024-W05", "2024-W05-2", "05-01-2024", "5-Jan-2024", "2024‑01‑05"),
    *("05/01/2024", "2024/01/05", "5.1.2024", "2024.01.05", "2024年1月5日", "1月5日", "٢٠٢٤-٠١-٠٥", "2024-01-05/2024-02-01"),
    *("12:30", "12:30:15", "12:30:15.250", "12:30Z", "12:30 +0100", "12:30:15+01:00", "9:05-10:15"),
    *("2024-01-05T12:30:15Z", "2024-01-05 12:30", "2024-01-05T12:30:15.5+0100", "20240105T123015Z"),
    *("1.2.3", "1.2.3-4", "1.2.3+5", "v2", "v1.2", "V1.2-3", "v1.2.3-rc.1", "192.168.0.1"),
)


@pytest.mark.parametrize("text", DATED)
@pytest.mark.parametrize("notation", [Notation(), COMMA], ids=["point", "comma"])
def test_dates_times_and_versions_have_no_value(text: str, notation: Notation) -> None:
    for form in ("{}", "Born on {}", "({}).", "It is {}, so", "答案是{}。"):
        assert last_number(form.format(text), notation) is None and number(form.format(text), notation) is None
        assert last_number(f"7, then {form.format(text)}", notation) == "7"


@given(st.dates(), st.times(), st.sampled_from(["", "Z", "+01:00", "-0530"]))
@settings(max_examples=100)
def test_no_moment_in_iso_format_has_a_value(date: datetime.date, time: datetime.time, zone: str) -> None:
    for text in (date.isoformat(), time.isoformat(), f"{date.isoformat()}T{time.isoformat('minutes')}{zone}"):
        assert last_number(f"at {text}.") is None


@pytest.mark.parametrize(("text", "last"), [("10-3", "3"), ("2024-5", "5"), ("100-20-10", "10"), ("3年5个月", "5"), ("5月", "5")])
def test_differences_and_durations_are_no_dates(text: str, last: str) -> None:
    assert last_number(text) == last


@pytest.mark.parametrize(
    ("text", "value"),
    [("3,14", Fraction(157, 50)), ("1.000,5", Fraction(2001, 2)), ("1.000", 1000), ("3{,}14", Fraction(157, 50)), ("3.14", None)],
)
def test_the_comma_may_be_the_decimal_mark(text: str, value: Fraction | int | None) -> None:
    assert number(text, COMMA) == value
    last = last_number(f"Das sind {text} Meter.", COMMA)
    assert value is None or (last is not None and number(last, COMMA) == value)


def test_a_percentage_may_count_hundredths() -> None:
    assert number("50%", Notation(hundredths=True)) == Fraction(1, 2) == number("0.5", Notation(hundredths=True))
    assert number("12.5 \\%", Notation(hundredths=True)) == Fraction(1, 8)


@pytest.mark.parametrize(
    ("sign", "parts"),
    [
        *((f"{space}{sign}", 100) for space in ("", " ") for sign in ("%", "٪", r"\%")),
        *((f" {word}", 100) for word in ("percent", "Percent", "per cent", "pct", r"\text{percent}", r"\text{ percent}")),
        *((sign, 1000) for sign in ("‰", " ‰", " per mille", " permille", " per mil", "؉")),
        *(("-percent", 100), ("‱", 10_000)),
    ],
)
def test_every_sign_and_word_for_percent_and_per_mille_counts_its_part(sign: str, parts: int) -> None:
    hundredths = Notation(hundredths=True)
    assert number(f"50{sign}", hundredths) == Fraction(50, parts) and number(f"50{sign}") == 50
    last = last_number(f"Of 7 it is 50{sign} now.", hundredths)
    assert last is not None and number(last, hundredths) == Fraction(50, parts)


def test_percentage_points_and_words_that_begin_alike_are_units() -> None:
    assert number("50 percentage points", Notation(hundredths=True)) == 50 == number("50 permillage", Notation(hundredths=True))


def test_a_number_has_up_to_1000_characters() -> None:
    assert number("9" * 1000) == 10**1000 - 1 and number("9" * 1001) is None is number("-" + "9" * 1000)


decimals = st.tuples(st.integers(0, 10**15), st.integers(0, 6)).map(lambda drawn: Fraction(drawn[0], 10 ** drawn[1]))


def grouped(digits: str, separator: str, indian: bool) -> str:
    """Digits with a separator before every three of them, or as in 12,34,567."""
    last, rest, size = digits[-3:], digits[:-3], 2 if indian else 3
    parts = [rest[max(end - size, 0) : end] for end in range(len(rest), 0, -size)][::-1]
    return separator.join([*parts, last])


@st.composite
def written(draw: st.DrawFn) -> tuple[str, Fraction]:
    """A decimal number in one of many notations, and its value."""
    value = draw(decimals)
    places = draw(st.integers(0, 3)) + next(n for n in range(20) if (value * 10**n).denominator == 1)
    digits = str(int(value * 10**places)).rjust(places + 1, "0")
    whole, fraction = digits[: len(digits) - places], digits[len(digits) - places :]
    separator = draw(st.sampled_from(["", ",", "\u00a0", "\u202f", "\u2009", "'", "’", "_", "{,}", r"\,", r",\!"]))
    text = grouped(whole, separator, draw(st.booleans()) and separator == ",") + ("." + fraction if fraction else "")
    power = draw(st.one_of(st.none(), st.integers(-12, 12)))
    if power is not None:
        mark = draw(st.sampled_from(["e{}", "E{}", " × 10^{}", r" \times 10^{{{}}}", r"\cdot 10^{}", "*10**{}"]))
        text += mark.format(power)
        value *= Fraction(10) ** power
    if draw(st.booleans()):
        zero = ord(draw(st.sampled_from(ZEROS)))
        text = "".join(chr(zero + int(c)) if c in "0123456789" else c for c in text)
    sign = draw(st.sampled_from(["", "", "-", "−", "－", "–", "+"]))
    text = sign + draw(st.sampled_from(["", "", "$", "€", "₹"])) + text
    return text, -value if sign not in ("", "+") else value


@given(
    written(), st.sampled_from(["", ".", ",", "!", " %", " €", " apples", "。", "**"]), st.sampled_from(["", "x = ", "≈", "("])
)
@settings(max_examples=400)
def test_a_number_has_one_value_in_all_notations_of_all_scripts(drawn: tuple[str, Fraction], after: str, before: str) -> None:
    text, value = drawn
    assert number(f"{before}{text}{after}") == value
    last = last_number(f"First 17 and 3/4; then the answer is {text}{after}")
    assert last is not None and number(last) == value


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6), st.data())
@settings(max_examples=150)
def test_a_fraction_has_one_value_in_all_notations(top: int, bottom: int, data: st.DataObject) -> None:
    sign, size = "-" * (top < 0), abs(top)
    forms = [
        f"{sign}{size}/{bottom}",
        f"{sign}{size} / {bottom}",
        rf"{sign}\frac{{{size}}}{{{bottom}}}",
        rf"\dfrac{{{top}}}{{{bottom}}}",
    ]
    if size // bottom and size % bottom:
        forms.append(rf"{sign}{size // bottom}\frac{{{size % bottom}}}{{{bottom}}}")
        forms += [f"{sign}{size // bottom} {size % bottom}/{bottom}"] if size // bottom < 1000 else []
    text = data.draw(st.sampled_from(forms))
    assert number(text) == Fraction(top, bottom)
    last = last_number(f"So it is {text}.")
    assert last is not None and number(last) == Fraction(top, bottom)


pieces = st.sampled_from(
    [
        "1",
        "0",
        "10",
        ",",
        ".",
        "/",
        "-",
        "−",
        "^",
        "{",
        "}",
        r"\frac",
        "%",
        " ",
        "\u2009",
        "e",
        "×",
        "½",
        "²",
        "٣",
        "$",
        "x",
        "=",
        "哈",
    ]
)


@given(st.one_of(st.text(), st.lists(pieces).map("".join)))
@settings(max_examples=400)
def test_any_text_is_read_or_refused_and_what_was_found_last_is_a_number(text: str) -> None:
    found = number(text)
    assert found is None or isinstance(found, Fraction)
    for notation in (Notation(), COMMA):
        last = last_number(text, notation)
        assert last is None or number(last, notation) is not None


@pytest.mark.parametrize(
    "piece",
    ["1", "1,111", "1 000 ", "1/", "\\frac{", "1e", "10^{ ", "½", "5-", "1.5×10", "\\ ", "哈1", "1.1.1-", "1:30", "2024-01-"],
)
def test_long_texts_of_one_piece_are_read_in_linear_time(piece: str) -> None:
    """A quadratic pattern would take hours here."""
    text = piece * (300_000 // len(piece))
    number(text)
    last_number(text)
