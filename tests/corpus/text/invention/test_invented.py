"""Which names and numbers of an output its document lacks."""

import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.corpus.text.invention.invented import invented

QUERN = (
    "Quern is a still for weather data. It needs Python 3.11.2 and NumPy, 5 GB of memory and natural language processing. "
    "It was released on 2024-03-05 by the Müller lab in France, serves 1,000 users and uses beautifulsoup4, scikit-learn and "
    "x86_64. See https://quern.example.org/docs or the page of the API. Both modes are free; 50 % of the users chose one."
)

FORGIVEN = [
    # the document's own, in another form
    (QUERN, "Quern's users need numpy, NUMPY or Num Py."),
    (QUERN, "It uses Beautiful Soup and Scikit Learn."),
    (QUERN, "It uses SciKitLearn on x86-64 and X86_64."),
    (QUERN, "**Quern** is a `Still` for _Weather_ data."),
    (QUERN, "The Querns and the APIs."),
    (QUERN, "Quern was made by Mueller, by Muller and by MÜLLER."),
    (QUERN, "See quern.example.org or https://www.quern.example.org/docs."),
    ("It follows RFC 2119.", "It follows RFC2119 and RFC-2119."),
    ("Reads UTF-8.", "Reads utf8 and UTF8."),
    ("It is built on Postgres.", "It is built on PostgreSQL."),
    ("The DataFrame class", "It has a Data Frame, and data frames."),
    ("The data frame class", "It has a DataFrame."),
    ("A djangorestframework plugin", "A plugin for Django REST Framework."),
    ("The HTTPServer class", "It is an HTTP server, and a Server."),
    ("the cafe", "The food of Café is good at the Café."),
    ("He met Anna.", "It was Anna’s and Anna's."),
    # acronyms
    (QUERN, "It needs NLP."),
    ("We use NLP here.", "We use Natural Language Processing here."),
    ("the United Nations", "It was the UN, and the U N."),
    ("many large language models", "It compares LLMs."),
    ("the Department of Defense", "It was the DoD."),
    # peoples, dates, numerals
    (QUERN, "It is French."),
    (QUERN, "It was released in March 2024, on the 5th of Mar."),
    ("2026/03: a tutorial", "It was in March 2026."),
    ("on Tuesday, 5 March", "It was on Tue, 3/5."),
    ("World War II", "It was World War 2."),
    ("the 3rd chapter", "It is Chapter III."),
    ("It came from Germany.", "It was German, with Germans."),
    ("a Canadian firm", "It is in Canada."),
    # numbers
    (QUERN, "It has 1000 users, a thousand users, 1k users, 1 000 users."),
    (QUERN, "It needs 5GB, 5 gigabytes, five GB or 5.0 GB."),
    (QUERN, "It was chosen by 50%, fifty percent, 50 per cent or half of them."),
    (QUERN, "It has two modes and 2 modes."),
    (QUERN, "It needs Python 3, Python 3.11 and Python3.11."),
    ("3.5 million", "It is 3,500,000 and 3.5M."),
    ("1.234,50 euros", "It is 1,234.50 EUR."),
    ("1'000'000 francs", "It is 1,000,000 and 1_000_000."),
    ("2,50,000 rupees", "It is 250000."),
    ("10-50 % faster", "It is 10% to 50% faster."),
    ("v2.0 is out", "It is version 2, version 2.0 and V2."),
    ("half a litre", "It is 0.5 l and 50%."),
    ("in the 1990s", "It was in 1990."),
    ("no dependencies", "It has zero dependencies and 0 problems."),
    ("a dozen eggs", "It has 12 eggs."),
    ("It was -5 degrees.", "It was 5 degrees below."),
    ("3/4 of it", "It is 0.75 of it."),
    ("It weighs 5 kg.", "It weighs 5kg, or 5 KG."),
    # lists, titles, capitals for other reasons
    (QUERN, "1. Quern\n2. NumPy\n3) Memory\n10. Users"),
    (QUERN, "It has modes: (1) one and (2) two."),
    (QUERN, "Step 1: Start it.\nStep 7: Stop it."),
    (QUERN, "Key Features And Benefits\nIt is free."),
    (QUERN, "**Main Goals**: it is free."),
    (QUERN, "WARNING: it is NOT free."),
    (QUERN, "Meteorologists love it. Distilling is fun. Provides weather."),
    (QUERN, "The Library and the Tool are free. I'm sure that Mr. Müller agrees."),
    (QUERN, "He said: “Wonderful!” Marvellous (Truly) thing."),
    (QUERN, "Documentation is free. Software is free. Users are free."),
    # cut off by a token limit
    (QUERN, "It needs natural language processing and Num"),
    (QUERN, ""),
    (QUERN, "   \n"),
    # other scripts and languages
    ("Москва — столица России.", "В Москве живут люди. Они любят Россию."),
    ("ΟΔΥΣΣΕΑΣ", "Ο Οδυσσέας γύρισε."),
    ("Warszawa jest stolicą.", "Jestem w Warszawie."),
    ("Ankara büyük.", "Ben Ankara'da ve Ankara’dan geldim."),
    ("Die Bibliothek liest Daten.", "Die Bibliothek ist für das Wetter und nicht für Katzen."),
    ("北京是首都。", "The capital is Beijing."),
    ("他有三个模块,十二本书。", "他有3个模块和12本书。"),
    ("2023年3月", "2023年3月发布"),
    ("价格是５元", "价格是5元。"),
    ("他读了《红楼梦》。", "他喜欢《红楼梦》。"),
    ("约翰·史密斯住在这里。", "约翰·史密斯来了。"),
    ("Pythonは1991年に発表された。", "『Python』は１９９１年です。"),
    ("Python은 1991년에 나왔다.", "Python을 1991년에 썼다."),
    ("صدر في عام ١٩٩١", "في عام 1991"),
    ("१९९१ में", "1991 में"),
    ("มี ๓ รุ่น", "มี 3 รุ่น"),
    ("drei Module", "It has 3 modules."),
    ("три модуля", "Есть 3 модуля."),
]

