"""Random models of many decoder families with a few thousand weights."""

from typing import Any

SETTINGS = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "sliding_window": 4, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def make_family(family: str, **changes: Any) -> Any:
    """A model of the family with weights that differ clearly between layers, on which it was never trained."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    known = AutoConfig.for_model(family)
    names = {*known.to_dict(), *known.attribute_map}
    config = AutoConfig.for_model(family, **{key: value for key, value in (SETTINGS | changes).items() if key in names})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model
