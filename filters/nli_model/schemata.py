"""Pairs from written schemata: a premise, and what it entails, leaves open and contradicts, with slots filled at random.

`schemata.jsonl` was written by hand for this purpose, one schema a line. A slot in braces has the same filling in the premise and
in all hypotheses of one expansion, so a label holds for every filling; alternatives in brackets are drawn for each text alone.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, get_args

from limbeck.filters.nli_model import words
from limbeck.filters.nli_model.rules import Label, NliPair, capital

SCHEMATA = Path(__file__).with_name("schemata.jsonl")
HELD_OUT = 8  # one of this many schemata is held out, for the accuracy on schemata that were not trained on

_SLOT = re.compile(r"\{([\w+-]+)(?:\.(\d))?\}")
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_SPACES = re.compile(r" {2,}")
_BEFORE_MARK = re.compile(r" (?=[,;:?!]|\.(?:\s|$))")
_IN_WORDS = 0.3  # the share of expansions whose numbers are spelt out, if all of them can be
_UNITS = ("one", *words.NUMBERS.values())
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

_PEOPLE = (
    *("Anna", "Peter", "Maria", "Thomas", "Julia", "David", "Priya", "Michael", "Laura", "Daniel", "Emma", "James", "Alice"),
    *("Robert", "Yuki", "Omar", "Ingrid", "Kwame", "Sofia", "Ravi", "Chen", "Fatima", "Lukas", "Nora", "Tomás", "Helen"),
    *("Ms Okafor", "Mr Lindgren", "Dr Patel", "Professor Weiss", "Mrs Hughes", "Captain Moreau"),
)
_COMPANIES = (
    *("Norvik", "Aldertech", "Brightwater Foods", "Kestrel Airlines", "Meridian Bank", "Solenne", "Hartwell Motors", "Quillon"),
    *("Pinecrest Media", "Tamarind Labs", "Ostra Energy", "Bluefin Logistics", "Veldman", "Cobalt Systems", "Ferrow", "Lumina"),
)
_CITIES = (
    *(
        "London",
        "Paris",
        "Berlin",
        "Madrid",
        "Rome",
        "Tokyo",
        "Boston",
        "Chicago",
        "Oslo",
        "Dublin",
        "Vienna",
        "Prague",
        "Toronto",
    ),
    *("Lisbon", "Cairo", "Nairobi", "Lima", "Seoul", "Mumbai", "Sydney", "Helsinki", "Warsaw", "Athens", "Bogotá", "Accra"),
)
_COUNTRIES = (
    *(
        "France",
        "Germany",
        "Spain",
        "Italy",
        "Portugal",
        "Sweden",
        "Japan",
        "China",
        "India",
        "Brazil",
        "Canada",
        "Mexico",
        "Egypt",
    ),
    *("Turkey", "Greece", "Poland", "Kenya", "Ireland", "Norway", "Chile", "Vietnam", "Ghana", "Peru", "Finland"),
)
_PRODUCTS = ("Orbit", "Lynx", "Atlas", "Nimbus", "Falcon", "Ember", "Willow", "Zephyr", "Marlin", "Juniper", "Onyx", "Saffron")
_MONTHS = words.NAMES[3]
_WEEKDAYS = words.NAMES[4]


@dataclass(frozen=True)
class Schema:
    """A premise with its hypotheses by label; `slots` has the fillings of its own slots: texts, or tuples of parallel texts."""

    phenomenon: str
    premise: str
    hypotheses: Mapping[Label, tuple[str, ...]]
    slots: Mapping[str, Sequence[Any]]


@cache
def schemata(path: Path = SCHEMATA) -> tuple[Schema, ...]:
    """The written schemata, in file order."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        hypotheses = {label: tuple(row[label]) for label in get_args(Label)}
        found.append(Schema(row["phenomenon"], row["premise"], hypotheses, row.get("slots", {})))
    return tuple(found)


def trained_schemata() -> list[Schema]:
    """The schemata of training pairs."""
    return [schema for place, schema in enumerate(schemata()) if place % HELD_OUT]


def held_out_schemata() -> list[Schema]:
    """The schemata that are never trained on."""
    return [schema for place, schema in enumerate(schemata()) if not place % HELD_OUT]


def written_pairs(chosen: Sequence[Schema], number: int, seed: int) -> list[NliPair]:
    """Return `number` distinct pairs of the schemata, or as many as their fillings give; deterministic in the arguments."""
    draw = Random(seed)
    pairs: dict[NliPair, None] = {}
    idle = 0
    while chosen and len(pairs) < number and idle < 3:
        before = len(pairs)
        pairs |= dict.fromkeys(pair for schema in chosen for pair in expanded(schema, draw))
        idle = idle + 1 if len(pairs) == before else 0
    found = list(pairs)
    draw.shuffle(found)
    return found[:number]


def expanded(schema: Schema, draw: Random) -> Iterator[NliPair]:
    """One filling of a schema: a pair for every hypothesis."""
    fillings = _fillings(schema, draw)
    premise = _filled(schema.premise, fillings, draw)
    for label, hypotheses in schema.hypotheses.items():
        for hypothesis in hypotheses:
            yield NliPair(premise, _filled(hypothesis, fillings, draw), label, schema.phenomenon)


def _fillings(schema: Schema, draw: Random) -> dict[str, Any]:
    """A filling for every slot."""
    found: dict[str, Any] = {}
    for name, choices in (("person", _PEOPLE), ("company", _COMPANIES), ("city", _CITIES), ("country", _COUNTRIES)):
        found[name], found[f"{name}2"] = draw.sample(choices, 2)
    found["product"], found["product2"] = draw.sample(_PRODUCTS, 2)
    for name, ordered in (("month", _MONTHS), ("weekday", _WEEKDAYS)):
        earlier, later = sorted(draw.sample(range(len(ordered)), 2))
        found[name], found[f"{name}2"] = ordered[earlier], ordered[later]
    year = draw.randrange(1900, 2020)
    found["year"], found["year2"] = str(year), str(year + draw.randrange(1, 25))
    found |= _numbers(draw)
    for name, fillings in schema.slots.items():
        found[name] = draw.choice(fillings)
    return found


def _numbers(draw: Random) -> dict[str, str]:
    """A number, a smaller one and two larger ones, in digits or all in words."""
    number = draw.randrange(3, 61)
    larger = number + draw.randrange(1, number)
    values = {"n-": draw.randrange(2, number), "n": number, "n+": larger, "n++": larger + draw.randrange(1, number)}
    spelt = draw.random() < _IN_WORDS and values["n++"] < 100
    return {name: in_words(value) if spelt else str(value) for name, value in values.items()}


def in_words(number: int) -> str:
    """A number from 1 to 99 in English words."""
    if number < 20:
        return (*_UNITS, *_TEENS)[number - 1]
    ten, one = _TENS[number // 10 - 2], number % 10
    return f"{ten}-{_UNITS[one - 1]}" if one else ten


def _filled(text: str, fillings: Mapping[str, Any], draw: Random) -> str:
    """The text with its slots filled and its alternatives drawn, beginning with a capital."""

    def filling(found: re.Match[str]) -> str:
        value = fillings[found[1]]
        return str(value if found[2] is None else value[int(found[2])])

    text = _CHOICE.sub(lambda found: draw.choice(found[1].split("|")), text)
    text = _SLOT.sub(filling, text)
    return capital(_BEFORE_MARK.sub("", _SPACES.sub(" ", text)).strip())
