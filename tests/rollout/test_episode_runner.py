"""Episodes of many turns: what the model sees, what the loss sees, what the environment pays."""

from __future__ import annotations

import math
from pathlib import Path

import gymnasium
import pytest
import torch
import trl

import envs
from dapo_trl.errors import ConfigError, RewardError
from dapo_trl.evaluation import Sampling, evaluate
from dapo_trl.rollout.chat_format import ChatFormat
from dapo_trl.rollout.episode import Episode, duplicate
from dapo_trl.rollout.episode_runner import EnvironmentSource, EnvPool, run_episodes
from envs import Completion, OverlongPenalty, Verdict
from envs.wrappers import overlong_penalty

from ..support.tiny import byte_tokenizer
from ..support.turns_run import REPLY, Haggle, Paid
from ..support.warm_start import CPU_2


class Guess(gymnasium.Env):
    """Somebody else's environment: keeps a list, pays on the way, says nothing of verdicts."""

    observation_space = action_space = envs.UnicodeText()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.guesses = []
        return "a number?", {}

    def step(self, action):
        self.guesses.append(action)
        over = len(self.guesses) == 3
        return f"no {len(self.guesses)}", 0.25, over, False, {}


class Speaker:
    """Says its lines one after another, to every context the same number; remembers what it was shown."""

    def __init__(self, tokenizer, *lines, logprobs=True):
        self.tokenizer, self.lines, self.shown, self.rooms = tokenizer, list(lines), [], []
        self.logprobs = logprobs

    def __call__(self, contexts, room, on_finished):
        self.shown.append([self.tokenizer.decode(ids) for ids in contexts])
        self.rooms.append(room)
        line = self.lines.pop(0)
        ids = [*self.tokenizer(line)["input_ids"], self.tokenizer.eos_token_id]
        return [ids for _ in contexts], [[-0.5] * len(ids) for _ in contexts] if self.logprobs else None


def chat_format(tokenizer, **template):
    return ChatFormat(tokenizer, [tokenizer.eos_token_id, tokenizer.pad_token_id], template)


def played(env, speaker, *indices, limit=100, tokenizer=None):
    tokenizer = tokenizer or speaker.tokenizer
    episodes = [Episode(env, index) for index in indices]
    prompts = [tokenizer(f"row {index}: ")["input_ids"] for index in indices]
    with EnvPool(env).open() as submit:
        found = run_episodes(episodes, prompts, speaker, chat_format=chat_format(tokenizer), limit=limit, submit=submit)
    return episodes, found


