"""Bytes that one device holds, part by part: numbers in, numbers out.

Parts that are held throughout and parts of a single phase are kept apart; a run needs all of the first and the largest
of the second. docs/hardware.md compares these formulas with measurements; a figure without one is marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .devices import GIB, MIB, Placement
from .trace import Weights

FLOAT32, HALF = 4, 2

CUDA_CONTEXT = 600 * MIB
"""Context, kernels and workspaces of CUDA and its libraries in a process. Taken from experience, not measured here."""
LIBRARIES = 500 * MIB
"""Python and imported libraries on a CPU after a first training step: 498 to 506 MiB, measured by
benchmarks/planner.py (PyTorch 2.13, its CPU build)."""
TILE_TOKENS, TILE_WIDTH = 4096, 32768
"""Tokens and vocabulary entries of a tile, in which TRL 1.16 computes the scores of the language-model head
(trl/kernels/chunked_logprob.py)."""
TORCH_TILES = 7.25
"""Tiles in float32 that the head's backward pass holds at once where there is no Triton, on a CPU: seven and a mask,
counted in its source (`_backward_tile`)."""
DEEPSPEED_BUCKET = 500_000_000
"""Numbers in DeepSpeed's buckets for reducing and gathering (``reduce_bucket_size``, ``allgather_bucket_size``)."""
SAMPLING_COPIES = 4
"""Copies of the next-token scores ``[rows, vocabulary]``: float32, processed, as probabilities, and the noise that
draws from them (transformers' ``_sample``, ``torch.multinomial``)."""

_STATES = {"sgd": 0, "adafactor": 0, "lion": 1, "rmsprop": 1, "adagrad": 1}
"""Numbers that an optimizer keeps of each parameter, by a part of its name; two for all others, which are kinds of
Adam. Adafactor's row and column of each matrix are next to nothing."""
EIGHT_BIT_STATE = 1 + FLOAT32 / 256
"""Bytes of a number in an 8-bit optimizer: a byte, and a float32 for each block of 256 (arXiv 2110.02861)."""


