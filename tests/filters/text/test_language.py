"""The language critic: sentences of many languages, the wanted ones together, and what is no text."""

import math

import pyarrow as pa
import pytest

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import Filter
from limbeck.filters.text.language import LanguageConfig

SENTENCES = {
    "en": "The library reads the reports of weather stations and returns plain tables.",
    "de": "Die Bibliothek liest die Berichte der Wetterstationen und gibt einfache Tabellen zurück.",
    "fr": "La bibliothèque lit les rapports des stations météorologiques et renvoie des tableaux simples.",
    "es": "La biblioteca lee los informes de las estaciones meteorológicas y devuelve tablas sencillas.",
    "it": "La libreria legge i rapporti delle stazioni meteorologiche e restituisce tabelle semplici.",
    "nl": "De bibliotheek leest de rapporten van weerstations en geeft eenvoudige tabellen terug.",
    "pl": "Biblioteka czyta raporty stacji meteorologicznych i zwraca proste tabele.",
    "ru": "Библиотека читает отчёты метеостанций и возвращает простые таблицы.",
    "ja": "このライブラリは気象観測所の報告を読み取り、簡単な表を返します。",
    "zh": "该库读取气象站的报告并返回简单的表格。",
    "ar": "تقرأ المكتبة تقارير محطات الأرصاد الجوية وتعيد جداول بسيطة.",
    "tr": "Kütüphane, hava istasyonlarının raporlarını okur ve basit tablolar döndürür.",
}


def scored(outputs: list[str | None], **config: object) -> list[dict[str, object]]:
    candidates = pa.table({"candidate_id": [str(at) for at in range(len(outputs))], "output": pa.array(outputs, pa.string())})
    return list(LanguageConfig(**config).build(engines=None).score(candidates).to_pylist())


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_in_its_language(language: str) -> None:
    (row,) = scored([SENTENCES[language]], languages=[language])
    assert row["language"] == language
    assert 0.5 < row["probability"] <= 1.0


def test_only_the_wanted_languages_pass_the_default_limit() -> None:
    (bound,) = LanguageConfig().bounds
    assert bound.column == "probability" and bound.minimum is not None
    passing = [row["probability"] >= bound.minimum for row in scored(list(SENTENCES.values()))]
    assert passing == [language == "en" for language in SENTENCES]


def test_wanted_languages_add_up() -> None:
    text = [SENTENCES["de"][:20]]
    apart = sum(scored(text, languages=[language])[0]["probability"] for language in ("de", "nl", "en"))
    assert scored(text, languages=["de", "nl", "en"])[0]["probability"] == pytest.approx(apart)


def test_among_few_languages_a_short_text_is_surer() -> None:
    text = ["Reads the tables of reports"]
    few = scored(text, among=["en", "de", "fr", "es"])[0]
    assert few["language"] == "en"
    assert few["probability"] > scored(text)[0]["probability"]
    assert scored([SENTENCES["pl"]], among=["en", "de"])[0]["language"] in ("en", "de")


def test_what_is_no_text_is_in_no_language() -> None:
    rows = scored([None, "", " \n", "1234 -- 5.6%", "\0"])
    assert all(math.isnan(row["probability"]) and row["language"] is None for row in rows)
    assert scored([]) == []


def test_hostile_rows_are_scored() -> None:
    rows = scored(["x" * 100_000, "ÿ" * 100_000, "\u202eabc\u202c", SENTENCES["en"] * 2000])
    assert all(0 <= row["probability"] <= 1 for row in rows)


def test_languages_that_nobody_knows_are_reported_before_the_run() -> None:
    assert LanguageConfig().problems() == []
    assert "'english'" in LanguageConfig(languages=["english"]).problems()[0]
    assert "'xx'" in LanguageConfig(among=["en", "xx"]).problems()[0]
    with pytest.raises(LimbeckError, match="does not know"):
        LanguageConfig(languages=["english"]).build(engines=None)
    with pytest.raises(ValueError, match="not `among`"):
        LanguageConfig(languages=["en"], among=["de", "fr"])


def test_limits_and_what_scores_depend_on() -> None:
    assert set(LanguageConfig.reasons) == set(LanguageConfig.limit_fields())
    assert LanguageConfig().scoring() == LanguageConfig(min_probability=0.9, name="other").scoring()
    assert LanguageConfig().scoring() != LanguageConfig(languages=["de"]).scoring()
    assert isinstance(LanguageConfig().build(engines=None), Filter)
