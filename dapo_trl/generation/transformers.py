"""transformers' `generate` for completions of very unequal lengths: rows that have ended leave the batch.

`generate` carries every row on until the longest one ends, which is most of its work when lengths are long-tailed. Here
it is stopped whenever enough rows have ended, and goes on with the others and their part of the cache. Where the cache
cannot give up rows (Mamba's, say), it is not stopped.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import Cache, GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from .params import Turns, limited_to

SHARE = 0.7
"""The batch is cut down when at most this share of its rows is unfinished. A cut costs about as much as one token."""
_COUNTED_FROM_THE_START = (
    *("stop_strings", "max_time", "min_new_tokens", "min_length", "forced_eos_token_id", "begin_suppress_tokens"),
    *("exponential_decay_length_penalty", "prompt_lookup_num_tokens", "watermarking_config", "guidance_scale"),
)
"""Settings that would mean something else in a second call, or that end a row in another way."""


class _Thinned(StoppingCriteria):
    """Stops all rows as soon as at most `SHARE` of them are unfinished, if the cache can give up the others."""

    def __init__(self, rows: int, stops: Tensor):
        self.stops = stops
        self.ended = torch.zeros(rows, dtype=torch.bool, device=stops.device)
        self.cache: Any = None
        """The model's cache after its last forward pass."""
        self.divisible: bool | None = None
        """Whether the cache can give up rows; None before the first token, or where `generate` does not ask."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.ended |= torch.isin(input_ids[:, -1], self.stops)
        if self.divisible is None:
            self.divisible = _can_give_up_rows(self.cache, input_ids.shape[1] - 1)
        few = (~self.ended).sum() <= SHARE * len(self.ended)
        return (few & self.divisible).expand(len(self.ended))

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Within the block, keep the cache that a model returns."""

        def see(module: Any, args: Any, output: Any) -> None:
            self.cache = getattr(output, "past_key_values", None)

        network = model.get_base_model() if isinstance(model, PeftModel) else model
        handle = network.register_forward_hook(see)
        try:
            yield
        finally:
            handle.remove()


def generate(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    generation_config: GenerationConfig,
    *,
    going_on: Callable[[Tensor], None] = lambda rows: None,
    plain: Callable[..., Any] | None = None,
    **others: Any,
) -> Tensor:
    """The completions that `generate` returns for left-padded prompts, in less time.

    With sampling, tokens come from the same distribution, but not from the same random numbers.

    Args:
        model: A causal language model of transformers or PEFT.
        input_ids: ``[N, P]`` token ids.
        attention_mask: ``[N, P]``, 0 on padding.
        generation_config: Some settings do not allow cutting a batch down, nor does anything in `others` but logits
            processors, nor a sharded model on several processes: it is one plain call then.
        going_on: Called with the rows of the batch, ``[M]`` places in it, that go on when it is cut down.
        plain: The model's own `generate`, if it does not stand there now.

    Returns:
        ``[N, P + T]``: prompts and completions, padded after their ends.
    """
    plain = plain or model.generate
    settings = copy.deepcopy(generation_config)
    given = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
    if not _divisible(settings) or others.keys() - {"logits_processor"} or _in_step(model):
        return plain(**given, generation_config=generation_config)
    stops = torch.as_tensor(settings.eos_token_id, device=input_ids.device).reshape(-1)
    prompt, room = input_ids.shape[1], settings.max_new_tokens
    found = input_ids.new_full((len(input_ids), prompt + room), settings.pad_token_id)
    rows = torch.arange(len(input_ids), device=input_ids.device)
    while True:
        thinned = _Thinned(len(rows), stops)
        settings.max_new_tokens = prompt + room - given["input_ids"].shape[1]
        with thinned.watching(model):
            ids = plain(**given, generation_config=settings, stopping_criteria=StoppingCriteriaList([thinned]))
        if not thinned.divisible and len(rows) == len(found):
            return ids
        found[rows, : ids.shape[1]] = ids
        left = (~thinned.ended).nonzero().squeeze(1)
        if not thinned.divisible or not len(left) or ids.shape[1] == prompt + room:
            return found[:, : ids.shape[1]]
        rows = rows[left]
        going_on(left)
        mask = given["attention_mask"]
        mask = torch.cat([mask, mask.new_ones(len(mask), ids.shape[1] - mask.shape[1])], dim=1)
        thinned.cache.reorder_cache(left)
        given |= {"input_ids": ids[left], "attention_mask": mask[left], "past_key_values": thinned.cache}


@contextlib.contextmanager
def compacting(model: Any) -> Iterator[None]:
    """Within the block the model's `generate` is the one above, for callers that are not ours.

    One that somebody has put in its place is left there.
    """
    if "generate" in vars(model):
        yield
        return
    plain = model.generate

    def shorter(
        input_ids: Tensor, attention_mask: Tensor, generation_config: GenerationConfig, **others: Any
    ) -> Tensor:
        return generate(model, input_ids, attention_mask, generation_config, plain=plain, **others)

    model.generate = shorter
    try:
        yield
    finally:
        del model.generate


class TransformersBackend:
    """Samples with the model's own `generate`, as TRL calls it; rows that have ended leave the batch.

    Args:
        sample: TRL's call of `generate`: ``sample(contexts, group_size)``.
        model: Gives the unwrapped model.
        settings: TRL's generation settings, for their length limit.
    """

    def __init__(
        self,
        sample: Callable[[list[list[int]], int], Turns],
        model: Callable[[], Any],
        settings: GenerationConfig,
    ):
        self._sample, self._model, self._settings = sample, model, settings
        self.session = contextlib.nullcontext

    def generate(self, contexts: list[list[int]], *, limit: int, group_size: int) -> Turns:
        with compacting(self._model()), limited_to(self._settings, "max_new_tokens", limit):
            return self._sample(contexts, group_size)


def _can_give_up_rows(cache: Any, tokens: int) -> bool:
    """Whether a cache can be cut down to some of its rows, and `generate` can go on with it.

    Args:
        cache: As the model returned it.
        tokens: Tokens that it must hold.
    """
    return (
        isinstance(cache, Cache)
        and all(type(layer).__module__ == Cache.__module__ for layer in cache.layers)  # others may keep more of a row
        and not all(cache.is_linear)  # `generate` reads the length from a layer of attention
        and cache.get_seq_length() == tokens
    )


def _in_step(model: Any) -> bool:
    """Whether `generate` makes all processes take equally many steps."""
    parts = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model)
    return parts and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def _divisible(settings: GenerationConfig) -> bool:
    """Whether a second call goes on where the first one stopped."""
    return (
        not any(getattr(settings, name, None) for name in _COUNTED_FROM_THE_START)
        and settings.eos_token_id is not None
        and settings.pad_token_id is not None
        and settings.max_new_tokens is not None
        and settings.cache_implementation in (None, "dynamic")
        and settings.use_cache is not False
        and (settings.num_beams or 1) == 1
        and (settings.num_return_sequences or 1) == 1
    )
