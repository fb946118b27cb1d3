"""The side of a session that has the test statements: it runs them, and counts which assertions hold.

The program under test is `Proxy` objects here, and decides nothing: what is compared are values that crossed. An object
that the statements made themselves, of a class of the program, may take part in an operation (`v + w`, `v == w`,
`2 in v`); its yes counts only if it says no to something else. What a program raises is raised here as something that
ends no loop and no process.
"""

import ast
import importlib
import random
import sys

from .session_wire import (
    BINARY,
    COMPARISONS,
    OPERATIONS,
    Enough,
    Missing,
    Peer,
    is_proxy,
)

STOPPING = (StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, KeyboardInterrupt)
STAND_INS = {kind: type(kind.__name__, (Exception,), {}) for kind in STOPPING}
RAISING = {"raises", "assertRaises", "suppress"}  # functions that are given classes of exceptions
OF_INSTANCES = {"getattr", "setattr", "call", *BINARY, *COMPARISONS}
OF_INSTANCES |= {"len", "str", "repr", "bool", "hash", "iter", "getitem", "setitem", "contains", "float", "int"}


class Counting(ast.NodeTransformer):
    """Makes every assertion report how it ended, in place of raising, and sends types around `Proxy` objects."""

    def __init__(self):
        self.count = 0

    def visit_Assert(self, node):
        number = ast.Constant(self.count)
        self.count += 1
        node = self.generic_visit(node)
        passed = ast.Expr(ast.Call(ast.Name("_passed", ast.Load()), [number], []))
        failed = ast.Expr(ast.Call(ast.Name("_failed", ast.Load()), [number, ast.Name("_error", ast.Load())], []))
        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), "_error", [failed])
        return ast.Try([node], [handler], [passed], [])

    def visit_ExceptHandler(self, node):
        self.generic_visit(node)
        if node.type is not None:
            node.type = ast.Call(ast.Name("_caught", ast.Load()), [node.type], [])
        return node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if node.attr == "__class__" and isinstance(node.ctx, ast.Load):
            return ast.Call(ast.Name("_type", ast.Load()), [node.value], [])
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "type" and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
            node.func = ast.Name("_type", ast.Load())
        elif name in RAISING and node.args:
            node.args[0] = ast.Call(ast.Name("_caught", ast.Load()), [node.args[0]], [])
        return node


class Names(dict):
    """The names of the statements; one that the program gives a plain value is asked for whenever it is used."""

    def __missing__(self, name):
        if name not in self["_asked"]:
            raise KeyError(name)
        return self["_session"].ask("name", name, label=name)


