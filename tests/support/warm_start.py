"""Commands of their own processes that do not wait for torch, transformers and TRL to be imported.

`WarmStart` keeps one helper process that has imported the third-party packages, and nothing of this project. For each
command it forks: the child has its own arguments, environment, folder and output, imports the project itself, and ends
as any interpreter does. A command takes a second in place of eight. What a fork cannot show is left to real starts: the
order of imports, the interpreter's own variables (a child has the helper's PYTHONHASHSEED and PYTHONPATH), `accelerate
launch` and its report, the installed console script.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
THIRD_PARTIES = (
    *("torch", "transformers", "accelerate.commands.launch", "peft", "trl.trainer.grpo_trainer", "bitsandbytes"),
    *("datasets", "matplotlib.pyplot", "sympy", "torch.distributed.fsdp"),
)
CPU_2 = "configs/accelerate/cpu-2.yaml"
FSDP2_CPU_2 = "tests/support/fsdp2-cpu-2.yaml"
BEFORE_A_FORK = {  # neither threads nor CUDA outlive one
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "CUDA_VISIBLE_DEVICES": "",
}


class WarmStart:
    """The helper process; `run` and `start` a command with it.

    Args:
        imports: Modules that every command has imported from the start.
    """

    def __init__(self, imports: Sequence[str] = THIRD_PARTIES) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="warm-start-")
        self._started = 0
        self._helper = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm_start", *imports],
            cwd=ROOT,
            env={**os.environ, **BEFORE_A_FORK},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for pytest, which closes the helper
        )

    def start(
        self,
        program: str,
        *arguments: str,
        accelerate: str | None = None,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
    ) -> Command:
        """Start `python -m program arguments`, or `python program arguments` where the program is the path of a file.

        Args:
            accelerate: With this configuration file, as many processes as `accelerate launch` would start, in the
                environment that it would give them.
            env: Variables of the command alone.
        """
        self._started += 1
        stdout, stderr = (Path(self._files.name) / f"{self._started}.{name}" for name in ("stdout", "stderr"))
        request = {
            "program": program,
            "arguments": arguments,
            "accelerate": accelerate and str(ROOT / accelerate),
            "cwd": str(cwd),
            "env": {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        return Command(self, self._ask(start=request), stdout, stderr)

    def run(self, program: str, *arguments: str, timeout: float = 300, **options: Any) -> Ended:
        """`start` a command and `wait` for its end."""
        return self.start(program, *arguments, **options).wait(timeout)

    def poll(self, pids: list[int]) -> dict[int, int]:
        """Exit statuses of the processes that have ended, negative for a signal. Each is given once."""
        return {int(pid): status for pid, status in self._ask(poll=pids).items()}

    def close(self) -> None:
        """End the helper, and with it every command that still runs."""
        self._helper.stdin.close()
        self._helper.wait()
        self._helper.stdout.close()
        self._files.cleanup()

    def _ask(self, **request: Any) -> Any:
        print(json.dumps(request), file=self._helper.stdin, flush=True)
        answer = self._helper.stdout.readline()
        if not answer:
            raise RuntimeError(f"the helper has ended with exit status {self._helper.wait()}")
        return json.loads(answer)


@dataclass(frozen=True)
class Ended:
    """How a command has ended: what it wrote, and the exit status of each process, negative for a signal."""

    returncodes: list[int]
    stdout: str
    stderr: str

    @property
    def returncode(self) -> int:
        """0 where no process has failed."""
        return next((code for code in self.returncodes if code), 0)


class Command:
    """A command that runs, in one process or several."""

    def __init__(self, helper: WarmStart, pids: list[int], stdout: Path, stderr: Path):
        self._helper, self.pids, self._stdout, self._stderr = helper, pids, stdout, stderr
        self._codes: dict[int, int] = {}

    def poll(self) -> bool:
        """Whether it has ended. A failure of the first process ends the others; it must notice theirs by itself."""
        found = self._helper.poll([pid for pid in self.pids if pid not in self._codes])
        self._codes |= found
        if found.get(self.pids[0]):
            self.send_signal(signal.SIGTERM)
        return len(self._codes) == len(self.pids)

    def send_signal(self, number: int) -> None:
        for pid in self.pids:
            if pid not in self._codes:  # until then the id is kept
                os.kill(pid, number)

    def wait(self, timeout: float = 300) -> Ended:
        """How it ended. What has not after ``timeout`` seconds is killed.

        Raises:
            TimeoutError: With what it wrote to standard error.
        """
        end = time.monotonic() + timeout
        while not self.poll():
            if time.monotonic() > end:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"no end within {timeout} s: {self._stderr.read_text()[-3000:]}")
            time.sleep(0.02)
        codes = [self._codes[pid] for pid in self.pids]
        return Ended(codes, self._stdout.read_text(encoding="utf-8"), self._stderr.read_text(encoding="utf-8"))


# The helper's own half. `serve` returns in the children alone, so that each ends as its program does.


def environments(accelerate: str | None) -> list[dict[str, str]]:
    """What each process of a command finds in its environment besides the command's own."""
    if accelerate is None:
        return [{}]
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    args = launch_command_parser().parse_args(["--config_file", accelerate, "a_program"])
    args, _, _ = _validate_launch_command(args)
    count = args.num_processes
    common = prepare_multi_gpu_env(args) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(args.main_process_port)}
    common |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def serve() -> dict[str, Any]:
    """Answer requests until there are no more, and end. In a child: the request to carry out."""
    children: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if asked := request.get("start"):
            os.chdir(asked["cwd"])
            os.environ.clear()
            os.environ.update(asked["env"])
            answer: Any = []
            for environment in environments(asked["accelerate"]):
                pid = os.fork()
                if pid == 0:
                    os.environ.update(environment)
                    return asked
                answer.append(pid)
            children |= set(answer)
        else:
            answer = {}
            for pid in request["poll"]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    answer[pid] = os.waitstatus_to_exitcode(status)
            children -= answer.keys()
        print(json.dumps(answer), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    sys.exit()


def carry_out(asked: dict[str, Any]) -> None:
    for descriptor, path in ((0, os.devnull), (1, asked["stdout"]), (2, asked["stderr"])):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    program = asked["program"]
    sys.argv = [program, *asked["arguments"]]
    if os.sep in program:
        sys.path[0] = str(Path(program).resolve().parent)
        runpy.run_path(program, run_name="__main__")
    else:
        sys.path[0] = asked["cwd"]
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    for name in sys.argv[1:]:
        importlib.import_module(name)
    tasks = Path("/proc/self/task")
    if tasks.is_dir() and len(list(tasks.iterdir())) > 1:
        sys.exit("A process of several threads cannot be forked: an imported package has started one.")
    gc.freeze()  # the children's garbage collection leaves alone what they share
    carry_out(serve())
