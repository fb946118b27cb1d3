"""Predicted and measured weights where the sampler's probabilities are not quite the trainer's.

    python benchmarks/mismatch.py            # about ten minutes on one core
    python benchmarks/mismatch.py --quick    # about two minutes
    python benchmarks/mismatch.py --also path/to/smollm2-135m    # a further model for the second part

*Planted*: `DAPOTrainer` with models/rambling-0.8m and a stand-in for vLLM, whose log-probabilities differ from the
model's by normal noise of known spread s. Its completions are random letters of full length, and the sums of the noise
lie at the quantiles of their distribution. Every mode of `mismatch_correction` is predicted by its closed form
(`dapo_trl.update.mismatch.expected`) and measured by the trainer's weights and by its gradient ledger.

*Real*: a model samples in float32, as one engine would, and is scored in bfloat16, under autocast as in a run with
``bf16: true``. The end token is left out on both sides, so that all completions are equally long. s is measured, the
weights are predicted from it and measured.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from common import Claim, console, finish, parser_of, show
from datasets import Dataset
from measured import ROOT, quieten
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dapo_trl import DAPOConfig, DAPOTrainer
from dapo_trl.update.batching import Microbatch
from dapo_trl.update.gradient_ledger import gradient_shares, gradient_sums
from dapo_trl.update.mismatch import MODES, correction, expected

sys.path.insert(0, str(ROOT))
from tests.support import vllm_stand_in

SHIPPED = [ROOT / "models" / name for name in ("rambling-0.8m", "arithmetic-0.8m")]
SPREADS = (0.005, 0.01, 0.02, 0.05)
BOUND = {"low": None, "high": 3.0}
GROUP = 8
FIGURES = ("spread", "predicted", "measured")


def planted(lengths: tuple[int, ...], rows: int) -> list[dict[str, Any]]:
    """One entry for each length, spread and mode."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        model = _with_context(SHIPPED[0], Path(folder) / "model", max(lengths) + 64)
        for tokens in lengths:
            known: dict[tuple[int, int], Any] = {}
            vllm_stand_in.Engine.sample = vllm_stand_in.noisy(SPREADS[0], known=known)
            batch = _trainer(model, Path(folder), tokens, rows).trl.whole_batch(
                [{"prompt": f"row {i // GROUP:03}"} for i in range(rows)]
            )
            mask = Microbatch.from_trl(batch).loss_mask
            assert int(mask.sum()) == rows * tokens
            for spread in SPREADS:  # of the same completions
                vllm_stand_in.Engine.sample = vllm_stand_in.noisy(spread, known=known)
                sampler = torch.tensor([values for _, values in vllm_stand_in.LLM.made[0].sample([[0]], rows, tokens)])
                found += _weights(batch["old_per_token_logps"] - sampler, mask, spread)
    return found


