"""Every metric that a run logs: name, definition, the items it is taken over, and healthy range.

Metrics that are means over tokens are exact: sums and counts are collected over the micro-batches of an optimizer
step, reduced once over all processes, then divided (`update.token_means`). ``docs/metrics.md`` is made from this file.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..sampling.token_ledger import ACCOUNTS
from ..update import gradient_ledger


@dataclass(frozen=True)
class Metric:
    """What a logged number means."""

    definition: str
    over: str
    """The items that it is a mean, sum or count over."""
    healthy: str


METRICS: dict[str, Metric] = {
    # metrics that the trainer adds or redefines; * stands for any name
    "accuracy/sampled": Metric(
        "raw correctness before the filter; without an environment the score that `filter_key` names",
        "all completions sampled",
        "rises",
    ),
    "accuracy/trained": Metric("raw correctness after the filter", "completions that passed it", "0.2 to 0.8"),
    "accuracy/level_*": Metric(
        "raw correctness of one level of difficulty, where the task names 12 levels or fewer",
        "groups sampled of that level",
        "rises",
    ),
    **{
        f"difficulty/{name}": Metric(f"prompts {meaning}, as the model is now", "groups sampled", healthy)
        for name, meaning, healthy in (
            ("unsolved", "whose completions are all wrong", "falls"),
            ("hard", "with up to a third of the completions correct", "-"),
            ("medium", "with a third to two thirds of them correct", "a good part"),
            ("easy", "with over two thirds of them correct", "-"),
            ("solved", "whose completions are all correct", "rises"),
        )
    },
    **{
        f"verdicts/{name}": Metric(meaning, "share of completions sampled", healthy)
        for name, meaning, healthy in (
            ("correct", "judged correct", "rises"),
            ("wrong", "an answer, but not the correct one", "falls"),
            ("no_answer", "no answer was found", "falls to near 0"),
            ("timeout", "a program that ran too long", "near 0"),
            ("crash", "a program that failed", "falls"),
            ("infra_failure", "could not be judged; an infrastructure failure", "0"),
            ("other", "unknown verdicts", "-"),
        )
    },
    **{
        f"figures/{name}": Metric(meaning, f"verdicts of a judge model{over}", healthy)
        for name, meaning, over, healthy in (
            ("judge_known", "share that was known already, from memory or disk", "", "-"),
            ("judge_seconds", "seconds until it was there", ", known ones left aside", "far below time/rollout"),
            ("judge_requests", "requests that it took", ", known ones left aside", "the votes"),
            ("judge_tokens", "tokens of requests and replies", ", known ones left aside", "-"),
            ("judge_failed_votes", "share of its votes that failed", ", known ones left aside", "near 0"),
            ("judge_cost", "its price, by the judge's `prices`", ", known ones left aside", "-"),
        )
    },
    "figures/*": Metric(
        'a number that the environment reports as `info["figures"]`, a sum over the episode',
        "completions sampled that have it",
        "-",
    ),
    "reward/sampled": Metric("reward with penalties, before the filter", "all completions sampled", "rises"),
    "reward": Metric(
        "reward with penalties, after the filter", "fresh completions that passed it", "stays near its middle"
    ),
    "groups/sampled": Metric("groups generated, refills included", "rollout batch", "at most 3 x groups/kept"),
    "groups/kept": Metric("informative groups among them", "rollout batch", "a third of groups/sampled or more"),
    "groups/all_wrong": Metric("groups dropped: all wrong", "rollout batch", "falls; high: too hard"),
    "groups/all_right": Metric("groups dropped: all correct", "rollout batch", "rises late; high: too easy"),
    "groups/constant": Metric("groups dropped: equal scores between 0 and 1", "rollout batch", "near 0"),
    "groups/unscorable": Metric("groups dropped: no completion could be scored", "rollout batch", "0"),
    "groups/shaping_only": Metric(
        "groups dropped whose rewards differ by what the filter leaves out alone, such as the length penalty",
        "rollout batch",
        "-",
    ),
    "groups/banked": Metric("groups trained on from the surplus of the batch before", "rollout batch", "-"),
    "groups/surplus": Metric("surplus informative groups, kept for the next batch", "rollout batch", "small"),
    "groups/trained": Metric("groups of the batch, banked ones included", "rollout batch", "a full batch"),
    "sampling/refill_rounds": Metric("rounds of generation after the first", "rollout batch", "0 to 3"),
    "sampling/rollout_batches": Metric("rollout batches so far", "run", "counts up"),
    "sampling/prompts": Metric("prompts drawn from the stream so far", "run", "counts up"),
    "sampling/groups_trained": Metric("groups of the rollout batches so far", "run", "counts up"),
    "sampling/epochs": Metric("walks through the training data so far", "run", "counts up; 0 for endless data"),
    "sampling/unscorable": Metric("completions without a reward", "share of completions sampled", "0"),
    "completions/mean_length": Metric("tokens, before the filter", "all completions sampled", "no sudden jump"),
    "completions/clipped_ratio": Metric("share truncated at the limit", "all completions sampled", "below 0.1"),
    "completions/min_length": Metric("shortest, in tokens", "all completions sampled", "-"),
    "completions/max_length": Metric("longest, in tokens", "all completions sampled", "below the limit"),
    "completions/mean_terminated_length": Metric("tokens of completions that ended", "completions sampled", "-"),
    "completions/min_terminated_length": Metric("shortest completion that ended", "completions sampled", "-"),
    "completions/max_terminated_length": Metric("longest completion that ended", "completions sampled", "-"),
    "entropy": Metric("entropy of the next-token distribution, nats", "tokens trained on", "falls slowly, never to 0"),
    "kl": Metric("k3 estimate of KL(policy || reference), nats", "tokens trained on", "rises slowly"),
    "importance_ratio/deviation": Metric(
        "distance of the importance ratio from 1", "tokens trained on", "below 0.1; far above: updates too large"
    ),
    "clip_ratio/low_mean": Metric("share whose gradient was clipped at 1 - epsilon", "tokens trained on", "below 0.05"),
    "clip_ratio/high_mean": Metric(
        "share clipped at 1 + epsilon_high", "tokens trained on", "up to 0.05 (always 0: no effect)"
    ),
    "clip_ratio/region_mean": Metric(
        "share clipped at either bound", "tokens trained on", "up to 0.1 (always 0: no effect)"
    ),
    **{
        f"gradient/{account}": Metric(
            f"share of the gradient weight (|advantage| of every token): {meaning}",
            "tokens trained on or masked",
            "above 0.8" if account == "acting" else "near 0",
        )
        for account, meaning in gradient_ledger.ACCOUNTS.items()
    },
    "gradient/mismatch_long": Metric(
        "share of the gradient weight that mismatch_correction takes away, with vLLM",
        "completions longer than half of max_completion_length",
        "near 0",
    ),
    "gradient/sample_size": Metric(
        "effective sample size of mismatch_correction, with vLLM: 1 where all tokens weigh the same",
        "tokens trained on",
        "above 0.9",
    ),
    "eval_accuracy": Metric("avg@k, see docs/evaluation.md", "held-out problems", "rises"),
    "eval_accuracy_low": Metric("lower end of its 95 % interval", "held-out problems", "rises"),
    "eval_accuracy_high": Metric("upper end of its 95 % interval", "held-out problems", "rises"),
    "eval_pass_at_k": Metric("pass@k, with k = eval_samples", "held-out problems", "does not fall"),
    "eval_maj_at_k": Metric("maj@k of the same, where answers are read", "held-out problems", "rises"),
    "eval_truncated": Metric("share truncated at the limit", "held-out completions", "below 0.1"),
    "eval_mean_length": Metric("tokens", "held-out completions", "no sudden jump"),
    "time/rollout": Metric("seconds to generate and score", "rollout batch", "-"),
    "time/update": Metric("seconds of forward and backward passes", "optimizer step", "-"),
    "time/push": Metric("seconds of pushing weights to vLLM", "rollout batch", "far below time/rollout"),
    "vllm/pushed_mib": Metric("MiB of weights pushed to vLLM", "rollout batch", "the adapter's, if one is trained"),
    "update/shared_tokens": Metric(
        "share of the tokens of prompts and completions that is not computed, because a group begins with it",
        "rollout batch",
        "high with long prompts; 0: nothing is shared",
    ),
    "throughput/tokens_per_second": Metric("completion tokens generated per second", "rollout batch", "-"),
    "env/*/groups/places": Metric(
        "places of the rollout batch that an environment of a mixture gets; its groups/trained fill them",
        "rollout batch",
        "its weight's share",
    ),
    "env/*/*": Metric(
        "the metric of that name, of one environment (or task of `mix_column`) of a mixture",
        "its groups, completions, tokens or problems",
        "as of all",
    ),
    "ledger/tokens": Metric("completion tokens generated; the uses below sum to it", "run", "counts up"),
    **{
        f"ledger/{account}_{unit}": Metric(f"{unit}: {meaning}", "run", "-")
        for unit in ("tokens", "seconds")
        for account, meaning in ACCOUNTS.items()
    },
}

INHERITED: dict[str, Metric] = {
    "loss": Metric("objective that the optimizer minimises", "tokens trained on", "uninformative; near 0"),
    "grad_norm": Metric(
        "norm of the gradient before it is clipped to max_grad_norm", "last optimizer step", "no spikes"
    ),
    "learning_rate": Metric("learning rate of the schedule", "optimizer step", "-"),
    "epoch": Metric("optimizer steps as a share of the steps of one pass without refills", "run", "counts up"),
    "num_tokens": Metric("tokens of prompts and completions so far", "run", "counts up"),
    "reward_std": Metric("standard deviation of the reward", "fresh completions that passed the filter", "above 0"),
    "rewards/*/mean": Metric("one reward function", "fresh completions that passed the filter", "-"),
    "rewards/*/std": Metric("its standard deviation", "fresh completions that passed the filter", "-"),
    "frac_reward_zero_std": Metric("groups without a difference in reward", "groups trained on", "0"),
    "step_time": Metric("seconds of sampling and updating", "optimizer step", "-"),
    "sampling/sampling_logp_difference/*": Metric(
        "distance of vLLM's log-probabilities from the trainer's", "tokens", "below 0.05"
    ),
    "sampling/importance_sampling_ratio/*": Metric(
        "trainer's probability over vLLM's, within vllm_importance_sampling_clip_min and _max", "tokens", "near 1"
    ),
}
"""Metrics of TRL and Transformers, as they are logged here."""
