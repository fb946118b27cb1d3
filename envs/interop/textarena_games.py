"""`textarena:ID`: a game of the package textarena, alone or against a scripted opponent."""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, ClassVar

from ..base import Completion
from ..chat import Message
from ..text import one_line
from .doors import require
from .foreign import BrokenRule, ForeignEnv, untouched_generators
from .sessions import Reply, Session, SessionError, Shown

MAX_PLAYERS = 15
"""Players that a game is tried with, to find out how few it takes."""
MAX_OPPONENT_TURNS = 1_000
"""Turns of opponents in a row after which a game counts as endless."""
_MOVE = re.compile(r"\[[^\[\]']+\]")
_LIST = re.compile(r"\b(?:available|legal|valid|possible)\b[^:]*:", re.IGNORECASE)
"""Begins a game's list of open moves, such as `Available Moves: '[0]', '[1]'`."""

Opponent = Callable[[str, random.Random], str]
"""A scripted opponent: `opponent(observation, generator)` returns its action."""


class TextArenaEnv(ForeignEnv, without=("max_concurrency", "patience")):
    """A game of textarena: the index is the seed, the reward the game's own for the model's player.

    ## Arguments
    - `player=0`: the model's place among the players.
    - `opponent="random"`: who plays the other places: "random" chooses among the moves that the game lists,
      "module:function" names one of yours, `function(observation, generator)`.
    - `game_kwargs={}`: arguments of the game itself.
    - `num_rows=None`: games that are used, None for endless ones.
    - `max_turns=64`: the maximum of the model's actions in a game.
    - `best_reward=1.0`: the reward of a game that is won; the accuracy is the reward divided by it, within [0, 1].
    - `timeout=30.0`: seconds that a move takes at most, for `envs check`.
    - `check=True`: look at the start which rules the game keeps; False allows one that cannot be trained on.
    """

    extra: ClassVar[str] = "textarena"

    def __init__(
        self,
        *,
        game: str,
        player: int = 0,
        opponent: str | Opponent = "random",
        game_kwargs: Mapping[str, Any] | None = None,
        max_turns: int = 64,
        **settings: Any,
    ) -> None:
        textarena = require("textarena", self.extra)
        try:
            with untouched_generators([]):
                self._template = textarena.make(game, **dict(game_kwargs or {}))
        except LookupError as error:  # nltk's word lists, which some games read
            raise FileNotFoundError(f"textarena:{game} needs data of nltk: {one_line(error)[:300]}") from error
        except ValueError as error:
            raise ValueError(f"textarena:{game}: {one_line(error)} Its games: {_near(textarena, game)}") from error
        self._opponent = opponent if callable(opponent) else _named(opponent)
        self.player = player
        self.players = self._fewest_players(game)
        if not 0 <= player < self.players:
            raise ValueError(f"textarena:{game}: player={player!r} must be from 0 to {self.players - 1}")
        if self.players > 1:
            self._opponent(self._first_observation(), random.Random(0))  # one that cannot play is an error at once
        super().__init__(max_turns=max_turns, max_concurrency=1, **settings)

    def _first_observation(self) -> str:
        """Return what the first player sees."""
        with untouched_generators([]):
            game = self.copy_of_game()
            game.reset(num_players=self.players, seed=0)
            return _as_text(game.get_observation()[1])

    def _connect(self) -> Session:
        return _Game(self)

    def copy_of_game(self) -> Any:
        """Return the game, not begun."""
        return deepcopy(self._template)

    def opponent_action(self, observation: str, generator: random.Random) -> str:
        """Return the action of an opponent.

        Raises:
            SessionError: The opponent failed.
        """
        try:
            return self._opponent(observation, generator)
        except Exception as error:
            raise SessionError(f"the opponent failed: {type(error).__name__}: {one_line(error)}") from error

    def _fewest_players(self, game: str) -> int:
        """Return how many players the game takes at least.

        Raises:
            ValueError: It cannot be begun with any number.
        """
        reason = ""
        for players in range(1, MAX_PLAYERS + 1):
            try:
                with untouched_generators([]):
                    self.copy_of_game().reset(num_players=players, seed=0)
                return players
            except Exception as error:  # whatever the game raises for a wrong number
                reason = reason or f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"textarena:{game} begins with no number of players from 1 to {MAX_PLAYERS}: {reason}")

    def _own_broken_rules(self, prompts: list[str | list[Message]]) -> Iterator[BrokenRule] | list[BrokenRule]:
        return []  # games of which all begin alike differ in what they hide or in their opponent, by the index


