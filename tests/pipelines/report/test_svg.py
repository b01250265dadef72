"""Charts drawn as SVG: what is drawn equals what was given, whatever was given; colours are left to the style sheet."""

import math
import re
import tomllib

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.charts import Chart, chart, legend, number, widths
from helpers.paths import ROOT
from limbeck.pipelines.report import svg
from limbeck.pipelines.report.page import TEMPLATES
from limbeck.pipelines.report.svg import Axis, IntervalSeries, Scale, Series, Shade

HOSTILE = '</title></svg><script>alert(1)</script><img src="x"> & {{ 7 * 7 }} "\'\x00\x1b\ud800'
COUNTS, SHARES = Axis("candidates", "count"), Axis("share", "share")
finite = st.floats(-1e12, 1e12, allow_nan=False)


@given(finite, st.floats(1e-6, 1e9), st.integers(2, 10), st.sampled_from(["number", "count", "share", "seconds"]))
def test_ticks_are_round_even_and_within_the_axis(low: float, span: float, most: int, unit: svg.Unit) -> None:
    scale = Scale(low, low + max(span, 1e-9 * abs(low)))
    ticks = scale.ticks(most, unit)
    values = [value for value, _, _ in ticks]
    room = 1e-6 * (scale.high - scale.low)
    assert len(values) <= most and all(scale.low - room <= value <= scale.high + room for value in values)
    assert len({text for _, text, _ in ticks}) == len(ticks), "two ticks have the same label"
    for value, text, _ in ticks:
        written = number(text) / (100 if unit == "share" else 1)
        assert math.isclose(written, value, rel_tol=1e-6, abs_tol=1e-9 * (scale.high - scale.low))
    if len(values) > 2:
        step = values[1] - values[0]
        digits = f"{step:.3e}"[0:3]
        assert digits in ("1.0", "2.0", "5.0", "9.9") and (unit != "count" or step > 0.99)


def test_an_axis_leaves_out_every_second_label_on_narrow_screens_but_never_zero() -> None:
    ticks = Scale(-0.3, 0.4).ticks(8)
    assert [text for _, text, _ in ticks] == ["-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2", "0.3", "0.4"]
    assert [text for _, text, stays in ticks if stays] == ["-0.2", "0.0", "0.2", "0.4"]
    assert all(stays for _, _, stays in Scale(0.0, 3.0).ticks(8, "count")), "few labels all stay"


def test_values_are_written_as_what_they_are() -> None:
    assert [Axis("x").write(value) for value in (0.0, 0.5, 0.123456, 1234.5, 12345.6, 1e-9)] == [
        "0",
        "0.5",
        "0.1235",
        "1,234",
        "12,346",
        "1e-09",
    ]
    assert (
        COUNTS.write(1234567) == "1,234,567" and SHARES.write(0.1234) == "12.3 %" and Axis("", "seconds").write(61.04) == "61.0 s"
    )


def test_bars_are_as_long_as_their_values_and_stand_on_one_another() -> None:
    series = [Series("kept", "green", [50, 0]), Series("pmi", "rejected-1", [145, 240]), Series("best", "rejected-2", [5, 10])]
    fragment = svg.stacked_bars("Where", ["round 0", "round 1"], series, COUNTS)
    drawn = chart(fragment)
    assert legend(fragment) == ["kept", "pmi", "best"] and drawn.label == "Where"
    bars = drawn.of_class("fill")
    assert widths(bars) == pytest.approx([100 * value / 250 for value in (50, 145, 5, 240, 10)], abs=0.01)
    assert [number(bar.attrib["x"]) for bar in bars] == pytest.approx([0, 20, 78, 0, 96], abs=0.01)
    assert [bar.attrib["class"].split()[-1] for bar in bars] == ["green", "rejected-1", "rejected-2", "rejected-1", "rejected-2"]
    assert drawn.horizontal() == pytest.approx((0, 250), abs=1e-6)
    assert drawn.tooltips[0] == "round 0: kept 50" and len(drawn.tooltips) == 5
    assert drawn.description == "round 0: kept 50, pmi 145, best 5; round 1: kept 0, pmi 240, best 10"


def test_numbers_stand_in_the_bars_that_are_wide_enough() -> None:
    series = [Series(name, "blue", [value]) for name, value in (("a", 900), ("b", 93), ("c", 6), ("d", 1))]
    shown = chart(svg.stacked_bars("", ["row"], series, COUNTS))
    assert shown.texts("inside") == ["900", "93"], "no room for 6 and 1 of 1000"
    assert [part.attrib["class"] for part in shown.of_class("inside")] == ["inside", "inside"]
    narrower = chart(svg.stacked_bars("", ["row"], [Series("a", "blue", [970]), Series("b", "blue", [30])], COUNTS))
    assert [part.attrib["class"] for part in narrower.of_class("inside")] == ["inside", "inside widest"]


