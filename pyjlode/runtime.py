"""The start of Julia. No other module imports juliacall or sets its environment.

Importing this starts nothing; :func:`start` does, once a process.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from . import config
from .config import JuliaSource
from .errors import JuliaNotFoundError, PyjlodeError
from .first_use import FirstUses

P = ParamSpec("P")
R = TypeVar("R")

_ADVICE = (
    "`pyjlode setup` installs Julia and its packages; "
    "`pyjlode setup --julia EXE --project DIR` registers your own."
)

# More threads than this have little left to do each.
_MOST_THREADS = 8

# Where Julia cannot tell, loading the packages will.
_IS_COMPILED = """
    try
        Base.isprecompiled(Base.identify_package("Pyjlode"))
    catch
        true
    end
"""

# Around each call of Julia: a function of Python's that Julia calls may solve again.
_entry = threading.RLock()
_lock = threading.Lock()
_running: Runtime | None = None
_forked = False


@dataclass(frozen=True)
class Runtime:
    """A started Julia.

    Attributes
    ----------
    module : Any
        The Julia module ``Pyjlode``, through juliacall.
    main : Any
        Julia's ``Main``.
    versions : dict of str to str
        Of Julia and of the packages that solve.
    source : JuliaSource
    first_uses : FirstUses
    """

    module: Any
    main: Any
    versions: dict[str, str]
    source: JuliaSource
    first_uses: FirstUses


@contextmanager
def julia_lock() -> Iterator[None]:
    """Have Julia to oneself, for calls through juliacall in a thread of one's own.

    All solves and gradients do. Two threads that run Julia at once can wait for each other for
    ever: one for Python's interpreter, the other for Julia's garbage collector (issues 578, 627 of
    PythonCall.jl).

    Examples
    --------
    >>> from pyjlode import julia_lock
    >>> with julia_lock():  # juliacall.Main.f(x) here
    ...     pass
    """
    with _entry:
        _settle()
        yield


def _settle() -> None:
    """Wait for what Ctrl-C left behind while Julia compiled."""
    if _running is not None:
        _running.first_uses.settle()


def in_julia(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function that calls Julia wait until no other thread does.

    Its calls raise :class:`PyjlodeError` in a forked child, where Julia cannot run.
    """

    @wraps(function)
    def entered(*args: P.args, **kwargs: P.kwargs) -> R:
        if _forked:
            raise PyjlodeError(
                "This process was forked from one that runs Julia, which cannot work. "
                "Start workers with the 'spawn' method."
            )
        with _entry:
            _settle()
            return function(*args, **kwargs)

    return entered


def call_first(function: Any, *arguments: Any, alive: object) -> Any:
    """A call for which Julia may compile, as :meth:`FirstUses.call`."""
    return start().first_uses.call(function, *arguments, alive=alive)


def julia_package() -> Path:
    """The folder of this project's Julia package: beside the Python package or inside it."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "julia", here.parent / "julia"):
        if (candidate / "Project.toml").exists():
            return candidate
    raise PyjlodeError("The Julia half of pyjlode is missing; install pyjlode again.")


@cache
def is_ready() -> bool:
    """Whether a Julia with the packages is registered; starts nothing, takes no network."""
    return config.find() is not None


def start() -> Runtime:
    """Start Julia and load the packages; the second call returns what the first one made.

    Raises
    ------
    JuliaNotFoundError
        If no Julia is set up, or the one that is does not start.
    """
    global _running
    with _lock:
        if _running is None:
            source = config.find()
            if source is None:
                raise JuliaNotFoundError(f"No Julia is set up. {_ADVICE}")
            _running = _start(source)
        return _running


def start_source(source: JuliaSource) -> Runtime:
    """Start one particular Julia, as ``pyjlode setup`` does to check it."""
    global _running
    with _lock:
        if _running is None:
            _running = _start(source)
        return _running


def _start(source: JuliaSource) -> Runtime:
    _check_bridge(source)
    _set_environment(source)
    try:
        with _own_signals():
            main = _import_juliacall()
        # The package lies outside the user's environment, whose packages it uses: so it is the
        # second place where Julia looks, after that environment.
        main.seval("dir -> push!(LOAD_PATH, dir)")(str(julia_package()))
        if not main.seval(_IS_COMPILED):
            print(
                "pyjlode: Julia compiles its packages first, once, which takes up to ten minutes; "
                "`pyjlode setup` shows how far it is.",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        main.seval("import Pyjlode")
        module = main.Pyjlode
        _leave_to_other_threads(main)
        module.watch_signals(_nothing)
        versions = {str(k): str(v) for k, v in module.versions().items()}
    except PyjlodeError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise JuliaNotFoundError(
            f"The Julia at {source.exe} did not start with the packages in {source.project}: "
            f"{reason[0] if reason else type(error).__name__}. {_ADVICE}"
        ) from error
    return Runtime(module, main, versions, source, FirstUses(module))


def _check_bridge(source: JuliaSource) -> None:
    """The two halves of the bridge must be of one version, else Julia's only says that it failed.

    Raises
    ------
    JuliaNotFoundError
        If the environment has another PythonCall than this Python's juliacall.
    """
    ours = version("juliacall")
    theirs = _pythoncall_version(Path(source.project))
    if theirs is not None and theirs != ours:
        raise JuliaNotFoundError(
            f"The environment in {source.project} has PythonCall {theirs} and this Python has "
            f"juliacall {ours}; they must be of one version. `pip install juliacall=={theirs}` "
            "mends it."
        )


def _pythoncall_version(project: Path) -> str | None:
    """As the environment's manifest says; None where it does not."""
    try:
        manifest = (project / "Manifest.toml").read_text(encoding="utf-8")
    except OSError:
        return None
    entry = re.search(r"^\[\[deps\.PythonCall\]\]$(.*?)(?=^\[|\Z)", manifest, re.M | re.S)
    found = entry and re.search(r'^version = "([^"+]+)', entry.group(1), re.M)
    return found.group(1) if found else None


