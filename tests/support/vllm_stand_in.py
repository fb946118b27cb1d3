"""vLLM as TRL calls it, on transformers: what its own `VLLMGeneration` needs of the engine and of the server's client.

It has weights of its own, which change by a push alone, or adapters that are pushed, and generates with them; every
push and request is recorded.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from trl.generation import vllm_generation

SHIFT = 0.1
"""vLLM's log-probabilities are not quite those of the model that is trained; here they are too high by this"""


class Engine:
    """Samples one token after another and says with what probability."""

    def __init__(self, model: str):
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.end = self.model.generation_config.eos_token_id
        self.received: list[str] = []
        self.pushes: list[list[str]] = []
        self.requests: list[tuple[list[list[int]], int]] = []
        """prompts, and completions of each"""
        self.asleep = False
        self.seeds: list[int | None] = []
        """of every completion"""
        self.served: Any = self.model
        """The model with the adapter of the request, if it names one."""

    def load_weights(self, named) -> None:
        assert not self.asleep
        own = self.model.state_dict()
        for name, value in named:
            own[name].copy_(value)
            self.received.append(name)

    def reset_prefix_cache(self) -> None:
        """TRL does this once, at the end of every push."""
        self.pushes.append(self.received)
        self.received = []

    @torch.no_grad()
    def sample(
        self, prompts: list[list[int]], n: int, tokens: int, seeds: list[int] | None = None
    ) -> list[tuple[list[int], list[float]]]:
        assert not self.asleep
        self.requests.append((prompts, n))
        self.seeds += seeds or [None] * n * len(prompts)
        streams = [torch.Generator().manual_seed(seed) for seed in seeds or ()]
        rows = [list(prompt) for prompt in prompts for _ in range(n)]
        found: list[tuple[list[int], list[float]]] = [([], []) for _ in rows]
        active = list(range(len(rows)))
        for _ in range(tokens):
            longest = max(len(rows[i]) for i in active)
            ids = torch.tensor([rows[i] + [self.end] * (longest - len(rows[i])) for i in active])
            last = torch.tensor([len(rows[i]) - 1 for i in active])
            logits = self.served(ids).logits  # causal: what stands after a row's last token is unseen
            logps = logits[torch.arange(len(active)), last].log_softmax(-1)
            for i, row, token in zip(active, logps, self._drawn(logps.exp(), active, streams), strict=True):
                rows[i].append(token)
                found[i][0].append(token)
                found[i][1].append(float(row[token]) + SHIFT)
            active = [i for i in active if rows[i][-1] != self.end]
            if not active:
                break
        return found

    def _drawn(self, probabilities: torch.Tensor, rows: list[int], streams: list[torch.Generator]) -> list[int]:
        if not streams:
            return torch.multinomial(probabilities, 1)[:, 0].tolist()
        return [
            int(torch.multinomial(one, 1, generator=streams[row])) for one, row in zip(probabilities, rows, strict=True)
        ]


def noisy(spread: float, *, missing: bool = False, known: dict[tuple[int, int], Any] | None = None) -> Any:
    """An `Engine.sample` whose log-probabilities differ from the engine's by noise of a known standard deviation.

    Completions are random letters of full length. The differences are normal with mean -spread^2/2, and their sums over
    completions lie at the quantiles of their distribution, so that a few completions show its shape.

    Args:
        missing: Give NaN for the first token of every completion, as vLLM may.
        known: Holds completions, their log-probabilities and their noise of spread 1 from one call to the next, for
            samplers of the same weights.
    """
    generator = torch.Generator().manual_seed(7)

    @torch.no_grad()
    def sample(
        self, prompts: list[list[int]], n: int, tokens: int, seeds: list[int] | None = None
    ) -> list[tuple[list[int], list[float]]]:
        assert self.pushes and not self.asleep and len({len(prompt) for prompt in prompts}) == 1
        found = None if known is None else known.get((len(prompts) * n, tokens))
        letters, logps, noise = found or drawn(self, prompts, n, tokens)
        if known is not None:
            known[len(prompts) * n, tokens] = letters, logps, noise
        logps = logps - (noise * spread - spread**2 / 2)
        if missing:
            logps[:, 0] = torch.nan
        return list(zip(letters.tolist(), logps.tolist(), strict=True))

    def drawn(self, prompts: list[list[int]], n: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = torch.tensor([prompt for prompt in prompts for _ in range(n)])
        letters = torch.randint(64, 90, (len(rows), tokens), generator=generator)
        noise = torch.randn(len(rows), tokens, generator=generator)
        quantiles = torch.special.ndtri((torch.arange(len(rows)) + 0.5) / len(rows)).float()
        quantiles = quantiles[torch.randperm(len(rows), generator=generator)].unsqueeze(1)
        noise += quantiles / tokens**0.5 - noise.mean(dim=1, keepdim=True)
        logits = [self.model(part).logits[:, -tokens - 1 : -1] for part in torch.cat([rows, letters], dim=1).split(8)]
        return letters, torch.cat(logits).log_softmax(-1).gather(2, letters.unsqueeze(2)).squeeze(2), noise

    return sample


def sampled(*, temperature: float = 1.0, top_p: float = 1.0, report: Any = lambda logps: logps) -> Any:
    """An `Engine.sample` that draws with transformers' `generate` and gives the log-probabilities that it draws by.

    Args:
        report: What becomes of a completion's log-probabilities on their way to the trainer.
    """

    @torch.no_grad()
    def sample(
        self, prompts: list[list[int]], n: int, tokens: int, seeds: list[int] | None = None
    ) -> list[tuple[list[int], list[float]]]:
        width = max(map(len, prompts))
        rows = torch.tensor([[self.end] * (width - len(p)) + p for p in prompts for _ in range(n)])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts for _ in range(n)])
        settings = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0, "max_new_tokens": tokens}
        found = self.model.generate(
            rows, attention_mask=mask, **settings, return_dict_in_generate=True, output_scores=True
        )
        drawn, completions = found.sequences[:, width:], []
        logps = torch.stack(found.scores, dim=1).log_softmax(-1).gather(2, drawn.unsqueeze(2)).squeeze(2)
        for ids, values in zip(drawn.tolist(), logps.tolist(), strict=True):
            end = ids.index(self.end) + 1 if self.end in ids else len(ids)
            completions.append((ids[:end], report(values[:end])))
        return completions

    return sample


