"""How Julia is found, started and reported; and what happens where there is none."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pyjlode import JuliaNotFoundError, PyjlodeError, config, install, odeint, runtime
from pyjlode.cli import main
from pyjlode.config import JuliaSource

NAMES = ("PYJLODE_JULIA", "PYJLODE_PROJECT", "PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Julia in the environment, the configuration or juliapkg."""
    for name in (*NAMES, "PYJLODE_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYJLODE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHON_JULIAPKG_PROJECT", str(tmp_path / "juliapkg"))
    return tmp_path


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, **environment}, timeout=300,
    )  # fmt: skip


def test_import_starts_nothing() -> None:
    """Neither Julia nor a socket nor one of the heavy packages."""
    code = """
import socket, sys
def refuse(*_): raise SystemExit("network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import torch
import pyjlode
print([m for m in ("juliacall", "juliapkg", "matplotlib", "torchdiffeq") if m in sys.modules])
"""
    done = python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_environment_comes_first(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config._from_environment() is None
    assert config._from_configuration() is None
    exe = nowhere / "julia"
    exe.touch()
    saved = JuliaSource(str(exe), str(nowhere), "configuration")
    config.save(saved)
    assert config.find() == saved
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "a")
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", "b")
    assert config.find() == JuliaSource("a", "b", "environment")
    monkeypatch.setenv("PYJLODE_JULIA", "c")
    monkeypatch.setenv("PYJLODE_PROJECT", "d")
    assert config.find() == JuliaSource("c", "d", "environment")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"exe": 1, "project": 2, "origin": 3}'])
def test_damaged_configuration_counts_as_none(nowhere: Path, content: str) -> None:
    config.config_file().write_text(content)
    assert config._from_configuration() is None
    config.config_file().write_text(json.dumps({"exe": "/no", "project": "/no", "origin": "x"}))
    assert config._from_configuration() is None


def test_no_julia(nowhere: Path) -> None:
    """The torch engine solves, and one warning says so; the Julia engine says how to get it."""
    environment = {k: os.environ[k] for k in ("PYJLODE_CONFIG_DIR", "PYTHON_JULIAPKG_PROJECT")}
    code = """
import torch, pyjlode
y0 = torch.ones(1)
for _ in range(2):
    print(pyjlode.odeint(lambda t, y: -y, y0, [0.0, 1.0])[-1].item())
try:
    pyjlode.odeint(lambda t, y: -y, y0, [0.0, 1.0], engine="julia")
except pyjlode.JuliaNotFoundError as error:
    print(error)
"""
    done = python(code, **environment)
    lines = done.stdout.strip().splitlines()
    assert [round(float(x), 3) for x in lines[:2]] == [0.368, 0.368]
    assert "pyjlode setup" in lines[2]
    assert done.stderr.count("No Julia is set up, so torchdiffeq solves") == 1
    doctor = subprocess.run(
        [sys.executable, "-m", "pyjlode", "doctor"], capture_output=True, text=True, check=False
    )
    assert doctor.returncode == 1
    assert "pyjlode setup --julia" in doctor.stdout


