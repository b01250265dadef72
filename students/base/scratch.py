"""A new model of the teacher's architecture in other sizes, with random weights by seed. Heavy imports are inside functions."""

from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.students.base.families import Sizes, scaled

_OWN = ("dtype", "torch_dtype", "_name_or_path", "transformers_version")  # of the teacher's files


def new_model(sizes: Sizes, before: Any, seed: int) -> Any:
    """The new model in the dtype of the teacher, whose config is `before`; the same seed gives the same weights.

    Raises LimbeckError if the family cannot have these sizes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    settings = {key: value for key, value in before.to_dict().items() if key not in _OWN}
    each_layer = [
        key for key, value in settings.items() if isinstance(value, list | tuple) and len(value) == before.num_hidden_layers > 1
    ]
    for key in set(each_layer) - {
        "architectures"
    }:  # such as the kinds of attention: the family has a pattern for any number of layers
        settings.pop(key)
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(type(before)(**{**settings, **scaled(settings, sizes)}), dtype=torch.float32)
    except (ValueError, RuntimeError, TypeError) as error:  # sizes that only this family cannot have
        raise LimbeckError(f"no {before.model_type} of these sizes can be made: {error}; change the sizes under base") from error
    return model.to(before.dtype or torch.float32).eval()
