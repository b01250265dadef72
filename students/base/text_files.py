"""The text files of a model folder: what a student takes over unchanged from the model that it starts from."""

import shutil
from pathlib import Path

VOCABULARY_FILE = "vocabulary.json"
"""The record of a trimmed vocabulary: the old id of every token, by its new id, and the original tokenizer."""

_PATTERNS = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab.*", "merges.txt", "*.model"),
    *("generation_config.json", VOCABULARY_FILE),
)


def copy_text_files(base: Path, folder: Path) -> None:
    """Copy tokenizer, chat template and generation settings byte for byte: training does not change how a student tokenises."""
    for pattern in _PATTERNS:
        for file in base.glob(pattern):
            shutil.copyfile(file, folder / file.name)
