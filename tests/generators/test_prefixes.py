"""Beginnings of documents."""

import re
from collections import Counter
from random import Random

from limbeck.generators.prefixes import HEADINGS, MEDIA, biomedical_prefix, news_prefix, places

DATELINE = re.compile(r"(?:(?:(?P<city>[^a-z,]+), )?(?P<country>[A-Z][A-Za-z ]+) )?\((?P<medium>[^()]+)\) --")


def test_places_are_pairs_without_repetition() -> None:
    assert len(places()) >= 200
    assert len(set(places())) == len(places())
    assert all(city and country and city == city.strip() and country == country.strip() for city, country in places())
    assert len(set(MEDIA)) == len(MEDIA) >= 20


def test_datelines_name_a_medium_a_country_or_a_city_in_the_published_shares() -> None:
    cities = {(city.upper(), country) for city, country in places()}
    random, named = Random(0), Counter[str]()
    for _ in range(4000):
        found = DATELINE.fullmatch(news_prefix(random))
        assert found is not None
        assert found["medium"] in MEDIA
        if found["city"]:
            assert (found["city"], found["country"]) in cities
        named["city" if found["city"] else "country" if found["country"] else "medium"] += 1
    assert abs(named["medium"] / 4000 - 0.5) < 0.04
    assert abs(named["country"] / 4000 - 0.25) < 0.04


def test_a_prefix_depends_on_the_random_state_alone() -> None:
    assert [news_prefix(Random(3)) for _ in range(2)] == [news_prefix(Random(3))] * 2
    assert {biomedical_prefix(Random(seed)) for seed in range(40)} == {f"{heading}:" for heading in HEADINGS}
