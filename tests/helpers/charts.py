"""Reads charts back: the drawn values, as numbers, from the SVG of a page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

STRETCHED = 1000.0


@dataclass(frozen=True)
class Chart:
    """A chart's <svg>, parsed."""

    root: ElementTree.Element

    @property
    def label(self) -> str:
        return self.root.attrib["aria-label"]

    @property
    def description(self) -> str:
        return self.root.findtext("desc") or ""

    @property
    def tooltips(self) -> list[str]:
        return [title.text or "" for title in self.root.iter("title")]

    def of_class(self, *names: str) -> list[ElementTree.Element]:
        """Elements with all of these classes, in order."""
        return [part for part in self.root.iter() if set(names) <= set(part.get("class", "").split())]

    def texts(self, *names: str) -> list[str]:
        """The texts of elements of these classes, without their tooltips."""
        return ["".join(words(part)) for part in self.of_class(*names)]

    def horizontal(self) -> tuple[float, float]:
        """(value at 0 %, value at 100 %) of the horizontal axis, from the ticks that are farthest apart."""
        ticks = [(number(part.attrib["x"]), number("".join(words(part)))) for part in self.of_class("tick")]
        (x0, v0), (x1, v1) = ticks[0], ticks[-1]
        slope = (v1 - v0) / (x1 - x0)
        return v0 - slope * x0, v0 + slope * (100 - x0)

    def path(self, tone: str) -> list[tuple[str, float, float]]:
        """(command, x, y) of the line or area of a colour; both from 0 to 1, upwards."""
        (found,) = [part for part in self.root.iter("path") if tone in part.attrib["class"].split()]
        x, y, points = 0.0, 0.0, []
        for command, values in re.findall(r"([MLVH])([^MLVH]*)", found.attrib["d"]):
            given = [float(value) for value in values.split()]
            x = given[0] if command in "MLH" else x
            y = given[-1] if command in "MLV" else y
            points.append((command, x / STRETCHED, 1 - y / STRETCHED))
        return points


def words(part: ElementTree.Element) -> list[str]:
    return [part.text or "", *(child.tail or "" for child in part)]


def number(text: str) -> float:
    """A number as formatted in charts: 12.5%, 1,000, 3 s."""
    return float(text.replace(",", "").rstrip("% s"))


def charts(html: str) -> list[Chart]:
    """Every chart of a page; raises ParseError if one is not well-formed XML."""
    return [
        Chart(ElementTree.fromstring(text)) for text in re.findall(r'<svg [^>]*class="plot.*?</svg>(?=</figure>)', html, re.S)
    ]


def chart(fragment: str) -> Chart:
    """The only chart of a fragment (a legend and an <svg>)."""
    (found,) = [part for part in ElementTree.fromstring(f"<figure>{fragment}</figure>") if part.tag == "svg"]
    return Chart(found)


def legend(fragment: str) -> list[str]:
    """The names in a chart's legend."""
    return ["".join(item.itertext()).strip() for item in ElementTree.fromstring(f"<figure>{fragment}</figure>").iter("li")]


def widths(parts: Sequence[ElementTree.Element]) -> list[float]:
    return [number(part.attrib["width"]) for part in parts]
