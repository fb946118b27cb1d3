"""The other ways to generate: continuous batching, for real, and vLLM, against a stand-in of the classes that TRL takes
from it, with TRL's own code around them."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from datasets import Dataset
from peft import LoHaConfig, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from trl.distributed import DistributedBackend

from dapo_trl import DAPOTrainer
from dapo_trl.cli.main import main
from dapo_trl.generation.params import Turns
from dapo_trl.generation.vllm import VLLMBackend, why_merged
from dapo_trl.monitor.metrics_file import read_metrics
from dapo_trl.trl_internals import Engine
from dapo_trl.update.gradient_ledger import ACCOUNTS

from ..cli.test_main import config_file
from ..conftest import SHIPPED_MODEL
from ..support import vllm_run
from ..support.recorded import config
from ..support.vllm_stand_in import LLM, SHIFT, Client
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


ADAPTERS = {
    "plain": ({"use_rslora": True, "lora_dropout": 0.1, "r": 5}, None),
    "DoRA": ({"use_dora": True}, "its use_dora is True"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, "its modules_to_save is ['lm_head']"),
    "biases": ({"bias": "lora_only"}, "its bias is 'lora_only'"),
    "ranks": ({"rank_pattern": {"q_proj": 4}}, "its rank_pattern is {'q_proj': 4}"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "its init_lora_weights 'pissa' changed the model's own weights"),
    "large": ({"r": 513}, "its rank is 513, and the largest is 512"),
    "head": ({"target_modules": ["q_proj", "lm_head"]}, "it adapts lm_head"),
    "embeddings": ({"target_modules": ["q_proj", "embed_tokens"]}, "it adapts model.embed_tokens"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_that_vllm_cannot_serve_are_known(name, tiny_model):
    changes, reason = ADAPTERS[name]
    lora = LoraConfig(**{"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **changes})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), lora)
    assert why_merged(model) == reason


def test_other_kinds_of_adapters_are_merged(tiny_model):
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert why_merged(get_peft_model(base, LoHaConfig(target_modules=["q_proj"]))) == "it is of the kind LOHA"


def flags(settings: dict) -> list[str]:
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


RUN = {
    **{"env": "math/Arithmetic-v0", "env_kwargs": "{levels: 1, split: train}", "eval_env_kwargs": "{split: test}"},
    **{"eval_problems": 2, "eval_samples": 2, "eval_every": 1, "eval_top_p": 1.0, "max_completion_length": 24},
    **{"per_device_train_batch_size": 8, "steps_per_generation": 1, "num_generations": 4, "max_steps": 1},
    **{"learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no", "use_cpu": "true", "bf16": "false"},
    **{"report_to": "[]", "use_vllm": "true", "overlong_shape": "none", "group_filter": "none"},
}


@pytest.mark.parametrize(
    "changes",
    [{"lora_rank": 3}, {"lora_rank": 3, "vllm_enable_sleep_mode": "true"}, {"lora_rank": 3, "lora_dora": "true"}, {}],
    ids=["adapter", "sleeping", "merged", "server"],
)
def test_a_run_is_measured_through_its_engine(changes, stand_in, tmp_path, capsys):
    """By the same request with a seed of each sample's own; pushes are of the adapter where vLLM can serve it."""
    stand_in(str(SHIPPED_MODEL))
    mode = {"vllm_mode": "colocate" if changes else "server"}
    settings = {**RUN, **changes, **mode, "model": SHIPPED_MODEL, "output_dir": tmp_path}
    assert main(["train", *flags(settings)]) == 0
    [engine] = LLM.made or Client.made
    seeds = [seed for seed in engine.seeds if seed is not None]
    assert len(seeds) == 2 * 4 and len(set(seeds)) == 4  # before and after: the same samples' seeds
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "eval_accuracy" in row] == [1]
    alone = "lora_dora" not in changes and bool(changes)
    assert ("pushed the whole model, merged" in capsys.readouterr().out) is ("lora_dora" in changes)
    pushed = [row["vllm/pushed_mib"] for row in rows if "vllm/pushed_mib" in row]
    assert pushed and all((size < 1) is alone for size in pushed)  # all weights are 3.2 MiB
    if alone:
        assert engine.ranks == 8 and engine.options["dtype"] == "float32"
        order = list(dict.fromkeys(engine.names))
        assert order == [f"step-{n + 1}" for n in range(len(order))] and len(order) == len(engine.pushes) > 1


