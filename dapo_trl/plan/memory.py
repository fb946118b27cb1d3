"""Bytes that one device holds, part by part: numbers in, numbers out.

What is held all the time and what is held in one phase alone are kept apart; a run needs the first and the largest of
the second. What was measured against these formulas is in docs/hardware.md; the rest is marked where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .cards import GIB, MIB
from .weights import Weights

FLOAT32, HALF = 4, 2

CUDA_CONTEXT = 600 * MIB
"""Context, kernels and workspaces of CUDA and its libraries in a process. Taken from experience, not measured here."""
LIBRARIES = 700 * MIB
"""Interpreter and imported libraries on a CPU: 0.6 to 0.7 GiB resident, measured by benchmarks/planner.py."""
TILE_TOKENS, TILE_WIDTH = 4096, 32768
"""Of the language-model head in TRL 1.16: scores are computed in tiles of so many tokens and entries of the vocabulary
(trl/kernels/chunked_logprob.py)."""
TORCH_TILES = 7.25
"""Tiles in float32 that the head's backward pass holds at once where there is no Triton, on a CPU: seven and a mask,
counted in its source (`_backward_tile`)."""
DEEPSPEED_BUCKET = 500_000_000
"""Numbers in DeepSpeed's buckets for reducing and gathering (``reduce_bucket_size``, ``allgather_bucket_size``)."""
SAMPLING_COPIES = 4
"""Of the next-token scores, ``[rows, vocabulary]``: float32, after the processors, as probabilities, and the noise that
draws from them (transformers' ``_sample``, ``torch.multinomial``)."""

_ADAM = ("adamw_torch", "adamw_torch_fused", "adamw_apex_fused", "adamw_anyprecision", "adamw_hf", "stable_adamw")
_STATES = {  # numbers per trained parameter; those of 8-bit optimizers take a byte and a share of a block's constant
    **dict.fromkeys((*_ADAM, "paged_adamw", "paged_adamw_32bit"), (2, None)),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "ademamix_8bit", "adamw_torch_8bit"), (2, 1)),
    **dict.fromkeys(("lion_32bit", "lion", "paged_lion", "paged_lion_32bit", "rmsprop", "adagrad"), (1, None)),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit", "rmsprop_bnb_8bit"), (1, 1)),
    **dict.fromkeys(("sgd",), (0, None)),
    **dict.fromkeys(("adafactor",), (0, None)),  # a row and a column for each matrix: next to nothing
}
EIGHT_BIT_STATE = 1 + FLOAT32 / 256
"""Bytes of a number in an 8-bit optimizer: a byte, and a float32 for each block of 256 (arXiv 2110.02861)."""


