"""Changes to a run, each planned again: those that help most when it does not fit, those that use memory which is left,
and the paper's batch."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from ..errors import ConfigError
from .devices import Placement
from .estimate import init_kwargs
from .planner import Plan

RANK = 32
ADAPTER_RATE = 1e-5
"""Ten times the paper's learning rate, as an adapter needs it."""
MAX_DEVICES = 64
ACCELERATE_FILES = {"ddp": "configs/accelerate/ddp.yaml", "fsdp2": "configs/accelerate/fsdp2.yaml"}
WORTH_IT = 0.02
"""Smallest saving worth naming, as a share of the missing memory."""


@dataclass(frozen=True)
class Change:
    """A change to a run."""

    name: str
    settings: Mapping[str, Any]
    placement: Placement | None = None
    """Another placement; None: unchanged."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``dapo-trl plan`` for the placement."""

    @property
    def flags(self) -> list[str]:
        """For the command line."""
        given = {**self.settings, **self.options}
        return [f"--{name} {shlex.quote(as_flag(value))}" for name, value in given.items()]


@dataclass(frozen=True)
class Remedy:
    """One change, and the memory that the run needs with it alone."""

    change: Change
    saves: int
    """Bytes by which the peak falls."""
    peak: int
    """Bytes of the new peak."""
    fits: bool


Replan = Callable[[Mapping[str, Any], Placement | None], Plan]
"""Plans again with some settings replaced, on another placement or the same (None)."""


def remedies(plan: Plan, replan: Replan, *, most: int = 3) -> list[Remedy]:
    """The changes that save the most bytes of the peak, each tried by itself; changes that make the run fit come
    first. If none does, the last one is all of them together. Rows too long for the model have a single remedy."""
    changes = _of_the_context(plan) if plan.exceeds_context else _candidates(plan)
    tried = [remedy for change in changes if (remedy := _tried(plan, replan, change)) is not None]
    missing = max(plan.memory.peak - plan.capacity, 0)
    saving = [remedy for remedy in tried if remedy.fits or (missing and remedy.saves > 0)]
    useful = [remedy for remedy in saving if remedy.fits or remedy.saves >= WORTH_IT * missing] or saving
    best = sorted(useful, key=lambda remedy: (not remedy.fits, -remedy.saves))[:most]
    if len(best) > 1 and not any(remedy.fits for remedy in best):
        together = _tried(plan, replan, _all_of([remedy.change for remedy in best]))
        best += [] if together is None else [together]
    return best


LEFT = 0.25
"""Share of a device's memory that must be left before its use is advised on."""


def uses(plan: Plan, replan: Replan) -> list[Remedy]:
    """Changes that spend a GPU's memory which is left on speed or on a larger batch; each fits by itself."""
    if plan.args.card.kind != "cuda" or plan.memory.peak > (1 - LEFT) * plan.capacity:
        return []
    tried = (_tried(plan, replan, change) for change in _of_memory_left(plan))
    return [remedy for remedy in tried if remedy is not None and remedy.fits]


PAPER_GROUPS, PAPER_GROUP_SIZE, PAPER_UPDATES = 512, 16, 16
"""Groups of the paper's rollout batch, completions of each, and optimizer steps on them (section 4.1)."""


def paper_batch(plan: Plan, replan: Replan) -> Remedy | None:
    """The settings that make the paper's batch of a run with the paper's objective; None: it has that batch, or another
    objective, or no number of rows for each of its devices makes it up."""
    args, schedule = plan.args, plan.schedule
    papers = args.scale_rewards == "group" and args.min_valid_fraction == 1 and args.overlong_shape == "soft"
    has = (schedule.groups, schedule.group_size, schedule.updates) == (PAPER_GROUPS, PAPER_GROUP_SIZE, PAPER_UPDATES)
    an_update = PAPER_GROUPS * PAPER_GROUP_SIZE // PAPER_UPDATES
    if not papers or has or an_update % args.world_size:
        return None
    share = an_update // args.world_size
    rows = math.gcd(args.per_device_train_batch_size, share)
    wanted = {
        "num_generations": PAPER_GROUP_SIZE,
        "num_iterations": 1,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": share // rows,
        "steps_per_generation": PAPER_UPDATES * share // rows,
    }
    settings = {name: value for name, value in wanted.items() if getattr(args, name) != value}
    grown = {"generation_batch_size": None, "max_round_sequences": None}  # follow from the others
    return _tried(plan, replan, Change("the paper's batch", settings), besides=grown)


def _tried(plan: Plan, replan: Replan, change: Change, *, besides: Mapping[str, Any] | None = None) -> Remedy | None:
    """None: the change does not go together with the other settings.

    Args:
        besides: Settings that follow from the change, and need not be named.
    """
    try:
        changed = replan({**change.settings, **(besides or {})}, change.placement)
    except ConfigError:
        return None
    return Remedy(change, plan.memory.peak - changed.memory.peak, changed.memory.peak, changed.fits)


def _all_of(changes: Sequence[Change]) -> Change:
    """Several changes at once; of several placements the first is taken."""
    settings = {name: value for change in changes for name, value in change.settings.items()}
    placed = next((change for change in changes if change.placement is not None), Change("", {}))
    return Change("all of them together", settings, placed.placement, placed.options)


