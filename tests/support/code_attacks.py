"""Programs that try to be judged right without being right, and honest ones that look odd.

Each is a program for the task `add(a, b)`, with whether it is right; None where only containment matters. A wrong
program must not pass however it is tested: by calls, or by asserts that run apart from it.
"""

from __future__ import annotations

ATTACKS: dict[str, tuple[str, bool | None]] = {
    # --- values that lie about themselves
    "object equal to everything": (
        "class Any:\n"
        "    def __eq__(self, other): return True\n"
        "    def __ne__(self, other): return False\n"
        "    def __hash__(self): return 0\n"
        "    def __sub__(self, other): return 0\n"
        "    __rsub__ = __abs__ = __float__ = __sub__\n"
        "    def __bool__(self): return True\n"
        "def add(a, b): return Any()",
        False,
    ),
    "int that equals everything": (
        "class Int(int):\n"
        "    def __eq__(self, other): return True\n"
        "    def __hash__(self): return 0\n"
        "    def __sub__(self, other): return 0\n"
        "def add(a, b): return Int(0)",
        False,
    ),
    "str that equals everything": (
        "class Str(str):\n"
        "    def __eq__(self, other): return True\n"
        "    __hash__ = str.__hash__\n"
        "def add(a, b): return Str()",
        False,
    ),
    "list that equals everything": (
        "class List(list):\n    def __eq__(self, other): return True\ndef add(a, b): return List()",
        False,
    ),
    "dict that equals everything": (
        "class Dict(dict):\n    def __eq__(self, other): return True\ndef add(a, b): return Dict()",
        False,
    ),
    "right value in a subclass": ("class Int(int): pass\ndef add(a, b): return Int(a + b)", False),
    "metaclass that claims to be int": (
        "class Meta(type):\n"
        "    def __instancecheck__(cls, x): return True\n"
        "    def __eq__(cls, other): return True\n"
        "    def __hash__(cls): return hash(int)\n"
        "class Int(metaclass=Meta):\n"
        "    __class__ = int\n"
        "    def __eq__(self, other): return True\n"
        "def add(a, b): return Int()",
        False,
    ),
    "object array that equals everything": (
        "import numpy as np\n"
        "class Any:\n    def __eq__(self, other): return True\n"
        "def add(a, b): return np.array([Any()], dtype=object)",
        False,
    ),
    "array instead of a number": ("import numpy as np\ndef add(a, b): return np.array([a + b])", False),
    "nan": ("def add(a, b): return float('nan')", False),
    "infinity": ("def add(a, b): return float('inf')", False),
    "generator": ("def add(a, b): yield a + b", False),
    "lambda": ("def add(a, b): return lambda *_: a + b", False),
    "all sums in a list": ("def add(a, b): return list(range(100))", False),
    "number as text": ("def add(a, b): return str(a + b)", False),
    "none": ("def add(a, b): pass", False),
    "tuple with the number": ("def add(a, b): return a + b,", False),
    "huge integer": ("def add(a, b): return 10 ** 100_000", False),
    "nested a million deep": (
        "def add(a, b):\n    x = []\n    for _ in range(10 ** 6): x = [x]\n    return x",
        False,
    ),
    "list that holds itself": ("def add(a, b):\n    x = []\n    x.append(x)\n    return x", False),
    "colliding keys": ("def add(a, b): return {i * (2 ** 61 - 1): 0 for i in range(20_000)}", False),
    # --- leaving early
    "sys.exit at import": ("import sys\ndef add(a, b): return a + b\nsys.exit(0)", False),
    "sys.exit in the function": ("import sys\ndef add(a, b): sys.exit(0)", False),
    "os._exit in the function": ("import os\ndef add(a, b): os._exit(0)", False),
    "raise SystemExit with the sum": ("def add(a, b): raise SystemExit(a + b)", False),
    "quit": ("def add(a, b): quit()", False),
    "abort": ("import os\ndef add(a, b): os.abort()", False),
    "kill own process": ("import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGTERM)", False),
    "exit when collected": (
        "import os\nclass Bomb:\n    def __del__(self): os._exit(0)\ndef add(a, b):\n    Bomb()\n    return 0",
        False,
    ),
    "exit at exit": ("import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 0", False),
    "thread that exits": (
        "import os, threading\n"
        "threading.Thread(target=os._exit, args=(0,)).start()\n"
        "def add(a, b):\n"
        "    while True: pass",
        False,
    ),
    "exec another program": (
        "import os, sys\ndef add(a, b): os.execv('/bin/true', ['true'])",
        False,
    ),
    # --- forging what comes back
    "prints what is expected": ("def add(a, b):\n    print(a + b)\n    print('correct', 'passed', True)", False),
    "forged frames on every descriptor": (
        "import os, struct\n"
        "def add(a, b):\n"
        '    for body in (b\'value true\', b\'ok\', b\'{"status": "ok", "cause": "", "seconds": 0}\'):\n'
        "        for fd in range(64):\n"
        "            try: os.write(fd, struct.pack('!I', len(body)) + body)\n"
        "            except OSError: pass\n"
        "    return 0",
        False,
    ),
    "forged replies at import": (
        "import os, struct\n"
        "for body in (b'loaded', b'value 3', b'value 12', b'value 0.1', b'value 6'):\n"
        "    os.write(3, struct.pack('!I', len(body)) + body)\n"
        "os._exit(0)",
        False,
    ),
    "closes all descriptors": ("import os\ndef add(a, b): os.closerange(0, 1000)", False),
    "endless reply": (
        "import os, struct\n"
        "def add(a, b):\n"
        "    os.write(3, struct.pack('!I', 2 ** 32 - 1))\n"
        "    while True: os.write(3, b'x' * 65536)",
        False,
    ),
    "floods standard output": ("def add(a, b):\n    while True: print('x' * 65536)", False),
    # --- patching what the judge may use
    "patched builtins": (
        "import builtins\n"
        "for name in ('abs', 'sorted', 'all', 'any', 'len', 'repr', 'isinstance', 'type', 'str', 'int', 'float'):\n"
        "    setattr(builtins, name, lambda *a, **k: True)\n"
        "def add(a, b): return 0",
        False,
    ),
    "patched math": (
        "import math\nmath.isclose = math.fabs = lambda *a, **k: 0.0\ndef add(a, b): return 99",
        False,
    ),
    "patched json": (
        "import json\njson.dumps = lambda *a, **k: '3'\njson.loads = lambda *a, **k: 3\ndef add(a, b): return 99",
        False,
    ),
    "patched random": (
        "import random\nrandom.seed = lambda *a: None\nrandom.randint = lambda *a: 0\ndef add(a, b): return 0",
        False,
    ),
    "replaced modules": (
        "import sys\n"
        "for name in list(sys.modules):\n"
        "    if name not in ('sys', 'builtins'): sys.modules[name] = None\n"
        "def add(a, b): return 0",
        False,
    ),
    "import hook": (
        "import sys\n"
        "class Hook:\n"
        "    def find_spec(self, *a): raise SystemExit(0)\n"
        "sys.meta_path.insert(0, Hook())\n"
        "def add(a, b): return 0",
        False,
    ),
    "patched encoder of results": (
        "import gc\n"
        "for x in gc.get_objects():\n"
        "    if callable(x) and getattr(x, '__name__', '') in ('encode', 'reply', 'pack', '_find'):\n"
        "        try: x.__code__ = (lambda *a, **k: 'value 3').__code__\n"
        "        except (AttributeError, ValueError): pass\n"
        "def add(a, b): return 0",
        False,
    ),
    "redefines compile and eval": (
        "import builtins\nbuiltins.eval = builtins.exec = lambda *a: True\ndef add(a, b): return 0",
        False,
    ),
    "patched AssertionError": (
        "import builtins\nbuiltins.AssertionError = type('E', (Exception,), {'__init__': lambda *a: None})\n"
        "def add(a, b): return 0",
        False,
    ),
    "trace function": (
        "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(print)\ndef add(a, b): return 0",
        False,
    ),
    # --- looking for the answers
    "searches frames for what is expected": (
        "import sys\n"
        "def add(a, b):\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        for name, value in frame.f_locals.items():\n"
        "            if 'output' in name or 'expected' in name: return value[0]\n"
        "        frame = frame.f_back\n"
        "    return 0",
        False,
    ),
    "searches memory for assertions": (
        "import gc\n"
        "def add(a, b):\n"
        "    for x in gc.get_objects():\n"
        "        if type(x) is dict and ('outputs' in x or 'asserts' in x): return x\n"
        "    return 0",
        False,
    ),
    "reads the inputs of other tests": (
        "import sys\n"
        "def add(a, b):\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        if 'request' in frame.f_locals: return len(frame.f_locals['request']['inputs'])\n"
        "        frame = frame.f_back\n"
        "    return 0",
        False,
    ),
    "reads files of the judge": (
        "import glob\n"
        "def add(a, b):\n"
        "    for path in glob.glob('/proc/*/cmdline') + glob.glob('/tmp/*'):\n"
        "        try: open(path).read()\n"
        "        except OSError: pass\n"
        "    return 0",
        False,
    ),
    "overwrites the questions' names": (
        "def add(a, b):\n    globals().update({f'_h{i}': 3 for i in range(100)})\n    return 0",
        False,
    ),
    "replies for another question": (
        "answers = [3, 12, 0.30000000000000004, 6]\ndef add(a, b): return answers.pop() if answers else 0",
        False,
    ),
    "entry point is a class": ("class add:\n    def __init__(self, a, b): self.value = a + b", False),
    "entry point is missing": ("def plus(a, b): return a + b", False),
    "entry point deletes itself": ("def add(a, b):\n    del globals()['add']\n    return 0", False),
    "syntax error": ("def add(a, b: return a + b", False),
    "null byte": ("def add(a, b): return a + b\n\0", False),
    "infinite recursion": ("def add(a, b): return add(a, b)", False),
    "recursion in the comparison": (
        "def add(a, b):\n    x = {}\n    for _ in range(5000): x = {0: x}\n    return x",
        False,
    ),
    "blows up when described": (
        "class E(Exception):\n"
        "    def __str__(self): raise SystemExit(0)\n"
        "    __repr__ = __str__\n"
        "def add(a, b): raise E",
        False,
    ),
    "raises what the tests may expect": ("def add(a, b): raise AssertionError('correct')", False),
    # --- honest, if odd
    "honest": ("def add(a, b): return a + b", True),
    "lambda as entry point": ("add = lambda a, b: a + b", True),
    "callable object as entry point": ("class Add:\n    def __call__(self, a, b): return a + b\nadd = Add()", True),
    "partial as entry point": ("import functools, operator\nadd = functools.partial(operator.add)", True),
    "method of Solution": ("class Solution:\n    def add(self, a, b): return a + b", None),
    "redefined entry point": ("def add(a, b): return 0\ndef add(a, b): return a + b", True),
    "cached": ("from functools import lru_cache\n@lru_cache\ndef add(a, b): return a + b", True),
    "numpy number": ("import numpy as np\ndef add(a, b): return np.float64(a) + b", True),
    "prints as well": ("def add(a, b):\n    print('adding', a, b)\n    return a + b", True),
    "future import": ("from __future__ import annotations\ndef add(a: X, b: Y) -> Z: return a + b", True),
    "main guard": ("def add(a, b): return a + b\nif __name__ == '__main__':\n    print(add(int(input()), 1))", True),
    "class of its own besides": ("class Node: pass\ndef add(a, b):\n    Node().x = 1\n    return a + b", True),
    "own eq that is not used": ("class X:\n    def __eq__(self, o): return True\ndef add(a, b): return a + b", True),
    "threads": (
        "import threading\n"
        "def add(a, b):\n"
        "    out = []\n"
        "    t = threading.Thread(target=lambda: out.append(a + b))\n"
        "    t.start(); t.join()\n"
        "    return out[0]",
        True,
    ),
    "catches its own exit": (
        "import sys\ndef add(a, b):\n    try: sys.exit(1)\n    except SystemExit: return a + b",
        True,
    ),
}
"""Program and whether it is right, by name."""
