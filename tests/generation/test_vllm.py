"""The other ways to generate: continuous batching, for real, and vLLM, against a stand-in of the classes that TRL takes
from it, with TRL's own code around them."""

from __future__ import annotations

import contextlib
import json
import os
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from datasets import Dataset

from dapo_trl import DAPOTrainer
from dapo_trl.cli.main import main
from dapo_trl.generation.params import Turns
from dapo_trl.generation.vllm import VLLMBackend
from dapo_trl.update.gradient_ledger import ACCOUNTS

from ..cli.test_main import config_file
from ..support import vllm_run
from ..support.recorded import config
from ..support.vllm_stand_in import SHIFT
from ..support.warm_start import CPU_2

COLOCATE = {"vllm_mode": "colocate", "vllm_importance_sampling_mode": "token_truncate"}
SERVER = {"vllm_mode": "server", "vllm_importance_sampling_mode": "sequence_truncate"}


@pytest.mark.parametrize(
    ("changes", "processes"),
    [
        (COLOCATE, 1),
        (COLOCATE | {"vllm_enable_sleep_mode": True}, 1),
        (SERVER, 1),
        pytest.param(SERVER, 2, marks=pytest.mark.slow),
        pytest.param(COLOCATE | {"vllm_enable_sleep_mode": True}, 2, marks=pytest.mark.slow),
    ],
    ids=["colocate", "sleeping", "server", "server, two processes", "sleeping, two processes"],
)
def test_many_turns_and_rounds_on_one_push_of_each_policy(
    request, tiny_model, tmp_path, monkeypatch, changes, processes
):
    if processes == 1:
        for name in ("is_vllm_available", "LLM", "SamplingParams", "VLLMClient"):
            monkeypatch.setattr(f"trl.generation.vllm_generation.{name}", None, raising=False)  # and put back
        with mock.patch.dict(os.environ):  # TRL sets vLLM's there
            found = vllm_run.main(tiny_model, str(tmp_path), changes)
    else:
        arguments = [tiny_model, str(tmp_path), json.dumps(changes)]
        done = request.getfixturevalue("warm_start").run("tests.support.vllm_run", *arguments, accelerate=CPU_2)
        assert done.returncode == 0, done.stderr[-3000:]
        found = torch.load(tmp_path / "found.pt", weights_only=False)
    logs = [row for row in found["logs"] if "groups/sampled" in row]
    sampled = [row for row in logs if row["groups/sampled"]]
    assert found["rounds"] > len(sampled) and len(found["engines"]) == (1 if changes is SERVER else processes)
    assert any(row["groups/banked"] for row in logs)
    for pushes, requests in found["engines"]:
        assert len(pushes) == len(sampled)  # of every policy that sampled, however many rounds and turns it took
        assert all(sorted(names) == found["names"] for names in pushes)
        assert len(requests) > found["rounds"]  # episodes took several turns
        groups = [len(prompts) for prompts, n in requests if n == 8]
        if changes is SERVER:  # the members of a group are asked for as one prompt, later turns one by one
            assert len(groups) == found["rounds"] and sum(groups) == sum(row["groups/sampled"] for row in sampled)
            assert all(len(set(map(tuple, prompts))) == len(prompts) for prompts, n in requests if n == 8)
            assert {n for _, n in requests} == {1, 8}
    # What the loss was corrected by, token for token: the sampler's log-probabilities are too high by SHIFT, for fresh
    # and banked groups alike. It would be anything else had a completion another's prompt, or a policy others' weights.
    assert len(found["ratios"]) > 500
    assert torch.allclose(found["ratios"], torch.tensor(-SHIFT), atol=1e-3)
    accounts = [[row[f"gradient/{name}"] for name in ACCOUNTS] for row in logs if "gradient/zero" in row]
    assert accounts and all(sum(shares) == pytest.approx(1.0, abs=1e-12) for shares in accounts)


def test_continuous_batching_fills_batches_too(tiny_model, tmp_path):
    """TRL's ``use_transformers_continuous_batching``: the same groups, filtered and refilled (slow on a CPU)."""
    args = config(
        tmp_path,
        use_transformers_continuous_batching=True,
        transformers_continuous_batching_config={"num_blocks": 64, "max_batch_tokens": 64},
        max_completion_length=4,
        overlong_shape="none",
        min_valid_fraction=1.0,
        max_refill_rounds=2,
    )
    run = DAPOTrainer(
        tiny_model,
        lambda completions, **_: [float("a" <= text[:1] <= "z") for text in completions],
        args,
        Dataset.from_dict({"prompt": [f"{i}+{i}=" for i in range(8)]}),
    )
    run.train()
    logs = run.state.log_history[0]
    assert logs["groups/sampled"] > 2 and logs["sampling/refill_rounds"] >= 1
    assert run.sampling.ledger.generated == logs["groups/sampled"] * 4 * logs["completions/mean_length"]


@pytest.mark.parametrize("error", [ConnectionError("no server at"), RuntimeError("has no weight-transfer engine.")])
def test_a_server_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, capsys, error):
    def client(**_):
        raise error

    monkeypatch.setattr("trl.generation.vllm_generation.is_vllm_available", lambda: True)
    monkeypatch.setattr("trl.generation.vllm_generation.VLLMClient", client)
    assert main(["train", "--config", config_file(tmp_path, use_vllm=True, vllm_mode="server")]) == 2
    assert capsys.readouterr().err == f"error: vLLM cannot be used: {error}\n"


class Requests:
    """The part of vLLM's engine that a call goes through: requests are added, steps return those that have ended."""

    def __init__(self):
        self.waiting: list[tuple[str, list[int]]] = []

    def add_request(self, request_id, prompt, params):
        self.waiting.append((request_id, [*prompt, 0]))

    def step(self):
        """The shortest that is left, between others that have not ended."""
        self.waiting.sort(key=lambda request: -len(request[1]))
        request_id, ids = self.waiting.pop()
        going = [SimpleNamespace(request_id=name, finished=False) for name, _ in self.waiting]
        return [*going, SimpleNamespace(request_id=request_id, finished=True, outputs=[SimpleNamespace(token_ids=ids)])]


@pytest.mark.parametrize("alone", [True, False])
def test_vllm_reports_requests_as_they_end(alone):
    requests, turns = Requests(), [[5] * n + [0] for n in (3, 1, 4, 2)]
    engine = SimpleNamespace(
        llm=SimpleNamespace(llm_engine=requests), tensor_parallel_size=1 if alone else 2, max_completion_length=9
    )
    reported = []

    def sample(contexts, group_size):
        for number, ids in enumerate(contexts):
            requests.add_request(str(7 + number), ids, None)
        seen = []
        while requests.waiting:
            requests.step()
            seen.append(len(reported))
        assert seen == ([1, 2, 3, 4] if alone else [0] * 4)
        return Turns(turns)

    backend = VLLMBackend(sample, engine, contextlib.nullcontext)
    for _ in range(2):
        reported.clear()
        contexts = [ids[:-1] for ids in turns]
        backend.generate(contexts, limit=4, group_size=1, on_finished=lambda *turn: reported.append(turn))
        assert reported == ([(place, turns[place]) for place in (1, 3, 0, 2)] if alone else [])
    assert not {"step", "add_request"} & set(vars(requests))
