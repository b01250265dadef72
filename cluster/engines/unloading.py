"""Free the resources of models that are unloaded from a worker."""

import gc
import sys
from typing import Any


def unload(left: list[Any]) -> None:
    """Release the processes, connections and GPU memory of unloaded models. Empties the list."""
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
