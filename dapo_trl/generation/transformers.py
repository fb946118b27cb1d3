"""transformers' `generate`, with the loop of `decoding` wherever one token is drawn after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from ..rollout.chat_format import ChatFormat
from .decoding import Decoding, DrawFn, OtherLoopError, UndividedError, one_token_after_another
from .params import FinishedFn, Turns, replaced
from .seeded import RandomNumbers

_PLAIN: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "use_cache": True,
}
"""Settings that a model's own generation settings may have otherwise."""


def torch_draw(scores: Tensor, rows: Tensor, step: int) -> Tensor:
    """Draw as `generate` does, with torch's own random state."""
    return torch.multinomial(torch.softmax(scores, dim=-1), 1).squeeze(1)


def likeliest(scores: Tensor, rows: Tensor, step: int) -> Tensor:
    """The token with the highest score."""
    return scores.argmax(dim=-1)


def generate(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    generation_config: GenerationConfig,
    *,
    draw: DrawFn | None = None,
    on_finished: FinishedFn | None = None,
    plain: Callable[..., Any] | None = None,
    **others: Any,
) -> Tensor:
    """The completions that `generate` returns for left-padded prompts, in less time.

    Args:
        model: A causal language model of transformers or PEFT.
        input_ids: ``[N, P]`` token ids.
        attention_mask: ``[N, P]``, 0 on padding.
        generation_config: Settings that need a loop of their own (beams, say) make it one plain call, and so does
            anything in `others`.
        draw: Chooses the tokens; None: as the settings say, with torch's own random state.
        on_finished: Called with each completion as it ends; not where it is one plain call.
        plain: The model's own `generate`, if it does not stand there now.

    Returns:
        ``[N, P + T]``: prompts and completions, padded after their ends.
    """
    plain = plain or model.generate
    given = {"input_ids": input_ids, "attention_mask": attention_mask, "generation_config": generation_config, **others}
    virtual = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)  # tokens of the adapter
    if others or virtual or not one_token_after_another(generation_config):
        return plain(**given)
    draw = draw or (torch_draw if generation_config.do_sample else likeliest)
    decoding = Decoding(draw, in_step=_in_step(model), on_finished=on_finished)
    try:
        return plain(**given, custom_generate=decoding)
    except UndividedError:
        return plain(**given, custom_generate=replace(decoding, divided=False))
    except OtherLoopError:
        return plain(**given)


@contextlib.contextmanager
def own_loop(model: Any, draw: DrawFn | None = None, on_finished: FinishedFn | None = None) -> Iterator[None]:
    """Within the block the model's `generate` is the one above, for callers that are not ours.

    One that somebody has put in its place is left there.
    """
    if "generate" in vars(model):
        yield
        return
    plain = model.generate

    def ours(input_ids: Tensor, attention_mask: Tensor, generation_config: GenerationConfig, **others: Any) -> Tensor:
        ways = {"draw": draw, "on_finished": on_finished, "plain": plain}
        return generate(model, input_ids, attention_mask, generation_config, **ways, **others)

    model.generate = ours
    try:
        yield
    finally:
        del model.generate


def sample_turns(
    model: Any,
    chat_format: ChatFormat,
    contexts: Sequence[list[int]],
    numbers: RandomNumbers,
    *,
    room: int,
    on_finished: FinishedFn | None = None,
) -> list[list[int]]:
    """Continue each context up to the end of the model's turn, by the numbers alone.

    Args:
        contexts: ``N`` lists of tokens.
        numbers: Of each of them.
        room: The most tokens that a continuation may have.
        on_finished: Called with each continuation as it ends.
    """
    tokenizer, stops, width = chat_format.tokenizer, list(chat_format.stop_ids), max(map(len, contexts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(tokens)) + tokens for tokens in contexts], device=model.device)
    mask = torch.tensor([[0] * (width - len(tokens)) + [1] * len(tokens) for tokens in contexts], device=model.device)
    settings = GenerationConfig(max_new_tokens=room, eos_token_id=stops, pad_token_id=pad, **_PLAIN)
    sampled = generate(model, ids, mask, settings, draw=numbers.draw, on_finished=on_finished)
    return [_up_to_stop(row, stops) for row in sampled[:, width:].tolist()]


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end the model's turn, by its generation settings and its tokenizer."""
    declared = model.generation_config.eos_token_id
    declared = declared if isinstance(declared, list) else [declared]
    return [token for token in {*declared, tokenizer.eos_token_id} if token is not None]


def _up_to_stop(ids: list[int], stops: Sequence[int]) -> list[int]:
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids) - 1)
    return ids[: end + 1]


class TransformersBackend:
    """Samples with the model's own `generate`, as TRL calls it, by the loop of `decoding`.

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

    def generate(
        self,
        contexts: list[list[int]],
        *,
        limit: int,
        group_size: int,
        numbers: RandomNumbers | None = None,
        on_finished: FinishedFn | None = None,
    ) -> Turns:
        draw = None if numbers is None or not self._settings.do_sample else numbers.draw
        with own_loop(self._model(), draw, on_finished), replaced(self._settings, "max_new_tokens", limit):
            return self._sample(contexts, group_size)


def _in_step(model: Any) -> bool:
    """Whether `generate` makes all processes take equally many steps."""
    parts = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model)
    return parts and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
