"""What passes keep in memory, from running them on tensors without data.

Two copies of the model, two and three layers deep, are run under PyTorch's FakeTensorMode: every operation says which
tensors it would allocate, autograd keeps what it would keep, nothing is computed. What the third layer adds is what
every further layer adds. This holds for any architecture, adapter, precision and for gradient checkpointing, with
nothing to keep up to date by hand; the kernels are those that PyTorch takes on a CPU (attention that keeps no matrix of
scores, as flash attention). The language-model head is left out: it has formulas of its own in `memory`.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from peft import PeftConfig
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, DynamicCache, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .weights import empty_model, with_adapter

UNMASKED = "dapo_trl_unmasked"


def _unmasked(module, query, key, value, attention_mask, **kwargs):
    """PyTorch's attention without a mask, as the layouts of `dapo_trl.forward` need it. A model that is run on tensors
    without data would make one, because it cannot see that nothing is masked."""
    return sdpa_attention_forward(module, query, key, value, None, **kwargs)


AttentionInterface.register(UNMASKED, _unmasked)


@dataclass(frozen=True)
class Traced:
    """A model as passes are run through it; compared by content."""

    config: PreTrainedConfig = field(compare=False)
    dtype: torch.dtype
    """of the weights"""
    autocast: torch.dtype | None = None
    """the precision computed in where it is another"""
    adapter: PeftConfig | None = field(default=None, compare=False)
    four_bit: bool = False
    """the adapter is on 4-bit weights, which are multiplied in ``dtype``"""
    key: str = ""
    """config and adapter as text"""

    def __post_init__(self):
        text = self.config.to_json_string(use_diff=False) + str(self.adapter and self.adapter.to_dict())
        object.__setattr__(self, "key", text)


@dataclass(frozen=True)
class TrainingPass:
    """Bytes of a forward and a backward pass."""

    kept: int
    """from the forward to the backward pass: activations, and copies of the weights in the precision computed in"""
    forward_peak: int
    """the most during the forward pass, ``kept`` included"""
    backward_peak: int
    """the most during the backward pass, ``kept`` included, gradients of the weights not"""


@dataclass(frozen=True)
class Generation:
    """Bytes of generation, keys and values included."""

    prompts_peak: int
    """the most during the pass over the prompts"""
    last_peak: int
    """the most during the pass over the last token, beside all others' keys and values"""


@lru_cache(maxsize=256)
def training_pass(model: Traced, *, rows: int, length: int, checkpointing: bool = False) -> TrainingPass:
    """Bytes of a pass over ``rows`` sequences of ``length`` tokens."""

    def measured(layers: int) -> tuple[int, int, int]:
        with _run(model, layers, UNMASKED) as (whole, backbone, live):
            whole.train()
            if checkpointing:
                whole.gradient_checkpointing_enable()
                if model.adapter is not None:
                    whole.enable_input_require_grads()
            trained = [parameter for parameter in whole.parameters() if parameter.requires_grad]
            for parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
            live.ignore(parameter.grad for parameter in trained)
            ids = torch.zeros((rows, length), dtype=torch.long)
            with live:
                with _precision(model):
                    hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
                kept, forward_peak, live.peak = live.live, live.peak, live.live
                hidden.backward(torch.empty_like(hidden))
            return kept, forward_peak, live.peak - kept

    kept, forward_peak, beside = _all_layers(model, measured)
    return TrainingPass(kept, forward_peak, kept + beside)


@lru_cache(maxsize=256)
def generation(model: Traced, *, rows: int, prompt: int, length: int) -> Generation:
    """Bytes of transformers' ``generate`` with prompts of ``prompt`` tokens, until the sequences have ``length``."""

    def measured(layers: int) -> tuple[int, int]:
        with _run(model, layers, "sdpa") as (whole, backbone, live):
            whole.eval()

            def peak(cache: DynamicCache, tokens: int) -> int:
                past = cache.get_seq_length()
                ids = torch.zeros((rows, tokens), dtype=torch.long)
                seen = torch.ones((rows, past + tokens), dtype=torch.long)  # a mask: prompts are padded on the left
                live.peak = live.live
                with torch.no_grad(), _precision(model):
                    backbone(input_ids=ids, attention_mask=seen, past_key_values=cache, use_cache=True)
                return live.peak

            with live:
                prompts = peak(DynamicCache(config=backbone.config), prompt)
                cache = DynamicCache(config=backbone.config)
                peak(cache, length - 1)
                return prompts, peak(cache, 1)

    return Generation(*_all_layers(model, measured))


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

    def ignore(self, tensors: Iterable[Any]) -> None:
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


def _all_layers(model: Traced, measured: Callable[[int], tuple[int, ...]]) -> tuple[int, ...]:
    """What all layers need, from what two and three need."""
    layers = model.config.get_text_config().num_hidden_layers
    if layers <= 3:
        return measured(layers)
    two, three = measured(2), measured(3)
    return tuple(b + (layers - 3) * (b - a) for a, b in zip(two, three, strict=True))


def _precision(model: Traced) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if model.autocast is None else torch.autocast("cpu", dtype=model.autocast)


@contextlib.contextmanager
def _run(model: Traced, layers: int, attention: str) -> Iterator[tuple[Any, Any, LiveBytes]]:
    """A shallow copy without data: the model, its layers and embeddings alone, and what counts its tensors."""
    with torch.device("meta"):
        whole = empty_model(_shallow(model.config, layers, attention), model.dtype)
        whole = with_adapter(whole, model.adapter, four_bit=model.four_bit)
    with FakeTensorMode():
        _move_to_cpu(whole)
        live = LiveBytes()
        live.ignore([*whole.parameters(), *whole.buffers()])
        inner = whole if model.adapter is None else whole.get_base_model()
        yield whole, inner.get_decoder(), live


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


def _shallow(config: PreTrainedConfig, layers: int, attention: str) -> PreTrainedConfig:
    shallow = copy.deepcopy(config)
    shallow._attn_implementation = attention
    text = shallow.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = (list(text.layer_types) * 3)[:layers]
    text.pad_token_id, text.vocab_size = None, 8  # the pass begins after the embedding and ends before the head
    return shallow
