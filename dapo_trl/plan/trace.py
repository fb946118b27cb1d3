"""What a forward and backward pass keeps in memory, from running it on tensors without data.

Two copies of the model, one and two layers deep, are run under PyTorch's FakeTensorMode: every operation says which
tensors it would allocate, autograd keeps what it would keep, nothing is computed. What the second layer adds is what
each layer adds. This holds for any architecture, adapter, precision and for gradient checkpointing, with nothing to
keep up to date by hand; the kernels are those that PyTorch takes on a CPU (attention that keeps no matrix of scores,
as flash attention).
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from peft import PeftConfig
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .weights import empty_model

ATTENTION = "dapo_trl_planned"


def _attention(module, query, key, value, attention_mask, **kwargs):
    """PyTorch's attention without a mask, as the layouts of `dapo_trl.forward` need it. A model that is run on tensors
    without data would make one, because it cannot see that nothing is masked."""
    return sdpa_attention_forward(module, query, key, value, None, **kwargs)


AttentionInterface.register(ATTENTION, _attention)


@dataclass(frozen=True)
class Footprint:
    """Bytes of one pass over all layers, the language-model head left out."""

    kept: int
    """from the forward to the backward pass: activations, and copies of the weights in the precision computed in"""
    forward_peak: int
    """the most during the forward pass, ``kept`` included"""
    backward_peak: int
    """the most during the backward pass, ``kept`` included, gradients of the weights not"""
    inference_peak: int
    """the most of a forward pass without gradients"""


def footprint(
    config: PreTrainedConfig,
    *,
    rows: int,
    length: int,
    dtype: torch.dtype,
    autocast: torch.dtype | None = None,
    adapter: PeftConfig | None = None,
    checkpointing: bool = False,
) -> Footprint:
    """Bytes of a pass over ``rows`` sequences of ``length`` tokens.

    Args:
        dtype: of the weights.
        autocast: the precision computed in where it is another.
    """
    shape = (rows, length, dtype, autocast, checkpointing)
    one, two = (_measured(_Key(config, adapter, layers, shape)) for layers in (1, 2))
    more = config.get_text_config().num_hidden_layers - 1

    def deep(shallow: int, deeper: int) -> int:
        return shallow + more * (deeper - shallow)

    kept = deep(one.kept, two.kept)
    return Footprint(
        kept=kept,
        forward_peak=deep(one.forward_peak, two.forward_peak),
        backward_peak=kept + two.backward_peak - two.kept,
        inference_peak=deep(one.inference_peak, two.inference_peak),
    )


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, of those made while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._enter(leaf.untyped_storage())
        return out

    def ignore(self, tensors: Any) -> None:
        """These are counted elsewhere."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._known[storage._cdata] = weakref.ref(storage)

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()

        def leave(_: Any, key: int = key, size: int = size) -> None:
            self._known.pop(key, None)
            self.live -= size

        self._known[key] = weakref.ref(storage, leave)
        self.live += size
        self.peak = max(self.peak, self.live)


class _Key:
    """Arguments of a measurement, compared by content."""

    def __init__(self, config: PreTrainedConfig, adapter: PeftConfig | None, layers: int, shape: tuple):
        self.config, self.adapter, self.layers, self.shape = config, adapter, layers, shape
        self._text = (config.to_json_string(use_diff=False), str(adapter and adapter.to_dict()), layers, str(shape))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@lru_cache(maxsize=256)
def _measured(key: _Key) -> Footprint:
    rows, length, dtype, autocast, checkpointing = key.shape
    precision = contextlib.nullcontext if autocast is None else lambda: torch.autocast("cpu", dtype=autocast)
    with torch.device("meta"):
        model = empty_model(_shallow(key.config, key.layers), dtype, key.adapter)
    with FakeTensorMode():
        _move_to_cpu(model)
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            if key.adapter is not None:
                model.enable_input_require_grads()
        backbone = model.get_decoder() if key.adapter is None else model.get_base_model().get_decoder()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        ids = torch.zeros((rows, length), dtype=torch.long)
        live = LiveBytes()
        live.ignore([*model.parameters(), *model.buffers(), ids])
        live.ignore(p.grad for p in model.parameters() if p.grad is not None)
        with live:
            with torch.no_grad(), precision():
                backbone(input_ids=ids, use_cache=False)
            inference_peak, live.peak = live.peak, live.live
            with precision():
                hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
            kept, forward_peak, live.peak = live.live, live.peak, live.live
            hidden.backward(torch.empty_like(hidden))
        return Footprint(kept, forward_peak, live.peak, inference_peak)


def _move_to_cpu(model: nn.Module) -> None:
    """Replace the tensors of a model on the meta device by fake ones on the CPU, where autocast and attention act."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _shallow(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    shallow = copy.deepcopy(config)
    shallow._attn_implementation = ATTENTION
    text = shallow.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = (list(text.layer_types) * 2)[:layers]
    text.pad_token_id, text.vocab_size = None, 8  # the pass begins after the embedding and ends before the head
    return shallow
