"""Our environments through TRL's own `environment_factory`."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import pytest
import trl
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from dapo_trl.rollout.environments import make_env
from dapo_trl.rollout.trl_tools import TRLTask
from envs import OverlongPenalty, overlong_penalty

from ..support.tiny import byte_tokenizer, save_tiny_model

TASK = "math/Calculator-v0"


def calling(message: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'send', 'arguments': {'message': message}})}\n</tool_call>"


class Scripted(GRPOTrainer):
    """Every other member of a group calculates, then answers in its last words; the rest answer wrongly by tool."""

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        tokenizer, env = self.processing_class, make_env(TASK).unwrapped
        prompts = [env.row(index) for index in range(8)]
        texts = []
        for i, ids in enumerate(prompt_ids):
            context = tokenizer.decode(ids)
            index = next(n for n, row in enumerate(prompts) if row["prompt"] in context)
            said = context.count('{"name": "send", "arguments": {"message":')
            if said == 0 and i % 2 and num_generations > 1:
                texts.append(calling("Answer: 1"))
                continue
            turns = env.dialogue(index)
            over = "The task is over." in context
            texts.append("done" if over else turns[said] if said == len(turns) - 1 else calling(turns[said]))
        return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]], None


def test_a_task_of_many_turns_trains_in_trls_own_trainer(tmp_path):
    model = save_tiny_model(tmp_path / "model", chat=True, context=8192)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    task = TRLTask(TASK)
    args = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=2000,
        max_steps=1,
        logging_steps=1,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    run = Scripted(
        model, task.reward, args, task.rows(8), processing_class=tokenizer, environment_factory=task.environment
    )
    run.train()
    logged = run.state.log_history[0]
    assert logged["reward"] == 0.5 and logged["tools/failure_frequency"] == 0
    assert logged["grad_norm"] > 0


def test_an_episode_by_hand():
    task = TRLTask(TASK, levels=2)
    environment = task.environment()
    prompt = environment.reset(index=4, prompt=[])
    first, second, answer = task.env.unwrapped.dialogue(4)
    assert prompt.startswith("Compute ") and environment.send(first).startswith("Result: ")
    environment.send(second)
    assert environment.send(answer) == "The task is over."
    assert task.reward([[{"role": "assistant", "content": "anything"}]], [environment]) == [1.0]
    with pytest.raises(ValueError, match="the task is over"):
        environment.send("more")


def test_without_a_tool_call_the_completion_is_the_answer():
    task = TRLTask("math/Arithmetic-v0")
    environment = task.environment()
    environment.reset(index=3)
    said = [{"role": "assistant", "content": task.env.unwrapped.solution(3)}]
    assert task.reward([said], [environment]) == [1.0]


def test_what_is_sent_has_a_length_for_the_overlong_penalty():
    env = OverlongPenalty(make_env(TASK, levels=1), max_length=1)
    task = TRLTask(env, tokenizer=byte_tokenizer())
    environment = task.environment()
    environment.reset(index=0)
    answer = env.unwrapped.solution(0)
    environment.send(answer)
    [reward] = task.reward([[{"role": "assistant", "content": ""}]], [environment])
    assert reward == pytest.approx(1 + overlong_penalty(len(answer), max_length=1))


def test_what_a_tool_said_last_is_not_the_models_answer():
    task = TRLTask("math/Arithmetic-v0")
    environment = task.environment()
    environment.reset(index=3)
    said = [{"role": "tool", "content": task.env.unwrapped.solution(3)}]
    assert task.reward([said], [environment]) == [0.0]
