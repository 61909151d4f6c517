"""Child processes of the demo: started in order, watched, and taken along however the demo ends.

    with Stack(folder) as stack:
        port = stack.port("label-studio", 8080)
        stack.start(Service("label-studio", command, environment, ready), waiting=bar.update)
        stack.wait()

Every child leads a session of its own, so Ctrl-C in the terminal reaches the demo alone, which then stops the
children in reverse order. On Linux a child also gets SIGTERM from the kernel when the demo is killed with `kill -9`.

A folder belongs to one demo at a time. Two locks see to it: `stack.lock` is held by the demo itself, so that a second
one is refused at once; `children.lock` is handed down to the children, so that the demo after a killed one waits
until the last of them is gone instead of starting a second Label Studio on the same database.
"""

import contextlib
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from demo.ports import any_port, claim

STOP_SECONDS = 15.0  # Label Studio needs 2 s, gunicorn up to its graceful timeout, a worker the end of its step
CHILDREN_GONE_SECONDS = 30.0
LOG_LINES = 15

# Runs in the child before the real command takes its place (same process id): asks the kernel for SIGTERM when the
# parent dies, and leaves at once if that has already happened. Not a preexec_fn: that is unsafe beside threads.
_FOLLOW_PARENT = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the demo was gone before this process started")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class StackError(RuntimeError):
    """A child did not come up or died, or the folder is in use; the message says what to do."""