class TestPlay:
    def test_what_is_said_is_the_models_and_what_is_replied_is_foreign(self):
        tokenizer = byte_tokenizer()
        speaker = Speaker(tokenizer, "1?", "2?", "R")
        [episode], [transcript] = played(Haggle(), speaker, 5)
        end = tokenizer.eos_token
        assert tokenizer.decode(transcript.ids) == f"1?{end}{REPLY}2?{end}{REPLY}R{end}"
        own = [token for token, mine in zip(transcript.ids, transcript.mask, strict=True) if mine]
        assert tokenizer.decode(own) == f"1?{end}2?{end}R{end}" and transcript.own == len(own)
        assert transcript.logprobs == [-0.5 * mine for mine in transcript.mask]
        assert speaker.shown[2] == [f"row 5: 1?{end}{REPLY}2?{end}{REPLY}"]
        assert (episode.outcome.reward, episode.outcome.verdict) == (1.0, "correct")
        assert speaker.rooms == [100, 100 - 3 - len(REPLY), 100 - 6 - 2 * len(REPLY)]

    def test_one_turn_is_the_special_case(self):
        speaker = Speaker(byte_tokenizer(), "R", logprobs=False)
        episodes, transcripts = played(Haggle(), speaker, 0, 1)
        assert [transcript.mask for transcript in transcripts] == [[1, 1]] * 2
        assert all(transcript.logprobs == [] for transcript in transcripts)
        assert [episode.outcome.accuracy for episode in episodes] == [1.0, 1.0]

    def test_a_reply_that_leaves_no_room_ends_the_episode_at_the_models_last_token(self):
        tokenizer = byte_tokenizer()
        room = 3 + len(REPLY)
        [episode], [transcript] = played(Haggle(), Speaker(tokenizer, "1?"), 0, limit=room)
        assert tokenizer.decode(transcript.ids) == "1?" + tokenizer.eos_token
        assert (episode.outcome.verdict, episode.outcome.reward) == ("wrong", 0.0)
        _, [transcript] = played(Haggle(), Speaker(tokenizer, "1?", "R"), 0, limit=room + 1)
        assert tokenizer.decode(transcript.ids) == f"1?{tokenizer.eos_token}{REPLY}R"  # cut off before its end

    def test_a_turn_that_is_cut_off_ends_the_episode(self):
        [episode], [transcript] = played(Haggle(), Speaker(byte_tokenizer(), "1234?"), 0, limit=5)
        assert episode.over and len(transcript.ids) == 5

    def test_the_turns_of_an_episode_are_bounded(self):
        [episode], [transcript] = played(Haggle(), Speaker(byte_tokenizer(), *["?"] * 9), 0)
        assert sum(transcript.mask) == 2 * Haggle.max_turns and episode.outcome.verdict == "wrong"

    def test_somebody_elses_environment_keeps_its_episodes_apart(self):
        env = Guess()
        episodes, _ = played(env, Speaker(byte_tokenizer(), "1", "2", "3"), 0, 1, 2)
        assert [episode.outcome.reward for episode in episodes] == [0.75] * 3
        assert [episode.outcome.accuracy for episode in episodes] == [0.75] * 3

    def test_every_turn_has_its_reward_and_its_first_token(self):
        [episode], [transcript] = played(Paid(), Speaker(byte_tokenizer(), "1?", "2?", "R"), 5)
        turn = 3 + len(REPLY)
        assert transcript.starts == [0, turn, 2 * turn]
        assert (episode.outcome.turns, episode.outcome.reward) == ([0.5, -0.25, 1.0], 1.25)
        assert episode.outcome.turn_scores == [0.5, -0.25, 1.0]
        [episode], _ = played(Guess(), Speaker(byte_tokenizer(), "1", "2", "3"), 0)
        assert episode.outcome.turns == episode.outcome.turn_scores == [0.25] * 3

    def test_what_a_truncation_earns_is_the_last_turns(self):
        class Fined(Guess):
            def step(self, action):
                reply, reward, *rest = super().step(action)
                return reply, -1.0 if action == "" else reward, *rest

        [episode], [transcript] = played(Fined(), Speaker(byte_tokenizer(), "1", "2"), 0, limit=2 + len("no 1") + 3)
        assert transcript.truncated and len(transcript.starts) == 2
        assert episode.outcome.turns == [0.25, -0.75] and episode.outcome.reward == -0.5
        assert episode.outcome.turn_scores == [0.25, -0.75]

    @pytest.mark.parametrize("paid", [1.0, 0.0])
    def test_a_turn_whose_reply_has_no_room_keeps_its_reward_for_the_filter(self, paid):
        class Generous(Haggle):
            def reply(self, row, turns):
                return REPLY, paid

        env = OverlongPenalty(Generous(), max_length=1, coefficient=0.5)
        [episode], [transcript] = played(env, Speaker(byte_tokenizer(), "?"), 0, limit=2 + len(REPLY))
        assert transcript.truncated and len(transcript.starts) == 1
        assert (episode.outcome.turns, episode.outcome.turn_scores) == ([paid - 0.5], [paid])

    def test_an_episode_that_cannot_be_scored_has_no_turn_that_can(self):
        class Broken(Paid):
            def verify(self, row, completion):
                return Verdict.INFRA_FAILURE

        [episode], _ = played(Broken(), Speaker(byte_tokenizer(), "1?", "R"), 0)
        assert [math.isnan(reward) for reward in episode.outcome.turns] == [True, True]

    def test_the_parts_of_the_reward_are_summed_over_the_turns(self):
        class Parts(Guess):
            def step(self, action):
                reply, _, over, _, _ = super().step(action)
                return reply, 0.3, over, False, {"rewards": {"style": 0.1, "truth": 0.2}}

        episode = Episode(Parts(), 0)
        while episode.step(Completion("1", n_tokens=1)) is not None:
            pass
        assert episode.outcome.reward == pytest.approx(0.9)
        assert episode.outcome.components == {"style": pytest.approx(0.3), "truth": pytest.approx(0.6)}

    def test_shaping_is_not_taken_for_accuracy(self):
        class Parts(Guess):
            def step(self, action):
                return "", 0.5, True, False, {"rewards": {"style": 0.2, "truth": 0.3}}

        for env, components in ((Guess(), {"overlong"}), (Parts(), {"style", "truth", "overlong"})):
            episode = Episode(OverlongPenalty(env, max_length=1), 0)
            while episode.step(Completion("1", n_tokens=3)) is not None:
                pass
            outcome = episode.outcome
            assert components <= set(outcome.components) and outcome.reward < outcome.accuracy
            assert outcome.accuracy == pytest.approx(0.75 if type(env) is Guess else 0.5)

    def test_one_that_has_nothing_left_to_say_generates_along(self):
        """Two processes take turns: the one that is done first joins until the other is, and nothing of it is kept."""
        speaker, votes = Speaker(byte_tokenizer(), "R", "R", "R"), iter([2, 2, 1, 0])
        tokenizer = speaker.tokenizer
        episode = Episode(Haggle(), 0)
        [transcript] = run_episodes(
            [episode],
            [tokenizer("row 0: ")["input_ids"]],
            speaker,
            chat_format=chat_format(tokenizer),
            limit=20,
            submit=lambda episode, work: work,
            sync=lambda active, room: (next(votes), 7),
        )
        assert [len(shown) for shown in speaker.shown] == [2, 2, 1] and speaker.rooms == [7] * 3
        assert tokenizer.decode(transcript.ids) == "R" + tokenizer.eos_token


