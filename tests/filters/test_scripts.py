"""Every text filter on every script: a copy is a copy, unrelated text is not, and nothing raises."""

import math
import random
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from limbeck.corpus.salience import salient_spans
from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.corpus.split import near_duplicate_groups
from limbeck.corpus.text.rouge.index import RougeIndex, rouge_l
from limbeck.corpus.text.words import is_mark, spaced_words
from limbeck.filters.config import FilterConfig
from limbeck.filters.models.equivalence import EquivalenceConfig, EquivalenceFilter
from limbeck.filters.models.masked_pmi import hidden_words
from limbeck.filters.sets.duplicates import DuplicatesConfig
from limbeck.filters.sets.novelty import NoveltyConfig
from limbeck.filters.sets.vote import VoteConfig
from limbeck.filters.text.answer import AnswerConfig
from limbeck.filters.text.attributes import AttributesConfig
from limbeck.filters.text.heuristics import HeuristicsConfig
from limbeck.filters.text.instructions import InstructionsConfig
from limbeck.filters.text.language import LanguageConfig
from limbeck.filters.text.length import LengthConfig
from limbeck.filters.text.privacy import PrivacyConfig
from limbeck.filters.text.repetition import RepetitionConfig
from limbeck.filters.text.toxicity import ToxicityConfig

# A text, and an unrelated one of the same script.
TEXTS = {
    "English": ("The tool reads weather reports and checks their units.", "Fresh bread is baked every morning in our village."),
    "French": ("L’élève a reçu un prix à la fête d’été.", "Notre forêt brûlait déjà depuis le début du siècle."),
    "Vietnamese": ("Ở đó trời mưa suốt cả mùa hè năm ngoái.", "Người thợ sửa chiếc xe đạp cũ của bà tôi."),
    "Russian": (
        "Программа читает отчёты о погоде и проверяет единицы.",
        "Каждое утро соседи пекут свежий хлеб для всей деревни.",
    ),
    "Greek": ("Το εργαλείο διαβάζει μετεωρολογικές αναφορές.", "Κάθε πρωί φτιάχνουμε φρέσκο ψωμί στο χωριό!"),
    "Armenian": ("Գործիքը կարդում է եղանակի տվյալները։", "Ամեն առավոտ մենք թարմ հաց ենք թխում։"),
    "Hebrew": ("הַכְּלִי קוֹרֵא דּוּחוֹת מֶזֶג אֲוִיר.", "בְּכָל בֹּקֶר אָנוּ אוֹפִים לֶחֶם טָרִי."),
    "Arabic": ("تَقْرَأُ الأَدَاةُ تَقَارِيرَ الطَّقْسِ هُنَا؟", "نخبزُ خبزًا طازجًا كلَّ صباحٍ في القرية؟"),
    "Urdu": ("یہ آلہ موسم کی خبریں پڑھتا ہے۔", "ہم روزانہ صبح تازہ روٹی پکاتے ہیں۔"),
    "Hindi": ("यह उपकरण मौसम की रिपोर्टें पढ़ता है।", "हम हर सुबह गाँव में ताज़ी रोटी पकाते हैं।"),
    "Bengali": ("এই যন্ত্রটি আবহাওয়ার খবর পড়ে।", "আমরা প্রতিদিন সকালে তাজা রুটি বানাই।"),
    "Tamil": ("இந்தக் கருவி வானிலை அறிக்கைகளைப் படிக்கிறது.", "நாங்கள் தினமும் காலையில் ரொட்டி சுடுகிறோம்."),
    "Amharic": ("መሣሪያው የአየር ሁኔታ ዘገባዎችን ያነባል።", "በየማለዳው ትኩስ ዳቦ እንጋግራለን።"),
    "Korean": ("이 도구는 날씨 보고서를 읽고 단위를 확인합니다.", "우리는 매일 아침 마을에서 신선한 빵을 굽는다."),
    "Chinese": ("这个工具读取天气报告并检查单位。", "我们每天早上在村里烤新鲜面包。"),
    "Japanese": ("この道具は天気の報告を読み、単位を調べます。", "毎朝、村で焼きたてのパンが売られている！"),
    "Thai": ("เครื่องมือนี้อ่านรายงานสภาพอากาศ", "ชาวบ้านอบขนมปังสดใหม่ทุกเช้า"),
    "Lao": ("ເຄື່ອງມືນີ້ອ່ານລາຍງານອາກາດ", "ພວກເຮົາອົບເຂົ້າຈີ່ທຸກເຊົ້າ"),
    "Khmer": ("ឧបករណ៍នេះអានរបាយការណ៍អាកាសធាតុ។", "យើងដុតនំបុ័ងថ្មីរាល់ព្រឹក។"),
    "Burmese": ("ဒီကိရိယာက မိုးလေဝသသတင်းကို ဖတ်တယ်။", "ကျွန်တော်တို့ မနက်တိုင်း ပေါင်မုန့်ဖုတ်တယ်။"),
    "Tibetan": ("ལག་ཆ་འདིས་གནམ་གཤིས་ཀྱི་སྙན་ཞུ་ཀློག་གི་ཡོད།", "ང་ཚོས་ཞོགས་པ་ལྟར་བག་ལེབ་བཟོ་བཞིན་འདུག།"),
    "emoji": ("🎉🐍🚀✨📦🔥👍🏽", "🌧☂️🍞🥖🏡🐓❤️"),
}
UNMARKED = ("Thai", "Lao")  # no mark ends a sentence
LETTERS = [name for name in TEXTS if name != "emoji"]