def _with_context(model: Path, folder: Path, tokens: int) -> str:
    """A copy of the model that takes longer completions."""
    config = AutoConfig.from_pretrained(model, max_position_embeddings=tokens)
    AutoModelForCausalLM.from_pretrained(model, config=config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


def _trainer(model: str, folder: Path, tokens: int, rows: int) -> DAPOTrainer:
    vllm_stand_in.install(model)
    args = DAPOConfig(
        output_dir=str(folder),
        use_vllm=True,
        vllm_mode="colocate",
        mismatch_check=False,
        max_completion_length=tokens,
        per_device_train_batch_size=rows,
        num_generations=GROUP,
        microbatch_tokens=8192,
        overlong_shape="none",
        beta=0.0,
        max_steps=1,
        report_to=[],
        bf16=False,
        use_cpu=True,
    )
    return DAPOTrainer(model, _no_reward, args, Dataset.from_dict({"prompt": ["1+1="]}))


def _no_reward(completions: list[Any], **_: Any) -> list[float]:
    return [0.0] * len(completions)


def _weights(differences: Tensor, mask: Tensor, spread: float) -> list[dict[str, Any]]:
    rows, tokens = mask.shape
    advantages = torch.tensor([1.0, -1.0]).repeat(rows // 2)
    found = []
    for mode in MODES:
        weights = correction(differences, mask, mode, **BOUND)
        sums = gradient_sums(advantages, mask, masked_tokens=torch.tensor(0), weights=weights, long=tokens // 2)
        shares = gradient_shares(sums.tolist())
        predicted = expected(spread, tokens, mode, **BOUND)
        found.append(
            {
                "tokens": tokens,
                "planted": spread,
                "spread": float(differences.std()),
                "mode": mode,
                "predicted": predicted.weight,
                "measured": float((weights * mask).sum() / mask.sum()),
                "acting": shares["acting"],
                "lost": shares["mismatch"],
                "predicted_size": predicted.sample_size,
                "sample_size": shares["sample_size"],
            }
        )
    return found


@torch.no_grad()
def real(model: Path, lengths: tuple[int, ...], rows: int) -> list[dict[str, Any]]:
    """One entry for each length and mode; the shorter completions are the beginnings of the longest."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = [f"{first}+{second}=" for first, second in itertools.product(range(12, 28), range(31, 31 + rows // 16))]
    torch.manual_seed(0)
    differences = torch.cat(
        [_differences(policy, tokenizer, prompts[first : first + 16], max(lengths)) for first in range(0, rows, 16)]
    )
    found = []
    for tokens, mode in itertools.product(lengths, MODES):
        parts = differences[:, :tokens]
        spread, mask = float(parts.std()), torch.ones_like(parts)
        predicted = expected(spread, tokens, mode, **BOUND).weight
        measured = float(correction(parts, mask, mode, **BOUND).mean())
        sums = float(parts.sum(dim=1).std()) / tokens**0.5
        entry = {"model": model.name, "tokens": tokens, "spread": spread, "of_sums": sums, "mode": mode}
        found.append({**entry, "predicted": predicted, "measured": measured})
    return found


def _differences(policy: Any, tokenizer: Any, prompts: list[str], tokens: int) -> Tensor:
    """``[N, T]``: log-probabilities in bfloat16 less those in float32, of tokens sampled in float32."""
    ids = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    start, ends = ids.input_ids.shape[1], torch.tensor(tokenizer.eos_token_id)
    cache, newest, mask, whole = None, ids.input_ids, ids.attention_mask, ids.input_ids
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for _ in range(tokens):
        step = policy(newest, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        logits = step.logits[:, -1].index_fill(1, ends, -torch.inf)
        cache, newest = step.past_key_values, torch.multinomial(logits.softmax(-1), 1)
        whole = torch.cat([whole, newest], dim=1)
        mask, positions = torch.cat([mask, torch.ones_like(newest)], dim=1), positions[:, -1:] + 1
    places = (mask.cumsum(1) - 1).clamp(min=0)

    def scored(rows: slice, dtype: torch.dtype | None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            logits = policy(whole[rows], attention_mask=mask[rows], position_ids=places[rows]).logits[:, start - 1 : -1]
        logps = logits.float().index_fill(2, ends, -torch.inf).log_softmax(-1)
        return logps.gather(2, whole[rows, start:, None])[..., 0]

    parts = [slice(first, first + 4) for first in range(0, len(prompts), 4)]
    return torch.cat([scored(rows, torch.bfloat16) - scored(rows, None) for rows in parts])


def off(entry: dict[str, Any]) -> float:
    """Distance of the measured from the predicted weight, as a share of it."""
    return abs(entry["measured"] / entry["predicted"] - 1)


def shown(title: str, entries: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    """A table of the entries, with these of their figures."""
    cells = [[f"{e[name]:.4f}" if isinstance(e[name], float) else str(e[name]) for name in names] for e in entries]
    show(title, [name.replace("_", " ") for name in names], cells)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--also", type=Path, action="append", default=[], help="a further model's folder")
    options = parser.parse_args()
    quieten()
    logging.getLogger("dapo_trl").setLevel(logging.ERROR)
    noise = planted((128, 256, 512, 1024), 192) if options.quick else planted((256, 512, 1024, 2048), 256)
    shown("Planted noise", noise, ("mode", "tokens", "planted", *FIGURES, "acting", "sample_size", "predicted_size"))
    rounding: list[dict[str, Any]] = []
    for model in SHIPPED:
        rounding += real(model, (128, 512), 64) if options.quick else real(model, (128, 512, 1000), 256)
    for model in options.also:
        rounding += real(model, (32, 96), 48)
    shown("Sampled in float32, scored in bfloat16", rounding, ("model", "mode", "tokens", "of_sums", *FIGURES))
    ledger = max(max(abs(e["acting"] - e["predicted"]), abs(e["lost"] - 1 + e["predicted"])) for e in noise)
    claims = [
        Claim("planted noise: measured / predicted weight, largest distance from 1", max(map(off, noise)), 0.05),
        Claim("planted noise: gradient ledger, largest distance from the closed form", ledger, 0.01, unit="share"),
    ]
    for name in dict.fromkeys(e["model"] for e in rounding):
        most = max(off(e) for e in rounding if e["model"] == name)
        claims.append(Claim(f"bfloat16, {name}: measured / predicted weight, largest distance from 1", most, 0.1))
    finish(claims, options.json)
    if options.json is not None:
        kept = json.loads(options.json.read_text()) | {"measured": {"planted": noise, "bfloat16": rounding}}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    console.print(f"one CPU thread, torch {torch.__version__}")


if __name__ == "__main__":
    main()
