"""LoRA from end to end: what is trained, what is saved, and that it comes back."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from dapo_trl.checks import cautions_at_start, check_trainable
from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.run.lora import idle_adapter_settings, merge_adapter
from dapo_trl.run.settings import RunConfig

from ..cli.test_main import config_file
from ..conftest import SHIPPED_MODEL
from ..support.recorded import config, weights
from ..support.resume_run import ten_steps

LORA = {"lora_rank": 4, "lora_alpha": 16, "lora_dropout": 0.1, "lora_rslora": True}
KINDS = {"lora": {**LORA, "lora_targets": ["q_proj", "down_proj"]}, "dora": {**LORA, "lora_dora": True}}
FAST = {"learning_rate": 0.03}


@pytest.fixture(scope="module", params=list(KINDS))
def run(request, tiny_model, tmp_path_factory):
    """Ten steps in one go, with a checkpoint of step 5; the KL penalty needs a reference."""
    folder = tmp_path_factory.mktemp(request.param)
    found = ten_steps(tiny_model, folder, lora=KINDS[request.param], beta=0.04, **FAST)
    found.save_model(str(folder / "model"))
    found.kind, found.folder = request.param, folder
    return found


def sampled(model, tokenizer) -> list[list[int]]:
    """Greedy completions of some prompts."""
    inputs = tokenizer([f"{i}+{i}=" for i in range(4)], return_tensors="pt")
    return model.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id).tolist()


@torch.no_grad()
def logits(model) -> torch.Tensor:
    ids = torch.arange(40).view(2, 20)
    return model.eval()(ids).logits


def test_gradients_flow_to_the_adapter_alone(run, tiny_model):
    before = load_file(f"{tiny_model}/model.safetensors")
    after = {name: value for name, value in weights(run).items() if "lora_" not in name}
    names = [name.removeprefix("base_model.model.").replace(".base_layer", "") for name in after]
    assert set(names) >= before.keys()
    assert all(torch.equal(value, before[name]) for name, value in zip(names, after.values(), strict=True))
    trained = {name for name, value in run.model.named_parameters() if value.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    changed = [name for name in trained if "lora_B" in name and weights(run)[name].any()]
    assert len(changed) == len([name for name in trained if "lora_B" in name])
    assert sum(value.numel() for state in run.optimizer.state.values() for value in state.values()) < 2.1 * sum(
        run.model.get_parameter(name).numel() for name in trained
    )  # moments of the adapter, and nothing else


def test_the_reference_is_the_same_model_with_the_adapter_off(run, tiny_model):
    """No second model exists, and yet the KL penalty is measured from the one that training began with."""
    assert run.ref_model is None
    models = [name for name, value in vars(run).items() if isinstance(value, PreTrainedModel | PeftModel)]
    held = {id(run.accelerator.unwrap_model(getattr(run, name))) for name in models}
    assert held == {id(run.accelerator.unwrap_model(run.model))}
    logs = [row for row in run.state.log_history if "kl" in row]
    assert logs[0]["kl"] == pytest.approx(0, abs=0.01 if run.args.updates_per_rollout == 1 else 1)
    assert logs[-1]["kl"] > 1e-3

    row = next(row for step in run._steps for row in step.rows)
    ids = torch.cat([row.prompt_ids, row.completion_ids])[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    logps = base(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0][-len(row.completion_ids) :]
    assert torch.allclose(row.ref_logps, logps, atol=1e-4)
    assert not torch.allclose(row.old_logps, logps, atol=1e-3)


def test_the_adapter_is_saved_alone_and_with_its_base_gives_the_same_outputs(run, tiny_model):
    saved = {path.name for path in (run.folder / "model").iterdir()}
    assert "adapter_model.safetensors" in saved and "model.safetensors" not in saved
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    found = PeftModel.from_pretrained(base, str(run.folder / "model"))
    assert torch.equal(logits(found), logits(run.model))


def test_merged_it_gives_the_same_outputs_without_peft(run, tiny_model, tmp_path):
    merge_adapter(run.folder / "model", tmp_path / "merged")
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert "model.safetensors" in names and "adapter_config.json" not in names
    found, tokenizer = (
        kind.from_pretrained(tmp_path / "merged") for kind in (AutoModelForCausalLM, AutoTokenizer)
    )  # plain transformers
    assert type(found).__module__.startswith("transformers.") and not any("lora" in n for n in found.state_dict())
    assert torch.allclose(logits(found), logits(run.model), atol=1e-4)
    assert sampled(found, tokenizer) == sampled(run.model, tokenizer)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert not torch.allclose(logits(found), logits(base), atol=1e-2)


def test_a_resumed_run_ends_in_the_same_adapter_bit_for_bit(run, tiny_model, tmp_path):
    """Dropout in the adapter included: the random state is the checkpoint's."""
    checkpoint = run.folder / "checkpoint-5"
    assert (checkpoint / "adapter_model.safetensors").is_file() and not (checkpoint / "model.safetensors").exists()
    again = ten_steps(tiny_model, tmp_path, lora=KINDS[run.kind], beta=0.04, resume=str(checkpoint), **FAST)
    assert again.micro_batches_trained == 5 * 2
    found, expected = weights(again), weights(run)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_it_holds_less_than_full_training(run, tiny_model, tmp_path):
    """Bytes of weights, gradients and optimizer states after a step, every tensor counted."""

    def held(trainer) -> int:
        models = [trainer.model, *([trainer.ref_model] if trainer.ref_model is not None else [])]
        tensors = {p.data_ptr(): p for model in models for p in model.parameters()}
        total = sum(p.nbytes for p in tensors.values())
        total += sum(p.nbytes for p in trainer.model.parameters() if p.requires_grad)  # its gradient
        return total + sum(
            v.nbytes for state in trainer.optimizer.state.values() for v in state.values() if torch.is_tensor(v)
        )

    full = ten_steps(tiny_model, tmp_path, beta=0.04, max_steps=1, save_strategy="no")
    assert held(run) < 0.5 * held(full)