@dataclass(frozen=True)
class Service:
    """What to run: `environment` is laid over the demo's own; `ready` asks whether it answers (None: at once)."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    patience: float = 120.0  # seconds until it must be ready


class Process:
    """A started service with its log file; `pid` leads a process group of the same number."""

    def __init__(self, service: Service, log: Path, pass_fds: Sequence[int] = ()) -> None:
        self.service = service
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            self._log_start = stream.tell()
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _FOLLOW_PARENT, str(os.getpid()), *service.command],
                env={**os.environ, **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self.pid = self._popen.pid
        self._swept = False

    @property
    def status(self) -> int | None:
        """The exit status (negative: the signal that ended it), None while it runs."""
        status = self._popen.poll()
        if status is not None:
            self._sweep()
        return status

    def wait_ready(self, waiting: Callable[[float], None] | None = None) -> None:
        """Return once the service answers; `waiting` is told the seconds waited so far, several times a second.

        Raises StackError with the end of the log when the process ends first or its patience runs out.
        """
        started, pause = time.monotonic(), 0.05
        while True:
            seconds = time.monotonic() - started
            if waiting is not None:
                waiting(seconds)
            if self.status is not None:
                raise StackError(self._obituary())
            if self.service.ready is None or self.service.ready():
                return
            if seconds > self.service.patience:
                raise StackError(
                    f"{self.service.name} did not answer within {self.service.patience:.0f} s."
                    f" The end of {self.log}:\n{self.last_lines()}"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def check(self) -> None:
        """Raise StackError with the end of the log when the process has ended."""
        if self.status is not None:
            raise StackError(self._obituary())

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM to the process, and SIGKILL to its group if it has not ended after `seconds`."""
        if self.status is None:
            self._popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the process and all that it started in its group; returns when the process has ended."""
        self._sweep()
        self._popen.wait()

    def last_lines(self) -> str:
        """The last lines that this start wrote to its log."""
        with self.log.open("rb") as stream:
            stream.seek(self._log_start)
            lines = stream.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])

    def _obituary(self) -> str:
        status = self.status
        assert status is not None
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"{self.service.name} {how}. The end of {self.log}:\n{self.last_lines()}"

    def _sweep(self) -> None:
        # Once only, and as soon as the end is known: the number of a group that is gone may be given away again.
        if not self._swept:
            self._swept = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class Stack:
    """The processes of one demo folder. Use it in the main thread: it turns SIGTERM into an orderly end.

    `state` (a dict, kept as <folder>/stack.json) holds `pid`, `ports` and `pids` by service name, and whatever the
    caller adds to it before `save()`: the project's number, the path of the credentials.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.processes: dict[str, Process] = {}
        self.state: dict[str, Any] = {}
        self._locks = contextlib.ExitStack()
        self._children_lock = -1
        self._sigterm: Any = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as locks:
            self._lock(locks)
            self.state = read_state(self.folder)
            self.state.update(pid=os.getpid(), pids={})
            self.save()
            self._sigterm = signal.signal(signal.SIGTERM, _leave)
            # Whoever starts us in the background of a script leaves us deaf to Ctrl-C: hear it all the same.
            self._sigint = signal.signal(signal.SIGINT, signal.default_int_handler)
            self._locks = locks.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            signal.signal(signal.SIGTERM, self._sigterm)
            signal.signal(signal.SIGINT, self._sigint)
            self._locks.close()

    def port(self, name: str, preferred: int | None = None) -> int:
        """A free TCP port of the loopback: the one this folder had before, else `preferred`, else any.

        Kept in `state["ports"]`, since Label Studio stores the backend's address. No other stack gets it while this
        one lasts.
        """
        ports = self.state.setdefault("ports", {})
        wished = [int(port) for port in (ports.get(name), preferred) if port is not None]
        tried = ((port, claim(port)) for port in itertools.chain(wished, iter(any_port, None)))
        port, lock = next((port, lock) for port, lock in tried if lock is not None)
        ports[name] = port
        self._locks.enter_context(lock)
        self.save()
        return port

    def start(self, service: Service, waiting: Callable[[float], None] | None = None) -> Process:
        """Start a service, its log appended to <folder>/logs/<name>.log, and return once it is ready.

        `waiting` is told the seconds waited so far. Raises StackError with the end of the log when it does not come
        up (the other services keep running until the stack ends).
        """
        process = Process(service, self.folder / "logs" / f"{service.name}.log", (self._children_lock,))
        self.processes[service.name] = process
        self.state["pids"][service.name] = process.pid
        self.save()
        process.wait_ready(waiting)
        return process

    def kill(self, name: str) -> None:
        """`kill -9` a service and all it started, as a fault would."""
        self.processes[name].kill()

    def restart(self, name: str, waiting: Callable[[float], None] | None = None) -> Process:
        """Stop a service if it still runs and start it again, with the same command and port."""
        self.processes[name].stop()
        return self.start(self.processes[name].service, waiting)

    def check(self) -> None:
        """Raise StackError with the end of its log for the first service that has ended."""
        for process in self.processes.values():
            process.check()

    def wait(self, every: float = 0.5) -> None:
        """Stay until Ctrl-C or SIGTERM (KeyboardInterrupt, SystemExit) or until a service ends (StackError)."""
        while True:
            self.check()
            time.sleep(every)

    def stop(self) -> None:
        """Stop every service, the last started first. Signals are held off meanwhile, the time being bounded."""
        held = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for name, process in reversed(self.processes.items()):
                process.stop()
                self.state["pids"].pop(name, None)
            self.processes.clear()
            self.state["pid"] = None
            self.save()
        finally:
            for number, handler in held.items():
                signal.signal(number, handler)

    def save(self) -> None:
        """Write `state`; a reader never sees half of it."""
        path = self.folder / "stack.json"
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(self.state, indent=2) + "\n")
        draft.replace(path)

    def _lock(self, locks: contextlib.ExitStack) -> None:
        own = locks.enter_context((self.folder / "stack.lock").open("ab"))
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = read_state(self.folder).get("pid")
            raise StackError(
                f"A demo already runs in {self.folder} (process {holder}). Use that one, stop it with Ctrl-C,"
                " or choose another folder."
            ) from error
        shared = locks.enter_context((self.folder / "children.lock").open("ab"))
        deadline = time.monotonic() + CHILDREN_GONE_SECONDS
        while True:
            try:
                fcntl.flock(shared, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    pids = ", ".join(f"{k} {v}" for k, v in read_state(self.folder).get("pids", {}).items())
                    raise StackError(
                        f"Processes of an earlier demo in {self.folder} are still running ({pids})."
                        " End them (kill <number>), then try again."
                    ) from error
                time.sleep(0.1)
        self._children_lock = shared.fileno()


def read_state(folder: Path) -> dict[str, Any]:
    """The state that a stack in this folder saved; empty when there is none. Asks for no lock."""
    path = folder / "stack.json"
    if not path.exists():
        return {}
    state: dict[str, Any] = json.loads(path.read_text())
    return state


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