def _set_environment(source: JuliaSource) -> None:
    os.environ["PYTHON_JULIACALL_EXE"] = source.exe
    os.environ["PYTHON_JULIACALL_PROJECT"] = source.project
    threads = os.environ.get("PYTHON_JULIACALL_THREADS", os.environ.get("JULIA_NUM_THREADS"))
    if threads is None:
        threads = str(min(_cores(), _MOST_THREADS))
    defaults = {
        "PYTHON_JULIACALL_THREADS": threads,
        # By one Julia's garbage collector stops other threads that run Julia.
        "PYTHON_JULIACALL_HANDLE_SIGNALS": "yes",
        "PYTHON_JULIACALL_STARTUP_FILE": "no",
        "PYTHON_JULIACALL_AUTOLOAD_IPYTHON_EXTENSION": "no",
        # PythonCall uses the Python that called it; it must not set up another with conda.
        "JULIA_CONDAPKG_BACKEND": "Null",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _leave_to_other_threads(main: Any) -> None:
    """Let Julia run in other threads while this one, which started it, runs Python.

    Julia's garbage collector waits for every thread that does not count as safe, and the thread
    that started Julia does not (issues 578 and 627 of PythonCall.jl). From here on it does whenever
    it is outside Julia: a call of Julia restores the state that it found.

    Raises
    ------
    PyjlodeError
        If the caller's own juliacall started Julia in another thread.
    """
    if int(main.seval("Threads.threadid()")) != 1:
        raise PyjlodeError(
            "juliacall started Julia in another thread. Call pyjlode.engine_info() in that thread "
            'first, or use engine="torch".'
        )
    enter = ctypes.PYFUNCTYPE(ctypes.c_int8)(int(main.seval("UInt(cglobal(:jl_gc_safe_enter))")))
    enter()


def _nothing() -> None:
    """Python handles signals when Julia calls it."""


@contextmanager
def _own_signals() -> Iterator[None]:
    """Signals stay Python's, Ctrl-C among them.

    Julia needs handlers of its own, for its garbage collector. With those it also has a thread that
    waits for interrupts, and blocks them in this one.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1):
                handler = signal.getsignal(number)
                if handler is not None:
                    signal.signal(number, handler)


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def julia_error() -> type[Exception]:
    """The class of the exceptions that come from a running Julia."""
    from juliacall import JuliaError

    error: type[Exception] = JuliaError
    return error


def _import_juliacall() -> Any:
    with warnings.catch_warnings():
        # torch is always imported first here. The crash that juliacall warns of comes from
        # clashing C++ runtimes in old builds; `pyjlode doctor` starts both, in this order.
        warnings.filterwarnings("ignore", message="torch was imported before juliacall")
        from juliacall import Main
    return Main


def _after_fork() -> None:
    global _forked
    _forked = _running is not None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
