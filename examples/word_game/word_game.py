"""Find a secret word of five letters in six guesses: an environment of many turns."""

from collections import Counter
from pathlib import Path

import gymnasium

from envs import Judgement, TaskEnv, Verdict

WORDS = tuple((Path(__file__).parent / "data" / "words.txt").read_text().split())
GUESSES = 6
TEST_SHARE = 5  # one word in this many is the secret in the test split alone


class WordGame(TaskEnv):
    """Guess a word; each reply marks the letters of the guess.

    Args:
        split: "train" or "test": which words are secrets. All of them can be guessed.
    """

    max_turns = GUESSES

    def __init__(self, *, split="train", correct_reward=1.0, wrong_reward=0.0):
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        if split not in ("train", "test"):
            raise ValueError(f"split={split!r} must be 'train' or 'test'")
        self.secrets = [word for place, word in enumerate(WORDS) if (place % TEST_SHARE == 0) == (split == "test")]
        self.num_rows = len(self.secrets)

    def row(self, index):
        prompt = (
            f"I am thinking of a common English word of five letters. You have {GUESSES} guesses. Write one word a "
            "turn and nothing else. After each guess I mark its letters: + stands where the letter is right, ? where "
            "the word has it in another place, - where the word does not have it."
        )
        return {"prompt": prompt, "secret": self.secrets[index]}

    def reply(self, row, turns):
        guess = word_of(turns[-1])
        if guess == row["secret"]:
            return None
        if guess is None:
            return "That is not one word of five letters."
        return f"{guess}: {marks(guess, row['secret'])}"

    def verify(self, row, completion):
        guess = word_of(completion)
        if guess is None:
            return Judgement.of(Verdict.NO_ANSWER, "the last turn is not one word of five letters")
        return guess == row["secret"]

    def solution(self, index):
        return self.secrets[index]


def word_of(turn):
    """The guess in a turn; None: it is no word of five letters."""
    word = turn.strip().lower()
    return word if len(word) == 5 and word.isascii() and word.isalpha() else None


def marks(guess, secret):
    """A mark for each letter: of a letter that comes twice in the guess and once in the secret, one is marked."""
    left = Counter(ours for ours, theirs in zip(secret, guess, strict=True) if ours != theirs)
    found = []
    for ours, theirs in zip(secret, guess, strict=True):
        if ours == theirs:
            found.append("+")
        elif left[theirs]:
            left[theirs] -= 1
            found.append("?")
        else:
            found.append("-")
    return "".join(found)


gymnasium.register("word_game/Words-v0", "word_game:WordGame")
