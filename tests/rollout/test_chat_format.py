"""What the environment is given for the model's tokens: thinking tags that are special, prompts that open them."""

from pathlib import Path

import gymnasium
import pytest
import trl
from tokenizers import AddedToken

from dapo_trl.rollout.chat_format import ChatFormat
from envs import FormatReward

from ..support.tiny import byte_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
QWQ = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)
"""The end of a prompt as QwQ's and Qwen3-Thinking-2507's templates write it."""
OPENING = {
    "DeepSeek-R1-Distill": (TEMPLATES / "deepseek_r1_distill.jinja").read_text(encoding="utf-8"),
    "QwQ, Qwen3-Thinking": QWQ,
    "Qwen3.5": (TEMPLATES / "qwen3_5_think.jinja").read_text(encoding="utf-8"),
}
CLOSED = {"Qwen3": (TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8"), "none": None}

THOUGHT = "Perhaps Answer: 33</think>\nAnswer: 34"
UNFINISHED = ("Hmm, maybe Answer: 34\nlet me check this again ...", "Hmm, \\boxed{34} but wait, let me")


def chat_format(template, *, special=False, **settings):
    tokenizer = byte_tokenizer(chat=True)
    tags = [AddedToken(tag, special=special) for tag in ("<think>", "</think>")]
    tokenizer.add_tokens(tags, special_tokens=special)
    tokenizer.chat_template = template
    return ChatFormat(tokenizer, [tokenizer.eos_token_id], settings)


def played(form, text, *, ended, prompt=None, wrapper=lambda env: env):
    """Play one answer through the tokens, as the trainer does, and return the info of its last step."""
    ids = form.tokenizer(text, add_special_tokens=False)["input_ids"] + [form.tokenizer.eos_token_id] * ended
    env = wrapper(gymnasium.make("math/Problem-v0", rows=[{"prompt": "17+17?", "answer": "34"}]))
    env.reset(options={"index": 0})
    return env.step(form.completion(ids, prompt or ()))[4]


@pytest.mark.parametrize("special", [False, True], ids=["plain tags", "special tags"])
@pytest.mark.parametrize("template", OPENING.values(), ids=OPENING)
def test_an_answer_inside_of_thinking_that_the_template_opened_does_not_count(template, special):
    form = chat_format(template, special=special)
    prompt = form.prompt_ids([{"role": "user", "content": "17+17?"}])
    for known in (None, prompt):
        for text in UNFINISHED:
            info = played(form, text, ended=False, prompt=known)
            assert info["verdict"] == "no_answer" and "the thinking never ends" in info["cause"]
        assert played(form, THOUGHT, ended=True, prompt=known)["verdict"] == "correct"


@pytest.mark.parametrize("special", [False, True], ids=["plain tags", "special tags"])
@pytest.mark.parametrize("template", CLOSED.values(), ids=CLOSED)
def test_a_model_that_opens_its_thinking_itself(template, special):
    form = chat_format(template, special=special)
    assert played(form, "Answer: 34", ended=True)["verdict"] == "correct"
    assert played(form, f"<think>{THOUGHT}", ended=True)["verdict"] == "correct"
    for text in UNFINISHED:
        assert played(form, f"<think>{text}", ended=False)["verdict"] == "no_answer"


def test_thinking_that_is_switched_off_is_closed_by_the_template():
    for template in (CLOSED["Qwen3"], OPENING["Qwen3.5"]):
        form = chat_format(template, special=True, enable_thinking=False)
        assert not form.completion([1]).thinking
        assert played(form, "Answer: 34", ended=True)["verdict"] == "correct"


@pytest.mark.parametrize(("prompt", "thinking"), [("2+2? <think>\n", True), ("Think in <think> tags: 2+2?", False)])
def test_a_prompt_without_a_template_may_open_the_thinking(prompt, thinking):
    form = chat_format(None)
    assert form.completion([1], form.prompt_ids(prompt)).thinking is thinking


@pytest.mark.parametrize("special", [False, True], ids=["plain tags", "special tags"])
def test_the_format_reward_sees_the_tags(special):
    def shaped(env):
        return FormatReward(env, form="think", bonus=0.1)

    for template, text in ((None, f"<think>{THOUGHT}"), (QWQ, THOUGHT)):
        form = chat_format(template, special=special)
        assert played(form, text, ended=True, wrapper=shaped)["rewards"] == {"correctness": 1.0, "format": 0.1}
        assert played(form, "Answer: 34", ended=True, wrapper=shaped)["rewards"]["format"] == 0.0


def test_other_special_tokens_are_left_out():
    form = chat_format(None, special=True)
    ids = form.tokenizer("<|user|><think>a</think>b<|end|>", add_special_tokens=False)["input_ids"]
    assert form.text(ids) == "<think>a</think>b"
    plain = chat_format(None)
    assert plain.text(ids) == "<think>a</think>b"
