"""The supervisor on real processes: small Python programs that listen, crash, linger or multiply."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from demo.ports import any_port, port_is_free
from demo.stack import Process, Service, Stack, StackError, read_state

LINGER = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def python(code: str, name: str = "worker", log: Path | None = None, patience: float = 20.0) -> Service:
    ready = None if log is None else lambda: b"up" in log.read_bytes()
    return Service(name, [sys.executable, "-c", code], ready=ready, patience=patience)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def demo(folder: Path) -> subprocess.Popen[str]:
    """A process of its own that runs a stack of one service in `folder`; returns once that service is up."""
    code = (
        "import sys; from pathlib import Path; from demo.stack import Service, Stack\n"
        "folder = Path(sys.argv[1])\n"
        "with Stack(folder) as stack:\n"
        f"    stack.start(Service('worker', [sys.executable, '-c', {LINGER!r}],\n"
        "        ready=lambda: b'up' in (folder / 'logs/worker.log').read_bytes()))\n"
        "    print('running', flush=True)\n"
        "    stack.wait()\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


def test_starts_in_order_waits_until_ready_and_stops(tmp_path: Path) -> None:
    seconds: list[float] = []
    with Stack(tmp_path) as stack:
        port = stack.port("web")
        url = f"http://127.0.0.1:{port}/"

        def answers() -> bool:
            try:
                return httpx.get(url).status_code == 200
            except httpx.TransportError:
                return False

        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        web = stack.start(Service("web", command, {"GREETING": "hello"}, answers), waiting=seconds.append)
        assert answers()
        assert seconds == sorted(seconds)
        assert b"GREETING=hello" in Path(f"/proc/{web.pid}/environ").read_bytes()
        log = tmp_path / "logs" / "worker.log"
        worker = stack.start(python(LINGER, log=log))
        stack.check()
        kept = read_state(tmp_path)
        assert kept["pids"] == {"web": web.pid, "worker": worker.pid}
        assert kept["ports"] == {"web": port}
        assert kept["pid"] == os.getpid()
        assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)
    assert web.status == worker.status == -signal.SIGTERM
    assert read_state(tmp_path)["pids"] == {}
    assert read_state(tmp_path)["pid"] is None
    assert port_is_free(port)


def test_early_death_shows_the_end_of_this_start_s_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "worker.log"
    log.parent.mkdir()
    log.write_text("a line of yesterday\n")
    crash = "print('cannot open the database'); raise SystemExit(3)"
    with Stack(tmp_path) as stack, pytest.raises(StackError) as caught:
        stack.start(Service("worker", [sys.executable, "-c", crash], ready=lambda: False))
    message = str(caught.value)
    assert "worker ended with status 3" in message
    assert "cannot open the database" in message
    assert str(log) in message
    assert "yesterday" not in message


def test_one_that_never_answers_is_named(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack, pytest.raises(StackError, match=r"worker did not answer within 0 s.*worker\.log"):
        stack.start(Service("worker", [sys.executable, "-c", LINGER], ready=lambda: False, patience=0.2))


def test_a_missing_program_is_an_early_death(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack, pytest.raises(StackError, match="FileNotFoundError"):
        stack.start(Service("worker", ["/no/such/program"], ready=lambda: False))


def test_a_death_later_on_is_noticed(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "worker.log"
    with Stack(tmp_path) as stack:
        worker = stack.start(python(LINGER, log=log))
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(StackError, match="worker was killed by SIGKILL"):
            stack.wait(every=0.01)


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "stubborn.log"
    process = Process(python(f"import signal\nsignal.signal(15, signal.SIG_IGN)\n{LINGER}", log=log), log)
    process.wait_ready()
    process.stop(seconds=0.1)
    assert process.status == -signal.SIGKILL


def test_kill_takes_the_whole_group_and_restart_brings_a_new_one(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "worker.log"
    # The grandchild keeps the lock that it inherits, so that its end can be waited for below.
    multiply = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {LINGER!r}], close_fds=False)\n"
    with Stack(tmp_path) as stack:
        worker = stack.start(python(multiply + LINGER, log=log))
        stack.kill("worker")
        assert worker.status == -signal.SIGKILL
        again = stack.restart("worker")
        assert again.status is None
        assert again.pid != worker.pid
        assert read_state(tmp_path)["pids"] == {"worker": again.pid}
    with Stack(tmp_path):  # refused as long as anything of the stack before is left
        pass


def test_kill_9_of_the_demo_takes_its_children_along(tmp_path: Path) -> None:
    process = demo(tmp_path)
    assert set(read_state(tmp_path)["pids"]) == {"worker"}
    process.kill()
    process.communicate()
    with Stack(tmp_path) as stack:  # refused as long as a child of the demo before is left
        assert stack.state["pids"] == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    process = demo(tmp_path)
    child = read_state(tmp_path)["pids"]["worker"]
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == {signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 128 + signal.SIGTERM}[number]
    assert is_gone(child)
    assert read_state(tmp_path)["pids"] == {}


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        Stack(tmp_path),
        pytest.raises(StackError, match=rf"already runs in .* \(process {os.getpid()}\)"),
        Stack(tmp_path),
    ):
        pass
    with Stack(tmp_path):
        pass


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        first = stack.port("label-studio")
        stack.state["project"] = 7
        stack.save()
    with Stack(tmp_path) as stack:
        assert stack.state["project"] == 7
        assert stack.port("label-studio", preferred=1) == first
    with Stack(tmp_path) as stack, socket.create_server(("127.0.0.1", first)):
        assert not port_is_free(first)
        assert stack.port("label-studio") != first
    assert json.loads((tmp_path / "stack.json").read_text())["ports"]["label-studio"] != first
    with socket.create_server(("127.0.0.1", 0)) as other, Stack(tmp_path) as stack:
        taken = other.getsockname()[1]
        assert stack.port("backend", preferred=taken) != taken


def test_a_port_that_one_stack_was_given_is_not_given_to_another(tmp_path: Path) -> None:
    wished = any_port()
    with Stack(tmp_path / "late") as late:
        with Stack(tmp_path / "early") as early:
            assert early.port("label-studio", wished) == wished
            assert port_is_free(wished)  # nothing listens on it yet
            assert late.port("label-studio", wished) != wished
            assert early.port("backend", wished) != wished
        assert late.port("backend", wished) == wished