class TestsPeer(Peer):
    """The statements, and what became of their assertions."""

    def __init__(self, exchange, stop):
        super().__init__(exchange)
        self.stop = stop
        self.passed_at, self.failed_at = {}, {}
        self.failure = None
        self.last = ["", "", "ok"]  # the last question, its answer, and how that ended
        self.questions = 0
        self.classes = {}  # stand-ins of the program's exceptions

    # --- assertions

    def passed(self, number):
        self.passed_at[number] = self.passed_at.get(number, 0) + 1

    def failed(self, number, error):
        self.failed_at[number] = self.failed_at.get(number, 0) + 1
        self.note(error, number)
        if self.stop:
            raise Enough

    def note(self, error, number=-1):
        if self.failure is None:
            self.failure = [number, f"{type(error).__name__}: {error}".rstrip(": ")[:300], *self.last]

    def report(self):
        counts = {"passed": self.passed_at, "failed": self.failed_at, "questions": self.questions}
        return {**counts, "failure": self.failure, "asked": self.last[0]}

    # --- asking the program

    def ask(self, operation, *operands, label=""):
        self.questions += 1
        self.last = [label, "", "ok"]
        message = ["do", operation, [self.pack(operand) for operand in operands]]
        reply = self.exchange(message)
        while type(reply) is list and reply[:1] == ["do"]:
            reply = self.exchange(self.answer(reply))
        if reply is None:
            raise Enough  # the program is gone
        self.last = [label, "", "ok"]
        try:
            if reply[0] == "raised":
                error = self.exception(*reply[1:])
                self.last[1:] = [
                    f"{reply[1][0].removeprefix('builtins.').removeprefix('solution.')}: {error}".rstrip(": "),
                    "crash",
                ]
            else:
                if operation == "call":
                    self.take_over(operands, *reply[2:])
                    if type(reply[1]) is list and reply[1][:1] == ["argument"]:
                        reply = ["value", self.pack_argument(operands, reply[1][1])]
                value = self.unpack(reply[1], label)
                self.last[1] = shown(value)
                return value
        except Enough:
            raise
        except Exception as problem:
            raise TypeError("the program's answer is none") from problem
        raise error

    def arguments(self, operands):
        return [*operands[1], *operands[2].values()]

    def pack_argument(self, operands, number):
        return ["yours", self.own(self.arguments(operands)[number])[1]]

    def take_over(self, operands, changed=()):
        """Give arguments that the program has changed the state that they have there."""
        for number, tree in changed:
            argument, value = self.arguments(operands)[number], self.unpack(tree)
            if type(argument) is not type(value):
                raise TypeError("an argument changed its type")
            if type(argument) in (list, bytearray):
                argument[:] = value
            else:
                argument.clear()
                argument.update(value)

    def unpack(self, tree, label=""):
        if type(tree) is list and tree[:1] == ["mine"] and tree[2] == "coroutine":
            proxy = super().unpack(tree, label)

            async def awaited():
                return self.ask("await", proxy, label=f"await {label}")

            return awaited()
        return super().unpack(tree, label)

    def unpack_other(self, tag, rest):
        raise ValueError(f"a program does not send {tag!r}")

    def packed_object(self, value, kind, depth):
        packed = super().packed_object(value, kind, depth)
        if packed[0] != "mine":
            return packed
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if (
            isinstance(module, str)
            and isinstance(name, str)
            and name.isidentifier()
            and module.partition(".")[0] in {*sys.stdlib_module_names, "numpy"}
            and getattr(importlib.import_module(module), name, None) is value
        ):
            return ["name", module, name]
        if kind.__module__ != "tests" and not callable(value) and not hasattr(value, "__next__"):
            import pickle

            try:
                return ["pickle", pickle.dumps(value)]
            except Exception:
                pass
        return packed

    # --- operations on what the program has

    def operate(self, operation, *operands, **keywords):
        if operation == "call":
            return self.call(*operands, **keywords)
        if operation in ("getattr", "setattr", "delattr", "enter", "exit"):
            return self.attribute(operation, *operands)
        plain = [local(operand) for operand in operands]
        if operation == "getitem" and is_proxy(operands[0]) and type(plain[0]) is dict:  # it may make what is missing
            plain[0] = operands[0]
        if not any(map(is_proxy, plain)):
            return OPERATIONS[operation](*plain)
        if operation in COMPARISONS or operation in BINARY or operation in ("contains", "bool"):
            return self.combine(operation, *plain)
        found = self.ask(operation, *plain, label=f"{operation}({', '.join(map(label_of, plain))})")
        if is_proxy(found) and operation not in ("iter", "getitem"):
            vars(found)["_made"] = vars(plain[0])["_made"]
        return found

    def attribute(self, operation, owner, *operands):
        if operation == "exit":
            return self.ask("exit", owner, label="leaving it")
        name = operands[0] if operands else "__enter__"
        found = self.ask(operation, owner, *operands, label=f"{label_of(owner)}.{name}")
        if operation == "enter" and found is owner:
            return owner
        return found

    def call(self, function, *arguments, **keywords):
        given = [*map(label_of, arguments), *(f"{name}={label_of(value)}" for name, value in keywords.items())]
        label = f"{label_of(function)}({', '.join(given)})"
        found = self.ask("call", function, arguments, keywords, label=label)
        if is_proxy(found) and function._kind.startswith("class ") and function._label.lstrip("_")[:1].isupper():
            vars(found)["_made"] = (function, arguments, keywords)
        return found

    def combine(self, operation, *operands):
        """Work out an operation that the program's objects take part in."""
        proxies = [operand for operand in operands if is_proxy(operand)]
        made = [proxy for proxy in proxies if proxy._made is not None]
        if operation == "contains" and not made and operands[0] is proxies[0]:
            return any(member is operands[1] or member == operands[1] for member in operands[0])
        if not made or (len(made) < len(operands) and len(proxies) == len(operands) and operation == "bool"):
            raise TypeError("the program returned an object that is no plain value")
        label = f"{operation}({', '.join(map(label_of, operands))})"
        found = self.ask(operation, *operands, label=label)
        if is_proxy(found):
            if operation in COMPARISONS:
                raise TypeError("the program compares to an object that is no plain value")
            vars(found)["_made"] = ()
            return found
        if found is not True or operation not in ("eq", "ne", "contains"):
            return found
        last = self.last
        for others in self.unlike(operation, *operands):
            try:
                if self.ask(operation, *others, label=label):
                    raise TypeError(f"the program says yes to {label}, and to anything else")
            except Enough:
                raise
            except TypeError as error:
                if "says yes" in str(error):
                    raise
            except Exception:
                continue
        self.last = last
        return True

    def unlike(self, operation, one, other):
        """Return operands for which the answer must not be yes."""
        if operation == "ne":
            return [(one, one) if is_proxy(one) else (other, other)]
        owner = one if is_proxy(one) and (operation == "contains" or one._made is not None) else other
        found = [(owner, object())]
        if operation == "eq":
            counterpart = other if owner is one else one
            twin = self.twin(counterpart)
            if twin is Missing and is_proxy(counterpart):
                owner, twin = counterpart, self.twin(owner)
            if twin is not Missing:
                found.append((owner, twin))
        return found

    def twin(self, value):
        """Return another object, made of other arguments, or Missing."""
        if not is_proxy(value):
            return changed(value)
        if not value._made:
            return Missing
        function, arguments, keywords = value._made
        others = [*map(changed, arguments)], {name: changed(value) for name, value in keywords.items()}
        if Missing in map(type_or_missing, [*others[0], *others[1].values()]) or not (arguments or keywords):
            return Missing
        try:
            return self.ask("call", function, *others, label=function._label)
        except Exception:
            return Missing

    # --- what the program may do here

    def do(self, operation, target, *operands):
        """Do to an object of the statements what the program asks for, if the statements gave it for that."""
        kind = type(target)
        if id(target) not in self.numbers:
            raise AttributeError("the tests did not give it that")
        if operation == "call" and (callable(target) and kind.__module__ in ("tests", "builtins", "functools")):
            return target(*operands[0], **operands[1])
        if operation in ("iter", "take"):
            return OPERATIONS[operation](target, *operands)
        is_instance = kind.__module__ == "tests" or (getattr(target, "__module__", "") == "tests" and kind is type)
        name = operands[0] if operation in ("getattr", "setattr") else ""
        if operation == "getattr" and name in ("__name__", "__doc__", "__qualname__"):
            return getattr(target, name)
        if operation in OF_INSTANCES and is_instance and not str(name).startswith("_"):
            return OPERATIONS[operation](target, *operands)
        error = AttributeError if operation in ("getattr", "setattr", "delattr") else TypeError
        raise error(f"{operation} is not possible on a {kind.__name__} of the tests")

    # --- exceptions

    def exception(self, classes, text, arguments, line, origin):
        if origin[0] == "yours":  # the statements' own, which has come back
            return self.objects[origin[1]]
        kind = self.classes.get(tuple(classes))
        if kind is None:
            members = {"__str__": lambda e: e._text, "__getattr__": lambda e, name: self.attribute_of(e, name)}
            kind = self.classes[tuple(classes)] = type(classes[0].rpartition(".")[2], self.bases(classes), members)
        error = kind.__new__(kind, *self.unpack(arguments))
        error._text, error._remote = text, super().unpack(origin)
        return error

    def attribute_of(self, error, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self.operate("getattr", error._remote, name)

    def bases(self, classes):
        """Return the classes to derive from: those of the standard library, stand-ins for others."""
        found = []
        for name in classes:
            kind = known_class(name)
            if kind in STAND_INS:
                found.append(STAND_INS[kind])
                break
            if kind is not None:
                found.append(kind if issubclass(kind, Exception) else RuntimeError)
                break
            found.append(self.stand_in(name))
        return tuple(found)

    def stand_in(self, name):
        return self.classes.setdefault(name, type(name.rpartition(".")[2], (Exception,), {}))

    def caught(self, spec):
        """Return what an `except` clause catches."""
        if isinstance(spec, tuple):
            return tuple(kind for member in spec for kind in self.caught(member))
        if is_proxy(spec):
            return (self.stand_in(spec._kind.removeprefix("class ")),)
        return (spec, STAND_INS[spec]) if spec in STAND_INS else (spec,)

    # --- functions of Python that look at types

    def isinstance(self, value, kinds):
        return self.of_type("isinstance", value, kinds)

    def issubclass(self, value, kinds):
        return self.of_type("issubclass", value, kinds)

    def of_type(self, operation, value, kinds):
        members = kinds if isinstance(kinds, tuple) else (kinds,)
        if not is_proxy(value) and not any(map(is_proxy, members)):
            return OPERATIONS[operation](value, kinds)
        return self.ask(operation, value, kinds, label=f"{operation}({label_of(value)}, {label_of(kinds)})") is True

    def is_callable(self, value):
        return self.ask("callable", value, label=f"callable({label_of(value)})") if is_proxy(value) else callable(value)

    def type_of(self, value):
        return self.ask("type", value, label=f"type({label_of(value)})") if is_proxy(value) else type(value)

    def next_of(self, iterator, *default):
        if not is_proxy(iterator):
            return next(iterator, *default)
        found = self.take(iterator, in_loop=False)
        if found is not Missing:
            return found
        if default:
            return default[0]
        raise STAND_INS[StopIteration]


def type_or_missing(value):
    return Missing if value is Missing else None


def known_class(name):
    """Return the exception class of the standard library with that full name, or None."""
    module, _, name = name.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None) if module.partition(".")[0] in sys.stdlib_module_names else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else None