def test_totals_are_printed_beside_their_bars() -> None:
    series = [Series("in models", "blue", [1.5, 3.0]), Series("everything else", "orange", [0.5, 0.0])]
    drawn = chart(svg.stacked_bars("", ["one", "two"], series, Axis("seconds", "seconds"), ["2.0 s", "3.0 s"]))
    assert drawn.texts("total") == ["2.0 s", "3.0 s"] and drawn.texts("name") == ["one", "two"]
    assert [total.attrib["y"] for total in drawn.of_class("total")] == [name.attrib["y"] for name in drawn.of_class("name")]


def test_intervals_reach_from_low_to_high() -> None:
    dev = IntervalSeries("dev", "grey", "ring", {"teacher": (0.2, 0.1, 0.4)})
    test = IntervalSeries("test", "blue", "dot", {"teacher": (0.25, 0.25, 0.25), "student": (0.5, 0.3, 0.6)})
    fragment = svg.intervals("Rates", ["teacher", "student"], [dev, test], SHARES)
    drawn = chart(fragment)
    low, high = (value / 100 for value in drawn.horizontal())
    assert (
        legend(fragment) == ["dev", "test"]
        and drawn.texts("name") == ["teacher", "student"]
        and low == pytest.approx(0, abs=1e-4)
    )

    assert high == pytest.approx(0.6 * 1.04, abs=1e-3), "the axis ends a little beyond the highest interval"

    def value(text: str) -> float:
        return low + (high - low) * number(text) / 100

    groups = drawn.of_class("interval")
    for group, (mean, start, end) in zip(groups, [(0.2, 0.1, 0.4), (0.25, 0.25, 0.25), (0.5, 0.3, 0.6)], strict=True):
        bar, *caps = group.findall("line")
        (dot,) = group.findall("circle")
        assert value(dot.attrib["cx"]) == pytest.approx(mean, abs=1e-3)
        assert [value(bar.attrib[name]) for name in ("x1", "x2")] == pytest.approx([start, end], abs=1e-3)
        assert [value(cap.attrib["x1"]) for cap in caps] == pytest.approx([start, end], abs=1e-3)
    assert groups[0].find("circle").attrib["cy"] != groups[1].find("circle").attrib["cy"], "dev and test beside each other"
    assert drawn.tooltips[0] == "teacher, dev: 20.0 % (10.0 % to 40.0 %)" and drawn.tooltips[2] in drawn.description


def steps_chart(values: list[list[float | None]], shades: list[Shade] | None = None) -> Chart:
    series = [
        Series(f"round {index}", tone, row) for index, (row, tone) in enumerate(zip(values, ("grey", "blue"), strict=False))
    ]
    return chart(svg.steps("pmi: x", Scale(0.0, 1.0), series, shades or [], (Axis("x"), Axis("share", "share"))))


def test_steps_are_as_high_as_their_values() -> None:
    drawn = steps_chart([[0.25, 0.5, 0.25, 0.0], [0.0, 0.1, 0.4, 0.5]])
    for tone, values in (("grey", [0.25, 0.5, 0.25, 0.0]), ("blue", [0.0, 0.1, 0.4, 0.5])):
        path = drawn.path(tone)
        heights = [y for command, _, y in path if command == "H"]
        assert heights == pytest.approx([value / 0.52 for value in values], abs=2e-3)
        assert [x for command, x, _ in path if command == "H"] == pytest.approx([0.25, 0.5, 0.75, 1.0])
        assert path[-1] == ("V", 1.0, 0.0), "it ends on the axis"
    assert [part.attrib["class"] for part in drawn.root.iter("path")] == ["area grey", "line blue"]
    assert drawn.tooltips == [
        "up to 0.25\nround 0: 25.0 %\nround 1: 0.0 %",
        "0.25 to 0.5\nround 0: 50.0 %\nround 1: 10.0 %",
        "0.5 to 0.75\nround 0: 25.0 %\nround 1: 40.0 %",
        "from 0.75\nround 0: 0.0 %\nround 1: 50.0 %",
    ]
    assert "round 1: 0.0 %, 10.0 %, 40.0 %, 50.0 %" in drawn.description


