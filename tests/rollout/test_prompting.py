"""Prompts with a system message, examples and a template: their tokens, and the rows that are left out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from datasets import Dataset

from dapo_trl import DAPOConfig, DAPOTrainer
from dapo_trl.errors import ConfigError
from dapo_trl.evaluation.split import measured_elsewhere, split_off
from dapo_trl.rollout.chat_format import ChatFormat
from dapo_trl.rollout.dataset_prompts import as_asked, example_tokens, prompt_form, prompted_rows, refuse_examples
from dapo_trl.rollout.environments import EnvironmentRows, make_env, question_of
from dapo_trl.rollout.prompting import measured_rows, prompted, prompted_alike
from dapo_trl.settings import read_flags
from envs import TaskEnv

from ..support.chat_templates import CHATML, GEMMA, LLAMA3, tokenizer_with
from ..support.recorded import config
from ..support.tiny import byte_tokenizer

TWO = [["1 + 1?", "Answer: 2"], ["2 + 2?", "Answer: 4"]]
WRITTEN = {
    CHATML: "<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n1 + 1? Go.<|im_end|>\n<|im_start|>assistant\n"
    "Answer: 2<|im_end|>\n<|im_start|>user\n2 + 2? Go.<|im_end|>\n<|im_start|>assistant\nAnswer: 4<|im_end|>\n"
    "<|im_start|>user\n3 + 3? Go.<|im_end|>\n<|im_start|>assistant\n",
    LLAMA3: "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nAdd.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n1 + 1? Go.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nAnswer: 2<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n2 + 2? Go.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nAnswer: 4<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n3 + 3? Go.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    GEMMA: "<bos><start_of_turn>user\nAdd. 1 + 1? Go.<end_of_turn>\n<start_of_turn>model\nAnswer: 2<end_of_turn>\n"
    "<start_of_turn>user\nAdd. 2 + 2? Go.<end_of_turn>\n<start_of_turn>model\nAnswer: 4<end_of_turn>\n"
    "<start_of_turn>user\nAdd. 3 + 3? Go.<end_of_turn>\n<start_of_turn>model\n",
    None: "Add.\n\n1 + 1? Go.\n\nAnswer: 2\n\n2 + 2? Go.\n\nAnswer: 4\n\n3 + 3? Go.\n\n",
}
NAMES = ["ChatML", "Llama 3", "Gemma", "no template"]


def asked(system_prompt=None, few_shot=None, prompt_template=None):
    return SimpleNamespace(system_prompt=system_prompt, few_shot=few_shot, prompt_template=prompt_template)


def problems(*questions):
    rows = [{"prompt": question, "answer": "1"} for question in questions]
    return make_env("math/Problem-v0", rows=rows, answer_style="last_number")


@pytest.mark.parametrize("template", WRITTEN, ids=NAMES)
def test_the_tokens_are_those_of_the_tokenizers_own_template(template):
    tokenizer = byte_tokenizer() if template is None else tokenizer_with(template)
    settings = asked("Add.", TWO, "{question} Go.")
    if template == GEMMA:  # which takes no system message
        settings = asked(None, TWO, "Add. {question} Go.")
    rows = prompted_rows(Dataset.from_list([{"prompt": "3 + 3?"}]), prompt_form(None, settings), tokenizer)
    ids = ChatFormat(tokenizer, ()).prompt_ids(rows[0]["prompt"])
    assert ids == tokenizer(WRITTEN[template], add_special_tokens=False)["input_ids"]
    if template is not None:
        assert (
            ids
            == tokenizer.apply_chat_template(
                [{"role": "system", "content": "Add."}] * (template != GEMMA)
                + [
                    {"role": ("user", "assistant")[place % 2], "content": text}
                    for place, text in enumerate(
                        settings.prompt_template.replace("{question}", text) if place % 2 == 0 else text
                        for place, text in enumerate([*TWO[0], *TWO[1], "3 + 3?"])
                    )
                ],
                add_generation_prompt=True,
            )["input_ids"]
        )


@pytest.mark.parametrize("template", WRITTEN, ids=NAMES)
def test_an_environment_asks_in_the_same_way(template):
    tokenizer = byte_tokenizer() if template is None else tokenizer_with(template)
    settings = asked(None, TWO, "{question} Go.")
    env = prompted(problems("5?", "6?"), settings)
    row = EnvironmentRows(env, tokenizer)[0]
    rows = prompted_rows(Dataset.from_list([{"prompt": row["question"]}]), prompt_form(None, settings), tokenizer)
    assert row["prompt"] == rows[0]["prompt"] and row["question"].startswith("5?")
    assert question_of(row) == "5?", "lists and messages show the question alone"


def test_a_template_that_takes_no_system_message_is_one_line_with_the_fix():
    form = prompt_form(None, asked("Add."))
    with pytest.raises(
        ConfigError, match=r"System role not supported\. .*put the text of system_prompt into prompt_temp"
    ):
        example_tokens(form, ChatFormat(tokenizer_with(GEMMA), ()))


def test_the_tokens_of_examples_are_known():
    form = prompt_form(None, asked("Add.", TWO))
    assert example_tokens(form, ChatFormat(byte_tokenizer(), ())) == len(
        "1 + 1?\n\nAnswer: 2\n\n2 + 2?\n\nAnswer: 4\n\n\n\n"
    )
    assert example_tokens(prompt_form(None, asked("Add.")), ChatFormat(byte_tokenizer(), ())) == 0


class TestExamplesAreNeverTrainedOrMeasuredOn:
    questions = tuple(f"{number} + 1?" for number in range(12))

    def examples(self, env):
        rows = EnvironmentRows(env, None)
        return {index for index in range(12) if "is_example" in rows[index]}

    def test_drawn_ones_are_left_out_of_the_rows_that_are_measured(self):
        env = prompted(problems(*self.questions), asked(few_shot=3))
        held = self.examples(env)
        assert len(held) == 3 and measured_rows(env, None) == [index for index in range(12) if index not in held]
        assert measured_rows(env, 5) == measured_rows(env, None)[:5]
        with pytest.raises(ConfigError, match="eval_problems is 10, but math/Problem-v0 has 12 rows, and 9 of them"):
            measured_rows(env, 10)

    def test_given_ones_must_not_be_measured(self):
        settings = asked(few_shot=[[self.questions[4], "Answer: 5"]])
        env = prompted(problems(*self.questions), settings)
        assert measured_rows(env, 4) == [0, 1, 2, 3]
        with pytest.raises(ConfigError, match=r"few_shot holds the question of row 4 of math/Problem-v0, '4 \+ 1\?"):
            measured_rows(env, 5)
        trained = prompted(problems("7?", "8?"), settings)
        with pytest.raises(ConfigError, match="few_shot holds the question of row 4"):
            measured_elsewhere(trained, prompted_alike(problems(*self.questions), trained), 6)

    def test_the_rows_kept_apart_stay_the_same_and_examples_among_them_are_not_measured(self):
        plain, env = problems(*self.questions), prompted(problems(*self.questions), asked(few_shot=4))
        before, split = split_off(plain, 6), split_off(env, 6)
        assert set(split.indices) == set(before.indices) - self.examples(env)
        assert split.kept_apart == 6
        with pytest.raises(ConfigError, match=r"every one of the 12 rows .* is a held-out problem or an example"):
            split_off(prompted(problems(*self.questions), asked(few_shot=11)), 11)

    def test_endless_rows(self):
        env = make_env("math/Arithmetic-v0", levels=[1], operations="+")
        env = prompted(env, asked(few_shot=[[env.reset(options={"index": 1})[0], "Answer: 1"]]))
        held = {index for index in range(100) if "is_example" in EnvironmentRows(env, None)[index]}
        assert 1 in held and not held & set(split_off(env, 5).indices)

    def test_rows_of_a_data_set(self):
        data = Dataset.from_list([{"prompt": question, "question": "own"} for question in self.questions])
        form = prompt_form(None, asked(few_shot=[[self.questions[4], "5"]]))
        rows = prompted_rows(data, form, byte_tokenizer())
        assert [index for index in range(12) if rows[index].get("is_example")] == [4]
        assert rows[3]["question"] == "own", "a column of that name is the author's"
        streamed = prompted_rows(data.to_iterable_dataset(), form, byte_tokenizer())
        assert [row.get("prompt") for row in streamed] == [rows[index]["prompt"] for index in range(12)]
        with pytest.raises(ConfigError, match=r"few_shot holds the question of row 4 of eval_dataset\['hard'\]"):
            refuse_examples({"easy": data.select([1]), "hard": data}, form)
        with pytest.raises(ConfigError, match="few_shot holds the question of a row of eval_dataset"):
            as_asked([data[4]], form, byte_tokenizer())
        with pytest.raises(ConfigError, match="all 1 rows of train_dataset are among the few_shot examples"):
            prompted_rows(data.select([4]), form, byte_tokenizer())

    def test_a_number_needs_an_environment(self):
        with pytest.raises(ConfigError, match="few_shot is 3, and there is no environment whose solution"):
            prompt_form(None, asked(few_shot=3))


class TestMistakes:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"prompt_template": "Be brief."}, r"prompt_template is 'Be brief\.': \{question\} must stand in it"),
            ({"few_shot": [["1", 2]]}, r"few_shot\[0\] is"),
            ({"few_shot": "gone.jsonl"}, r"few_shot is 'gone\.jsonl': there is no such file"),
            ({"few_shot": -1}, r"few_shot is -1\b.*: it must be"),
            ({"few_shot": True}, r"few_shot is True \(bool\): it must be"),
            ({"system_prompt": 3}, r"system_prompt is 3 \(int\): it must be"),
        ],
    )
    def test_settings_are_refused_at_construction(self, settings, message, tmp_path):
        with pytest.raises(ConfigError, match=message):
            DAPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **settings)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("{question} Go.", "{question} Go."),
            ("3: yes", "3: yes"),
            ('"a\\n{question}"', "a\n{question}"),
            ("null", None),
        ],
    )
    def test_a_flag_is_the_text_itself(self, text, value):
        assert read_flags(["--prompt_template", text], (DAPOConfig,)) == [("prompt_template", value)]

    def test_an_environment_has_one_set_of_prompts(self):
        env = prompted(problems("1?", "2?"), asked("Add."))
        assert prompted(env, asked("Add.")) is env and prompted(env, asked()) is env
        with pytest.raises(ConfigError, match="has a Prompting wrapper and system_prompt is set: leave one"):
            prompted(env, asked("Subtract."))

    def test_a_row_of_a_data_set_with_a_system_message_of_its_own(self):
        chat = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1?"}]
        rows = prompted_rows(Dataset.from_list([{"prompt": chat}]), prompt_form(None, asked("Go.")), byte_tokenizer())
        with pytest.raises(
            ConfigError, match=r"the row has a system message of its own, 'Add\.', and system_prompt is set"
        ):
            rows[0]


class Chats(TaskEnv):
    """Rows that are chats, with answers to show."""

    num_rows = 5

    def row(self, index):
        told = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]
        return {"messages": [*told, {"role": "user", "content": f"{index} + 1?"}], "answer": str(index + 1)}

    def verify(self, row, completion):
        return completion == row["answer"]


def contexts_of(run: DAPOTrainer) -> list[str]:
    """Train, and return what the model was given to continue."""
    seen, generate = [], run.backend.generate

    def generate_seen(contexts, **options):
        seen.extend(contexts)
        return generate(contexts, **options)

    run.backend.generate = generate_seen
    run.train()
    return [run._tokenizer.decode(ids) for ids in seen]


def as_chat(*texts: str) -> str:
    """A chat as the tiny model's template writes it, with the question last."""
    turns = [f"<|{('user', 'assistant')[place % 2]}|>{text}<|end|>" for place, text in enumerate(texts)]
    return "".join([*turns, "<|assistant|>"])