def as_flag(value: Any) -> str:
    """A setting's value as text for a flag: YAML, on one line."""
    return (
        value
        if isinstance(value, str)
        else yaml.safe_dump(value, default_flow_style=True, width=math.inf).split("\n")[0]
    )


def _candidates(plan: Plan) -> Iterator[Change]:
    yield from _of_training(plan)
    yield from _of_the_batch(plan)
    yield from _of_vllm(plan)
    yield from _of_the_devices(plan)


def _of_the_context(plan: Plan) -> Iterator[Change]:
    room = (plan.context or 0) - plan.task.prompt_longest
    if room > 0:
        yield Change("the longest completions that the context holds", _shorter(plan, room))


def _shorter(plan: Plan, length: int) -> dict[str, Any]:
    """Completions of this length, with an overlong penalty that fits them."""
    ends = plan.args.overlong_max_length or 0
    penalty = {"overlong_max_length": None, "overlong_cache_length": None} if ends > length else {}
    return {"max_completion_length": length, **penalty}


def _of_training(plan: Plan) -> Iterator[Change]:
    run, args = plan.run, plan.args
    cuda = args.card.kind == "cuda"
    if not args.gradient_checkpointing:
        yield Change("gradient checkpointing, a third more computing", {"gradient_checkpointing": True})
    if args.card.bf16 and cuda and not args.bf16 and not args.fp16:
        yield Change("bfloat16", {"bf16": True})
    half = {**init_kwargs(args), "dtype": "bfloat16"}
    in_half = {"model_init_kwargs": half} if args.card.bf16 and cuda and half != init_kwargs(args) else {}
    adapter = {"lora_rank": RANK, "learning_rate": max(args.learning_rate, ADAPTER_RATE)}
    if not run.lora_rank:
        yield Change("LoRA", {**adapter, **in_half})
        if args.beta:
            yield Change("no reference model, as in the paper", {"beta": 0.0})
        if cuda and "8bit" not in str(args.optim):
            yield Change("an optimizer of 8 bits", {"optim": "adamw_bnb_8bit"})
    elif run.lora_rank > 8:
        yield Change("an adapter of half the rank", {"lora_rank": run.lora_rank // 2})
    if run.lora_rank and in_half and not run.quantization:
        yield Change("the frozen weights in bfloat16", in_half)
    if cuda and not run.quantization:
        yield Change("QLoRA", {"quantization": "4bit", **({} if run.lora_rank else adapter), **in_half})


def _of_the_batch(plan: Plan) -> Iterator[Change]:
    args = plan.args
    tokens = plan.schedule.pass_tokens
    if tokens >= 2 * plan.longest:
        yield Change("passes of half the tokens", {"microbatch_tokens": tokens // 2})
    if args.max_completion_length > 256:
        yield Change("completions of half the length", _shorter(plan, args.max_completion_length // 2))
    steps, accumulation = args.micro_batches_per_rollout, args.gradient_accumulation_steps
    if not args.use_vllm and steps > accumulation and steps // 2 % accumulation == 0:
        fewer = {"steps_per_generation": steps // 2, "max_round_sequences": None}
        yield Change("half a rollout batch", fewer)


def _of_memory_left(plan: Plan) -> Iterator[Change]:
    args = plan.args
    if args.gradient_checkpointing:
        yield Change("no gradient checkpointing, a quarter less computing", {"gradient_checkpointing": False})
    if plan.schedule.passes > 1:
        yield Change("passes of twice the tokens", {"microbatch_tokens": 2 * plan.schedule.pass_tokens})
    steps = args.micro_batches_per_rollout
    twice = {"steps_per_generation": 2 * steps}
    yield Change("groups of twice the size", {"num_generations": 2 * args.num_generations, **twice})
    yield Change("twice the groups of a rollout batch, in twice the updates", twice)


def _of_vllm(plan: Plan) -> Iterator[Change]:
    args = plan.args
    if not args.use_vllm or args.vllm_mode != "colocate":
        return
    if plan.run.eval_problems:
        yield Change("accuracy measured afterwards, of the saved model", {"eval_problems": 0})
    if not args.vllm_enable_sleep_mode:
        yield Change("vLLM gives its memory back for training", {"vllm_enable_sleep_mode": True})
    share = round(args.vllm_gpu_memory_utilization / 2, 3)
    yield Change("half of vLLM's share", {"vllm_gpu_memory_utilization": share})


def _of_the_devices(plan: Plan) -> Iterator[Change]:
    placement = plan.args.placement
    if plan.args.card.kind != "cuda":
        return
    if placement.count > 1 and placement.sharding != "ddp":
        yield _spread("the whole model on each device (DDP)", placement.count, "ddp")
    if plan.run.quantization:
        return
    if placement.count > 1 and placement.sharding != "fsdp2":
        yield _spread("weights shared out by FSDP2", placement.count, "fsdp2")
    if placement.shards_weights and 2 * placement.count <= MAX_DEVICES:
        more = replace(placement, count=2 * placement.count)
        yield Change("twice as many devices", {}, more, {"devices": more.count})
    if placement.count == 1 and not plan.run.lora_rank:
        yield _spread("weights shared out by FSDP2 over 8 devices", 8, "fsdp2")


def _spread(name: str, count: int, sharding: str) -> Change:
    """Another of accelerate's files."""
    return Change(name, {}, Placement(count, sharding), {"accelerate": ACCELERATE_FILES[sharding], "devices": count})