@dataclass(frozen=True)
class Memory:
    """What one device holds."""

    held: Mapping[str, int]
    """bytes by part, all the time"""
    phases: Mapping[str, Mapping[str, int]]
    """bytes by phase and part, one phase after the other"""

    @property
    def fullest(self) -> str:
        """The phase that needs the most."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def peak(self) -> int:
        return sum(self.held.values()) + sum(self.phases[self.fullest].values())


def optimizer_bytes(name: str, parameters: int, size: float) -> int:
    """States of an optimizer; of an unknown one as of Adam.

    Args:
        parameters: trained ones on this device.
        size: bytes of each as it is trained, which PyTorch's optimizers take for their states too.
    """
    count, byte = _STATES.get(name, (2, None))
    return round(count * parameters * (size if byte is None else EIGHT_BIT_STATE))


def optimizer_scratch(name: str, trained_bytes: int, largest_bytes: int, *, cuda: bool) -> int:
    """What an optimizer step needs for its duration. ``adamw_torch`` works on all parameters at once on a GPU and keeps
    one number for each (``foreach``), on one after the other on a CPU; the fused form needs nothing."""
    if "fused" in name or name.endswith("8bit"):
        return 0
    return trained_bytes if cuda else 2 * largest_bytes


def model_bytes(
    weights: Weights, *, sharding: str, devices: int, optimizer: str, mixed: bool, offload: tuple[bool, bool]
) -> tuple[dict[str, int], dict[str, int]]:
    """Weights, gradients and optimizer states of one device, and what moving them about needs.

    - one device, DDP: everything on each; DDP keeps a second copy of the gradients in its buckets (torch's
      ``gradient_as_bucket_view`` is off in accelerate).
    - ZeRO-2 and ZeRO-3 (arXiv 1910.02054, section 3) in bfloat16: weights and gradients of 2 bytes, a float32 master
      copy and the states shared out; weights shared out by ZeRO-3 alone.
    - FSDP2: accelerate makes trained weights float32 when precision is mixed, and shares out everything; two
      layers at a time and what lies outside the layers are whole, and TRL's head is gathered as it is stored.

    Args:
        mixed: computes in half precision.
        offload: the optimizer's states, and the weights, are kept in the machine's memory.

    Returns:
        Held all the time; held in training alone (the gradients).
    """
    away_optimizer, away_weights = offload
    size = weights.trained_bytes / max(weights.trained, 1)
    if sharding in ("none", "ddp"):
        held = {
            "weights, trained": weights.trained_bytes,
            "weights, frozen": weights.frozen_bytes,
            "optimizer states": optimizer_bytes(optimizer, weights.trained, size),
        }
        if sharding == "ddp":
            held["gradient buckets"] = weights.trained_bytes
        return _some(held), {"gradients": weights.trained_bytes}
    if sharding in ("zero2", "zero3"):
        size = HALF if mixed else FLOAT32
        shared, weight_share = devices, devices if sharding == "zero3" else 1
        master = FLOAT32 * weights.trained // shared if mixed else 0
        held = {
            "weights, trained": 0 if away_weights else size * weights.trained // weight_share,
            "weights, frozen": 0 if away_weights else weights.frozen_bytes // weight_share,
            "master weights": 0 if away_optimizer else master,
            "optimizer states": 0 if away_optimizer else optimizer_bytes(optimizer, weights.trained // shared, FLOAT32),
            "gathered layers": (2 * size * weights.layer + size * weights.outside) if sharding == "zero3" else 0,
            "communication buckets": 2 * size * min(DEEPSPEED_BUCKET, weights.trained),
        }
        return _some(held), {"gradients": size * weights.trained // shared}
    if sharding != "fsdp2":
        raise ValueError(f"sharding is {sharding!r}: expected none, ddp, zero2, zero3 or fsdp2.")
    size = FLOAT32 if mixed else size
    compute = HALF if mixed else size
    held = {
        "weights, trained": 0 if away_weights else round(size * weights.trained / devices),
        "weights, frozen": 0 if away_weights else weights.frozen_bytes // devices,
        "optimizer states": 0 if away_optimizer else optimizer_bytes(optimizer, weights.trained // devices, size),
        "gathered layers": round(compute * (2 * weights.layer + weights.outside) + size * weights.head),
    }
    gathered_gradient = compute * weights.layer * (weights.trained / max(weights.total, 1))
    return _some(held), {"gradients": round(size * weights.trained / devices + gathered_gradient)}


def reference_bytes(weights: Weights, size: int, *, sharding: str, devices: int) -> int:
    """The reference model of a KL penalty in full training, a second set of weights; an adapter needs none, because it
    can be switched off. FSDP2 and ZeRO-3 share it out."""
    return size * weights.base // (devices if sharding in ("fsdp2", "zero3") else 1)


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
    """Keys and values of ``rows`` sequences, for transformers' ``generate``; the cache of one layer is there twice
    while it grows."""
    return 2 * rows * length * heads * head_size * size * (layers + 1)


def sampling_bytes(rows: int, vocabulary: int) -> int:
    """Next-token scores of one step of generation."""
    return SAMPLING_COPIES * rows * vocabulary * FLOAT32


def vllm_needs(weights_bytes: int, cache_bytes: int, parallel: int) -> int:
    """The least that vLLM's share must hold: the weights, a sequence of full length, and 1 GiB for its own passes
    (an allowance, not measured)."""
    return (weights_bytes + cache_bytes) // parallel + GIB


def _summed(size: int) -> int:
    """Bytes of a number that is summed in float32, and of its copy where that is of another size."""
    return FLOAT32 if size == FLOAT32 else FLOAT32 + size


def _some(parts: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in parts.items() if size}
