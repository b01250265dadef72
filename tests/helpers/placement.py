"""What the placement tests share."""

from typing import Any

MEMORY: Any = {"transformers": "process", "vllm": "processes", "endpoint": "none", "critic": "critic"}
"""Where a model of each kind is held."""