TEMPLATES = Path(trl.__file__).parent / "chat_templates"


class TestReply:
    def test_as_the_chat_template_writes_it(self):
        tokenizer = byte_tokenizer(chat=True)
        ids = chat_format(tokenizer).reply_ids("42")
        assert tokenizer.decode(ids) == "<|user|>42<|end|><|assistant|>"

    def test_what_follows_the_end_of_a_turn_is_part_of_it(self):
        tokenizer = byte_tokenizer(chat=True)
        tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|end|>\n")
        assert tokenizer.decode(chat_format(tokenizer).reply_ids("42")) == "\n<|user|>42<|end|>\n<|assistant|>"

    @pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_5_think", "qwen3_6"])
    def test_as_well_known_models_write_it(self, name):
        tokenizer = byte_tokenizer(chat=True)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        text = tokenizer.decode(ChatFormat(tokenizer, [end]).reply_ids("42"))
        assert text.startswith("\n<|im_start|>user\n42<|im_end|>\n<|im_start|>assistant\n")

    def test_the_template_is_told_the_same_as_for_the_prompt(self):
        tokenizer = byte_tokenizer(chat=True)
        tokenizer.chat_template = tokenizer.chat_template.replace(
            "<|assistant|>{% endif", "<|assistant|>{{ mood }}{% endif"
        )
        told = chat_format(tokenizer, mood="calm")
        assert tokenizer.decode(told.reply_ids("42")).endswith("<|assistant|>calm")
        assert tokenizer.decode(told.prompt_ids([{"role": "user", "content": "1"}])).endswith("<|assistant|>calm")

    def test_a_template_that_forgets_earlier_turns_is_refused(self):
        tokenizer = byte_tokenizer(chat=True)
        tokenizer.chat_template = "{{ messages[-1].content }}"
        with pytest.raises(ConfigError, match="does not write a model's earlier turn as it is"):
            chat_format(tokenizer).reply_ids("42")