def local(value):
    """Return what stands for a value in operations here."""
    return value._plain if is_proxy(value) and value._plain is not Missing else value


def changed(value):
    """Return a value unlike this one, or Missing."""
    kind = type(value)
    if kind is bool:
        return not value
    if kind in (int, float, complex):
        return value + 7919
    if kind is str:
        return value + "~"
    if kind is bytes:
        return value + b"~"
    if kind in (list, tuple) and value:
        members = [changed(member) for member in value]
        return Missing if any(member is Missing for member in members) else kind(members)
    return Missing


def label_of(value):
    """Return how a value is written in questions."""
    if is_proxy(value):
        return value._label or "..."
    return shown(value)


def shown(value):
    if is_proxy(value):
        return f"an object of type {value._kind!r}" if value._plain is Missing else shown(value._plain)
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__} that cannot be written"
    return text if len(text) <= 300 else f"{text[:147]} ... {text[-147:]}"


def run_tests(exchange, setup, asserts, names, modules, entry_point, stop):
    """Run the statements and report.

    Args:
        exchange: Sends a message to the program's side and returns its next one.
        setup: Statements that come first.
        asserts: Statements that test.
        names: What the program under test defines.
        modules: Names of modules that the statements do not import themselves, with the modules' own names.
        entry_point: A name that is the program's even though the setup defines it, or None.
        stop: Whether to end with the first assertion that fails.
    """
    random.seed(0)
    peer = TestsPeer(exchange, stop)
    loaded = exchange(None)
    if loaded is None or loaded[0] == "raised":
        name, text, line = (loaded[1][0], loaded[2], loaded[4]) if loaded else ("", "", 0)
        return {
            **peer.report(),
            "load": f"{name.removeprefix('builtins.')}: {text}" + (f" (line {line})" if line else ""),
        }
    of_program = {name: peer.unpack(tree, name) for name, tree in zip(*loaded[1][1:], strict=True)}
    of_program = {name: value for name, value in of_program.items() if is_proxy(value) and name in names}
    namespace = Names(__name__="tests", _session=peer, _asked=set(names), _passed=peer.passed, _failed=peer.failed)
    namespace.update(_caught=peer.caught, _type=peer.type_of, next=peer.next_of, callable=peer.is_callable)
    namespace.update(isinstance=peer.isinstance, issubclass=peer.issubclass, **of_program)
    namespace.update({name: importlib.import_module(module) for name, module in modules.items()})
    counting = Counting()
    try:
        for source in (setup, asserts):
            tree = ast.fix_missing_locations(counting.visit(ast.parse(source)))
            exec(compile(tree, "<tests>", "exec"), namespace)
            if entry_point is not None:  # the setup may have a version of its own
                namespace.pop(entry_point, None)
                namespace.update({name: of_program[name] for name in (entry_point,) if name in of_program})
    except Enough:
        pass
    except BaseException as error:
        peer.note(error)
    return peer.report()
