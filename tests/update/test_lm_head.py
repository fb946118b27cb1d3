"""The language-model head without Triton: TRL's own results, from labelled positions alone."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.kernels import chunked_logprob
from trl.trainer import utils as trainer_utils
from trl.trainer.utils import add_fused_lm_head

from dapo_trl.trl_internals import head_on_cpu

TOKENS, WIDTH, VOCABULARY, CHUNK = 13, 8, 50, 16  # the last tile is narrower


def head(outputs: tuple[str, ...], *, softcap: float | None, dtype: torch.dtype, entropy_grad: bool):
    """Values and gradients of TRL's head on random states; with temperature, scale and bias."""
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    weight = (3 * torch.randn(VOCABULARY, WIDTH)).requires_grad_()
    bias = torch.randn(VOCABULARY, requires_grad=True)
    targets = torch.randint(VOCABULARY, (TOKENS,))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = chunked_logprob.ChunkedLogProbFunction.apply(
            hidden, weight, bias, targets, 0.7, CHUNK, softcap, 0.5, outputs
        )
    loss = (found[0] * torch.linspace(-1, 1, TOKENS)).sum()
    (loss + found[1].sum() if entropy_grad else loss).backward()
    return [value for value in found if value is not None], [hidden.grad, weight.grad, bias.grad]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "outputs, softcap, entropy_grad",
    [
        (("log_probs",), None, False),
        (("log_probs", "entropy"), None, False),
        (("log_probs", "entropy"), 5.0, False),
        (("log_probs", "entropy"), None, True),
        (("log_probs", "entropy", "is_top1", "mean_logits", "log_sum_sq_probs"), None, False),
    ],
)
def test_equal_to_trls_own(dtype, outputs, softcap, entropy_grad):
    given = {"softcap": softcap, "dtype": dtype, "entropy_grad": entropy_grad}
    expected, gradients = head(outputs, **given)
    with head_on_cpu():
        found, found_gradients = head(outputs, **given)
    tolerance = {"atol": 5e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.02}
    for mine, theirs in zip([*found, *found_gradients], [*expected, *gradients], strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


def test_only_labelled_positions_are_scored_and_everything_is_put_back(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    ids = torch.arange(3, 23).view(2, 10)
    labels = ids.roll(-1, dims=1).masked_fill(torch.arange(10) < 7, -100)
    scored: list[int] = []
    apply = chunked_logprob.ChunkedLogProbFunction.forward

    def counted(ctx, hidden, *args):
        scored.append(len(hidden))
        return apply(ctx, hidden, *args)

    before = chunked_logprob._forward_tile, chunked_logprob._backward_tile, trainer_utils._use_triton
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_logprob.ChunkedLogProbFunction, "forward", staticmethod(counted))
        plain = model(input_ids=ids, shift_labels=labels, fused_lm_head=True)
        with head_on_cpu():
            mine = model(input_ids=ids, shift_labels=labels, fused_lm_head=True)
            model(input_ids=ids, shift_labels=torch.full_like(ids, -100), fused_lm_head=True).log_probs.sum().backward()
    assert scored == [20, 6, 0]
    torch.testing.assert_close(mine.log_probs, plain.log_probs)
    torch.testing.assert_close(mine.entropy, plain.entropy)
    assert before == (chunked_logprob._forward_tile, chunked_logprob._backward_tile, trainer_utils._use_triton)
