"""Charts as SVG that is drawn here: no script, colours by CSS class, one drawing for every width.

Horizontal positions are percentages of the plot and vertical ones are pixels, so a chart fits any screen while its text keeps
its size. The plot is the whole <svg>; labels overflow into margins that `templates/page.css.jinja` leaves around it. Paths cannot
hold percentages: they are drawn in a nested <svg> that is stretched. Every value is in a tooltip (<title>) and in the <desc>.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

from markupsafe import Markup, escape

TEXT_PIXELS = 7.2  # the average width of a character, rounded up
LONGEST_LABEL = 44  # characters; the tooltip has the rest
WIDEST_LABELS_PIXELS = 220  # longer names of rows are put above their bars at every width
PLOT_PIXELS = {"": 300, "wide": 440, "widest": 1000}  # the least width of a plot at which CSS shows this class
MOST_TICKS = {"x": 8, "y": 5}
STRETCHED = 1000  # units of a nested <svg> in both directions
TOP, AXIS = 24, 44  # pixels above a plot with a vertical axis, and below a plot with a horizontal one
LABEL, LANES = 20, 28  # pixels of a row: its name on a narrow screen, and below it the intervals of all series
MOST_MARKED_POINTS = 60

Unit = Literal["number", "count", "share", "seconds"]
Shape = Literal["box", "line", "dot", "ring"]
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML excludes


@dataclass(frozen=True)
class Axis:
    """The title of an axis, and how its values are written."""

    title: str
    unit: Unit = "number"

    def write(self, value: float) -> str:
        """A value as tooltips show it."""
        if self.unit == "number":
            return f"{value:z,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:z,.4g}"
        return {"count": f"{value:z,.0f}", "share": f"{100 * value:.1f} %", "seconds": f"{value:.1f} s"}[self.unit]


@dataclass(frozen=True)
class Series:
    """One value per row, bar or point (None or not finite: not measured), and the CSS class of its colour."""

    name: str
    tone: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class IntervalSeries:
    """(mean, low, high) by row name, and the CSS class of its colour."""

    name: str
    tone: str
    shape: Shape
    points: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Shade:
    """A shaded range of the horizontal axis, and the labelled line at its inner end."""

    start: float
    end: float
    line: float
    label: str


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high`, which differ."""

    low: float
    high: float

    def fraction(self, value: float) -> float:
        """Where a value is between the ends, from 0 to 1; values beyond are moved to the nearer end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def percent(self, value: float) -> str:
        """The same as a percentage."""
        return percent(100 * self.fraction(value))

    def ticks(self, most: int, unit: Unit = "number") -> list[tuple[float, str, bool]]:
        """At most `most` round values within the ends: (value, label, whether it remains if every second one is left out)."""
        step = _step((self.high - self.low) / most, whole=unit == "count")
        while (multiples := self._multiples(step)) and len(multiples) > most:
            step = _step(1.01 * step, whole=unit == "count")
        shift = 2 if unit == "share" else 0
        decimals = -math.floor(math.log10(step) + 1e-9) - shift
        suffix = "%" if unit == "share" else ""
        values = [(multiple * step, multiple % 2 == 0 or len(multiples) <= most // 2) for multiple in multiples]
        return [(value, _digits(value * 10**shift, decimals) + suffix, stays) for value, stays in values]

    def _multiples(self, step: float) -> range:
        return range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)


def scale(values: Sequence[float | None], *, zero: bool, room: float = 0.0) -> Scale:
    """A scale over the finite values (and zero), with `room` (a share of the span) beyond them; 0 to 1 if there are none."""
    known = [value for value in values if finite(value)] + ([0.0] if zero else [])
    low, high = min(known, default=0.0), max(known, default=1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-280):  # one value: in the middle, or on the axis if it is zero
        width = abs(low) / 2 or 1.0
        return Scale(0.0 if zero else low - width, high + width)
    margin = room * (high - low)
    return Scale(low if zero and low == 0 else low - margin, high + margin)


def finite(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to draw."""
    return value is not None and math.isfinite(value)


