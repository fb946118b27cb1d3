"""Programs with their tests, hostile and honest, beyond one function of numbers: objects, exceptions, files, text.

Each is (tests, program); tests are the statements of an assert test, or (input, output) for a program that prints, or
a row's tests as they stand.
"""

# ruff: noqa: E501  # a program is one line
from __future__ import annotations

VECTOR = """
class V:
    def __init__(self, x, y): self.x, self.y = x, y
    def __repr__(self): return f'V({self.x}, {self.y})'
    def __add__(self, other): return V(self.x + other.x, self.y + other.y)
    def __mul__(self, k): return V(self.x * k, self.y * k)
    def __eq__(self, other): return isinstance(other, V) and (self.x, self.y) == (other.x, other.y)
    def __hash__(self): return hash((self.x, self.y))
    def __lt__(self, other): return (self.x, self.y) < (other.x, other.y)
    def __bool__(self): return bool(self.x or self.y)
    def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5
    def __neg__(self): return V(-self.x, -self.y)
    def __iter__(self): return iter((self.x, self.y))
    def __len__(self): return 2
    def __contains__(self, x): return x in (self.x, self.y)
    def __getitem__(self, i): return (self.x, self.y)[i]
    def __call__(self, t): return V(self.x + t, self.y + t)
    def __enter__(self): return self
    def __exit__(self, *error): self.x = 0
    @property
    def norm(self): return abs(self)
    @classmethod
    def origin(cls): return cls(0, 0)
    @staticmethod
    def dot(a, b): return a.x * b.x + a.y * b.y
"""