def test_setup_refuses_what_is_no_julia(nowhere: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments, message in [
        (["--julia", "no-such-julia", "--project", str(nowhere)], "not an executable"),
        (["--julia", sys.executable, "--project", str(nowhere)], "no Project.toml"),
    ]:
        assert main(["setup", *arguments]) == 1
        assert message in capsys.readouterr().err
    (nowhere / "Project.toml").touch()
    assert main(["setup", "--julia", sys.executable, "--project", str(nowhere)]) == 1
    assert "not a Julia of version 1.10" in capsys.readouterr().err
    assert main(["setup", "--julia", "julia"]) == 2
    assert not config.config_file().exists()


def test_no_network_is_known_in_two_seconds(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def hang(*_: object, **__: object) -> None:
        time.sleep(10)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    began = time.monotonic()
    assert main(["setup"]) == 1
    assert time.monotonic() - began < 2.5
    assert "setup --julia EXE --project DIR" in capsys.readouterr().err


def test_setup_registers(julia: str, nowhere: Path, capsys: pytest.CaptureFixture) -> None:
    """The Julia of these tests, registered in another place; and one that cannot load."""
    source = runtime.start().source
    assert main(["setup", "--julia", source.exe, "--project", source.project]) == 0
    assert "Works: Julia" in capsys.readouterr().out
    found = config.find()
    assert found is not None
    assert found.exe == source.exe
    assert main(["setup", "--forget"]) == 0
    empty = nowhere / "empty"
    empty.mkdir()
    (empty / "Project.toml").touch()
    assert main(["setup", "--julia", source.exe, "--project", str(empty)]) == 1
    assert "does not work" in capsys.readouterr().err
    assert config.find() is None


def test_versions_of_the_bridge(julia: str, tmp_path: Path) -> None:
    """PythonCall and juliacall of different versions: the message has the command that mends it."""
    from importlib.metadata import version

    source = runtime.start().source
    assert runtime._pythoncall_version(Path(source.project)) == version("juliacall")
    (tmp_path / "Manifest.toml").write_text(
        'julia_version = "1.10.9"\n\n[[deps.PythonCall]]\ndeps = ["X"]\nversion = "0.9.1"\n\n'
        '[[deps.Zygote]]\nversion = "0.7.0"\n'
    )
    with pytest.raises(JuliaNotFoundError, match=r"pip install juliacall==0\.9\.1"):
        runtime._start(JuliaSource(source.exe, str(tmp_path), "configuration"))


def test_doctor(julia: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for name, number in runtime.start().versions.items():
        assert f"{name} {number}" in said


def test_forks_are_told(julia: str) -> None:
    if hasattr(os, "fork"):
        context = multiprocessing.get_context("fork")
        reader, writer = context.Pipe(duplex=False)
        child = context.Process(target=_solve_in_fork, args=(writer,))
        child.start()
        assert reader.poll(30)
        assert "spawn" in reader.recv()
        child.join(30)


def _solve_in_fork(writer: object) -> None:
    try:
        odeint(lambda t, y: -y, torch.ones(1), [0.0, 1.0], engine="julia")
        writer.send("solved")
    except PyjlodeError as error:
        writer.send(str(error))
    finally:
        os._exit(0)


def test_unreachable_is_false_only_with_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers counts as reached, one that refuses does not."""
    import http.server

    from juliapkg import install_julia

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_response(200 if self.path == "/good" else 403)
            self.end_headers()

    server = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for path, unreachable in (("good", False), ("bad", True)):
        url = f"http://127.0.0.1:{server.server_port}/{path}"
        monkeypatch.setattr(install_julia, "_julia_versions_url", url)
        assert install.juliapkg_unreachable() is unreachable
    server.shutdown()


# Ctrl-C in the midst of some work: whether it ended that within a second.
INTERRUPT = """
import os, signal, threading, time, warnings
warnings.simplefilter("ignore")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
def interrupted(work, seconds=0.3):
    sent = []
    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(seconds, send)
    timer.start()
    try:
        work()
        timer.cancel()
        return "ended by itself"
    except KeyboardInterrupt:
        late = time.perf_counter() - sent[0]
        return "interrupted" if late < 1 else f"late, {late} s"
"""

INTERRUPTED = """
import torch
from pyjlode import ddeint, odeint, odeint_event, runtime
D = torch.float64
w = torch.tensor(100.0, dtype=D, requires_grad=True)
turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=D)
y0 = torch.ones(20, 2, dtype=D)
options = {"max_num_steps": 10**9}
def f(t, y):
    return w * y @ turn
def in_python(t, y):
    return torch.from_numpy(100 * y.detach().numpy() @ turn.numpy())
def solve(t=1e7, func=f, **how):
    return odeint(func, y0, [0.0, t], engine="julia", options=options, **how)
def check():
    y = odeint(lambda t, y: -y, torch.ones(1, dtype=D), [0.0, 1.0], engine="julia")
    assert abs(y[-1] - 0.36787944117) < 1e-6

def unrecorded(work):
    with torch.no_grad():
        work()
done = solve(300.0)
cases = {
    "sleep": lambda: time.sleep(20),
    "many": lambda: [solve(0.01) for _ in range(10**6)],
    "forward": lambda: unrecorded(solve),
    "stiff": lambda: unrecorded(lambda: solve(method="Rodas5P")),
    "rows": lambda: unrecorded(lambda: solve(batch="independent")),
    "python": lambda: unrecorded(lambda: solve(func=in_python)),
    "event": lambda: unrecorded(lambda: odeint_event(
        f, y0, torch.tensor(0.0, dtype=D), event_fn=lambda t, y: t - 1e7, engine="julia",
        options=options)),
    "delay": lambda: unrecorded(lambda: ddeint(
        lambda t, y, past: f(t, y) + 0 * past, y0, [0.0, 1e7], lags=[1.0], engine="julia",
        options=options)),
    "backward": lambda: [done.sum().backward(retain_graph=True) for _ in range(10**3)],
}
with torch.no_grad():  # calls Python, and compiles first: that is not interrupted
    solve(0.01, func=in_python)
print(runtime.start().main.seval("Threads.nthreads()"))
for name, work in cases.items():
    print(name, interrupted(work, 0.5))
    check()
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_interrupts(julia: str, threads: str) -> None:
    """Within a second while Python waits, in every kind of solve, and the next one works."""
    names = ("PYTHON_JULIACALL_HANDLE_SIGNALS", "PYTHON_JULIACALL_THREADS", "JULIA_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT + INTERRUPTED], capture_output=True, text=True,
        check=False, timeout=300, env={**environment, "JULIA_NUM_THREADS": threads},
    )  # fmt: skip
    cases = ["sleep", "many", "forward", "stiff", "rows", "python", "event", "delay", "backward"]
    said = [line.strip() for line in done.stdout.splitlines()]
    assert said == [threads, *(f"{case} interrupted" for case in cases)], done.stderr


INTERRUPTED_COMPILATION = """
import torch
from pyjlode import QuadratureAdjoint, ddeint, odeint, odeint_event, sdeint
D = torch.float64
rate = torch.tensor(-1.0, dtype=D, requires_grad=True)
y0 = torch.ones(3, dtype=D)
class Noisy(torch.nn.Module):
    sde_type, noise_type = "ito", "diagonal"
    def f(self, t, y): return -y
    def g(self, t, y): return 0.1 * y
def solve(method, sensealg=None):
    return odeint(
        lambda t, y: rate * y, y0, [0.0, 1.0], method=method, sensealg=sensealg, engine="julia")
with torch.no_grad():  # load the packages
    solve("Kvaerno5"), solve("Vern7")
    sdeint(Noisy(), y0[None], [0.0, 1.0], dt=0.5, method="euler", engine="julia")
    ddeint(lambda t, y, past: -past, y0, [0.0, 1.0], lags=[0.5], engine="julia")
    print("forward", interrupted(lambda: solve("Kvaerno4")))
    print("event", interrupted(lambda: odeint_event(
        lambda t, y: rate * y, y0, torch.tensor(0.0, dtype=D), event_fn=lambda t, y: y[0] - 0.5,
        method="Kvaerno3", engine="julia")))
    print("delay", interrupted(lambda: ddeint(
        lambda t, y, past: -past, y0, [0.0, 1.0], lags=[0.5], method="Vern9", engine="julia")))
    print("stochastic", interrupted(lambda: sdeint(
        Noisy(), y0[None], [0.0, 1.0], dt=0.1, seed=1, adaptive=True, engine="julia")))
print("value", float(solve("Tsit5")[-1, 0].detach()))
last = solve("Vern8", QuadratureAdjoint())[-1].sum()
print("backward", interrupted(last.backward), rate.grad)
solve("Kvaerno4")[-1].sum().backward()
print("gradient", float(rate.grad))
"""


def test_interrupts_while_julia_compiles(julia: str) -> None:
    """Within a second too; what is left behind is out of the way of the next solves."""
    done = python(INTERRUPT + INTERRUPTED_COMPILATION)
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
    assert done.returncode == 0, done.stderr
    for kind in ("forward", "event", "delay", "stochastic"):
        assert said[kind] == "interrupted", (kind, said)
    assert said["backward"] == "interrupted None"
    assert abs(float(said["value"]) - math.exp(-1)) < 1e-6
    assert abs(float(said["gradient"]) - 3 * math.exp(-1)) < 1e-5


def test_memory_of_dropped_solves(julia: str) -> None:
    """Of some 100 MB each; Julia alone would collect them only when memory runs short."""
    y0, t = torch.randn(20_000, 2, dtype=torch.float64), torch.linspace(0.0, 1.0, 20)
    held = runtime.start().main.seval("Base.gc_live_bytes")
    most = 0
    for _ in range(40):
        solution = odeint(lambda t, y: -y, y0, t, engine=julia, return_solution=True)
        most = max(most, int(held()))
        del solution
    assert most < 1.5e9