@pytest.mark.slow
def test_the_command_line_from_training_to_a_merged_model(warm_start, tmp_path, capsys):
    """`train` with an adapter, measured with it and without, then `merge`."""
    changes = {"eval_problems": 4, "eval_samples": 2, "eval_without_adapter": True, "max_steps": 2}
    path = config_file(tmp_path, lora_rank=4, max_completion_length=8, **changes)
    done = warm_start.run("dapo_trl", "train", "--config", path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    assert "an adapter of 0.0" in done.stdout and "held-out accuracy without the adapter: " in done.stdout
    before, without = (
        json.loads((folder / f"evaluation_{name}.json").read_text()) for name in ("before", "without_adapter")
    )
    assert before == without  # a new adapter does nothing, and the base is what it was
    assert not (folder / "model" / "model.safetensors").exists()
    assert "library_name: peft" in (folder / "model" / "README.md").read_text(encoding="utf-8")

    plans = []
    for more in ([], ["--model", str(folder / "model")]):
        assert main(["plan", "--config", path, "--json", *more]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    assert all(
        plans[0][part] == plans[1][part] for part in ("parameters", "memory")
    )  # to train it further takes as much
    assert main(["train", "--config", path, "--model", str(folder / "model"), "--overwrite", "true"]) == 2
    assert "which the run would replace with itself" in capsys.readouterr().err

    merge = ["merge", "--adapter", str(folder / "model"), "--output"]
    assert main([*merge, str(tmp_path / "merged"), "--base", str(SHIPPED_MODEL), "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out == f"model: {tmp_path / 'merged'} (0.8 M weights, bfloat16)\n"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.bfloat16
    AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert main([*merge, str(tmp_path / "merged")]) == 2
    assert "it exists already" in capsys.readouterr().err


def test_a_frozen_adapter_is_refused_before_training(run, tiny_model, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with pytest.raises(ConfigError, match=r"no parameter of the model requires a gradient.* is_trainable=True"):
        ten_steps(PeftModel.from_pretrained(base, run.folder / "model"), tmp_path, beta=0.04)
    with pytest.raises(ConfigError, match=r"no parameter of the model requires a gradient.*peft_config"):
        ten_steps(AutoModelForCausalLM.from_pretrained(tiny_model).requires_grad_(False), tmp_path)


def test_an_optimizer_without_a_parameter_to_train_is_refused(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    optimizer = torch.optim.SGD(AutoModelForCausalLM.from_pretrained(tiny_model).requires_grad_(False).parameters())
    check_trainable(model, torch.optim.SGD(model.parameters()), new_adapter=False)
    with pytest.raises(ConfigError, match="the optimizer has no parameter"):
        check_trainable(model, optimizer, new_adapter=False)


def test_a_saved_adapter_is_trained_on_and_resumed_bit_for_bit(run, tiny_model, tmp_path):
    def adapter():
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        return PeftModel.from_pretrained(base, run.folder / "model", is_trainable=True)

    whole = ten_steps(adapter(), tmp_path, beta=0.04, **FAST)
    saved = {path.name for path in (tmp_path / "checkpoint-5").iterdir()}
    assert "adapter_model.safetensors" in saved and "ref" not in saved  # the reference is the adapter it began with
    again = ten_steps(adapter(), tmp_path / "again", beta=0.04, resume=str(tmp_path / "checkpoint-5"), **FAST)
    found, expected = weights(again), weights(whole)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    trained = [name for name in expected if ".default." in name]
    assert trained and not any(torch.equal(expected[n], adapter().get_parameter(n)) for n in trained)
    assert all(torch.equal(expected[n.replace("default", "ref")], adapter().get_parameter(n)) for n in trained)


def test_the_command_line_trains_an_adapter_further(run, tmp_path, capsys):
    settings = {"model": str(run.folder / "model"), "max_completion_length": 8, "max_steps": 1, "lora_rank": 64}
    settings |= {"group_filter": "none", "microbatch_tokens": None, "model_init_kwargs": {"dtype": "float32"}}
    assert main(["train", "--config", config_file(tmp_path, **settings)]) == 0
    out = "".join(capsys.readouterr())
    assert "an adapter of 0.0" in out and "will be ignored" not in out
    assert "lora_rank: no effect, because model is an adapter, which keeps its own settings." in out
    before, after = (
        load_file(folder / "model" / "adapter_model.safetensors") for folder in (run.folder, tmp_path / "run")
    )
    assert before.keys() == after.keys() and all(value.shape == after[name].shape for name, value in before.items())
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    assert not (tmp_path / "run" / "model" / "ref").exists()


def test_what_cannot_be_merged_is_one_clear_line(run, tmp_path, capsys):
    adapter, output = str(run.folder / "model"), str(tmp_path / "new")
    for arguments, message in [
        (["--adapter", str(SHIPPED_MODEL), "--output", output], "there is no adapter_config.json in it"),
        (["--adapter", str(tmp_path / "none"), "--output", output], "there is no such folder"),
        (["--adapter", adapter, "--output", output, "--base", str(SHIPPED_MODEL)], "does not fit base"),
        (
            ["--adapter", adapter, "--output", output, "--base", "no/such/model"],
            "base is 'no/such/model' and cannot be",
        ),
        (["--adapter", adapter, "--output", f"{adapter}/adapter_config.json"], "it exists already"),
        (["--adapter", adapter, "--output", f"{adapter}/adapter_config.json/new"], "there can be no folder below it"),
    ]:
        assert main(["merge", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1, error
    assert not (tmp_path / "new").exists()
    (tmp_path / "prompt").mkdir()
    prompt = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "base_model_name_or_path": "x"}
    (tmp_path / "prompt" / "adapter_config.json").write_text(json.dumps(prompt))
    with pytest.raises(ConfigError, match="a PROMPT_TUNING: it has no weights to merge"):
        merge_adapter(tmp_path / "prompt", tmp_path / "new")


def test_a_learning_rate_for_full_training_is_warned_of_and_the_readmes_is_not(tiny_model, tmp_path):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules="all-linear"))
    found = {rate: cautions_at_start(model, config(tmp_path, learning_rate=rate)) for rate in (1e-6, 1e-5, 6e-4)}
    assert [any("too small to move an adapter" in line for line in found[rate]) for rate in found] == [
        True,
        False,
        False,
    ]


def test_settings_of_an_adapter_that_is_not_trained():
    assert idle_adapter_settings(RunConfig(lora_rank=8, lora_alpha=4)) == idle_adapter_settings(RunConfig()) == []
    (found,) = idle_adapter_settings(RunConfig(lora_alpha=4, lora_rslora=True))
    assert found.startswith("lora_alpha, lora_rslora: no effect, because lora_rank is 0")


def test_a_saved_adapter_is_an_adapter_for_all_settings(run):
    adapter = str(run.folder / "model")
    RunConfig(model=adapter, quantization="4bit")
    RunConfig(model=adapter, eval_without_adapter=True, eval_problems=4)
    with pytest.raises(ConfigError, match="lora_rank is 0"):
        RunConfig(model="other", quantization="4bit")