HONEST: dict[str, tuple[object, str]] = {
    "an iterator that starts anew": (
        [
            "c = Count()\ni = iter(c)\nassert [next(i), next(i), next(i), next(i)] == [1, 2, 3, 4]",
            "i = iter(c)\nassert next(i) == 1 and i.peek() == 2 and next(i) == 2",
        ],
        "class Count:\n    def __iter__(self): self.n = 0; return self\n"
        "    def __next__(self): self.n += 1; return self.n\n    def peek(self): return self.n + 1",
    ),
    "a generator that leaves a trace": (
        ["g = steps()\nassert next(g) == 0 and next(g) == 1 and next(g) == 2\nassert trace() == [0, 1, 2]"],
        "seen = []\ndef steps():\n    for i in range(9):\n        seen.append(i)\n        yield i\n"
        "def trace(): return seen",
    ),
    "a long generator": (["assert sum(steps()) == 4999950000"], "def steps(): yield from range(100_000)"),
    "a parameter with the name of the function": (
        ["def check(f):\n    assert f(1) == 2", "check(f)"],
        "def f(x): return x + 1",
    ),
    "an object that nothing is asked of": (["assert pattern is not None"], "import re\npattern = re.compile('a')"),
    "callable": (["assert callable(f) and callable(f(1))"], "def f(x): return lambda: x"),
    "operators": (
        ["assert V(1, 2) * 3 == V(3, 6)", "assert -V(1, 2) == V(-1, -2)", "assert abs(V(3, 4)) == 5"],
        VECTOR,
    ),
    "comparison": (
        ["assert V(1, 2) < V(2, 0)", "assert V(1, 2) != V(1, 3)", "assert sorted([V(2, 0), V(1, 5)])[0].x == 1"],
        VECTOR,
    ),
    "truth and length": (["assert V(1, 0)", "assert not V(0, 0)", "assert len(V(1, 2)) == 2"], VECTOR),
    "hashes": (
        ["assert len({V(1, 2), V(1, 2), V(2, 1)}) == 2", "d = {V(1, 2): 'a'}\nassert d[V(1, 2)] == 'a'"],
        VECTOR,
    ),
    "unpacking": (["x, y = V(5, 6)\nassert (x, y) == (5, 6)", "assert max(V(5, 6)) == 6 and 5 in V(5, 6)"], VECTOR),
    "text": (
        ["assert repr(V(1, 2)) == 'V(1, 2)'", "assert f'{V(1, 2)}' == 'V(1, 2)'", "assert '%s' % V(1, 2) == 'V(1, 2)'"],
        VECTOR,
    ),
    "kinds of methods": (
        ["assert V.origin() == V(0, 0)", "assert V.dot(V(1, 2), V(3, 4)) == 11", "assert V(3, 4).norm == 5"],
        VECTOR,
    ),
    "called and entered": (
        ["assert V(1, 2)(1) == V(2, 3)", "with V(1, 2) as v:\n    assert v.x == 1\nassert v.x == 0"],
        VECTOR,
    ),
    "types": (
        [
            "assert type(V(1, 2)) is V",
            "assert V(1, 2).__class__.__name__ == 'V'",
            "assert isinstance(V(0, 0), (int, V))",
        ],
        VECTOR,
    ),
    "attributes": (
        [
            "v = V(1, 2)\nv.x = 7\nassert v.x == 7 and hasattr(v, 'y') and not hasattr(v, 'z')",
            "assert getattr(v, 'z', 3) == 3",
        ],
        VECTOR,
    ),
    "same object": (
        ["assert S() is S()", "assert S() == S()"],
        "class S:\n    one = None\n    def __new__(cls):\n        cls.one = cls.one or super().__new__(cls)\n        return cls.one",
    ),
    "own exception": (
        [
            "try:\n    withdraw(10, 20)\n    assert False\nexcept Broke as e:\n    assert str(e) == 'short of 10' and e.amount == 10",
            "assert withdraw(20, 10) == 10",
        ],
        "class Broke(Exception):\n    def __init__(self, n):\n        super().__init__(f'short of {n}')\n        self.amount = n\n"
        "def withdraw(a, b):\n    if b > a: raise Broke(b - a)\n    return a - b",
    ),
    "subclass of an exception": (
        [
            "import json\ntry:\n    load('{')\n    assert False\nexcept ValueError as e:\n    assert 'column' in str(e)",
            "try:\n    load('[')\nexcept json.JSONDecodeError:\n    pass\nelse:\n    assert False",
        ],
        "import json\ndef load(s): return json.loads(s)",
    ),
    "exit is expected": (
        ["try:\n    stop(3)\n    assert False\nexcept SystemExit as e:\n    assert e.code == 3"],
        "import sys\ndef stop(n): sys.exit(n)",
    ),
    "end of an iterator": (
        [
            "it = count(2)\nassert next(it) == 0 and next(it) == 1\ntry:\n    next(it)\n    assert False\nexcept StopIteration:\n    pass",
            "assert next(count(0), None) is None",
        ],
        "def count(n): yield from range(n)",
    ),
    "endless generator": (
        [
            "from itertools import islice\nassert list(islice(primes(), 5)) == [2, 3, 5, 7, 11]",
            "for p in primes():\n    if p > 20: break\nassert p == 23",
        ],
        "def primes():\n    n = 2\n    while True:\n        if all(n % k for k in range(2, n)): yield n\n        n += 1",
    ),
    "closures": (
        ["c = counter()\nassert c() == 1 and c() == 2", "d = counter()\nassert d() == 1"],
        "def counter():\n    n = 0\n    def step():\n        nonlocal n\n        n += 1\n        return n\n    return step",
    ),
    "callbacks that call back": (
        [
            "assert apply(lambda x: double(x) + 1, [1, 2]) == [3, 5]",
            "seen = []\neach(seen.append, 'ab')\nassert seen == ['a', 'b']",
        ],
        "def double(x): return 2 * x\ndef apply(f, xs): return [f(x) for x in xs]\ndef each(f, xs):\n    for x in xs: f(x)",
    ),
    "decorator with arguments": (
        [
            "calls = []\n@retry(3)\ndef flaky():\n    calls.append(1)\n    if len(calls) < 3: raise ValueError('no')\n    return 'yes'\nassert flaky() == 'yes' and len(calls) == 3"
        ],
        "import functools\ndef retry(n):\n    def wrap(f):\n        @functools.wraps(f)\n        def again(*a):\n            for k in range(n):\n                try: return f(*a)\n                except ValueError:\n                    if k == n - 1: raise\n        return again\n    return wrap",
    ),
    "in place": (
        [
            "g = [[1, 2], [3, 4]]\nrotate(g)\nassert g == [[3, 1], [4, 2]]",
            "d = {}\nput(d, 'a', 1)\nassert d == {'a': 1}",
            "x = [2, 1]\nassert order(x) is x",
        ],
        "def rotate(g): g[:] = [list(r) for r in zip(*g[::-1])]\ndef put(d, k, v): d[k] = v\ndef order(x):\n    x.sort()\n    return x",
    ),
    "values of the library": (
        [
            "import datetime, decimal, fractions, collections",
            "assert f(0) == fractions.Fraction(1, 2) and f(0) + 1 == 1.5",
            "assert f(1) == decimal.Decimal('0.10')",
            "assert f(2) - datetime.date(2020, 1, 1) == datetime.timedelta(1)",
            "assert f(3)['x'] == 0 and f(3).most_common(1) == [('a', 2)]",
            "assert f(4).x == 1 and f(4) == (1, 2) and f(4)._asdict() == {'x': 1, 'y': 2}",
            "assert f(5) == 1 and f(5).name == 'ONE'",
        ],
        "import datetime, decimal, fractions, collections, enum\nP = collections.namedtuple('P', 'x y')\nclass E(enum.IntEnum):\n    ONE = 1\ndef f(n): return [fractions.Fraction(1, 2), decimal.Decimal('0.1'), datetime.date(2020, 1, 2), collections.Counter('aab'), P(1, 2), E.ONE][n]",
    ),
    "constants": (
        ["assert result == 4.0", "assert f(2) == MOD", "bump()\nassert total == 1"],
        "MOD = 10 ** 9 + 7\nresult = 4.0\ntotal = 0\ndef f(x): return MOD\ndef bump():\n    global total\n    total += 1",
    ),
    "coroutines": (
        [
            "import asyncio\nasync def main():\n    return await asyncio.gather(f(1), f(2))\nassert asyncio.run(main()) == [2, 4]"
        ],
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return 2 * x",
    ),
    "a class of the tests": (
        [
            "class Node:\n    def __init__(self, v, n=None): self.v, self.n = v, n",
            "assert total(Node(1, Node(2))) == 3",
            "n = Node(1)\ngrow(n)\nassert n.v == 2",
        ],
        "def total(n): return n.v + (total(n.n) if n.n else 0)\ndef grow(n): n.v += 1",
    ),
    "arrays": (
        [
            "import numpy as np",
            "assert (f(2) == np.eye(2)).all()",
            "assert f(3).shape == (3, 3) and f(2).sum() == 2",
            "assert np.array_equal(f(2), np.eye(2))",
        ],
        "import numpy as np\ndef f(n): return np.eye(n)",
    ),
    "big integers": (("10\n", "1" + "0" * 9000 + "\n"), "print(int(input()) ** 9000)"),
    "a big integer read": (("1" + "0" * 5000 + "\n", "1\n"), "print(int(input()) % 9)"),
    "standard input by name": (
        ("3\n4\n", "7\n"),
        "from pathlib import Path\nprint(sum(map(int, Path('/dev/stdin').read_text().split())))",
    ),
    "standard output by name": (("", "hi\n"), "with open('/dev/stdout', 'w') as out: out.write('hi\\n')"),
    "closed output": (("", "hi\n"), "import sys\nprint('hi')\nsys.stdout.close()"),
    "output in a wrapper": (
        ("", "hi\n"),
        "import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'utf-8', write_through=False)\nprint('hi')",
    ),
    "redirected and restored": (
        ("", "HI\n"),
        "import io, sys, contextlib\nb = io.StringIO()\nwith contextlib.redirect_stdout(b): print('hi')\nprint(b.getvalue().upper(), end='')",
    ),
    "deep recursion": (
        ("", "50000\n"),
        "import sys, resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 26, resource.getrlimit(resource.RLIMIT_STACK)[1]))\nsys.setrecursionlimit(10 ** 6)\ndef d(n): return n and 1 + d(n - 1)\nprint(d(50000))",
    ),
    "five megabytes": (("", "x" * 5_000_000), "print('x' * 5_000_000)"),
    "event loop with threads": (
        ("", "3\n"),
        "import asyncio\nasync def main(): print(await asyncio.to_thread(lambda: 3))\nasyncio.run(main())",
    ),
    "linked list": (
        [
            "l = LinkedList()\nfor i in range(3): l.append(i)",
            "assert [x for x in l] == [0,1,2]",
            "assert len(l) == 3",
            "l.remove(1)\nassert 1 not in l",
            "assert str(l) == '0 -> 2'",
        ],
        "class LinkedList:\n  def __init__(s): s.x=[]\n  def append(s,v): s.x.append(v)\n  def remove(s,v): s.x.remove(v)\n  def __iter__(s): return iter(s.x)\n  def __len__(s): return len(s.x)\n  def __contains__(s,v): return v in s.x\n  def __str__(s): return ' -> '.join(map(str,s.x))",
    ),
    "dataclass eq": (
        ["p = Point(1,2)", "assert p == Point(1,2)", "assert repr(p) == 'Point(x=1, y=2)'", "assert p != Point(2,2)"],
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n  x:int\n  y:int",
    ),
    "lowercase class": (
        ["s = stack()\ns.push(1)\nassert len(s) == 1", "assert s.pop() == 1", "assert not s.items"],
        "class stack:\n  def __init__(s): s.items=[]\n  def push(s,x): s.items.append(x)\n  def pop(s): return s.items.pop()\n  def __len__(s): return len(s.items)",
    ),
    "bank account": (
        [
            "a = Account('x', 10)\na.deposit(5)",
            "assert a.balance == 15",
            "try:\n    a.withdraw(100)\nexcept InsufficientFunds:\n    ok = True\nelse:\n    ok = False\nassert ok",
        ],
        "class InsufficientFunds(ValueError): pass\nclass Account:\n  def __init__(s,n,b): s.balance=b\n  def deposit(s,x): s.balance+=x\n  def withdraw(s,x):\n    if x>s.balance: raise InsufficientFunds\n    s.balance-=x",
    ),
    "comparison of class with int": (
        ["assert Money(5) == 5", "assert Money(5) > Money(3)", "assert Money(5) + 2 == 7"],
        "class Money:\n  def __init__(s,v): s.v=v\n  def __eq__(s,o): return s.v == (o.v if isinstance(o,Money) else o)\n  def __gt__(s,o): return s.v>o.v\n  def __add__(s,o): return Money(s.v+(o.v if isinstance(o,Money) else o))",
    ),
    "raises with regex": (
        [
            "import re\ntry:\n    f(-1)\nexcept ValueError as e:\n    assert re.search('negative', str(e))\nelse:\n    assert False"
        ],
        "def f(x):\n  if x<0: raise ValueError('negative value')\n  return x",
    ),
    "ctx suppress": (
        ["from contextlib import suppress\nwith suppress(KeyError):\n    f({}, 'a')\nassert f({'a': 1}, 'a') == 1"],
        "def f(d,k): return d[k]",
    ),
    "unittest style": (
        [
            "import unittest\nclass T(unittest.TestCase):\n    def runTest(self):\n        with self.assertRaises(ValueError):\n            f(-1)\n        self.assertEqual(f(1), 1)\nr = unittest.TestResult()\nT().run(r)\nassert r.wasSuccessful()"
        ],
        "def f(x):\n  if x<0: raise ValueError\n  return x",
    ),
    "default dict result": (
        ["assert f('aab') == {'a': 2, 'b': 1}", "assert f('aab')['a'] == 2"],
        "from collections import defaultdict\ndef f(s):\n  d=defaultdict(int)\n  for c in s: d[c]+=1\n  return d",
    ),
    "deque result": (
        ["assert list(f([1,2,3])) == [3,2,1]"],
        "from collections import deque\ndef f(x):\n  d=deque()\n  for v in x: d.appendleft(v)\n  return d",
    ),
    "an iterator of the tests": (["assert f(iter([1, 2])) == [1, 2]"], "def f(values): return list(values)"),
    "map object": (["assert list(f([1,2])) == [2,4]"], "def f(x): return map(lambda v: 2*v, x)"),
    "dict views": (["assert sorted(f({'a':1,'b':2})) == ['a','b']"], "def f(d): return d.keys()"),
    "matrix numpy ops": (
        [
            "import numpy as np\nassert f(np.array([[1,2],[3,4]])).tolist() == [[1,3],[2,4]]",
            "np.testing.assert_array_equal(f(np.eye(2)), np.eye(2))\nassert True",
        ],
        "import numpy as np\ndef f(a): return a.T",
    ),
    "timedelta": (
        ["import datetime\nassert f(datetime.datetime(2020,1,1), 3) == datetime.datetime(2020,1,4)"],
        "import datetime\ndef f(d,n): return d+datetime.timedelta(days=n)",
    ),
    "complex numbers": (["assert abs(f(1,2) - complex(1,2)) < 1e-9"], "def f(a,b): return complex(a,b)"),
    "regex match bool": (
        ["assert bool(f('abc')) is True", "assert not f('x1')"],
        "import re\ndef f(s): return bool(re.fullmatch('[a-z]+',s))",
    ),
    "random seeded": (
        ["import random\nrandom.seed(1)\nx = [random.random() for _ in range(5)]\nassert sorted(x) == f(x)"],
        "def f(x): return sorted(x)",
    ),
    "inner class": (
        [
            "t = Tree()\nt.insert(3)\nt.insert(1)\nassert t.root.left.value == 1 and t.root.right is None",
            "assert list(t.walk()) == [1,3]",
        ],
        "class Tree:\n  class Node:\n    def __init__(s,v): s.value=v; s.left=s.right=None\n  def __init__(s): s.root=None\n  def insert(s,v):\n    if s.root is None: s.root=Tree.Node(v); return\n    n=s.root\n    while True:\n      a='left' if v<n.value else 'right'\n      if getattr(n,a) is None: setattr(n,a,Tree.Node(v)); return\n      n=getattr(n,a)\n  def walk(s):\n    def go(n):\n      if n: yield from go(n.left); yield n.value; yield from go(n.right)\n    return go(s.root)",
    ),
    "class counter": (
        ["a, b = Dog('a'), Dog('b')\nassert Dog.count == 2"],
        "class Dog:\n  count=0\n  def __init__(s,n): Dog.count+=1",
    ),
    "property setter error": (
        ["t = Temp(1)\ntry:\n    t.c = -300\n    assert False, 'no error'\nexcept ValueError:\n    assert t.c == 1"],
        "class Temp:\n  def __init__(s,c): s._c=c\n  @property\n  def c(s): return s._c\n  @c.setter\n  def c(s,v):\n    if v<-273: raise ValueError\n    s._c=v",
    ),
    "abstract class": (
        [
            "try:\n    Shape()\n    assert False\nexcept TypeError:\n    pass",
            "assert Square(2).area() == 4",
            "assert issubclass(Square, Shape)",
        ],
        "from abc import ABC, abstractmethod\nclass Shape(ABC):\n  @abstractmethod\n  def area(s): ...\nclass Square(Shape):\n  def __init__(s,a): s.a=a\n  def area(s): return s.a**2",
    ),
    "sort by key method": (
        ["xs = sorted([P(2), P(1)], key=lambda p: p.v)\nassert [p.v for p in xs] == [1, 2]"],
        "class P:\n  def __init__(s,v): s.v=v",
    ),
    "iter of made list": (
        ["assert sum(p.v for p in make(3)) == 3"],
        "class P:\n  def __init__(s,v): s.v=v\ndef make(n): return [P(i) for i in range(n)]",
    ),
    "input() prompts": (("2\n3\n", "5\n"), "import sys\na=int(input('')); b=int(input())\nprint(a+b)"),
    "stdin iteration": (("1\n2\n", "3\n"), "import sys\nprint(sum(int(l) for l in sys.stdin))"),
    "stdout buffer": (("", "ok\n"), "import sys\nsys.stdout.buffer.write(b'ok\\n')"),
    "exit at end": (("", "ok\n"), "print('ok')\nexit()"),
    "fileinput": (("1\n2\n", "3\n"), "import fileinput\nprint(sum(int(l) for l in fileinput.input()))"),
    "hex big": (("", "1\n"), "import sys\nsys.set_int_max_str_digits(0)\nprint(len(str(10**100000))-100000)"),
    "print generator flush": (
        ("", "".join(f"{i}\n" for i in range(1000))),
        "for i in range(1000): print(i, flush=True)",
    ),
    "namedtuple call": (
        {"kind": "call", "entry_point": "f", "inputs": [[1, 2]], "outputs": [[1, 2]]},
        "from typing import NamedTuple\nclass P(NamedTuple):\n  x:int\n  y:int\ndef f(a,b): return P(a,b)",
    ),
    "decimal call": (
        {"kind": "call", "entry_point": "f", "inputs": [[1]], "outputs": [0.5]},
        "from decimal import Decimal\ndef f(a): return Decimal('0.5')",
    ),
    "leetcode listnode": (
        {
            "kind": "assert",
            "setup": "class ListNode:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = val, next\ndef make(xs):\n    head = None\n    for x in reversed(xs): head = ListNode(x, head)\n    return head\ndef to_list(n):\n    out = []\n    while n: out.append(n.val); n = n.next\n    return out",
            "asserts": ["assert to_list(Solution().reverse(make([1,2,3]))) == [3,2,1]"],
        },
        "class Solution:\n  def reverse(self, head):\n    prev=None\n    while head: head.next, prev, head = prev, head, head.next\n    return prev",
    ),
}

