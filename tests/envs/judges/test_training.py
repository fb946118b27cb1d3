"""A run whose completions a judge grades: its cost is logged, and an outage is masked."""

from __future__ import annotations

import pytest

from dapo_trl import DAPOConfig, DAPOTrainer
from dapo_trl.monitor.metrics import METRICS
from envs import TaskEnv

from ...support.judge_server import JudgeServer, running


class Graded(TaskEnv):
    num_rows = 8

    def __init__(self, judge):
        super().__init__()
        self.judge, self.max_concurrency = judge, judge.max_concurrency

    def row(self, index):
        return {"prompt": f"Say something, {index}: "}

    def verify(self, row, completion):
        return self.judge(row["prompt"], completion)


def test_what_a_judge_costs_is_logged(tiny_model, judge_of, tmp_path):
    with running(JudgeServer(lambda asked: len(asked.answer) % 3 / 2)) as server:
        judge = judge_of(server, prices=(1.0, 2.0), max_concurrency=4)
        server.faults = [lambda body: "no verdict"]
        args = DAPOConfig(
            output_dir=str(tmp_path),
            num_generations=4,
            per_device_train_batch_size=8,
            steps_per_generation=1,
            max_completion_length=6,
            max_steps=1,
            group_filter="none",
            overlong_shape="none",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
        )
        run = DAPOTrainer(tiny_model, args=args, env=Graded(judge))
        run.train()
    log = next(log for log in run.state.log_history if "figures/judge_known" in log)
    shown = {name for name in log if name.startswith("figures/")}
    assert shown == {name for name in METRICS if name.startswith("figures/") and "*" not in name}
    asked = 1 - log["figures/judge_known"]
    assert log["figures/judge_requests"] == 1 and log["figures/judge_tokens"] == 120
    assert log["figures/judge_cost"] == pytest.approx((100 * 1 + 20 * 2) / 1e6) and asked > 0
    assert log["figures/judge_failed_votes"] == pytest.approx(1 / len(server.requests))
    assert log["verdicts/infra_failure"] == pytest.approx(1 / 8)