def test_what_bounds_reject_is_shaded_and_their_labels_stay_on_the_chart() -> None:
    drawn = steps_chart([[0.5, 0.5]], [Shade(0.0, 0.3, 0.3, "0.3"), Shade(0.9, 1.0, 0.9, "0.9")])
    shades = [(number(part.attrib["x"]), number(part.attrib["width"])) for part in drawn.of_class("shade")]
    assert shades == [(0, 30), (90, 10)] and [part.attrib["x1"] for part in drawn.of_class("bound")] == ["30%", "90%"]
    assert drawn.texts("bound-label") == ["0.3", "0.9"]
    assert len(drawn.of_class("bound-label", "end")) == 2, "to the left: in the shade, and since the right end is near"
    (low,) = steps_chart([[0.5, 0.5]], [Shade(0.0, 0.01, 0.01, "0.01")]).of_class("bound-label")
    assert "end" not in low.attrib["class"], "to the right: the left end is near"


def test_lines_go_through_their_points_and_break_where_there_is_none() -> None:
    along, kept = [0.0, 1.0, 3.0, 4.0], [40, 20, None, 10]
    series = [Series("kept", "blue", kept), Series("sources", "orange", [10.0, math.nan, 5.0, math.inf])]
    fragment = svg.lines("curve", along, series, (Axis("bound"), COUNTS))
    drawn = chart(fragment)
    assert legend(fragment) == ["kept", "sources"]
    assert [command for command, _, _ in drawn.path("blue")] == ["M", "L", "M"], "nothing is drawn over a gap"
    assert [y for _, _, y in drawn.path("blue")] == pytest.approx([40 / 41.6, 20 / 41.6, 10 / 41.6], abs=1e-3)
    assert [x for _, x, _ in drawn.path("blue")] == pytest.approx([(value + 0.08) / 4.16 for value in (0, 1, 4)], abs=1e-3)
    low, high = drawn.horizontal()
    assert (low, high) == pytest.approx((-0.08, 4.08), abs=1e-3)
    assert drawn.tooltips == ["bound 0\nkept: 40\nsources: 10", "bound 1\nkept: 20", "bound 3\nsources: 5", "bound 4\nkept: 10"]
    hits = drawn.of_class("hit")
    assert sum(widths(hits)) == pytest.approx(100, abs=0.05), "every place has the tooltip of the nearest point"
    assert len(list(drawn.root.iter("circle"))) == 5
    many = chart(svg.lines("", [float(x) for x in range(500)], [Series("a", "blue", list(range(500)))], (Axis("x"), COUNTS)))
    assert not list(many.root.iter("circle")) and len(many.tooltips) == 500


NOTHING = [[], [0.0], [None], [math.nan], [math.inf, -math.inf], [0.0, 0.0]]


@pytest.mark.parametrize("values", NOTHING)
def test_charts_of_nothing_are_drawn_too(values: list[float | None]) -> None:
    rows = [f"row {index}" for index in range(len(values))]
    series, places = [Series("a", "blue", values)], [float(index) for index in range(len(values))]
    points = {name: (float(value or 0.0), math.nan, math.inf) for name, value in zip(rows, values, strict=True)}
    drawn = [
        svg.stacked_bars("a", rows, series, COUNTS),
        svg.stacked_bars("a", rows, [], COUNTS),
        svg.intervals("a", rows, [IntervalSeries("dev", "blue", "dot", points)], SHARES),
        svg.intervals("a", rows, [], SHARES),
        svg.steps("a", Scale(0.0, 1.0), series, [], (Axis("x"), SHARES)),
        svg.lines("a", places, series, (Axis("x"), COUNTS)),
        svg.lines("a", values if None not in values else places, series, (Axis("x"), COUNTS)),
        svg.lines("a", places, [], (Axis("x"), COUNTS)),
    ]
    for fragment in drawn:
        assert not re.search(r"\b(nan|inf|None)\b", fragment), fragment
        assert chart(fragment).of_class("base")


@given(st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=5), st.lists(st.floats(0, 1e9), min_size=1, max_size=5))
def test_nothing_is_drawn_outside_of_a_plot(points: list[tuple[float, float, float]], values: list[float]) -> None:
    rows = [str(index) for index in range(len(points))]
    series = IntervalSeries("a", "blue", "dot", dict(zip(rows, points, strict=True)))
    bars = svg.stacked_bars("", [str(index) for index in range(len(values))], [Series("a", "blue", values)], Axis("x"))
    curve = svg.lines(
        "", [mean for mean, _, _ in points], [Series("a", "blue", [low for _, low, _ in points])], (Axis("x"), Axis("y"))
    )
    for fragment in (svg.intervals("", rows, [series], Axis("x")), bars, curve):
        found = re.findall(r' (?:x|x1|x2|cx|width)="([-\d.]+)%"', fragment)
        assert found and all(-0.001 <= float(value) <= 100.001 for value in found)


