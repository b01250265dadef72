"""Freeing what models hold that leave a worker."""

import gc
import sys
from typing import Any


def unload(left: list[Any]) -> None:
    """End what unloaded models still hold: processes, connections, memory of a GPU. Empties the list."""
    if not left:
        return
    while left:
        model = left.pop()
        if hasattr(model, "close"):
            model.close()
        del model
    gc.collect()
    if torch := sys.modules.get("torch"):  # else no model was in this process
        torch.cuda.empty_cache()  # does nothing if no GPU is in use
