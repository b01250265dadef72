"""A smaller model from some of a model's layers: the least important are dropped one by one, or evenly spaced ones are kept.

Importance is the loss on a sample of documents without the layer; the remaining layers are measured again after each removal
(greedily, as in SLEB: Song et al. 2024, arXiv:2402.09025). Neighbouring layers are redundant with each other, which a single
measurement, or keeping evenly spaced layers, does not account for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import write_json
from limbeck.students.training.sample_loss import batches, summed_loss

_CONTAINERS = ("layers", "h")  # what families call the list of layers


def evenly_spaced(layers: int, keep: int) -> list[int]:
    """Return `keep` of the layers 0 to `layers` - 1 at equal distances, the first and (of two or more) the last among them."""
    return [0] if keep == 1 else [(2 * place * (layers - 1) + keep - 1) // (2 * (keep - 1)) for place in range(keep)]


def drop_layers(model: Any, sample: list[list[int]], keep: int, progress: Path) -> list[int]:
    """Remove the least important layers in place until `keep` are left; return their original indices in the order of removal.

    After each removal the progress is written to `progress`. O(removed × layers) passes over the sample, each only through the
    layers after the one that is tried. Raises LimbeckError if there are fewer than `keep`.
    """
    stack = Stack(model)
    stack.refuse_fewer_than(keep)
    left, dropped = list(range(len(stack.layers))), []
    while len(left) > keep:
        losses = losses_without(stack, left, sample)
        least = min(range(len(left)), key=losses.__getitem__)
        dropped.append(left.pop(least))
        done = {"unit": "layer", "step": len(dropped), "steps": len(stack.layers) - keep, "loss": losses[least]}
        write_json(progress, done, replace=True)
    stack.cut(left)
    return dropped


def keep_evenly(model: Any, keep: int) -> list[int]:
    """Keep evenly spaced layers in place; return the indices of the removed ones, the last first."""
    stack = Stack(model)
    stack.refuse_fewer_than(keep)
    kept = evenly_spaced(len(stack.layers), keep)
    stack.cut(kept)
    return [layer for layer in reversed(range(len(stack.layers))) if layer not in kept]


class Stack:
    """The layers of a model, and its settings that have a value for each layer, such as the kind of attention.

    Raises LimbeckError if the model has no list of layers.
    """

    def __init__(self, model: Any) -> None:
        self.model, self._body = model, model.base_model
        self._settings = model.config.get_text_config()
        self._name = next((name for name in _CONTAINERS if hasattr(self._body, name)), "")
        if not self._name:
            raise LimbeckError(
                f"{type(model).__name__} is an unsupported architecture: it has no list of layers; choose another kind of base"
            )
        self.layers = list(getattr(self._body, self._name))
        self._each = {
            name: list(value)
            for name, value in vars(self._settings).items()
            if isinstance(value, list | tuple) and len(value) == len(self.layers)
        }

    def refuse_fewer_than(self, keep: int) -> None:
        """Raise LimbeckError if there are fewer layers."""
        if keep > len(self.layers):
            raise LimbeckError(f"the teacher has {len(self.layers)} layers, fewer than the {keep} to keep; lower base.layers")

    def use(self, kept: Sequence[int], instead: Any = None) -> None:
        """Run these layers from now on; `instead` replaces the first."""
        import torch

        layers = [self.layers[layer] for layer in kept]
        setattr(self._body, self._name, torch.nn.ModuleList([instead, *layers[1:]] if instead is not None else layers))
        for name, values in self._each.items():
            setattr(self._settings, name, [values[layer] for layer in kept])

    def cut(self, kept: Sequence[int]) -> None:
        """Keep these layers alone, numbered as a model of that many layers numbers them."""
        self.use(kept)
        for place, layer in enumerate(getattr(self._body, self._name)):
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    module.layer_idx = place  # its place in the key-value cache
        self._settings.num_hidden_layers = len(kept)


def losses_without(stack: Stack, kept: Sequence[int], sample: list[list[int]]) -> list[float]:
    """For each kept layer, the summed loss when only it is skipped; the layers before it are computed once."""
    import torch

    losses = [0.0] * len(kept)
    with torch.inference_mode():
        for ids, labels in batches(sample, stack.model.device):
            entering: list[Any] = []
            hooks = [
                stack.layers[layer].register_forward_pre_hook(
                    lambda _, given, named, into=entering: into.append(given[0] if given else named["hidden_states"]),
                    with_kwargs=True,
                )
                for layer in kept
            ]
            stack.use(kept)
            stack.model.base_model(input_ids=ids, use_cache=False)
            for hook in hooks:
                hook.remove()
            for skipped in range(len(kept)):
                stack.use(kept[skipped:], instead=_replay(entering[skipped]))
                losses[skipped] += summed_loss(stack.model, ids, labels)
    stack.use(kept)
    return losses


def _replay(hidden: Any) -> Any:
    """A layer that returns precomputed hidden states. [batch, tokens, width]"""
    import torch

    class Replay(torch.nn.Module):
        def forward(self, *_: Any, **__: Any) -> Any:
            return hidden

    return Replay()