class TestInTheTrainer:
    def settings(self, tmp_path, **changes):
        return config(tmp_path, group_filter="none", prompt_template="{question} Go.", **changes)

    def test_an_environment_whose_rows_are_chats(self, tiny_chat_model, tmp_path):
        run = DAPOTrainer(tiny_chat_model, args=self.settings(tmp_path, few_shot=1, max_steps=3), env=Chats())
        turns = run._form.few_shot
        assert len(turns) == 4 and turns[-1]["content"] == f"Answer: {int(turns[2]['content'].split()[0]) + 1}"
        shown = [f"{turn['content']} Go." if turn["role"] == "user" else turn["content"] for turn in turns]
        left = [f"{index} + 1?" for index in range(5) if f"{index} + 1?" != turns[2]["content"]]
        expected = {as_chat(*shown, "Hello.", "Yes?", f"{question} Go.") for question in left}
        assert set(contexts_of(run)) == expected

    def test_a_data_set_with_reward_functions_in_training_and_evaluation(self, tiny_chat_model, tmp_path):
        given = []

        def reward(prompts, question, **_):
            given.extend(zip((prompt[-1]["content"] for prompt in prompts), question, strict=True))
            return [float(place % 2) for place in range(len(prompts))]

        args = self.settings(tmp_path, system_prompt="Add.", few_shot=[["1 + 1?", "2"]], max_steps=2)
        train, held = (Dataset.from_dict({"prompt": rows}) for rows in (["1 + 1?", "2 + 2?", "3 + 3?"], ["4 + 4?"] * 2))
        run = DAPOTrainer(tiny_chat_model, reward, args, train, eval_dataset=held)
        before = "<|system|>Add.<|end|>"
        assert set(contexts_of(run)) == {before + as_chat("1 + 1? Go.", "2", f"{q} Go.") for q in ("2 + 2?", "3 + 3?")}
        assert set(given) == {(f"{question} Go.", question) for question in ("2 + 2?", "3 + 3?")}
        given.clear()
        run.evaluate()
        assert set(given) == {("4 + 4? Go.", "4 + 4?")}

    def test_a_prompt_that_is_too_long_says_how_many_tokens_the_examples_take(self, tiny_model, tmp_path):
        args = config(tmp_path, few_shot=[["1 + 1?", "2" * 500]])
        with pytest.raises(
            ConfigError, match=r"the prompt of row 0 has \d+ tokens, 51\d of them few_shot examples: with"
        ):
            DAPOTrainer(tiny_model, args=args, env=problems("5?", "6?"))

    def test_a_template_that_refuses_the_prompt_is_found_before_the_first_step(self, tiny_chat_model, tmp_path):
        tokenizer = byte_tokenizer(chat=True)
        tokenizer.chat_template = GEMMA
        with pytest.raises(ConfigError, match="System role not supported"):
            DAPOTrainer(
                tiny_chat_model,
                args=self.settings(tmp_path, system_prompt="Add.", max_steps=1),
                env=problems("5?", "6?"),
                processing_class=tokenizer,
            )