def test_an_evaluation_through_vllm_is_resumed(stand_in, tmp_path, capsys):
    stand_in(str(SHIPPED_MODEL))
    asked = ["eval", "--engine", "vllm", "--model", str(SHIPPED_MODEL), "--env", "math/Arithmetic-v0: {levels: 1}"]
    asked += ["--problems", "4", "--k", "3", "--max_completion_length", "24", "--use_cpu", "true"]
    asked += ["--output_dir", str(tmp_path / "found")]
    assert main(asked) == 0
    first = (tmp_path / "found" / "samples-0.jsonl").read_text().splitlines()
    (tmp_path / "found" / "samples-0.jsonl").write_text("\n".join(first[:5]) + "\n")
    assert main(asked) == 0
    assert "5 of 12 samples are there already" in capsys.readouterr().out
    again = [line for line in (tmp_path / "found" / "samples-0.jsonl").read_text().splitlines() if line]
    assert sorted(again) == sorted(first) and len(again) == 12
    whole, rest = (engine.seeds for engine in LLM.made)
    assert len(set(whole)) == 12 and len(rest) == 7 and set(rest) < set(whole)
    assert LLM.made[0].options["max_model_len"] < 100  # as long as the longest row, and no longer
    assert main([*asked, "--engine", "transformers"]) == 2
    assert 'holds an evaluation with engine "vllm", now "transformers"' in capsys.readouterr().err


def test_an_adapter_is_measured_through_vllm(stand_in, tmp_path, capsys):
    stand_in(str(SHIPPED_MODEL))
    base = AutoModelForCausalLM.from_pretrained(SHIPPED_MODEL)
    for name, changes in {"served": {}, "not": {"use_dora": True}}.items():
        lora = LoraConfig(target_modules=["q_proj"], r=2, task_type="CAUSAL_LM", **changes)
        get_peft_model(copy.deepcopy(base), lora).save_pretrained(tmp_path / name)
    asked = ["eval", "--engine", "vllm", "--model", str(SHIPPED_MODEL), "--env", "math/Arithmetic-v0: {levels: 1}"]
    asked += ["--problems", "2", "--k", "1", "--max_completion_length", "20", "--use_cpu", "true"]
    assert main([*asked, "--adapter", str(tmp_path / "served"), "--output_dir", str(tmp_path / "one")]) == 0
    assert LLM.made[0].names == ["step-1"] and LLM.made[0].ranks == 8
    assert main([*asked, "--adapter", str(tmp_path / "not"), "--output_dir", str(tmp_path / "two")]) == 2
    assert "cannot serve adapter" in (said := capsys.readouterr().err) and "dapo-trl merge" in said


def test_without_vllm_an_evaluation_is_refused_in_one_line(tmp_path, capsys):
    asked = ["eval", "--engine", "vllm", "--model", str(SHIPPED_MODEL), "--env", "math/Arithmetic-v0", "--use_cpu"]
    asked += ["true", "--problems", "1", "--k", "1", "--output_dir", str(tmp_path / "found")]
    assert main(asked) == 2
    assert "error: engine is 'vllm', which is not installed: pip install 'dapo-trl[vllm]'." in capsys.readouterr().err


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

    backend = VLLMBackend(sample, engine, contextlib.nullcontext, [])
    for _ in range(2):
        reported.clear()
        contexts = [ids[:-1] for ids in turns]
        backend.generate(contexts, limit=4, group_size=1, on_finished=lambda *turn: reported.append(turn))
        assert reported == ([(place, turns[place]) for place in (1, 3, 0, 2)] if alone else [])
    assert not {"step", "add_request"} & set(vars(requests))


def test_weights_that_fsdp2_has_not_sharded_yet_are_pushed_as_they_are(tiny_model):
    """The measurement before training comes before accelerate shards the model."""
    engine = object.__new__(Engine)
    engine.model = AutoModelForCausalLM.from_pretrained(tiny_model)
    plugin = SimpleNamespace(fsdp_version=2)
    engine._dist = DistributedBackend(SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=None, fsdp_plugin=plugin)))
    pushed = dict(engine._iter_named_params())
    assert pushed.keys() == dict(engine.model.named_parameters()).keys() and engine._dist.is_fsdp
    assert all(torch.equal(value, pushed[name]) for name, value in engine.model.named_parameters())