def test_every_text_is_escaped_and_what_xml_excludes_is_replaced() -> None:
    bars = svg.stacked_bars(HOSTILE, [HOSTILE], [Series(HOSTILE, "blue", [1])], Axis(HOSTILE, "count"), [HOSTILE])
    points = svg.intervals(HOSTILE, [HOSTILE], [IntervalSeries(HOSTILE, "blue", "dot", {HOSTILE: (1, 0, 2)})], Axis(HOSTILE))
    steps = svg.steps(
        HOSTILE, Scale(0, 1), [Series(HOSTILE, "blue", [1])], [Shade(0, 1, 1, HOSTILE)], (Axis(HOSTILE), Axis(HOSTILE))
    )
    curve = svg.lines(HOSTILE, [1], [Series(HOSTILE, "blue", [1])], (Axis(HOSTILE), Axis(HOSTILE)))
    replaced = re.sub("[\x00\x1b\ud800]", "\ufffd", HOSTILE)
    for fragment in (bars, points, steps, curve):
        drawn = chart(fragment)
        assert {part.tag for part in drawn.root.iter()} <= {"svg", "desc", "title", "g", "rect", "line", "circle", "path", "text"}
        assert drawn.label == replaced and legend(fragment) == [replaced]
        assert "<script" not in fragment and "<img" not in fragment
        fragment.encode("utf-8")


def test_a_long_name_is_shortened_and_its_tooltip_has_it_all() -> None:
    name = "round-0/scores/" + "x" * 60 + "/end"
    drawn = chart(svg.stacked_bars("", [name], [Series("a", "blue", [1])], COUNTS))
    (shown,) = drawn.texts("name")
    assert len(shown) == svg.LONGEST_LABEL and "…" in shown and shown.startswith("round-0/") and shown.endswith("/end")
    assert name in drawn.tooltips and "above" in drawn.root.attrib["class"], "too long to be put beside its bar"
    assert "above" not in chart(svg.stacked_bars("", ["short"], [Series("a", "blue", [1])], COUNTS)).root.attrib["class"]


def style() -> str:
    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES)).get_template("page.css.jinja").render()


def every_kind() -> str:
    series = [Series("a", "blue", [970, 1]), Series("b", "orange", [30, 2])]
    shapes: list[tuple[str, str, svg.Shape]] = [(shape, "green", shape) for shape in ("box", "line", "dot", "ring")]
    axes = Axis("x"), SHARES
    return "".join(
        [
            svg.stacked_bars("", ["a", "b" * 50], series, COUNTS, ["1", "2"]),
            svg.intervals("", ["a"], [IntervalSeries("dev", "grey", "ring", {"a": (1, 0, 2)})], SHARES),
            svg.steps("", Scale(0, 1), series, [Shade(0, 0.5, 0.5, "0.5"), Shade(0.9, 1, 0.9, "0.9")], axes),
            svg.lines("", [1, 2], series, axes),
            svg.legend(shapes),
        ]
    )


def test_colours_are_left_to_the_style_sheet_which_knows_every_class() -> None:
    drawn = every_kind()
    assert not re.search(r"#[0-9a-fA-F]{3}\b|rgb|hsl|fill=|stroke=|url\(|https?:", drawn)
    classes = {name for value in re.findall(r'class="([^"]*)"', drawn) for name in value.split()}
    assert classes >= {
        "fill",
        "part",
        "inside",
        "widest",
        "grid",
        "wide",
        "shade",
        "bound",
        "end",
        "area",
        "hit",
        "above",
        "total",
    }
    known = set(re.findall(r"\.([a-z][a-z0-9-]*)", style()))
    assert classes - {"interval"} <= known  # that one only groups
    assert {f"rejected-{number}" for number in range(1, 9)} <= known


def themes() -> list[dict[str, str]]:
    """The colours of light and of dark screens."""
    found = [dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6})", block)) for block in re.findall(r":root \{([^}]*)\}", style())]
    return [found[0], found[0] | found[1]]


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        channels = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
def test_text_and_marks_stand_out_in_both_themes(theme: dict[str, str]) -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    for ground in (theme["card"], theme["paper"]):
        for text in ("ink", "soft", "bad", "accent"):
            assert contrast(theme[text], ground) >= 4.5, text
    marks = ["green", *(f"rejected-{number}" for number in range(1, 9))]
    for mark in marks:
        assert contrast(theme["inside"], theme[mark]) >= 4.5, f"a number inside {mark}"
    for mark in (*marks, "grey", "blue", "orange"):
        assert contrast(theme[mark], theme["card"]) >= 3, mark


def test_print_is_light_whatever_the_screen_is() -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in style() and "@media print" in style()
    assert style().count("prefers-color-scheme") == 1


def test_the_templates_are_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["limbeck.pipelines.report"]
    packaged = {path for pattern in patterns for path in TEMPLATES.parent.glob(pattern)}
    assert set(TEMPLATES.iterdir()) <= packaged