every_text = pytest.mark.parametrize("name", TEXTS)
every_script = pytest.mark.parametrize("name", LETTERS)
every_form = pytest.mark.parametrize("form", ["NFC", "NFD"])


def candidates(document: str, outputs: list[str], finish_reason: str = "stop") -> pa.Table:
    """Candidates whose reference is the document."""
    rows = []
    for place, output in enumerate(outputs):
        row = {"candidate_id": f"c{place}", "source_id": "s", "sample": place, "seed": 0, "prompt": f"{document}\n\nSay it."}
        row |= {"output": output, "prompt_tokens": 9, "output_tokens": len(output), "finish_reason": finish_reason}
        row |= {"reference": document, "document": document, "document_tokens": len(document), "group": "s"}
        rows.append(row | {"salient": salient_spans(document, Counter(), 0, 0.5)})
    return pa.Table.from_pylist(rows, schema=SCORED_INPUT)


def scores(config: FilterConfig, document: str, output: str) -> dict[str, float]:
    (row,) = config.build(engines=None).score(candidates(document, [output])).to_pylist()
    return row


@every_form
@every_text
def test_a_copy_is_copied_in_words_and_unrelated_text_is_not(name: str, form: str) -> None:
    document, other = TEXTS[name]
    copy = unicodedata.normalize(form, document)
    assert scores(HeuristicsConfig(), document, copy)["copied"] == 1.0
    assert scores(HeuristicsConfig(), document, other)["copied"] < 0.3
    found = scores(AttributesConfig(), document, copy)
    wanted = ("copied_3_grams", "rouge2_precision", "longest_fragment", "coverage")
    assert [found[key] for key in wanted] == [1.0] * 4 and found["density"] >= 4
    assert name == "emoji" or found["keyword_recall"] == 1.0
    apart = scores(AttributesConfig(), document, other)
    assert apart["copied_3_grams"] < 0.2 and apart["longest_fragment"] < 0.3


@every_text
def test_a_part_of_a_document_is_copied(name: str) -> None:
    document, other = TEXTS[name]
    assert scores(HeuristicsConfig(), f"{other}{document}", document)["copied"] == 1.0