INVENTED = [
    (QUERN, "It uses Kafka.", ["Kafka"]),
    (QUERN, "It uses Apache Kafka.", ["Apache Kafka"]),
    (QUERN, "Kafka is a still.", ["Kafka"]),
    (QUERN, "Kafka's still is free.", ["Kafka"]),
    (QUERN, "It uses PyTorch, SQLite and TensorFlow.", ["PyTorch", "SQLite", "TensorFlow"]),
    (QUERN, "It is on PyPI. It needs an HTML page.", ["PyPI", "HTML"]),
    (QUERN, "It is “Kafka” or (Hadoop) there.", ["Kafka", "Hadoop"]),
    (QUERN, "It uses `some_function` and utf16.", ["some_function", "utf16"]),
    (QUERN, "PSLEMONLESS", ["PSLEMONLESS"]),
    (QUERN, "See https://example.com/x and mail a.b@example.com.", ["https://example.com/x", "a.b@example.com"]),
    (QUERN, "It is from Italy and Spanish.", ["Italy", "Spanish"]),
    (QUERN, "It was released in April, on a Friday.", ["April", "Friday"]),
    (QUERN, "It needs Python 3.12 and 3.11.4.", ["3.12", "3.11.4"]),
    (QUERN, "It has 42 users, 42 in all.", ["42"]),
    (QUERN, "It has twenty-one users and 7 % more.", ["twenty-one", "7 %"]),
    (QUERN, "1. It has 9 modes.\n2. It has 8.", ["9", "8"]),
    (QUERN, "It has 1,001 users, not 10k.", ["1,001", "10k"]),
    (QUERN, "It is version 7 of GPT-7.", ["7", "GPT-7"]),
    ("We use natural language processing.", "We use ML.", ["ML"]),
    ("an interface for URIs", "It is a UI for a URI.", ["UI"]),
    ("open source", "It uses OpenMP.", ["OpenMP"]),
    ("It is written in Javascript.", "It is written in Java.", ["Java"]),
    ("World War II", "It was World War III.", ["III"]),
    ("He met Anna.", "He met Anna and O'Neil.", ["Neil"]),
    ("Sie ist frei.", "Die Bibliothek ist frei und nutzt PyTorch mit 4 Kernen.", ["PyTorch", "4"]),
    ("Elle habite à Paris.", "Elle habite à Paris et à Lyon, en 2020.", ["Lyon", "2020"]),
    ("Москва — столица.", "Он живёт в Киеве.", ["Киеве"]),
    ("Ο Οδυσσέας", "Ο Οδυσσέας και η Πηνελόπη.", ["Πηνελόπη"]),
    ("这是一个Python库。", "它使用Kafka和5个模块。", ["Kafka", "5个"]),
    ("他读了《红楼梦》。", "他读了《西游记》。", ["西游记"]),
    ("约翰·史密斯来了。", "约翰·布朗来了。", ["翰·布"]),
    ("これはライブラリです。", "これは「銀河鉄道」と2020年のRubyです。", ["銀河鉄道", "2020年", "Ruby"]),
    ("Python은 1991년에 나왔다.", "Python은 2000년에, Rust는 나중에 나왔다.", ["2000년에", "Rust"]),
    ("صدر في عام ١٩٩١", "في عام ١٩٩٥ مع Python هنا", ["١٩٩٥", "Python"]),
    ("१९९१ में", "२०२० में Rust आया", ["२०२०", "Rust"]),
    ("มี ๓ รุ่น", "มี ๔ รุ่น", ["๔"]),
    ("北京是首都。", "The capital has 7 gates and GPT-4.", ["7", "GPT-4"]),
    ("", "It uses Kafka.", ["Kafka"]),
]


