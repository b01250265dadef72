"""Beginnings that a language model continues with a document: datelines of news, and headings of biomedical abstracts.

Their form is that of Impossible Distillation (Jung et al., 2024, arXiv 2305.16635, and its released code): half of the datelines
name only a medium, a quarter a country, a quarter a city. The lists are our own, and shorter.
"""

from functools import cache
from pathlib import Path
from random import Random

PLACES = Path(__file__).parent / "places.tsv"
"""City and country per line."""

MEDIA = (
    *("ABC News", "AFP", "Al Jazeera", "ANSA", "AP", "BBC", "Bloomberg", "CBC", "CNN", "Deutsche Welle", "dpa", "EFE"),
    *("Euronews", "Financial Times", "France 24", "Kyodo", "NHK", "NPR", "PTI", "Reuters", "Sky News", "The Economist"),
    *("The Guardian", "The Irish Times", "UPI", "Yonhap"),
)
HEADINGS = ("Abstract", "Introduction", "Method", "Conclusion")

_MEDIUM_ONLY, _COUNTRY = 0.5, 0.75  # cumulative shares; the rest names a city


@cache
def places() -> tuple[tuple[str, str], ...]:
    """All (city, country) pairs, in the order of the file."""
    pairs = (line.split("\t") for line in PLACES.read_text(encoding="utf-8").splitlines())
    return tuple((city, country) for city, country in pairs)


def news_prefix(random: Random) -> str:
    """The beginning of a news report: "(BBC) --", "Spain (BBC) --" or "SEVILLE, Spain (BBC) --"; ends without whitespace."""
    share, medium = random.random(), random.choice(MEDIA)
    city, country = random.choice(places())
    if share < _MEDIUM_ONLY:
        return f"({medium}) --"
    place = country if share < _COUNTRY else f"{city.upper()}, {country}"
    return f"{place} ({medium}) --"


def biomedical_prefix(random: Random) -> str:
    """The heading of a section of a biomedical paper, with a colon; ends without whitespace."""
    return f"{random.choice(HEADINGS)}:"