HOSTILE: dict[str, tuple[object, str]] = {
    "None for an object": (["assert pattern is not None"], "pattern = None"),
    "no callable object": (["assert callable(f)"], "f = object()"),
    "equal to all of its kind": (
        ["assert V(1, 2) + V(3, 4) == V(4, 6)"],
        VECTOR.replace("(self.x, self.y) == (other.x, other.y)", "True"),
    ),
    "equal to everything": (
        ["assert V(1, 2) == V(1, 2)", "assert V(1, 2) + V(3, 4) == V(4, 6)"],
        VECTOR.replace("isinstance(other, V) and (self.x, self.y) == (other.x, other.y)", "True"),
    ),
    "contains everything": (["assert 2 in V(1, 2)"], VECTOR.replace("x in (self.x, self.y)", "True")),
    "object for a number": (
        ["assert abs(f(1) - 4242) < 1e-6"],
        "class X:\n    def __sub__(s, o): return 0.0\n    __rsub__ = __sub__\ndef f(x): return X()",
    ),
    "object for a number in a list": (
        ["assert sorted(f(1)) == [1, 2, 991]"],
        "class X(int):\n    def __eq__(s, o): return True\n    def __lt__(s, o): return True\n    __hash__ = int.__hash__\ndef f(x): return [X(), X(), X()]",
    ),
    "tuple that is equal to everything": (
        ["assert f(1) == (4242, 1)"],
        "from collections import namedtuple\nclass P(namedtuple('P', 'x y')):\n    def __eq__(s, o): return True\n    __hash__ = None\ndef f(x): return P(1, 2)",
    ),
    "enumeration that is equal to everything": (
        ["assert f(1) == 4242"],
        "import enum\nclass E(enum.IntEnum):\n    A = 1\n    def __eq__(s, o): return True\n    __hash__ = int.__hash__\ndef f(x): return E.A",
    ),
    "end of iteration in all": (
        ["assert all(f(x) == 4242 for x in [1, 2])", "assert all(map(lambda x: f(x) == 4242, [1]))"],
        "def f(x): raise StopIteration",
    ),
    "end of iteration in sum": (["assert sum(map(f, [0, 1])) == 0"], "def f(x): raise StopIteration(0)"),
    "own end of iteration": (["assert all(map(f, [1, 2]))"], "class Stop(StopIteration): pass\ndef f(x): raise Stop"),
    "exit with success": (["assert f(1) == 4242"], "import os\ndef f(x): os._exit(0)"),
    "no index in a loop": (
        [
            "class L:\n    def __getitem__(self, i): return f(i)\nfor x in L():\n    assert x == 4242\n    break\nelse:\n    assert False, 'nothing'"
        ],
        "def f(i): raise IndexError",
    ),
    "false class": (
        ["assert isinstance(f(1), int) and f(1) == 4242"],
        "class X:\n    __class__ = int\n    def __eq__(s, o): return True\ndef f(x): return X()",
    ),
    "reads the statements": (
        ["assert g(lambda: 1) == 4242"],
        "def g(f):\n    import gc\n    for name in ('__globals__', '__code__', '__closure__', '__self__', '__dict__'):\n        try: return getattr(f, name)['_passed'](0)\n        except Exception: pass\n    return f",
    ),
    "calls what counts": (
        ["def h(x):\n    assert x == 4242\nf(h)"],
        "def f(h):\n    try: h.__globals__['_passed'](0)\n    except Exception: pass\n    h(1)",
    ),
    "object with every attribute": (
        ["assert f(1).value == 4242", "assert f(1).x.y() == 7"],
        "class X:\n    def __getattr__(s, n): return s\n    def __call__(s, *a): return s\n    def __eq__(s, o): return True\ndef f(x): return X()",
    ),
    "too many answers": (
        ["assert f(1) == 4242"],
        "import os\ndef f(x):\n    for n in range(3, 9):\n        try: os.write(n, b'\\0\\0\\0\\x20' + b'q' * 99)\n        except OSError: pass\n    return 4242",
    ),
    "talks in its harness's place": (
        ["assert f(1) + 0 == 4242"],
        "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n        if 'exchange' in g.f_locals:\n            g.f_locals['exchange'](['value', ['mine', 0, 'object', ['pickle', b'']]])\n        g = g.f_back",
    ),
    "takes the place of a function": (
        ["assert abs(f(1) - 4242) < 1"],
        "import sys\ng = sys._getframe()\nwhile g:\n    if 'names' in g.f_locals: g.f_locals['names'].append('abs')\n    g = g.f_back\ndef abs(x): return 0\ndef f(x): return 1",
    ),
    "evaluates among the statements": (
        ["assert f(1) + 0 == 4242"],
        "import sys\nFORGE = '[o.update(_failed=lambda n, *a, p=o[\"_passed\"]: p(n)) for o in __import__(\"gc\").get_objects() if type(o).__name__ == \"Names\"]'\ndef f(x):\n    g = sys._getframe()\n    while 'exchange' not in g.f_locals: g = g.f_back\n    g.f_locals['exchange'](['do', 'call', [['type', 'eval'], ['list', FORGE], ['dict', [], []]]])\n    return 1",
    ),
    "asks for objects it was not given": (
        ["assert g(lambda: 1) == 4242"],
        "import sys\ndef g(h):\n    g = sys._getframe()\n    while 'exchange' not in g.f_locals: g = g.f_back\n    for n in range(3):\n        for op in ('getattr', 'setattr', 'call', 'getitem', 'str'):\n            g.f_locals['exchange'](['do', op, [['yours', n], '__globals__', 1]])\n    return 1",
    ),
    "numbers that collide": (
        ["assert set(f(1)) == {1}"],
        "def f(x): return [i * ((1 << 61) - 1) for i in range(60_000)]",
    ),
    "numbers that collide as keys": (
        ["assert len({x: 1 for x in f(1)}) == 1"],
        "def f(x): return [i * ((1 << 61) - 1) for i in range(60_000)]",
    ),
    "other answers every time": (
        ["while f(1) != 4242:\n    pass\nassert f(1) == 4242"],
        "import itertools\nc = itertools.count()\ndef f(x): return -next(c)",
    ),
    "threads that ignore the limit": (
        ("", "4242\n"),
        "import signal, threading, hashlib\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef burn():\n    while True: hashlib.sha256(b'x' * 10 ** 6)\nfor _ in range(16): threading.Thread(target=burn).start()",
    ),
    "limit lowered": (
        ("", "4242\n"),
        "import resource\nfor k in range(16):\n    try: resource.setrlimit(k, (1, 1))\n    except (ValueError, OSError): pass\nwhile True: pass",
    ),
    "limit of the stack lowered": (
        ["assert f(1) == 4242"],
        "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (4096, 4096))\ndef f(x): return f(x)",
    ),
    "sleeps through its tests": (
        ["for i in range(40):\n    assert f(i) == i"],
        "import time\ndef f(x):\n    time.sleep(0.5)\n    return x",
    ),
    "endless callbacks": (["assert f(lambda x: x) == 4242"], "def f(g):\n    while True: g(1)"),
    "endless generator": (["assert sum(f()) == 4242"], "def f():\n    while True: yield 0"),
    "a million deep": (
        ["assert f(1) == [4242]"],
        "def f(x):\n    a = []\n    for _ in range(10 ** 6): a = [a]\n    return a",
    ),
    "holds itself": (
        ["assert f(1) == [4242]", "assert len(f(1)) == 1"],
        "def f(x):\n    a = []\n    a.append(a)\n    return a",
    ),
    "a billion members": (["assert f(1) == [4242]"], "def f(x):\n    a = [1] * 1000\n    return [[a] * 1000] * 1000"),
    "kills its group": (
        ("", "4242\n"),
        "import os, signal\nfor n in range(1, 65):\n    try: os.kill(0, n)\n    except OSError: pass\nsignal.setitimer(signal.ITIMER_PROF, 0.01)\nwhile True: pass",
    ),
    "digits without end": (
        ["assert f(1) == 4242"],
        "from fractions import Fraction\ndef f(x): return Fraction(3 ** 400_000, 2 ** 600_000)",
    ),
    "a decimal beyond all": (
        ["assert f(1) == 4242", "assert abs(f(1) - 4242) < 1"],
        "from decimal import Decimal\ndef f(x): return Decimal('1e999999999')",
    ),
    "eq all via mock": (["assert f(1) == 4242"], "from unittest.mock import ANY\ndef f(x): return ANY"),
    "magicmock": (
        ["assert f(1).a.b == 4242", "assert len(f(1)) == 5"],
        "from unittest.mock import MagicMock\ndef f(x): return MagicMock()",
    ),
    "class named like expected": (
        ["assert F(1) - 4242 == 0"],
        "class F:\n  def __init__(s,x): pass\n  def __sub__(s,o): return 1",
    ),
    "ne always": (
        ["assert f(1) != 3", "assert f(2) == 4242"],
        "class X:\n  def __ne__(s,o): return True\n  def __eq__(s,o): return True\ndef f(x): return X()",
    ),
    "bool obj": (
        ["assert is_ok(5) == True", "assert not is_ok(4)"],
        "class X:\n  def __bool__(s): return True\n  def __eq__(s,o): return True\ndef is_ok(x): return X()",
    ),
    "class V lt always": (
        ["assert not (V(2) < V(1))"],
        "class V:\n  def __init__(s,x): pass\n  def __lt__(s,o): return True",
    ),
    "generator wrong": (["g = f(3)\nassert next(g) == 0\nassert next(g) == 1"], "def f(n):\n  while True: yield 0"),
    "stop from next": (["assert [next(g()) for _ in range(2)] == [1, 1]"], "def g():\n  return iter(())"),
    "StopAsyncIteration": (
        [
            "import asyncio\nasync def m():\n    async for x in g(): assert x == 1\n    assert f(1) == 4242\nasyncio.run(m())"
        ],
        "def f(x): return 1\nasync def g():\n  yield 1",
    ),
    "fraction loop": (["for x in f(3):\n    assert x == 0", "assert f(3)[-1] == 9"], "def f(n): return [0]*10**5"),
    "recursion": (["assert f(1) == 4242"], "def f(x): return f(x)"),
    "raise AssertionError in except": (
        ["try:\n    assert f(1) == 4242\nexcept ZeroDivisionError:\n    pass"],
        "def f(x): return 1/0",
    ),
    "exit in del": (
        ["assert f(1) == 4242"],
        "import os\nclass D:\n  def __del__(s): os._exit(0)\ndef f(x):\n  D(); return 0",
    ),
    "huge exception": (["assert f(1) == 4242"], "def f(x): raise ValueError('x'*10**8)"),
    "exception str hostile": (
        ["try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'bad'"],
        "class E(ValueError):\n  def __str__(s): raise SystemExit\ndef f(x): raise E",
    ),
    "infinite str": (["assert f(1) == 4242"], "class X:\n  def __repr__(s):\n    while 1: pass\ndef f(x): return X()"),
    "print forever": (("", "1\n"), "while True: print('1')"),
    "threads at exit": (
        ("", "1\n"),
        "import threading,time\nthreading.Thread(target=lambda: time.sleep(100)).start()\nprint('1')",
    ),
    "atexit loop": (("", "1\n"), "import atexit\nprint(1)\n@atexit.register\ndef f():\n  while True: pass"),
    "flush hostile": (
        ("", "1\n"),
        "import io,os\nclass T(io.TextIOWrapper):\n  def flush(s): os._exit(0)\nt=T(io.BytesIO())\nprint(2)",
    ),
    "sigkill self": (("", "1\n"), "import os\nos.kill(os.getpid(),9)"),
    "mmap memory": (("", "1\n"), "import mmap\nm=[mmap.mmap(-1,1<<28) for _ in range(100)]"),
    "isinstance lies": (
        ["assert isinstance(f(1), int)", "assert f(1) == 4242"],
        "class M(type):\n  def __instancecheck__(c,o): return True\nclass X(metaclass=M):\n  __class__=int\n  def __eq__(s,o): return True\ndef f(x): return X()",
    ),
    "decorator returns any": (
        ["@memo\ndef sq(x):\n    return x*x", "assert sq(3) == 9"],
        "class X:\n  def __eq__(s,o): return True\ndef memo(f): return lambda *a: X()",
    ),
    "coroutine any": (
        ["import asyncio\nassert asyncio.run(f(2)) == 4"],
        "class X:\n  def __eq__(s,o): return True\nasync def f(x): return X()",
    ),
}
