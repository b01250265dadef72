"""Optional packages: what each extra of the distribution installs, and the sentence that names a missing one."""

import importlib.util
from collections.abc import Iterable

from limbeck.corpus.errors import LimbeckError

EXTRAS: dict[str, tuple[str, ...]] = {
    "local": ("torch", "transformers", "safetensors", "gguf"),
    "train": ("torch", "transformers", "safetensors", "trl", "peft", "accelerate", "deepspeed"),
    "vllm": ("vllm", "torch", "transformers"),
    "parser": ("spacy",),
    "tiktoken": ("tiktoken",),
    "math": ("math_verify",),
    "inflections": ("lemminflect",),
}
"""Extra → the modules that Limbeck imports from it, the most characteristic one first (requirements are in pyproject.toml)."""

Need = tuple[str, str]
"""What needs an extra, as the subject of a sentence, and the extra's name."""


class MissingExtra(LimbeckError):
    """A part of Limbeck was used whose packages are not installed."""


def installed(module: str) -> bool:
    """Whether a module could be imported; does not import it."""
    return importlib.util.find_spec(module) is not None


def problem(needs: Iterable[Need]) -> str | None:
    """One sentence that names every missing extra and the one command that installs them, or None if nothing is missing."""
    missing: dict[str, list[str]] = {}
    extras: list[str] = []
    for subject, extra in needs:
        absent = next((module for module in EXTRAS[extra] if not installed(module)), None)
        if absent is not None:
            missing.setdefault(absent, []).append(subject)
            extras.append(extra)
    if not missing:
        return None
    clauses = [f"{_joined(subjects)} need{'s' * (len(subjects) == 1)} {absent}" for absent, subjects in missing.items()]
    verb = "is" if len(missing) == 1 else "are"
    return f"{_joined(clauses)}, which {verb} not installed: pip install 'limbeck[{','.join(dict.fromkeys(extras))}]'"


def require(subject: str, extra: str) -> None:
    """Raise MissingExtra unless every module of an extra is installed; `subject` is what needs it."""
    if sentence := problem([(subject, extra)]):
        raise MissingExtra(sentence)


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
