"""Freeing what models hold that leave a worker."""

import gc
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
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # nothing happens where no GPU is in use
