"""Helpers for the placement tests."""

from typing import Any

MEMORY: Any = {"transformers": "process", "vllm": "processes", "endpoint": "none", "critic": "critic"}
"""Where the memory of a model of each kind is held."""