class _Game:
    """One game after another, each with random numbers of its own."""

    def __init__(self, env: TextArenaEnv) -> None:
        self._env = env
        self._game: Any = None
        self._generators: list[Any] = []
        self._shown = ""

    def reset(self, index: int) -> Shown:
        self._game = self._env.copy_of_game()
        self._opponents = random.Random(index)
        self._generators = []
        with untouched_generators(self._generators):
            random.seed(index)  # some games draw before they use the seed
            self._game.reset(num_players=self._env.players, seed=index)
            self._shown = self._turn_of_the_model() or ""
        return Shown(self._shown.strip())

    def step(self, action: Completion) -> Reply:
        try:
            with untouched_generators(self._generators):
                self._game.step(str(action))
                observation = self._turn_of_the_model()
        except SessionError:
            raise
        except Exception as error:  # a game that is confused by an action
            raise SessionError(f"the game failed: {type(error).__name__}: {one_line(error)}") from error
        if observation is None:
            rewards, about = self._game.close()
            own = (about or {}).get(self._env.player, {})
            reward = float((rewards or {}).get(self._env.player, 0.0))
            return Reply("", reward, True, {"cause": str(own.get("reason") or "")})
        reply = observation.removeprefix(self._shown)
        self._shown = observation
        echo = re.match(r"\s*\[[^\]]*\] ", reply)
        return Reply((reply[echo.end() :].removeprefix(str(action)) if echo else reply).strip())

    def close(self) -> None:
        """Nothing is held."""

    def _turn_of_the_model(self) -> str | None:
        """Have the others play until it is the model's turn; return what it sees, None when the game is over."""
        for _ in range(MAX_OPPONENT_TURNS):
            if self._game.state.done:
                return None
            player, observation = self._game.get_observation()
            if player == self._env.player:
                return _as_text(observation)
            self._game.step(self._env.opponent_action(_as_text(observation), self._opponents))
        raise SessionError(f"it was not the model's turn after {MAX_OPPONENT_TURNS} turns of its opponents")


def random_opponent(observation: str, generator: random.Random) -> str:
    """Return one of the moves that a game listed last, such as `Available Moves: '[0]', '[1]'`.

    Raises:
        ValueError: It lists none.
    """
    for line in reversed(observation.splitlines()):
        if _LIST.search(line) and (moves := _MOVE.findall(line)):
            return generator.choice(moves)
    raise ValueError(
        "the game lists no moves as in \"Available Moves: '[0]', '[1]'\", so that none can be chosen at random: name "
        "an opponent of yours (opponent: module:function)"
    )


def _named(opponent: str) -> Opponent:
    if opponent == "random":
        return random_opponent
    module, colon, name = opponent.partition(":")
    if not colon:
        raise ValueError(f"opponent={opponent!r} must be 'random' or 'module:function'")
    return getattr(importlib.import_module(module), name)


def _as_text(observation: Any) -> str:
    """Return an observation as a text; games without a wrapper give a list of (sender, message, kind)."""
    return observation if isinstance(observation, str) else "\n".join(str(message) for _, message, _ in observation)


def _near(textarena: Any, game: str) -> str:
    known = sorted(textarena.envs.registration.ENV_REGISTRY)
    stem = game.partition("-")[0].lower()
    return ", ".join([name for name in known if stem and stem in name.lower()][:8] or [*known[:8], "..."])
