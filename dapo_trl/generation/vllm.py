"""vLLM, in the trainer's process or in a server, as TRL drives it; and by itself, for a measurement.

Measurements give each completion a seed of its own. Training does not: vLLM draws for such requests one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import broadcast_object_list
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import nn

from ..errors import ConfigError, one_line
from .params import FinishedFn, Turns, replaced
from .seeded import RandomNumbers

ROWS = 1024
"""Completions of a batch of a measurement: vLLM computes as many of them at once as it has room for."""
CONNECTIONS = 64
"""Requests of a measurement that a server gets at once."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM has buffers for; an adapter of another rank takes those of the next larger one."""
_BASE_KEPT = (True, False, "gaussian", "orthogonal")
"""Values of ``init_lora_weights`` that leave the model's own weights alone."""
_SERVED = {
    *("peft_type", "task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision"),
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "inference_mode", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
}
"""Settings of a LoRA that vLLM reads, or that say no more than where it is."""


def why_merged(model: PeftModel) -> str | None:
    """Why vLLM cannot serve the adapter of a model beside the model's own weights, as a clause; None: it can."""
    if len(model.active_adapters) != 1:
        return f"{len(model.active_adapters)} adapters are active"
    config = active_lora(model)
    if not isinstance(config, LoraConfig):
        return f"it is of the kind {config.peft_type.value}"
    for name, value in vars(LoraConfig()).items():
        if name not in _SERVED and getattr(config, name) != value:
            return f"its {name} is {getattr(config, name)!r}"
    if config.init_lora_weights not in _BASE_KEPT:
        return f"its init_lora_weights {config.init_lora_weights!r} changed the model's own weights"
    if config.r > RANKS[-1]:
        return f"its rank is {config.r}, and the largest is {RANKS[-1]}"
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and (module is head or not isinstance(module.get_base_layer(), nn.Linear)):
            return f"it adapts {name.removeprefix('base_model.model.')}"
    return None


def active_lora(model: PeftModel) -> LoraConfig:
    """The settings of a model's adapter."""
    return cast(LoraConfig, model.peft_config[model.active_adapters[0]])


def device_options(device: torch.device, longest: int) -> dict[str, Any]:
    """Arguments of vLLM's engine on a device.

    On a CPU it does without compiled kernels, which take minutes to make, and reads each prompt at once: vLLM 0.31
    cannot take back a draw with a seed of its own there, which it does after a part of a prompt.

    Args:
        longest: Tokens of the longest row.
    """
    if device.type != "cpu":
        return {}
    return {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": max(longest, 4096)}


def lora_options(adapter: LoraConfig) -> dict[str, Any]:
    """Arguments of vLLM's engine for serving an adapter, one version at a time."""
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(size for size in RANKS if size >= adapter.r)}


def save_adapter(model: PeftModel, folder: Path) -> int:
    """Write the active adapter as vLLM reads it; returns the bytes of its weights."""
    name = model.active_adapters[0]
    weights = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    weights = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    save_file(weights, folder / "adapter_model.safetensors")
    active_lora(model).save_pretrained(str(folder))
    return sum(value.nbytes for value in weights.values())


def lora_request(version: int, folder: Path) -> Any:
    """vLLM's name of an adapter; each version has a name of its own, and with it a prefix cache of its own."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(f"step-{version}", version, str(folder))


def draw_turns(
    llm: Any, contexts: Sequence[list[int]], seeds: Sequence[int], lora: Any = None, **sampling: Any
) -> list[list[int]]:
    """Continue each context with a seed of its own.

    Args:
        llm: vLLM's engine.
        contexts: ``N`` lists of tokens.
        seeds: ``N``.
        lora: vLLM's request of the adapter, if there is one.
        sampling: Of vLLM's ``SamplingParams``.
    """
    from trl.generation.vllm_generation import SamplingParams  # vLLM's

    found = llm.generate(
        [{"prompt_token_ids": context} for context in contexts],
        sampling_params=[SamplingParams(n=1, seed=seed, detokenize=False, **sampling) for seed in seeds],
        use_tqdm=False,
        **({} if lora is None else {"lora_request": lora}),
    )
    return [list(one.outputs[0].token_ids) for one in found]


def sampling_of(numbers: RandomNumbers, room: int, stop_ids: Sequence[int]) -> dict[str, Any]:
    """vLLM's settings for drawing as ``numbers`` are to be used."""
    return {
        "temperature": numbers.temperature,
        "top_p": numbers.top_p,
        "max_tokens": room,
        "stop_token_ids": sorted(stop_ids),
    }


