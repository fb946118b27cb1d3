"""The program that runs test statements, apart from the program under test: its text is sent into the sandbox.

Whatever the statements do with a name of the program under test becomes a question, a Python expression such as
`add(2, 3)`. Those are asked elsewhere, and the statements are run again with the answers, which are plain values; an
object that is none stays where it is and is named in further questions. A question without an answer gets a guess
that agrees with everything, to find out what would be asked next, and from there on nothing counts.

It runs from its text, in a process of its own, and imports the standard library alone.
"""

import ast
import builtins
import importlib
import random

TYPES = {value: name for name, value in vars(builtins).items() if isinstance(value, type)}
MAX_GUESSES = 1000  # questions asked in one run after the first that has no answer


def run_tests(setup, asserts, names, modules, entry_point, answers, stop):
    """Run the statements and report.

    Args:
        setup: Statements that come first.
        asserts: Statements that test.
        names: What the program under test defines.
        modules: Names of modules that the statements do not import themselves, with the modules' own names.
        entry_point: A name that is the program's even though the setup defines it, or None.
        answers: For each question known so far (question, status, value or cause).
        stop: Whether to end with the first assertion that fails.
    """
    random.seed(0)
    session = Session(answers, stop)
    namespace = {"__name__": "tests", "_passed": session.passed, "_failed": session.failed}
    namespace.update({name: Remote(session, name) for name in names})
    namespace.update({name: importlib.import_module(module) for name, module in modules.items()})
    try:
        execute(setup, namespace)
        if entry_point is not None:
            namespace[entry_point] = Remote(session, entry_point)
        execute(asserts, namespace)
    except Enough:
        pass
    except CannotBeSent:
        raise
    except BaseException as error:
        session.note("", error)
    return session.report()


def execute(source, namespace):
    tree = ast.fix_missing_locations(Counting().visit(ast.parse(source)))
    exec(compile(tree, "<tests>", "exec"), namespace)


class Counting(ast.NodeTransformer):
    """Makes every assertion report how it ended, in place of raising."""

    def visit_Assert(self, node):
        text = ast.unparse(node)
        passed = ast.Expr(ast.Call(ast.Name("_passed", ast.Load()), [], []))
        arguments = [ast.Constant(text), ast.Name("_error", ast.Load())]
        failed = ast.Expr(ast.Call(ast.Name("_failed", ast.Load()), arguments, []))
        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), "_error", [failed])
        return ast.Try([node], [handler], [passed], [])


class Enough(BaseException):
    """Nothing more is to be learned."""


class CannotBeSent(BaseException):
    """The program under test is to be given something that exists in this process alone."""


class Session:
    """The questions of one run, and what became of its assertions."""

    def __init__(self, answers, stop):
        self.answers = answers
        self.stop = stop
        self.questions = []
        self.guesses = 0
        self.count = {"passed": 0, "failed": 0, "guessed": 0}
        self.failure = None

    def ask(self, question):
        number = len(self.questions)
        self.questions.append(question)
        if not self.guesses and number < len(self.answers) and self.answers[number][0] == question:
            _, status, value = self.answers[number]
            if status == "ok":
                return value
            if status == "invalid_value":
                return Remote(self, f"_h{number}")
            raise exception(value)
        self.guesses += 1
        if self.guesses > MAX_GUESSES:
            raise Enough
        return Guess(self, f"_h{number}")

    def passed(self):
        self.count["guessed" if self.guesses else "passed"] += 1

    def failed(self, text, error):
        self.note(text, error)
        if self.stop and not self.guesses:
            raise Enough

    def note(self, text, error):
        self.count["guessed" if self.guesses else "failed"] += 1
        if not self.guesses and self.failure is None:
            number = self.count["passed"] + self.count["failed"] - 1
            self.failure = [number, text, describe(error), len(self.questions) - 1]

    def report(self):
        return {
            "is_complete": self.guesses == 0,
            "questions": self.questions,
            "failure": self.failure,
            **self.count,
        }


class Remote:
    """Something that the program under test has: a name, or an object that is no plain value."""

    def __init__(self, session, expression):
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_expression", expression)

    def __call__(self, *arguments, **keywords):
        parts = [*map(source_of, arguments), *(f"{name}={source_of(value)}" for name, value in keywords.items())]
        return self._session.ask(f"{self._expression}({', '.join(parts)})")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self._session.ask(f"{self._expression}.{name}")

    def __setattr__(self, name, value):
        self._session.ask(f"setattr({self._expression}, {name!r}, {source_of(value)})")

    def refuse(self, *_):
        raise TypeError("the program returned an object that is no plain value")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __iter__ = __len__ = refuse
    __hash__ = refuse


class Guess(Remote):
    """What is not known yet: agrees with everything."""

    def __bool__(self):
        return True

    def same(self, *_):
        return self

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = lambda self, _: True
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = same
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __and__ = __or__ = __xor__ = same
    __neg__ = __pos__ = __abs__ = __round__ = __getitem__ = same

    def zero(self):
        return 0

    __hash__ = __len__ = __int__ = __index__ = zero

    def __float__(self):
        return 0.0

    def __iter__(self):
        return iter(())


def source_of(value):
    """Return an expression for an argument; no name in it could be redefined by the program but `__import__`."""
    if isinstance(value, Remote):
        return value._expression
    kind = type(value)
    if kind in (type(None), bool, str, bytes, range):
        return repr(value)
    if kind is int:
        return hex(value) if abs(value) >> 64 else repr(value)
    if kind is float:
        return repr(value).replace("nan", "(1e999-1e999)").replace("inf", "1e999")
    if kind is list:
        return f"[{', '.join(map(source_of, value))}]"
    if kind is tuple:
        return f"({''.join(f'{source_of(member)}, ' for member in value)})"
    if kind is set:
        return f"{{*{source_of(list(value))}}}"
    if kind is dict:
        return f"{{{', '.join(f'{source_of(key)}: {source_of(member)}' for key, member in value.items())}}}"
    if kind is type and value in TYPES:
        return TYPES[value]
    import pickle  # seldom needed

    try:
        return f"__import__('pickle').loads({pickle.dumps(value)!r})"
    except Exception as error:
        raise CannotBeSent(f"a {kind.__name__} among the arguments: {error}") from error


def exception(cause):
    """Return an exception of the built-in kind that the program under test raised."""
    kind = getattr(builtins, cause.partition(":")[0], None)
    return (kind if isinstance(kind, type) and issubclass(kind, Exception) else RuntimeError)(cause)


def describe(error):
    return f"{type(error).__name__}: {error}".rstrip(": ")[:300]
