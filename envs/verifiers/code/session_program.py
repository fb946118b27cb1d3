"""The side of a session that has the program under test: it does what the statements ask, and answers.

It runs in the program's own process, so that anything it says may be the program's: values, and nothing else.
"""

import builtins
import marshal
import sys
import types
from typing import Any

from .session_wire import OPERATIONS, Enough, Peer


class ProgramPeer(Peer):
    """The program, as asked by the statements."""

    def __init__(self, exchange, source, names):
        super().__init__(exchange)
        module: Any = types.ModuleType("solution")
        sys.modules["solution"] = module
        module.__builtins__ = builtins
        self.namespace = module.__dict__
        try:
            exec(compile(source.removeprefix("\ufeff"), "<solution>", "exec", dont_inherit=True), self.namespace)
            found = {name: self.pack(self.find(name)) for name in names if self.has(name)}
            self.loaded = ["value", ["dict", [*found], [*found.values()]]]
        except MemoryError:
            raise
        except BaseException as error:
            self.loaded = self.raised(error)

    def has(self, name):
        return name in self.namespace or hasattr(self.namespace.get("Solution"), name)

    def find(self, name):
        if name in self.namespace:
            return self.namespace[name]
        if not self.has(name):
            raise NameError(f"the program does not define {name!r}")
        return getattr(self.namespace["Solution"](), name)

    def do(self, operation, *operands):
        if operation == "name":
            return self.find(*operands)
        if operation == "await":
            import asyncio

            async def awaited():
                return await operands[0]

            return asyncio.run(awaited())
        return OPERATIONS[operation](*operands)

    def answer(self, message):
        """Answer, and with a call return what became of arguments that the program has changed."""
        if message[1] != "call":
            return super().answer(message)
        try:
            function, arguments, keywords = map(self.unpack, message[2])
            given = [*arguments, *keywords.values()]
            states = [*map(state, given)]
            result = function(*arguments, **keywords)
            changed = [
                [number, self.pack(argument)]
                for number, (argument, before) in enumerate(zip(given, states, strict=True))
                if before is not None and state(argument) != before
            ]
            own = [number for number, argument in enumerate(given) if argument is result and type(argument) in MUTABLE]
            return ["value", ["argument", own[0]] if own else self.pack(result), changed]
        except (Enough, MemoryError):
            raise
        except BaseException as error:
            return self.raised(error)

    def operate(self, operation, *operands, **keywords):
        if operation == "call":
            function, *arguments = operands
            return self.ask("call", function, arguments, keywords)
        return self.ask(operation, *operands)

    def unpack_other(self, tag, rest):
        if tag == "pickle":
            import pickle

            return pickle.loads(rest[0])
        module, name = rest
        value = __import__(module, fromlist=["."])
        for part in name.split("."):
            value = getattr(value, part)
        return value

    def exception(self, classes, text, arguments, line, origin):
        own = self.unpack(origin)
        if isinstance(own, BaseException):  # the program's own, which has come back
            return own
        names = (name.partition(".")[2] for name in classes if name.startswith("builtins."))
        kinds = (getattr(builtins, name, None) for name in names)
        kind = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)), RuntimeError)
        error: Any = kind(text)
        error._remote = self.proxies[origin[1]]
        return error


MUTABLE = {list, dict, set, bytearray}


def state(value):
    """Return what tells whether a container changes, or None for what is no container."""
    if type(value) not in MUTABLE:
        return None
    try:
        return marshal.dumps(value, 2)
    except ValueError:  # it holds objects
        return [*map(id, value), *(map(id, value.values()) if type(value) is dict else ())]


def main(exchange, source, names):
    """Answer questions until there are no more."""
    peer = ProgramPeer(exchange, source, names)
    message = exchange(peer.loaded)
    while True:
        reply = peer.answer(message)
        try:
            message = exchange(reply)
        except ValueError as error:
            if type(error).__name__ == "TooLarge":
                raise
            message = exchange(["value", peer.own(reply)])  # nested too deep to be sent