class VLLMBackend:
    """Samples with TRL's vLLM engine, which is pushed the weights once for each optimizer step.

    Args:
        sample: TRL's call of the engine: ``sample(contexts, group_size)``.
        engine: TRL's engine.
        session: Keeps the engine at the weights as they are, and a sleeping one awake, for a whole rollout batch.
        stop_ids: Tokens that end the model's turn.
    """

    def __init__(
        self,
        sample: Callable[[list[list[int]], int], Turns],
        engine: Any,
        session: Callable[[], AbstractContextManager[None]],
        stop_ids: Sequence[int],
    ):
        self._sample, self._engine, self.session, self._stop_ids = sample, engine, session, stop_ids

    def generate(
        self, contexts: list[list[int]], *, limit: int, group_size: int, on_finished: FinishedFn | None = None
    ) -> Turns:
        with replaced(self._engine, "max_completion_length", limit), _reported(self._engine, on_finished):
            return self._sample(contexts, group_size)

    @property
    def in_step(self) -> bool:
        """Whether processes ask for their turns together: of a server, or of an engine that they share."""
        engine = self._engine
        return engine.accelerator.num_processes > 1 and (engine.mode == "server" or engine.tensor_parallel_size > 1)

    def sample_turns(self, contexts: Sequence[list[int]], numbers: RandomNumbers, *, room: int) -> list[list[int]]:
        """Continue each context for a measurement; as `transformers.sample_turns`, with numbers of vLLM's own."""
        sampling = sampling_of(numbers, room, self._stop_ids)
        rows = list(zip(contexts, numbers.seeds(), strict=True))
        if not self.in_step:
            return self._draw(rows, sampling)
        group = None if self._engine.mode == "server" else self._engine.tp_group
        parts: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(parts, rows, group=group)
        found = self._draw([row for part in parts for row in part], sampling)
        first = sum(len(part) for part in parts[: torch.distributed.get_rank(group)])
        return found[first : first + len(rows)]

    def _draw(self, rows: list[tuple[list[int], int]], sampling: dict[str, Any]) -> list[list[int]]:
        engine = self._engine
        if engine.mode == "colocate":
            return draw_turns(engine.llm, *zip(*rows, strict=True), **sampling)
        answer: list[Any] = [None]
        if engine.accelerator.is_main_process:
            limits = {name: sampling.pop(name) for name in ("temperature", "top_p", "max_tokens")}

            def ask(row: tuple[list[int], int]) -> list[int]:
                given = {"seed": row[1], **sampling}
                found = engine.vllm_client.generate([row[0]], None, 1, logprobs=None, generation_kwargs=given, **limits)
                return found["completion_ids"][0]

            with ThreadPoolExecutor(CONNECTIONS) as pool:
                answer = [list(pool.map(ask, rows))]
        return broadcast_object_list(answer)[0]


class MeasuringEngine:
    """vLLM by itself, for a measurement; it starts at the first turn.

    Args:
        model: Folder or Hub name of the base model.
        adapter: Folder of a LoRA that vLLM can serve.
        stop_ids: Tokens that end the model's turn.
        device: That it computes on.
        settings: Of vLLM's ``LLM``.

    Raises:
        ConfigError: It cannot be started.
    """

    def __init__(self, model: str, adapter: str | None, stop_ids: Sequence[int], device: torch.device, **settings: Any):
        self._model, self._adapter, self._stop_ids, self._settings = model, adapter, stop_ids, settings
        self._device = device
        self.longest = 0
        """Tokens of the longest row, prompt and completion."""

    @cached_property
    def _started(self) -> tuple[Any, Any]:
        settings = {**self._settings, "max_model_len": self.longest, **device_options(self._device, self.longest)}
        lora = None
        try:
            from trl.generation.vllm_generation import LLM  # vLLM's, if it is installed

            if self._adapter is not None:
                lora = lora_request(1, Path(self._adapter).absolute())
                settings |= lora_options(LoraConfig.from_pretrained(self._adapter))
            return LLM(self._model, skip_tokenizer_init=True, **settings), lora
        except ImportError as error:
            raise ConfigError("engine is 'vllm', which is not installed: pip install 'dapo-trl[vllm]'.") from error
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"engine is 'vllm', which cannot be started: {one_line(error)}") from error

    def sample_turns(self, contexts: Sequence[list[int]], numbers: RandomNumbers, *, room: int) -> list[list[int]]:
        """Continue each context for a measurement; as `transformers.sample_turns`, with numbers of vLLM's own."""
        llm, lora = self._started
        return draw_turns(llm, contexts, numbers.seeds(), lora, **sampling_of(numbers, room, self._stop_ids))


@contextmanager
def _reported(engine: Any, on_finished: FinishedFn | None) -> Iterator[None]:
    """Within the block, requests are reported as they end, by the order in which they were added.

    This takes vLLM in this process, alone on its model; a server returns all completions at once.
    """
    requests: Any = getattr(getattr(engine, "llm", None), "llm_engine", None)
    if on_finished is None or not hasattr(requests, "step") or engine.tensor_parallel_size > 1:
        yield
        return
    places: dict[str, int] = {}
    add_request, step = requests.add_request, requests.step

    def numbered(request_id: str, *args: Any, **kwargs: Any) -> Any:
        places[request_id] = len(places)
        return add_request(request_id, *args, **kwargs)

    def watched() -> Any:
        outputs = step()
        for output in outputs:
            if output.finished:
                on_finished(places[output.request_id], list(output.outputs[0].token_ids))
        return outputs

    requests.add_request, requests.step = numbered, watched
    try:
        yield
    finally:
        del requests.add_request, requests.step
