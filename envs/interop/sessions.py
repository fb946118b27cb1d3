"""The live episodes of a foreign environment, as many at a time as it can hold.

An episode in progress keeps a session with the environment. Where there are more episodes than sessions, the one that
was used least recently gives its session up and is played again when its turn comes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from ..base import Completion
from ..chat import Message


class SessionError(ConnectionError):
    """The environment's machinery failed: a server is away, slow or broken. Nothing is known about an answer."""


class AwayError(SessionError):
    """The environment cannot be reached at the moment, or is too slow."""


class CapacityError(AwayError):
    """The environment holds no further session at the moment."""


@dataclass(frozen=True)
class Shown:
    """The beginning of an episode.

    Attributes:
        prompt: A text, or a chat that ends with the user's turn.
        info: Public facts about the row, such as {"level": 2}.
    """

    prompt: str | list[Message]
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """The environment's answer to one action.

    Attributes:
        text: The next observation; "" at the end.
        reward: Of this action; NaN where nothing is known about it.
        done: Whether the episode is over.
        info: Further facts, of `TaskEnv`'s keys those that the environment has ("verdict", "accuracy", "cause", ...).
    """

    text: str
    reward: float = 0.0
    done: bool = False
    info: dict[str, Any] = field(default_factory=dict)


class Session(Protocol):
    """A connection to a foreign environment that plays one episode after another.

    Every method raises `SessionError` where the environment's machinery fails.
    """

    def reset(self, index: int) -> Shown:
        """Begin the episode of a row and return its prompt."""

    def step(self, action: Completion) -> Reply:
        """Take the model's turn."""

    def close(self) -> None:
        """End the session; never raises."""


@dataclass(eq=False)
class Played:
    """An episode: its row, the actions so far, and the observations that answered them.

    Attributes:
        index: The row.
        shown: Its beginning, None before it was first played.
        actions: The model's turns.
        replies: The observation after each of them.
        session: Where it is played, None while another episode uses the session.
        failure: Why it cannot go on; empty while it can.
    """

    index: int
    shown: Shown | None = None
    actions: tuple[Completion, ...] = ()
    replies: tuple[str, ...] = ()
    session: Session | None = None
    failure: str = ""
    idle: list[Session] = field(default_factory=list, repr=False)
    """Takes the session of an episode that nobody goes on with."""

    def __del__(self) -> None:
        if self.session is not None:
            self.idle.append(self.session)


class Sessions:
    """Sessions with one environment, shared by all copies of it and by threads.

    Args:
        connect: Opens a session.
    """

    def __init__(self, connect: Callable[[], Session]) -> None:
        self.limit: int | None = None
        """Sessions at a time that the environment lets in, once that is known."""
        self._connect = connect
        self._idle: list[Session] = []
        self._held: WeakKeyDictionary[Played, None] = WeakKeyDictionary()  # not in use; least recently used first
        self._count = 0
        self._changed = threading.Condition()

    def begin(self, index: int, shown: Shown | None = None) -> Played:
        """Return a new episode of a row, with its beginning where that is known."""
        return Played(index, shown, idle=self._idle)

    def opened(self) -> Session:
        """Open a first session, and return it for a look; an episode takes it later.

        Raises:
            SessionError: The environment lets none in.
        """
        session = self._taken()
        self._idle.append(session)
        return session

    def __deepcopy__(self, memo: dict[int, Any]) -> Sessions:
        return self

    @contextmanager
    def of(self, played: Played) -> Iterator[Session]:
        """Give an episode its session, or a new one that stands where the episode does.

        Raises:
            SessionError: There is none, or the episode could not be played again as it was.
        """
        with self._changed:
            self._held.pop(played, None)
        if played.session is None:
            session = self._taken()
            try:
                self._play(session, played)
            except BaseException:
                self._drop(session)
                raise
            played.session = session
        try:
            yield played.session
        except BaseException:
            session, played.session = played.session, None
            self._drop(session)
            raise
        with self._changed:
            self._held[played] = None
            self._changed.notify()

    def give_back(self, played: Played) -> None:
        """Take the session of an episode that does not go on."""
        with self._changed:
            self._held.pop(played, None)
            if played.session is not None:
                self._idle.append(played.session)
                played.session = None
                self._changed.notify()

    def close(self) -> None:
        """End every session that is not in use."""
        with self._changed:
            for played in list(self._held):
                self._idle += [played.session] if played.session else []
                played.session = None
            self._held.clear()
            idle = list(self._idle)
            self._idle.clear()
            self._count -= len(idle)
        for session in idle:
            session.close()

    def _taken(self) -> Session:
        """Take an idle session, else a new one, else that of the episode used least recently."""
        while True:
            with self._changed:
                if self._idle:
                    return self._idle.pop()
                if self.limit is None or self._count < self.limit:
                    self._count += 1
                elif other := next(iter(self._held), None):
                    del self._held[other]
                    session, other.session = other.session, None
                    if session is not None:
                        return session
                    continue
                else:  # every session is stepping an episode in another thread
                    self._changed.wait(1.0)
                    continue
            try:
                return self._connect()
            except CapacityError:
                with self._changed:
                    self._count -= 1
                    if self._count == 0:
                        raise
                    self.limit = self._count
            except BaseException:
                with self._changed:
                    self._count -= 1
                raise

    def _play(self, session: Session, played: Played) -> None:
        """Bring a session to the place where an episode stands.

        Raises:
            SessionError: The environment shows something else than the first time.
        """
        shown = session.reset(played.index)
        if played.shown is None:
            played.shown = shown
        elif shown.prompt != played.shown.prompt:
            raise SessionError(f"row {played.index} shows another prompt than before")
        for number, (action, then) in enumerate(zip(played.actions, played.replies, strict=True), 1):
            reply = session.step(action)
            if reply.done or reply.text != then:
                raise SessionError(f"row {played.index} goes on differently at action {number} when it is played again")

    def _drop(self, session: Session) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify()
        session.close()
