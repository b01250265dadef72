"""Sentence ends of scripts other than Latin, and cutting text that has no spaces."""

from collections.abc import Sequence

import pytest

from limbeck.corpus.sentences import cut, split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "这个工具很好。它读取“报告。”然后输出！Yes. 好？是",
            ["这个工具很好。", "它读取“报告。”", "然后输出！", "Yes.", "好？", "是"],
        ),
        ("「はい。」と言う。pipで入れる。", ["「はい。」", "と言う。", "pipで入れる。"]),
        ("यह है। वह भी है॥ ठीक?", ["यह है।", "वह भी है॥", "ठीक?"]),
        ("هل هذا؟ نعم. یہ ہے۔ وہ", ["هل هذا؟", "نعم.", "یہ ہے۔", "وہ"]),
        ("ဖတ်တယ်။ရေးတယ်။ អាន។ សរសេរ", ["ဖတ်တယ်။", "ရေးတယ်။", "អាន។", "សរសេរ"]),
        ("It is, e.g. here. What?! Yes", ["It is, e.g. here.", "What?!", "Yes"]),
    ],
)
def test_the_stops_of_all_scripts_end_sentences(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


class Characters:
    """A tokenizer with one token per character."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        return list(map(ord, text)), [(place, place + 1) for place in range(len(text))]


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("这个工具很好。它读取报告。然后输出", 14, "这个工具很好。它读取报告。"),
        ("这个工具很好它读取报告然后输出", 5, "这个工具很"),
        ("เป็นเครื่องมือ", 3, "เป็"),
        ("เป็นเครื่องมือ", 2, "เ"),
        ("one two three four", 9, "one two"),
    ],
)
def test_text_without_spaces_is_cut_at_a_sentence_or_between_characters(text: str, limit: int, expected: str) -> None:
    """Such a document was rejected, since its first word alone was too long."""
    assert cut(text, Characters(), limit) == (expected, len(expected))