class LLM(Engine):
    """The engine in the trainer's process (``vllm_mode: colocate``)."""

    made: list[Engine] = []  # noqa: RUF012

    def __init__(self, model: str, enable_lora: bool = False, max_lora_rank: int = 16, **options: Any):
        super().__init__(model)
        self.options = options
        self.ranks = max_lora_rank if enable_lora else 0
        self.adapters: dict[int, Any] = {}
        """Models with the adapters that are loaded, by version."""
        self.names: list[str | None] = []
        """of the adapter of every call"""
        runner = SimpleNamespace(model_runner=SimpleNamespace(model=self, reload_weights=self.load_weights))
        self.llm_engine = SimpleNamespace(
            model_executor=SimpleNamespace(driver_worker=runner), add_lora=self.add_lora, remove_lora=self.adapters.pop
        )
        self.made.append(self)

    def add_lora(self, request) -> None:
        assert not self.asleep and not self.adapters  # there is room for one
        adapted = PeftModel.from_pretrained(copy.deepcopy(self.model), request.lora_path)
        assert adapted.peft_config["default"].r <= self.ranks
        self.pushes.append([path.name for path in Path(request.lora_path).iterdir()])
        self.adapters[request.lora_int_id] = adapted.merge_and_unload()

    def generate(self, prompts, sampling_params, use_tqdm=False, lora_request=None):
        self.names.append(lora_request and lora_request.lora_name)
        if lora_request and lora_request.lora_int_id not in self.adapters:
            self.add_lora(lora_request)
        self.served = self.adapters[lora_request.lora_int_id] if lora_request else self.model
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        if isinstance(sampling_params, list):
            first, seeds = sampling_params[0], [params.seed for params in sampling_params]
        else:
            first, seeds = sampling_params, None
        return [
            SimpleNamespace(
                prompt_token_ids=prompt,
                outputs=[
                    SimpleNamespace(
                        token_ids=found,
                        logprobs=[
                            {token: SimpleNamespace(rank=1, logprob=value)}
                            for token, value in zip(found, values, strict=True)
                        ],
                    )
                ],
            )
            for prompt, (found, values) in zip(ids, self.sample(ids, first.n, first.max_tokens, seeds), strict=True)
        ]

    def sleep(self, level: int) -> None:
        self.asleep = True
        with torch.no_grad():
            for value in self.model.parameters() if level == 2 else ():  # level 2 throws the weights away
                value.fill_(torch.nan)

    def wake_up(self, tags: list[str]) -> None:
        self.asleep = False


class Client(Engine):
    """The main process's client of a server (``vllm_mode: server``)."""

    made: list[Engine] = []  # noqa: RUF012
    model_name = ""

    def __init__(self, base_url: str, group_port: int, connection_timeout: float):
        super().__init__(self.model_name)
        self.made.append(self)

    def init_communicator(self, device) -> None:
        pass

    def get_server_info(self) -> dict[str, Any]:
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def update_named_params(self, metadata, named) -> None:
        names = [name for name, _, _ in metadata]
        self.load_weights(named)
        assert self.received == names

    def generate(self, prompts, features, n, max_tokens, generation_kwargs=None, **_: Any) -> dict[str, Any]:
        seed = (generation_kwargs or {}).get("seed")
        found = self.sample(prompts, n, max_tokens, None if seed is None else [seed])
        return {
            "prompt_ids": prompts,
            "completion_ids": [ids for ids, _ in found],
            "logprobs": [[[value] for value in values] for _, values in found],
        }


def install(model: str) -> None:
    """Put the stand-ins where TRL has vLLM's classes."""
    Client.model_name = model
    LLM.made.clear()
    Client.made.clear()
    vllm_generation.is_vllm_available = lambda: True
    vllm_generation.LLM = LLM
    vllm_generation.SamplingParams = SimpleNamespace
    vllm_generation.VLLMClient = Client
    sys.modules["vllm.lora.request"] = SimpleNamespace(LoRARequest=lora_request)  # type: ignore[assignment]


def lora_request(lora_name: str, lora_int_id: int, lora_path: str) -> SimpleNamespace:
    return SimpleNamespace(lora_name=lora_name, lora_int_id=lora_int_id, lora_path=lora_path)