@dataclass(frozen=True)
class Memory:
    """Bytes that one device holds."""

    held: Mapping[str, int]
    """Bytes by part, throughout the run."""
    phases: Mapping[str, Mapping[str, int]]
    """Bytes by phase and part; phases follow one another."""

    @property
    def fullest(self) -> str:
        """The phase that needs the most."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def peak(self) -> int:
        """Bytes of the fullest phase, with everything that is held throughout."""
        return sum(self.held.values()) + sum(self.phases[self.fullest].values())


def optimizer_bytes(name: str, parameters: int, size: float) -> int:
    """States of an optimizer.

    Args:
        name: as in transformers' ``optim``; ``8bit`` in it means quantised states.
        parameters: trained ones on this device.
        size: bytes of each as it is trained, which PyTorch's optimizers take for their states too.
    """
    count = next((count for part, count in _STATES.items() if part in name), 2)
    return round(count * parameters * (EIGHT_BIT_STATE if "8bit" in name else size))


def optimizer_scratch(name: str, trained_bytes: int, largest_bytes: int, *, cuda: bool) -> int:
    """Bytes that an optimizer step needs for itself. ``adamw_torch`` works on all parameters at once on a GPU and keeps
    one number for each (``foreach``), on one after the other on a CPU; the fused form needs nothing."""
    if "fused" in name or "8bit" in name:
        return 0
    return trained_bytes if cuda else 2 * largest_bytes


def model_bytes(
    weights: Weights, *, placement: Placement, optimizer: str, mixed: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """Weights, gradients and optimizer states of one device, and the buffers for moving them.

    - one device, DDP: everything on each; DDP keeps a second copy of the gradients in its buckets (torch's
      ``gradient_as_bucket_view`` is off in accelerate).
    - ZeRO-2 and ZeRO-3 (arXiv 1910.02054, section 3) in bfloat16: weights and gradients of 2 bytes, a float32 master
      copy and the states shared out; weights shared out by ZeRO-3 alone.
    - FSDP2: accelerate makes trained weights float32 when precision is mixed, and shares out everything; two
      layers at a time and what lies outside the layers are whole, and TRL's head is gathered as it is stored.

    Args:
        mixed: computes in half precision.

    Returns:
        Held all the time; held in training alone (the gradients).
    """
    sharding, devices = placement.sharding, placement.count
    size = weights.trained_bytes / max(weights.trained, 1)
    if sharding in ("none", "ddp"):
        held = {
            "weights, trained": weights.trained_bytes,
            "weights, frozen": weights.frozen_bytes,
            "optimizer states": optimizer_bytes(optimizer, weights.trained, size),
            "gradient buckets": weights.trained_bytes if sharding == "ddp" else 0,
        }
        gradients = weights.trained_bytes
    elif sharding in ("zero2", "zero3"):
        size, share = HALF if mixed else FLOAT32, devices if sharding == "zero3" else 1
        held = {
            "weights, trained": size * weights.trained // share,
            "weights, frozen": weights.frozen_bytes // share,
            "master weights": FLOAT32 * weights.trained // devices if mixed else 0,
            "optimizer states": optimizer_bytes(optimizer, weights.trained // devices, FLOAT32),
            "gathered layers": (2 * size * weights.layer + size * weights.outside) if sharding == "zero3" else 0,
            "communication buckets": 2 * size * min(DEEPSPEED_BUCKET, weights.trained),
        }
        gradients = size * weights.trained // devices
    elif sharding == "fsdp2":
        size = FLOAT32 if mixed else size
        compute = HALF if mixed else size
        held = {
            "weights, trained": round(size * weights.trained / devices),
            "weights, frozen": weights.frozen_bytes // devices,
            "optimizer states": optimizer_bytes(optimizer, weights.trained // devices, size),
            "gathered layers": round(compute * (2 * weights.layer + weights.outside) + size * weights.head),
        }
        gathered_gradient = compute * weights.layer * (weights.trained / max(weights.total, 1))
        gradients = round(size * weights.trained / devices + gathered_gradient)
    else:
        raise ValueError(f"sharding is {sharding!r}: expected none, ddp, zero2, zero3 or fsdp2.")
    away = {"weights, trained", "weights, frozen"} if placement.offload_weights else set()
    away |= {"master weights", "optimizer states"} if placement.offload_optimizer else set()
    return {name: bytes for name, bytes in held.items() if bytes and name not in away}, {"gradients": gradients}


def reference_bytes(weights: Weights, size: int, placement: Placement) -> int:
    """The reference model of a KL penalty in full training, a second set of weights; an adapter needs none, because it
    can be switched off. FSDP2 and ZeRO-3 share it out.

    Args:
        size: bytes of a weight as it is loaded.
    """
    return size * weights.base // (placement.count if placement.shards_weights else 1)


@dataclass(frozen=True)
class FullestPass:
    """The microbatch of the most tokens: lines of one length, each a group that computes its prompt once."""

    lines: int
    length: int
    """Tokens of a line."""
    scored: int
    """Tokens of the completions."""
    passes: int
    """Microbatches of an optimizer step like this one."""

    @property
    def tokens(self) -> int:
        """Tokens that it computes."""
        return self.lines * self.length


def fullest_pass(
    rows: int, group: int, *, prompt: int, completion: int, budget: int, shrinks: bool = False
) -> FullestPass:
    """The fullest microbatch of an optimizer step of rows that are all as long as can be.

    Args:
        rows: of the step on this device.
        group: rows that share a prompt; 1: each has its own.
        budget: tokens of a microbatch; a longer row is by itself.
        shrinks: the budget is one for separate prompts, and sharing takes its share off it.
    """
    members = max(min(group, (budget - prompt) // completion), 1)
    length = prompt + members * completion
    counted = members * (prompt + completion) if shrinks else length
    lines = max(min(budget // counted, -(-rows // members)), 1)
    return FullestPass(lines, length, lines * members * completion, passes=-(-rows // (lines * members)))


def head_bytes(
    tokens: int, *, vocabulary: int, hidden: int, size: int, weight_size: int, trained: bool, cuda: bool
) -> tuple[int, int]:
    """The language-model head with TRL's tiled log-probabilities, which never hold ``[tokens, vocabulary]`` scores.

    Args:
        tokens: scored in the pass.
        size: bytes of a number as it is computed with.
        weight_size: bytes of a weight as it is stored.
        trained: the head's weights get a gradient. Like that of its input it is summed in float32, and copied where it
            is to be of another size.
        cuda: with Triton; without, tiles of intermediate results are added, and of a tile wider than the vocabulary
            only the memory pages in use count.

    Returns:
        Bytes at the end of the forward pass, and in the backward pass.
    """
    rows, width = min(tokens, TILE_TOKENS), min(vocabulary, TILE_WIDTH)
    tile = rows * (TILE_WIDTH if cuda else max(width, 1024)) * size
    extra = 0 if cuda else round(TORCH_TILES * rows * width * FLOAT32)
    gradients = tokens * hidden * _summed(size) + (vocabulary * hidden * _summed(weight_size) if trained else 0)
    return tile + extra, tile + extra + gradients


def kv_cache_bytes(rows: int, length: int, *, layers: int, heads: int, head_size: int, size: int) -> int:
    """Keys and values of ``rows`` sequences of ``length`` tokens.

    Args:
        heads: of keys and values, which grouped queries share.
        size: bytes of a number.
    """
    return 2 * rows * length * layers * heads * head_size * size


def sampling_bytes(rows: int, vocabulary: int) -> int:
    """Next-token scores of one step of generation."""
    return SAMPLING_COPIES * rows * vocabulary * FLOAT32


def dequantized_bytes(largest: int) -> int:
    """Bytes that 4-bit weights need while they are multiplied: one matrix at a time in half precision (bitsandbytes'
    ``MatMul4Bit``).

    Args:
        largest: numbers of the largest matrix that is stored in 4 bits.
    """
    return HALF * largest


def vllm_needs(weights_bytes: int, cache_bytes: int, parallel: int) -> int:
    """Minimum of vLLM's share in bytes: the weights, a sequence of full length, and 1 GiB for its own passes
    (an allowance, not measured)."""
    return (weights_bytes + cache_bytes) // parallel + GIB


def _summed(size: int) -> int:
    """Bytes of a number that is summed in float32, and of its copy where that is of another size."""
    return FLOAT32 if size == FLOAT32 else FLOAT32 + size