def stacked_bars(
    label: str, rows: Sequence[str], series: Sequence[Series], axis: Axis, totals: Sequence[str] = (), pitch: int = 60
) -> Markup:
    """Horizontal bars, one per row, each made of one segment per series; `totals` are printed at the right, one per row.

    Segments of counts hold their number if it fits. Values that are missing or negative are drawn as 0.
    """
    lengths = [[max(0.0, value) if finite(value) else 0.0 for value in one.values] for one in series]
    along = scale([sum(column) for column in zip(*lengths, strict=True)], zero=True)
    bar, drawn, facts = pitch - LABEL, [], []
    for index, name in enumerate(rows):
        y, start, parts = LABEL + pitch * index, 0.0, []
        for one, values in zip(series, lengths, strict=True):
            value = values[index]
            parts.append(f"{one.name} {axis.write(value)}")
            if value:
                tip = f"{name}: {one.name} {axis.write(value)}"
                drawn.append(_segment(along, start, value, (y, bar), one.tone, tip))
                drawn.append(_number_inside(along, start, value, y + bar / 2, axis) if axis.unit == "count" else Markup())
            start += value
        facts.append(f"{name}: {', '.join(parts)}")
        drawn.append(_row_label(name, y + bar / 2))
        if totals:
            drawn.append(element("text", totals[index], class_="total", x="100%", y=y + bar / 2))
    left = _label_pixels(rows)
    right = max([24, *(math.ceil(10 + TEXT_PIXELS * len(text)) for text in totals)])
    bottom = pitch * len(rows) + 8
    return legend([(one.name, one.tone, "box") for one in series]) + _plot(
        label, facts, [*_horizontal_axis(along, axis, 0, bottom), *drawn], bottom + AXIS, (left, right, bar // 2 + LABEL // 2)
    )


def intervals(label: str, rows: Sequence[str], series: Sequence[IntervalSeries], axis: Axis) -> Markup:
    """Points with their intervals, one line per row and series that has it."""
    every = [value for one in series for name in rows for value in one.points.get(name, ())]
    along, pitch = scale(every, zero=True, room=0.04), LABEL + LANES + 4
    drawn, facts = [], []
    for index, name in enumerate(rows):
        here = [(one, one.points[name]) for one in series if name in one.points and finite(one.points[name][0])]
        for place, (one, point) in enumerate(here):
            height = LANES / len(here)
            tip = f"{name}, {one.name}: {axis.write(point[0])}"
            if finite(point[1]) and finite(point[2]):
                tip += f" ({axis.write(point[1])} to {axis.write(point[2])})"
            facts.append(tip)
            drawn.append(_interval(along, point, (LABEL + pitch * index + height * place, height), one, tip))
        drawn.append(_row_label(name, LABEL + LANES // 2 + pitch * index))
    bottom, margins = pitch * len(rows) + 8, (_label_pixels(rows), 24, (LANES + LABEL) // 2)
    entries = [(one.name, one.tone, one.shape) for one in series if one.points]
    return legend(entries) + _plot(label, facts, [*_horizontal_axis(along, axis, 0, bottom), *drawn], bottom + AXIS, margins)


def steps(label: str, ends: Scale, series: Sequence[Series], shades: Sequence[Shade], axes: tuple[Axis, Axis]) -> Markup:
    """Histograms over one another: bars of equal width from end to end; the first of several is filled, the others are lines.

    Values that are missing are drawn as 0.
    """
    series = [Series(one.name, one.tone, [value if finite(value) else 0.0 for value in one.values]) for one in series]
    height, upwards = 190, scale([value for one in series for value in one.values], zero=True, room=0.04)
    bars = max((len(one.values) for one in series), default=0)
    drawn, facts = _vertical_axis(upwards, axes[1], height) + _horizontal_axis(ends, axes[0], TOP, TOP + height), []
    for shade in shades:
        start, end = sorted((ends.fraction(shade.start), ends.fraction(shade.end)))
        x, width = percent(100 * start), percent(100 * (end - start))
        drawn.append(element("rect", class_="shade", x=x, width=width, y=TOP, height=height))
    paths = []
    for index, one in enumerate(series):
        tops = [STRETCHED * (1 - upwards.fraction(value or 0.0)) for value in one.values]
        path = "M0 1000" + "".join(f"V{top:.0f}H{_plain(STRETCHED * (bar + 1) / bars)}" for bar, top in enumerate(tops)) + "V1000"
        kind = "area" if index == 0 and len(series) > 1 else "line"
        paths.append(element("path", class_=f"{kind} {one.tone}", d=path))
        facts.append(f"{one.name}: {', '.join(axes[1].write(value or 0.0) for value in one.values)}")
    drawn.append(_stretched(paths, TOP, height))
    drawn += [part for shade in shades for part in _bound(ends, shade, height)]
    drawn += [_bar_tip(ends, series, bar, bars, axes, height) for bar in range(bars)]
    where = f"{axes[1].title} in {bars} bars from {axes[0].write(ends.low)} to {axes[0].write(ends.high)}"
    facts = [where, *(f"bound {shade.label}" for shade in shades), *facts]
    shapes: Sequence[Shape] = ("box", "line") if len(series) > 1 else ("line",)
    entries = [(one.name, one.tone, shape) for one, shape in zip(series, shapes, strict=False)]
    margins = (_tick_pixels(upwards, axes[1]), 24, 0)
    return legend(entries) + _plot(label, facts, drawn, TOP + height + AXIS, margins)


def lines(label: str, along: Sequence[float], series: Sequence[Series], axes: tuple[Axis, Axis]) -> Markup:
    """Values over a numeric axis as lines; their points are marked if they are few. A value that is missing breaks its line."""
    height = 340
    ends = scale(along, zero=False, room=0.02)
    upwards = scale([value for one in series for value in one.values], zero=True, room=0.04)
    drawn = _vertical_axis(upwards, axes[1], height) + _horizontal_axis(ends, axes[0], TOP, TOP + height)
    paths, marks = [], []
    for one in series:
        path, pen = "", "M"
        for x, y in zip(along, one.values, strict=True):
            if not (finite(x) and finite(y)):
                pen = "M"
                continue
            path += f"{pen}{STRETCHED * ends.fraction(x):.1f} {STRETCHED * (1 - upwards.fraction(y)):.1f}"
            pen = "L"
            top = TOP + height * (1 - upwards.fraction(y))
            marks.append(element("circle", class_=f"fill {one.tone}", cx=ends.percent(x), cy=top, r=4))
        paths.append(element("path", class_=f"line {one.tone}", d=path) if path else Markup())
    drawn.append(_stretched(paths, TOP, height))
    drawn += marks if len(along) <= MOST_MARKED_POINTS else []
    tips = [(x, _point_facts(axes, x, series, index)) for index, x in enumerate(along) if finite(x)]
    drawn += _point_tips(ends, tips, height)
    entries: list[tuple[str, str, Shape]] = [(one.name, one.tone, "line") for one in series]
    facts = [", ".join(tip) for _, tip in tips]
    return legend(entries) + _plot(label, facts, drawn, TOP + height + AXIS, (_tick_pixels(upwards, axes[1]), 24, 0))


def legend(entries: Sequence[tuple[str, str, Shape]]) -> Markup:
    """The names of series beside their colours: a list that wraps, since the width of text is unknown here."""
    shapes: dict[Shape, Callable[[str], Markup]] = {
        "box": lambda tone: element("rect", class_=f"fill {tone}", width=14, height=12, y=1, rx=2),
        "line": lambda tone: element("line", class_=f"line {tone}", x1=0, x2=14, y1=7, y2=7),
        "dot": lambda tone: element("circle", class_=f"fill {tone}", cx=7, cy=7, r=5),
        "ring": lambda tone: element("circle", class_=f"ring {tone}", cx=7, cy=7, r=5),
    }
    items = [
        element("li", element("svg", shapes[shape](tone), width=14, height=14, aria_hidden="true"), " ", name)
        for name, tone, shape in entries
    ]
    return element("ul", *items, class_="legend") if items else Markup()


def element(tag: str, *children: str, **attributes: str | float) -> Markup:
    """An element; every text is escaped. `class_` is written class and `aria_label` aria-label."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_legal(value) if isinstance(value, str) else _plain(value))}"'
        for name, value in attributes.items()
    )
    inside = "".join(child if isinstance(child, Markup) else escape(_legal(child)) for child in children)
    return Markup(f"<{tag}{written}>{inside}</{tag}>" if inside else f"<{tag}{written}/>")


def percent(value: float) -> str:
    """A percentage as an attribute: two decimals are a tenth of a pixel on a wide screen."""
    return f"{_plain(value)}%"


def _plain(value: float) -> str:
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return "0" if text == "-0" else text


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL // 2]}…{text[-LONGEST_LABEL // 2 + 1 :]}"


def _step(least: float, *, whole: bool) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least this."""
    power = 10.0 ** math.floor(math.log10(least))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= least * (1 - 1e-9)), 10 * power)
    return max(1.0, step) if whole else step


def _digits(value: float, decimals: int) -> str:
    """A value rounded to `decimals` (negative: to tens, hundreds, ...), in scientific form if it is long."""
    if decimals > 6 or abs(value) >= 1e7:
        return f"{value:.{max(1, math.floor(math.log10(abs(value))) + decimals + 1)}g}" if value else "0"
    text = f"{value:,.{max(0, decimals)}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text


def _plot(label: str, facts: Sequence[str], drawn: Sequence[Markup], height: int, room: tuple[int, int, int]) -> Markup:
    """The <svg> of a plot; `room`: the margins left and right, and how far narrow screens lift names of rows (0: no rows)."""
    left, right, lift = room
    above = lift > 0 and left > WIDEST_LABELS_PIXELS
    kinds = "plot" + (" rows" if lift else "") + (" above" if above else "")
    return element(
        "svg",
        element("desc", "; ".join(facts)),
        *drawn,
        class_=kinds,
        role="img",
        aria_label=label,
        height=height,
        style=f"--left: {0 if above else left}px; --right: {right}px; --lift: {lift}px",
    )


def _label_pixels(rows: Sequence[str]) -> int:
    return math.ceil(14 + TEXT_PIXELS * max((len(_short(name)) for name in rows), default=0))


def _tick_pixels(upwards: Scale, axis: Axis) -> int:
    ticks = upwards.ticks(MOST_TICKS["y"], axis.unit)
    return math.ceil(12 + TEXT_PIXELS * max((len(text) for _, text, _ in ticks), default=0))


def _row_label(name: str, y: float) -> Markup:
    full = element("title", name) if _short(name) != name else Markup()
    return element("text", full, _short(name), class_="name", x=0, y=y)


def _horizontal_axis(ends: Scale, axis: Axis, top: int, bottom: int) -> list[Markup]:
    """Grid lines, values below, and the title below these."""
    drawn = []
    for value, text, stays in ends.ticks(MOST_TICKS["x"], axis.unit):
        x = ends.percent(value)
        drawn.append(element("line", class_="grid" if stays else "grid wide", x1=x, x2=x, y1=top, y2=bottom))
        drawn.append(element("text", text, class_="tick" if stays else "tick wide", x=x, y=bottom + 16))
    drawn.append(element("line", class_="base", x1=0, x2="100%", y1=bottom, y2=bottom))
    return [*drawn, element("text", _short(axis.title), class_="axis", x="50%", y=bottom + 36)]


def _vertical_axis(upwards: Scale, axis: Axis, height: int) -> list[Markup]:
    """Grid lines, values at the left, and the title above these."""
    drawn = [element("text", axis.title, class_="title", x=0, y=10)]
    for value, text, _ in upwards.ticks(MOST_TICKS["y"], axis.unit):
        y = TOP + height * (1 - upwards.fraction(value))
        drawn.append(element("line", class_="grid", x1=0, x2="100%", y1=y, y2=y))
        drawn.append(element("text", text, class_="value", x=0, y=y))
    return drawn


def _segment(along: Scale, start: float, value: float, across: tuple[float, float], tone: str, tip: str) -> Markup:
    x, width = along.percent(start), percent(100 * (along.fraction(start + value) - along.fraction(start)))
    kind = "fill part" if value > along.high / 100 else "fill"  # a gap to its neighbours would hide a thin one
    title = element("title", tip)
    return element("rect", title, class_=f"{kind} {tone}", x=x, width=width, y=across[0], height=across[1])


def _number_inside(along: Scale, start: float, value: float, y: float, axis: Axis) -> Markup:
    """The number of a segment, shown at the widths at which it fits."""
    text, share = axis.write(value), along.fraction(start + value) - along.fraction(start)
    for shown, pixels in PLOT_PIXELS.items():
        if share * pixels >= TEXT_PIXELS * len(text) + 4:
            return element("text", text, class_=f"inside {shown}".rstrip(), x=along.percent(start + value / 2), y=y)
    return Markup()


def _interval(
    along: Scale, point: tuple[float, float, float], across: tuple[float, float], series: IntervalSeries, tip: str
) -> Markup:
    mean, low, high = point
    y = across[0] + across[1] / 2
    parts = [
        element("title", tip),
        element("rect", class_="hit", x=0, width="100%", y=across[0], height=across[1]),
    ]
    if finite(low) and finite(high):
        parts.append(element("line", class_="whisker", x1=along.percent(low), x2=along.percent(high), y1=y, y2=y))
        for end in (low, high):
            parts.append(element("line", class_="whisker", x1=along.percent(end), x2=along.percent(end), y1=y - 4, y2=y + 4))
    parts.append(element("circle", class_="ring" if series.shape == "ring" else "fill", cx=along.percent(mean), cy=y, r=5))
    return element("g", *parts, class_=f"interval {series.tone}")


def _stretched(paths: Sequence[Markup], y: int, height: int) -> Markup:
    box = {"viewBox": f"0 0 {STRETCHED} {STRETCHED}", "preserveAspectRatio": "none"}
    return element("svg", *paths, class_="stretched", width="100%", y=y, height=height, **box)


def _bound(ends: Scale, shade: Shade, height: int) -> list[Markup]:
    """The line of a bound, its label inside the shaded range unless it would be cut off there."""
    at, x = ends.fraction(shade.line), ends.percent(shade.line)
    leftwards = at > 0.85 or (shade.start < shade.line and at >= 0.15)
    return [
        element("line", class_="bound", x1=x, x2=x, y1=TOP, y2=TOP + height),
        element("text", shade.label, class_="bound-label end" if leftwards else "bound-label", x=x, y=TOP + 11),
    ]


def _bar_tip(ends: Scale, series: Sequence[Series], bar: int, bars: int, axes: tuple[Axis, Axis], height: int) -> Markup:
    """The tooltip of one bar of a histogram, over the whole height; none if the bar is empty in every series."""
    if not any(one.values[bar] for one in series):
        return Markup()
    width = (ends.high - ends.low) / bars
    low, high = (axes[0].write(ends.low + width * edge) for edge in (bar, bar + 1))
    span = f"up to {high}" if bar == 0 else f"from {low}" if bar == bars - 1 else f"{low} to {high}"
    counted = [f"{one.name}: {axes[1].write(one.values[bar] or 0.0)}" for one in series]
    title = element("title", "\n".join([span, *counted]))
    return element("rect", title, class_="hit", x=percent(100 * bar / bars), width=percent(100 / bars), y=TOP, height=height)


def _point_facts(axes: tuple[Axis, Axis], x: float, series: Sequence[Series], index: int) -> list[str]:
    known = [(one.name, value) for one in series if finite(value := one.values[index])]
    return [f"{axes[0].title} {axes[0].write(x)}", *(f"{name}: {axes[1].write(value)}" for name, value in known)]


def _point_tips(ends: Scale, tips: Sequence[tuple[float, list[str]]], height: int) -> list[Markup]:
    """One tooltip per point, over all that is nearer to it than to its neighbours."""
    places = sorted((ends.fraction(x), "\n".join(tip)) for x, tip in tips)
    edges = [0.0, *((a + b) / 2 for (a, _), (b, _) in zip(places, places[1:], strict=False)), 1.0]
    drawn = []
    for (_, tip), start, end in zip(places, edges, edges[1:], strict=False):
        x, width = percent(100 * start), percent(100 * (end - start))
        drawn.append(element("rect", element("title", tip), class_="hit", x=x, width=width, y=TOP, height=height))
    return drawn
