"""A cold start: which rows are learnt, with which tokens, and what is refused."""

from __future__ import annotations

import json

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from dapo_trl import DAPOConfig
from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.evaluation.loading import base_and_adapter
from dapo_trl.rollout.chat_format import ChatFormat, turn_end
from dapo_trl.rollout.environments import make_env
from dapo_trl.run import warmup
from dapo_trl.run.settings import RunConfig
from dapo_trl.run.train import held_out_rows, training_environments

from ..support.tiny import byte_tokenizer, save_tiny_model

ROWS = [{"prompt": f"What is {n} and {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(20)]


def examples(env, *, rows=64, length=128, skips=lambda row: False, chat=True):
    args = DAPOConfig(max_completion_length=length, report_to=[], use_cpu=True, bf16=False)
    return warmup._examples(env, byte_tokenizer(chat=chat), args, skips, rows, Console(quiet=True), limit=length)


def texts(found, chat=True):
    """Prompt and completion of each row, special tokens included."""
    tokenizer = byte_tokenizer(chat=chat)
    masks = [[label != warmup.IGNORED for label in one["labels"]] for one in found]
    for one, mask in zip(found, masks, strict=True):
        assert mask == sorted(mask)  # the completion is the end
        assert [token for token in one["labels"] if token != warmup.IGNORED] == one["input_ids"][mask.index(True) :]
    return [
        tuple(
            tokenizer.decode(one["input_ids"][part])
            for part in (slice(mask.index(True)), slice(mask.index(True), None))
        )
        for one, mask in zip(found, masks, strict=True)
    ]


@pytest.mark.parametrize("chat", [True, False])
def test_a_row_is_the_prompt_of_training_and_the_solution_with_the_end_of_the_turn(chat):
    env = make_env("math/Problem-v0", rows=ROWS, answer_style="hash")
    found = dict(texts(examples(env, chat=chat), chat=chat))
    assert len(found) == len(ROWS)
    text = env.unwrapped.row(3)["prompt"]
    prompt = f"<|user|>{text}<|end|><|assistant|>" if chat else text
    assert found[prompt] == "3 + 3 = 6\n#### 6<|end|>"


def test_system_prompt_and_examples_are_those_of_training_and_no_example_is_learnt():
    args = DAPOConfig(system_prompt="Be brief.", few_shot=2, report_to=[], use_cpu=True, bf16=False)
    run = RunConfig(env="math/Problem-v0", env_kwargs={"rows": ROWS, "answer_style": "hash"})
    (entry,) = training_environments(run, args)
    env = entry.make()
    found = texts(examples(env))
    assert len(found) == len(ROWS) - 2
    for prompt, completion in found:
        assert prompt.startswith("<|system|>Be brief.<|end|><|user|>What is ") and prompt.count("<|assistant|>") == 3
        assert completion not in prompt


def test_held_out_problems_are_never_learnt():
    run = RunConfig(env="math/Problem-v0", env_kwargs={"rows": ROWS}, eval_problems=5)
    entries = run.entries()
    splits, skips = held_out_rows(run, entries)
    env, (split,) = entries[0].make(), splits.values()
    learnt = {prompt for prompt, _ in texts(examples(env, skips=skips[entries[0].name]))}
    measured = {f"<|user|>{env.unwrapped.row(index)['prompt']}<|end|><|assistant|>" for index in split.indices}
    assert len(measured) == 5 and len(learnt) == 15 and not learnt & measured


def test_solutions_that_are_too_long_or_not_paid_are_left_out(monkeypatch):
    env = make_env("math/Problem-v0", rows=ROWS, answer_style="hash")
    assert len(examples(env, length=len("9 + 9 = 18\n#### 18") + 1)) == 10  # with the end of the turn; 9 and less
    task, right = env.unwrapped, env.unwrapped.solution
    monkeypatch.setattr(
        task, "solution", lambda index: "#### 5" if index == 7 else None if index == 8 else right(index)
    )
    assert len(examples(env)) == 18
    monkeypatch.setattr(task, "solution", lambda index: "#### 5")
    with pytest.raises(
        ConfigError, match=r"no solution that can be learnt among 20 rows; that of row \d+ is judged wrong"
    ):
        examples(env)


def test_tasks_without_a_solution_of_one_turn_are_refused():
    with pytest.raises(ConfigError, match="several turns"):
        examples(make_env("math/Calculator-v0"))


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|system|>\n{% endfor %}", "<|system|>"),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "<|end|>"),
        (None, "<|end|>"),
    ],
)
def test_the_end_of_a_turn_is_the_templates_own(template, end):
    tokenizer = byte_tokenizer(chat=True)
    tokenizer.chat_template = template
    assert tokenizer.convert_ids_to_tokens(turn_end(tokenizer, {})) == end


@pytest.mark.parametrize("flags", [[], ["--lora_rank", "4"]])
def test_the_command_writes_a_model_that_has_learnt_the_form(tmp_path, capsys, flags):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    base, folder = save_tiny_model(tmp_path / "base", chat=True), tmp_path / "warm"
    task = ["--env", "math/Problem-v0", "--env_kwargs", f"{{path: {tmp_path / 'rows.jsonl'}, answer_style: hash}}"]
    device = ["--use_cpu", "true", "--bf16", "false", "--gradient_checkpointing", "false"]
    batch = ["--per_device_train_batch_size", "8", "--max_completion_length", "64"]
    words = [
        "warmup",
        "--model",
        base,
        "--output_dir",
        str(folder),
        "--rows",
        "16",
        "--epochs",
        "8",
        *task,
        *device,
        *batch,
    ]
    assert main([*words, "--learning_rate", "1e-2", *flags]) == 0
    printed = capsys.readouterr().out
    losses = [float(line.split("loss ")[1].split()[0]) for line in printed.splitlines() if "loss" in line]
    assert printed.startswith("16 solutions of math/Problem-v0, ") and losses[-1] < losses[0] - 0.1
    assert (base_and_adapter(str(folder), None)[1] is not None) == bool(flags)
    if not flags:
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        prompt = ChatFormat(tokenizer, []).prompt_ids([{"role": "user", "content": "Hello"}])
        assert model and tokenizer.decode(prompt) == "<|user|>Hello<|end|><|assistant|>"
    assert main([*words, *flags]) == 2  # the folder is in use
    assert "it exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "0"], "rows is 0: it must be above 0"),
        (["--epochs", "-1"], "epochs is -1.0"),
        (["--row", "5"], "Did you mean rows?"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, flags, message):
    words = ["warmup", "--model", "m", "--env", "math/Arithmetic-v0", "--output_dir", str(tmp_path / "x")]
    assert main([*words, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