class TestConversation:
    def test_the_overlong_penalty_is_of_the_episode(self):
        env = OverlongPenalty(Haggle(), max_length=4)
        episode = Episode(env, 0)
        for text, tokens in (("1?", 3), ("2?", 3), ("R", 2)):
            episode.step(Completion(text, n_tokens=tokens, finish_reason="stop"))
        outcome = episode.outcome
        assert outcome.components == {"correctness": 1.0, "overlong": overlong_penalty(8, max_length=4)}
        assert outcome.reward == pytest.approx(sum(outcome.components.values())) and outcome.accuracy == 1.0

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            (("", 1.0, True, {}), r"step\(\) returned a tuple of 4: return \(observation"),
            (("", 1.0, True, False, None), r"the info None \(NoneType\): return a dict"),
            (
                (None, 0.0, False, False, {}),
                r"None \(NoneType\) as the observation and does not end the episode: reply",
            ),
        ],
    )
    def test_what_is_not_a_step_is_named(self, result, message):
        class Odd(Haggle):
            def step(self, action):
                return result

        with pytest.raises(RewardError, match=rf"env Odd, index 2: .*{message}"):
            Episode(Odd(), 2).step(Completion("1?"))

    def test_what_is_not_a_prompt_is_named(self):
        class Odd(Haggle):
            def reset(self, **arguments):
                return None, {}

        with pytest.raises(RewardError, match=r"env Odd, index 2: reset\(\) returned None \(NoneType\) as the obs"):
            Episode(Odd(), 2).step(Completion("1?"))

    def test_a_copy_shares_the_rows_and_nothing_else(self):
        rows = [{"prompt": f"{n}?", "answer": str(n)} for n in range(5)]
        env = gymnasium.make("math/Problem-v0", rows=rows)
        assert env.spec is not None  # gymnasium keeps what it has worked out
        env.reset(options={"index": 3}, seed=1)
        twin = duplicate(env)
        env.reset(options={"index": 4})
        assert twin.step("Answer: 3")[1] == 1.0 and env.step("Answer: 4")[1] == 1.0
        assert twin.unwrapped._questions is env.unwrapped._questions
        assert [env.reset()[1] for _ in range(5)] == [twin.reset()[1] for _ in range(5)]


def test_evaluation_plays_every_turn(tiny_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)

    class Patient(Haggle):
        def reply(self, row, turns):
            return REPLY

    model.generation_config.eos_token_id = [*range(100)]  # a random model soon says one of these
    found = evaluate(model, tokenizer, Patient(), [0, 1], k=4, sampling=Sampling(top_p=1.0, max_completion_length=60))
    assert found.lengths.max() <= 60 - len(REPLY) and found.verdicts.size == 8


def test_every_turn_of_an_evaluation_has_random_numbers_of_its_own(tiny_model, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dapo_trl.evaluation import evaluator

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    drawn, sample_turns = [], evaluator.sample_turns

    class Patient(Haggle):
        def reply(self, row, turns):
            return REPLY

    def watched(model, chat_format, contexts, numbers, room, on_finished):
        drawn.append([numbers.at(step)[0] for step in range(room)])
        turns = sample_turns(model, chat_format, contexts, numbers, room=room)
        return [[*ids[:2], tokenizer.eos_token_id] for ids in turns]

    monkeypatch.setattr(evaluator, "sample_turns", watched)
    evaluate(model, tokenizer, Patient(), [0], k=1, sampling=Sampling(top_p=1.0, max_completion_length=60))
    assert len(drawn) >= 2 and not set(drawn[0][:3]) & set(drawn[1])


@pytest.mark.slow
def test_training_on_many_turns_is_the_same_on_two_processes(warm_start, tiny_model, tmp_path):
    def run(name, rows, steps, accelerate=None):
        folder = tmp_path / name
        folder.mkdir()
        arguments = [tiny_model, str(folder), str(rows), str(steps)]
        done = warm_start.run("tests.support.turns_run", *arguments, accelerate=accelerate)
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.load(folder / "found.pt")

    one, two = run("one", 8, 4), run("two", 4, 4, CPU_2)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["calls"] == one["calls"] * 2  # as many turns on either, though they need not as many
    assert one["foreign"][0] == two["foreign"][0] == ""
    assert set(one["foreign"]) == {"", REPLY, REPLY * 2} and one["foreign"] == two["foreign"]
    assert one["log"]["reward"] == pytest.approx(two["log"]["reward"])
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("limits", "agreed"), [({"a": 512, "b": 256}, (4, 512)), ({"a": 512}, (4, 256))])
def test_processes_with_other_limits_sample_to_the_same_one(limits, agreed):
    """Tasks of one turn need no agreement, unless environments with other limits lie on other processes."""

    class Two:
        num_processes, device = 2, "cpu"

        def gather(self, mine):
            return torch.cat([mine, torch.tensor([[4, 512]])])

    source = object.__new__(EnvironmentSource)
    source.limits, source._may_reply, source._equal_counts, source._accelerator = limits, False, False, Two()
    assert source._sync(4, 256) == agreed