@every_form
@every_text
def test_rouge_l_of_a_copy_is_1(name: str, form: str) -> None:
    document, other = TEXTS[name]
    copy = unicodedata.normalize(form, document)
    assert rouge_l(document, copy) == 1.0
    assert rouge_l(document, other) < 0.45
    index = RougeIndex([document])
    assert index.maximum(copy) == (0, 1.0) and index.maximum(other) is None
    assert index.nearest(other, 1)[0].rouge_l == rouge_l(other, document)


class Unsure:
    """A classifier that finds everything neutral, or that everything follows."""

    def __init__(self, sure: float = 0.1) -> None:
        self._found = np.array([sure, 0.9 - sure, 0.1], np.float32)

    def probabilities(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        return np.tile(self._found, (len(pairs), 1))


@every_text
def test_equivalence_rejects_a_copy_by_its_wording(name: str) -> None:
    config = EquivalenceConfig()
    table = EquivalenceFilter(config, Unsure()).score(candidates(TEXTS[name][0], [*TEXTS[name]]))
    bound = next(bound for bound in config.bounds if bound.column == "rouge_l")
    assert [bound.rejects(value, unscored=True) for value in table["rouge_l"].to_pylist()] == [True, False]
    assert table["numbers_agree"].to_pylist() == [1.0, 1.0]


INVISIBLE = "\u200b\u00ad\u2060\ufeff\u200e\u200c"
PUNCTUATION = "!?,;:-–…\"'()[]«»。、؟।"


def disguised(text: str, rng: random.Random) -> str:
    """The text in another case and Unicode form, with spaces, punctuation and invisible characters put in, and some left out."""
    kept = [c for c in text if unicodedata.category(c)[0] not in "PZ" or rng.random() < 0.5]
    added = [rng.choice([*INVISIBLE, *PUNCTUATION, " ", "\u3000", "\n"]) for _ in range(rng.randrange(2 * len(text)))]
    for character in added:
        kept.insert(rng.randrange(len(kept) + 1), character)
    return rng.choice((str, str.upper, str.lower, str.title, str.swapcase))("".join(kept))


@every_text
def test_a_copied_input_is_rejected_every_time_whatever_disguises_it(name: str) -> None:
    """By the bounds of both tasks, even with the other bounds on the text taken off, and by a model that entails everything."""
    rng = random.Random(name)
    configs: list[dict[str, Any]] = [{}, {"only": "forward"}, {"lazy_entailment": True, "graph": {}}]
    configs += [{"max_rouge_l": None, "min_numbers_agree": None}, {"only": "forward", "max_character_ratio": None}]
    for text in TEXTS[name]:
        outputs = [text, *(disguised(text, rng) for _ in range(20))]
        for settings in configs:
            filter_ = EquivalenceFilter(EquivalenceConfig.model_validate(settings), Unsure(sure=1.0))
            for document in (text, disguised(text, rng)):
                for row in filter_.score(candidates(document, outputs)).to_pylist():
                    rejects = [bound for bound in filter_.bounds if bound.rejects(row[bound.column], unscored=True)]
                    assert rejects and rejects[0].column == "same_text", (document, row)
        other = TEXTS[name][1 - TEXTS[name].index(text)]
        (row,) = EquivalenceFilter(EquivalenceConfig(), Unsure()).score(candidates(text, [other])).to_pylist()
        assert row["same_text"] == 0.0


@every_form
@every_text
def test_copies_are_near_duplicates_for_every_set_filter_and_for_the_split(name: str, form: str) -> None:
    document, other = TEXTS[name]
    copy = unicodedata.normalize(form, document)
    survivors = candidates(document, [document, copy, other])
    for config in (NoveltyConfig(), DuplicatesConfig(), DuplicatesConfig(method="minhash")):
        told = config.build().select(survivors)
        dropped = told.filter(pc.is_valid(told["reason"]))["candidate_id"].to_pylist()
        assert dropped == ["c1"], config
    assert near_duplicate_groups({"a": document, "b": copy, "c": other}, 0.2) == {"a": "a", "b": "a", "c": "c"}


@every_text
def test_what_is_said_twice_is_repeated(name: str) -> None:
    text = TEXTS[name][0]
    again = f"{text} {text} {text}"
    assert scores(HeuristicsConfig(), "", again)["repeated"] > 0.4
    assert scores(HeuristicsConfig(), "", text)["repeated"] < 0.1
    if len(spaced_words(text)) >= 4:  # Gopher's words are between whitespace, which Tibetan and emoji lack
        found = scores(RepetitionConfig(), "", again)
        assert found["top_2_gram"] > 0 and found["duplicate_5_grams"] > 0.9
        assert scores(RepetitionConfig(), "", text)["duplicate_5_grams"] == 0.0


def test_one_group_of_characters_repeated_without_a_space_is_repeated() -> None:
    for group in ("哈哈好", "ワハハ", "สวัสดี", "ສະບາຍ", "សួស្តី", "မင်္ဂလာ"):
        assert scores(HeuristicsConfig(), "", group * 9)["repeated"] > 0.7
        assert scores(RepetitionConfig(), "", group * 9)["duplicate_10_grams"] == 1.0


@every_script
def test_a_sentence_that_ends_is_not_cut_off(name: str) -> None:
    for text in TEXTS[name]:
        for whole in (text, f"{text}»", f"{text}」", f"{text}\n", f"{text}**"):
            assert scores(HeuristicsConfig(), "", whole)["cut_off"] == 0.0, whole
        assert scores(RepetitionConfig(), "", text)["unterminated_lines"] == 0.0 or text.endswith("།")
        part = text.rstrip(".!?。！།။។।۔؟።։;")[:-2]
        assert scores(HeuristicsConfig(), "", part)["cut_off"] == float(name not in UNMARKED), part
        (row,) = HeuristicsConfig().build(engines=None).score(candidates("", [text], "length")).to_pylist()
        assert row["cut_off"] == 1.0


@pytest.mark.parametrize("stop", [*"。！？｡．।॥؟۔။។។៕።፧፨։།༎᠃꓿꛳"])
def test_the_stops_of_all_scripts_end_a_sentence(stop: str) -> None:
    assert scores(HeuristicsConfig(), "", f"क中{stop}")["cut_off"] == 0.0
    assert scores(HeuristicsConfig(), "", f"{stop}中क")["cut_off"] == 1.0


@every_text
def test_every_text_filter_scores_every_script(name: str, tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("damn\n", encoding="utf-8")
    document, other = TEXTS[name]
    outputs = [document, unicodedata.normalize("NFD", document), other, document[:1], f"{other}\n\n{document} 3.5 x"]
    configs = [HeuristicsConfig(), AttributesConfig(), RepetitionConfig(), LengthConfig(), LanguageConfig(), PrivacyConfig()]
    configs += [InstructionsConfig(), InstructionsConfig(instruction="prompt"), ToxicityConfig(words=str(terms))]
    configs += [
        AnswerConfig(extract="pattern", pattern="(?s)(.*)"),
        AnswerConfig(extract="choice"),
        AnswerConfig(extract="boxed", compare="set"),
    ]
    for config in configs:
        table = config.build(engines=None).score(candidates(document, outputs))
        assert table.num_rows == len(outputs)
        for column in (column for column in table.column_names if pa.types.is_floating(table.schema.field(column).type)):
            finite = [value is not None and math.isfinite(value) for value in table[column].to_pylist()]
            undefined = column == "compression_bucket" or (name == "emoji" and column in ("probability", "keyword_recall"))
            # the references are texts: they have no number, and none has one letter alone
            undefined |= config.kind == "answer" and (column == "number" or config.extract == "choice")
            assert all(finite) or undefined, (config.kind, column)


@every_script
def test_a_word_list_may_be_in_any_script(name: str, tmp_path: Path) -> None:
    document, other = TEXTS[name]
    unspaced = {
        "Chinese": "报告",
        "Japanese": "天気",
        "Thai": "รายงาน",
        "Lao": "ລາຍງານ",
        "Khmer": "អាន",
        "Burmese": "ဖတ်",
        "Tibetan": "ལག",
    }
    terms = tmp_path / "terms.txt"
    terms.write_text(unspaced.get(name, document.split()[0]) + "\n", encoding="utf-8")
    config = ToxicityConfig(words=str(terms))
    assert config.problems() == []
    for form in ("NFC", "NFD"):
        assert scores(config, "", unicodedata.normalize(form, document))["terms"] == 1.0
    assert scores(config, "", other)["terms"] == 0.0


@every_script
def test_spans_of_words_never_divide_a_character_from_its_marks(name: str) -> None:
    for text in (unicodedata.normalize(form, text) for text in TEXTS[name] for form in ("NFC", "NFD")):
        spans = [span for mask in hidden_words(text, 2) for span in mask]
        edges = salient_spans(text, Counter(), 0, 0.5)
        assert spans and edges
        for start, end in (*spans, *zip(edges[::2], edges[1::2], strict=True)):
            assert not is_mark(text[start]) and (end == len(text) or not is_mark(text[end]))


ANSWERS = {
    "English": ("The answer is {}.", "0"),
    "Russian": ("Ответ: {}.", "0"),
    "Arabic": ("الجواب هو {}.", "٠"),
    "Urdu": ("جواب {} ہے۔", "۰"),
    "Hindi": ("उत्तर {} है।", "०"),
    "Bengali": ("উত্তর হলো {}।", "০"),
    "Tamil": ("விடை {} ஆகும்.", "௦"),
    "Amharic": ("መልሱ {} ነው።", "0"),
    "Korean": ("정답은 {}입니다.", "0"),
    "Chinese": ("答案是{}。", "０"),
    "Japanese": ("答えは{}です。", "０"),
    "Thai": ("คำตอบคือ{}ครับ", "๐"),
    "Lao": ("ຄຳຕອບແມ່ນ{}", "໐"),
    "Khmer": ("ចម្លើយគឺ{}។", "០"),
    "Burmese": ("အဖြေက{}ပါ။", "၀"),
    "Tibetan": ("ལན་ནི་{}ཡིན།", "༠"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_in_the_digits_of_every_script(name: str) -> None:
    sentence, zero = ANSWERS[name]
    for value in ("42", "-7", "1,250", "3.5"):
        digits = "".join(chr(ord(zero) + int(c)) if c.isdigit() else c for c in value)
        said = sentence.format(digits)
        assert scores(AnswerConfig(), value, said)["correct"] == 1.0, said
        assert scores(AnswerConfig(), "43", said)["correct"] == 0.0
        judged = VoteConfig().build().select(candidates("", [said, value, "43"]))
        assert judged["votes"].to_pylist() == [2, 2, 1]


@every_form
@every_text
def test_an_answer_in_words_equals_itself_in_every_script(name: str, form: str) -> None:
    text, other = TEXTS[name]
    config = AnswerConfig(extract="pattern", pattern="(?s)#(.*)")
    assert scores(config, text, f"…# {unicodedata.normalize(form, text)}\n")["correct"] == 1.0
    assert scores(config, text, f"…# {other}")["correct"] == 0.0


def test_numbers_are_found_between_characters() -> None:
    for x, y, agree in [
        ("该工具支持3种格式，版本3.11.2，快50％。", "有3种格式，快50%，版本3.11.2。", 1.0),
        ("该工具支持3种格式。", "该工具支持4种格式。", 0.0),
        ("รองรับ๒๕แบบ", "มี 25 แบบ", 1.0),
        ("इसमें ३ रूप हैं।", "इसमें 3 प्रारूप हैं।", 1.0),
    ]:
        table = EquivalenceFilter(EquivalenceConfig(), Unsure()).score(candidates(x, [y]))
        assert table["numbers_agree"].to_pylist() == [agree], (x, y)
