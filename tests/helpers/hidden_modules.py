"""An environment without some packages, for child processes: HIDDEN_MODULES lists the modules to hide."""

import importlib.machinery
import os

LOCAL_MODELS = "torch,transformers,safetensors,gguf,trl,peft,accelerate,deepspeed,vllm,spacy,tiktoken"
"""Packages that the core does not need."""


def hide_modules() -> None:
    """Make the modules in HIDDEN_MODULES appear as not installed, in this process."""
    hidden = frozenset(filter(None, os.environ.get("HIDDEN_MODULES", "").split(",")))
    if not hidden:
        return
    find = importlib.machinery.PathFinder.find_spec

    def find_spec(fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        return None if fullname in hidden else find(fullname, path, target)

    importlib.machinery.PathFinder.find_spec = find_spec  # type: ignore[method-assign]
