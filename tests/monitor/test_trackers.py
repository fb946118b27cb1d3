"""What trackers (``report_to``) are given: the documented names, each in its own group."""

from __future__ import annotations

import sys
from fnmatch import fnmatch

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from dapo_trl import DAPOTrainer
from dapo_trl.monitor.metrics import INHERITED, METRICS
from dapo_trl.monitor.trackers import grouped_names

from ..conftest import SHIPPED_MODEL
from ..support.recorded import config

AT_THE_END = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss"}


class Tracker(TrainerCallback):
    """Takes logs in as those of Transformers do."""

    def __init__(self):
        self.names: set[str] = set()
        self.raw: set[str] = set()

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.raw |= set(logs)
        self.names |= set(integration_utils.rewrite_logs(logs))


def known(name: str) -> bool:
    return name in AT_THE_END or any(fnmatch(name, pattern) for pattern in METRICS | INHERITED)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Two optimizer steps of a real run; TensorBoard is told of them as well where it is installed."""
    folder = tmp_path_factory.mktemp("tracked")
    try:
        import tensorboard  # noqa: F401

        report_to = ["tensorboard"]
    except ImportError:
        report_to = []
    tracker = Tracker()
    args = config(folder, num_generations=8, per_device_train_batch_size=16, max_steps=2, report_to=report_to)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORBOARD_LOGGING_DIR", str(folder / "events"))
        run = DAPOTrainer(str(SHIPPED_MODEL), args=args, env="math/Arithmetic-v0", callbacks=[tracker])
        run.train()
        run.close()
    return tracker, folder / "events"


ELSEWHERE = ["gradient/mismatch_long", "gradient/sample_size", "time/push", "vllm/pushed_mib"]
"""Logged with vLLM; those of a judge in tests/envs/judges/test_training.py."""


def test_every_name_that_is_logged_is_documented_and_the_other_way_round(tracked):
    tracker, _ = tracked
    assert not [name for name in tracker.raw if not known(name)]
    documented = [name for name in METRICS if "*" not in name and not name.startswith(("eval_", "figures/"))]
    assert [name for name in documented if name not in tracker.raw] == ELSEWHERE
    assert any(fnmatch(name, "accuracy/level_*") for name in tracker.raw)


def test_every_name_stands_in_its_group(tracked):
    tracker, _ = tracked
    groups = {name.split("/")[0] for name in METRICS if "/" in name}
    assert {name.split("/")[0] for name in tracker.names} <= groups | {"train", "rewards"}
    assert {"accuracy/sampled", "ledger/tokens", "train/entropy", "train/loss"} <= tracker.names


def test_tensorboard_has_the_same_names(tracked):
    tracker, events = tracked
    if "tensorboard" not in sys.modules:
        pytest.skip("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(events))
    found.Reload()
    assert set(found.Tags()["scalars"]) == tracker.names


def test_other_trainers_keep_their_names():
    logs = {"loss": 1, "accuracy/sampled": 2, "eval_accuracy": 3, "eval_accuracy/sampled": 4}
    with grouped_names():
        assert list(integration_utils.rewrite_logs(logs)) == [
            "accuracy/sampled",
            "train/loss",
            "eval/accuracy",
            "eval/accuracy/sampled",
        ]
    assert "train/accuracy/sampled" in integration_utils.rewrite_logs(logs)