@pytest.mark.parametrize(("document", "output"), FORGIVEN)
def test_what_the_document_has_in_another_form_is_not_invented(document: str, output: str) -> None:
    assert invented(document, output) == []


@pytest.mark.parametrize(("document", "output", "found"), INVENTED)
def test_what_the_document_lacks_is_invented(document: str, output: str, found: list[str]) -> None:
    assert invented(document, output) == found


SENTENCES = [
    "Quern reads 3 weather files from NOAA.",
    "It was written by Ada Lovelace in 1843, at 51.5° north.",
    "HTTP/2 and IPv6 are supported (since v2.1.0).",
    "По словам Анны, это стоит 5 000 рублей.",
    "他读了《红楼梦》和三本书。",
    "約束は「銀河」で、Pythonは１２回。",
    "Das Wetter ist für Zürich und nicht für Genf.",
    "1. First, see https://quern.example.org/a_b?c=1 now.",
    "Twenty-one of 1,000 users (2 %) chose x86_64.",
    "Ben Ankara'da yaşıyorum, l'Amérique est loin.",
    "صدر في عام ١٩٩١ مع Python",
]
TEXTS = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=5).map("\n".join)
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60) | st.text("aB1 .,-_'’%:;/(x\n二五Жş½²", max_size=40)


@given(ANY_TEXT)
@settings(deadline=None, max_examples=400)
def test_a_copied_document_invents_nothing(document: str) -> None:
    assert invented(document, document) == []


@given(TEXTS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_sentences_of_the_document_in_any_order_invent_nothing(document: str, rng: random.Random) -> None:
    sentences = document.split("\n")
    rng.shuffle(sentences)
    assert invented(document, "\n".join(sentences)) == []


@given(TEXTS, TEXTS, st.sampled_from(["ZorbLax", "ZBX17", "zorb_lax", "7319", "https://zorb.lax"]), st.booleans())
@settings(deadline=None, max_examples=100)
def test_an_absent_name_is_found_wherever_it_is_added(document: str, output: str, name: str, first: bool) -> None:
    together = f"{name}\n{output}" if first else f"{output} {name}."
    assert any(name in found for found in invented(document, together))
    assert not any(name in found for found in invented(f"{document} {name}", together))


@given(TEXTS, TEXTS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_order_and_whitespace_do_not_matter(document: str, output: str, rng: random.Random) -> None:
    found = invented(document, output)
    documents, outputs = document.split("\n"), output.split("\n")
    rng.shuffle(documents)
    rng.shuffle(outputs)
    assert sorted(invented("\n".join(documents), "\n".join(outputs))) == sorted(found)
    assert invented(document.replace("\n", "  "), output.replace(" ", "  ").replace("\n", "\n\n")) == found


@given(TEXTS, TEXTS, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), st.sampled_from(["\u200b", "\u2060", "\ufeff", "\u00ad"]))
@settings(deadline=None, max_examples=100)
def test_unicode_forms_and_invisible_characters_do_not_matter(document: str, output: str, form: str, invisible: str) -> None:
    found = invented(document, output)
    same = unicodedata.normalize(form, output)  # type: ignore[arg-type]
    assert invented(document, same) == invented(unicodedata.normalize(form, document), output) == found  # type: ignore[arg-type]
    assert invented(document, invisible.join(output)) == invented(invisible.join(document), output) == found
