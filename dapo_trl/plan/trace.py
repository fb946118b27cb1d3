"""A model on tensors without data: its parameters counted, and the memory of its passes measured.

Two copies of the model, two and three layers deep, are run under PyTorch's FakeTensorMode: operations report the
tensors they would allocate, autograd keeps the tensors it would keep, and nothing is computed. Every further layer adds
as much as the third. This holds for any architecture, adapter, precision and for gradient checkpointing, with
nothing to keep up to date by hand; the kernels are PyTorch's for a CPU (attention that keeps no matrix of
scores, as flash attention). The language-model head is left out: it has formulas of its own in `memory`.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftConfig, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.quantizers.base import get_keys_to_not_convert

from ..errors import ConfigError, one_line
from ..evaluation.loading import check_model_folder
from ..update.attention import obstacle

UNMASKED = "dapo_trl_unmasked"


def _unmasked(module, query, key, value, attention_mask, **kwargs):
    """PyTorch's attention without a mask, as the layouts of `update.logprobs` need it. On tensors without data a model
    would make a mask, because it cannot see that nothing is masked."""
    return sdpa_attention_forward(module, query, key, value, None, **kwargs)


AttentionInterface.register(UNMASKED, _unmasked)


@dataclass(frozen=True)
class Traced:
    """A model as passes are run through it; compared by content."""

    config: PreTrainedConfig = field(compare=False)
    dtype: torch.dtype
    """Type of the weights."""
    autocast: torch.dtype | None = None
    """The type that is computed in, where it is not that of the weights."""
    adapter: PeftConfig | None = field(default=None, compare=False)
    four_bit: bool = False
    """Whether the adapter is on 4-bit weights, which are multiplied in ``dtype``."""
    key: str = ""
    """Config and adapter as text, by which two models compare equal."""

    def __post_init__(self):
        text = self.config.to_json_string(use_diff=False) + str(self.adapter and self.adapter.to_dict())
        object.__setattr__(self, "key", text)


@dataclass(frozen=True)
class TrainingPass:
    """Bytes of a forward and a backward pass."""

    kept: int
    """Bytes kept from the forward to the backward pass: activations, and copies of the weights in the computed type."""
    forward_peak: int
    """Peak bytes of the forward pass, ``kept`` included."""
    backward_peak: int
    """Peak bytes of the backward pass, ``kept`` included and gradients of the weights excluded."""


@dataclass(frozen=True)
class Generation:
    """Bytes of generation, keys and values included."""

    prompts_peak: int
    """Peak bytes of the pass over the prompts."""
    last_peak: int
    """Peak bytes of the pass over the last token, keys and values of all others included."""


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
def shares_prompts(model: Traced) -> bool:
    """Whether completions of a group are computed with one prompt."""
    layers = min(model.config.get_text_config().num_hidden_layers, 4)  # enough for layers of every kind
    with torch.device("meta"):
        shallow = empty_model(_shallow(model.config, layers, "eager"), model.dtype)
        return not obstacle(with_adapter(shallow, model.adapter, four_bit=model.four_bit))


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
    """Counts the bytes of live tensors that were made while it is on."""

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
        """Leave out tensors that are counted elsewhere."""
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
    """The need of all layers, extrapolated from two and three."""
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


# Parameters, counted on a model that has shapes and no data (PyTorch's meta device)

BLOCK, OUTER_BLOCK = 64, 256
NF4_BYTES = (4 + 8 / BLOCK + 32 / (BLOCK * OUTER_BLOCK)) / 8
"""Bytes of a weight in NF4 with double quantisation: 4 bits, an 8-bit constant for each block of 64, a 32-bit one for
each 256 of those (QLoRA, arXiv 2305.14314, section 3)."""


@dataclass(frozen=True)
class Weights:
    """Parameters by what becomes of them; shared ones count once."""

    trained: int
    trained_bytes: int
    """Bytes of the trained weights as they are loaded, and so of their gradients."""
    frozen: int
    frozen_bytes: int
    quantized: int
    """Frozen parameters that are stored in 4 bits."""
    largest_quantized: int
    """Parameters of the largest matrix stored in 4 bits."""
    layer: int
    """Parameters of the largest layer."""
    outside: int
    """Parameters outside the layers: embeddings, last norm, language-model head."""
    head: int
    """Parameters of the language-model head, whether shared with the embeddings or not."""
    head_trained: bool
    largest: int
    """Parameters of the largest trained matrix."""
    base: int
    """Parameters of the model without adapter."""

    @property
    def total(self) -> int:
        """All parameters."""
        return self.trained + self.frozen


def read_config(model: str) -> PreTrainedConfig:
    """The shape of a model: a folder, a ``config.json``, or a name of the Hub.

    Raises:
        ConfigError: there is none.
    """
    path = Path(model)
    if path.suffix != ".json":
        check_model_folder(path)
    elif not path.is_file():
        raise ConfigError(f"model is {model}: there is no such file (looked from {Path.cwd()}).")
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"model is {model!r} and its config.json cannot be read ({one_line(error).split('. ')[0][:160]}). Give a "
            "local folder or a config.json: --model path/to/config.json (some are in configs/models)."
        ) from error


def empty_model(config: PreTrainedConfig, dtype: torch.dtype) -> Any:
    """The model as TRL builds it, on whatever device is the default: ``with torch.device("meta"):``."""
    name = (config.architectures or [""])[0]
    architecture = getattr(transformers, name, AutoModelForCausalLM)
    build = getattr(architecture, "_from_config", AutoModelForCausalLM.from_config)
    try:
        return build(config, dtype=dtype)
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"the model cannot be built: {one_line(error)}") from error


def with_adapter(model: Any, adapter: PeftConfig | None, *, four_bit: bool = False) -> Any:
    """The model with PEFT's adapter on it. Its weights are float32 as PEFT makes them; on 4-bit weights TRL casts them
    to bfloat16, but for DoRA's magnitudes."""
    if adapter is None:
        return model
    try:
        adapted = get_peft_model(model, copy.deepcopy(adapter))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"the adapter does not fit the model: {one_line(error)}") from error
    for name, parameter in adapted.named_parameters():
        if four_bit and parameter.requires_grad and "lora_magnitude_vector" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    return adapted


def weight_dtype(config: PreTrainedConfig, init: dict[str, Any]) -> torch.dtype:
    """The type that a model's weights are loaded as: float32 in TRL, unless ``model_init_kwargs`` names another.

    Raises:
        ConfigError: ``dtype`` is not a type.
    """
    asked = init.get("dtype", "float32")
    if asked in ("auto", None):
        return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    found = asked if isinstance(asked, torch.dtype) else getattr(torch, str(asked), None)
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"model_init_kwargs has dtype {asked!r}: it must be float32, bfloat16, float16 or auto.")
    return found


def count_weights(
    config: PreTrainedConfig, *, dtype: torch.dtype, adapter: PeftConfig | None = None, four_bit: bool = False
) -> Weights:
    """Count exactly, by building the model and its adapter without data.

    Args:
        dtype: the type that the weights are loaded as.
        adapter: of PEFT, with its ``modules_to_save``.
        four_bit: the linear layers but the language-model head are in NF4.
    """
    with torch.device("meta"):
        model = empty_model(config, dtype)
        base = sum(p.numel() for p in model.parameters())
        four = _four_bit(model) if four_bit else set()
        model = with_adapter(model, adapter, four_bit=four_bit)
    trained = frozen = quantized = 0
    trained_bytes = frozen_bytes = largest = largest_quantized = 0
    for parameter in model.parameters():
        count, size = parameter.numel(), parameter.element_size()
        if id(parameter) in four:
            quantized += count
            largest_quantized = max(largest_quantized, count)
            frozen_bytes += round(count * NF4_BYTES)
            frozen += count
        elif parameter.requires_grad:
            trained += count
            trained_bytes += count * size
            largest = max(largest, count)
        else:
            frozen += count
            frozen_bytes += count * size
    layer, outside = _layers(model)
    head = model.get_output_embeddings()
    return Weights(
        trained=trained,
        trained_bytes=trained_bytes,
        frozen=frozen,
        frozen_bytes=frozen_bytes,
        quantized=quantized,
        largest_quantized=largest_quantized,
        layer=layer,
        outside=outside,
        head=0 if head is None else head.weight.numel(),
        head_trained=head is not None and any(p.requires_grad for p in head.parameters()),
        largest=largest,
        base=base,
    )


def _four_bit(model: nn.Module) -> set[int]:
    """The parameters that transformers quantizes with bitsandbytes: all linear layers except the head and layers that
    share its weights."""
    kept = get_keys_to_not_convert(model)
    return {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(key == name or key in name.split(".") for key in kept)
    }


def _layers(model: nn.Module) -> tuple[int, int]:
    """Parameters of the largest layer, and those outside all layers."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(stacks, key=len, default=nn.ModuleList())
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    return max(sizes, default=0), sum(p.numel() for p in model.parameters()) - sum(sizes)
