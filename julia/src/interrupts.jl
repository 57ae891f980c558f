# Python beside a solve: its other threads run while Julia does, and Ctrl-C is seen.
#
# A signal only leaves a note with Python, which handles it when its main thread runs Python again. So
# every now and then the thread that solves calls a Python function that does nothing; what the
# signal's handler raises there, `KeyboardInterrupt` for Ctrl-C, ends the solve.

using PythonCall.C: PyEval_RestoreThread, PyEval_SaveThread, PyGILState_Check, PyGILState_Ensure,
    PyGILState_Release, PyObject_CallObject
using PythonCall.Core: errcheck, getptr, pynew, pytuple

# How often, in nanoseconds: waiting for the interpreter can take Python's switch interval, 5 ms. Shorter
# solves keep its lock.
const SIGNAL_INTERVAL = 50_000_000
const RELEASE_AFTER = 5_000_000

mutable struct Interrupts
    check::Union{Nothing,Py} # does nothing; none where Python did not start Julia
    last::UInt64 # time of the last call
    releases::Bool # whether solves may release the interpreter's lock
    thread::Int # the one whose solve may; 0 where none
    start::UInt64 # of that solve
    state::Ptr{Cvoid} # of Python's thread, while the lock is released
    @atomic stopped::Bool # whether the threads that help are to stop
end
const INTERRUPTS = Interrupts(nothing, 0, false, 0, 0, C_NULL, false)

"""
    watch_signals(check)

Have `check`, a Python function that does nothing, called during solves. These release the interpreter's
lock if Julia handles signals: its garbage collector stops other threads that run Julia by one.
"""
function watch_signals(check::Py)
    INTERRUPTS.check = check
    INTERRUPTS.releases = Base.JLOptions().handle_signals == 1
    return nothing
end

# Whether the call that runs was interrupted while Julia compiled for it: Python's waiting thread sets it.
const LEFT = zeros(Int, 1)

"The address of that mark."
left_address() = Int(pointer(LEFT))

"Thrown in the threads that help one that was interrupted, and in what it left."
struct Stopped <: Exception end

# Solves in other threads end while `f()` waits for them.
function stop_others(f)
    @atomic INTERRUPTS.stopped = true
    f()
    @atomic INTERRUPTS.stopped = false
    return nothing
end

"""
    Clock()

When a function that is called often is to look for signals.
"""
mutable struct Clock
    calls::Int # between two looks
    last::UInt64
end
Clock() = Clock(1, 0)

"[`check_signals`](@ref), and after how many calls again."
function next_look!(clock::Clock)
    now = time_ns()
    quick = now - clock.last < SIGNAL_INTERVAL ÷ 2
    clock.calls = quick ? min(2clock.calls, 1 << 20) : max(clock.calls ÷ 4, 1)
    clock.last = now
    check_signals(now)
    return clock.calls
end

function check_signals(now=time_ns())
    i = INTERRUPTS
    ((@atomic i.stopped) || LEFT[1] != 0) && throw(Stopped())
    i.check === nothing && return nothing
    mine = i.thread == Threads.threadid()
    if mine && i.state == C_NULL && now - i.start > RELEASE_AFTER
        i.state = PyEval_SaveThread()
    end
    now - i.last < SIGNAL_INTERVAL && return nothing
    (mine && i.state != C_NULL) || PyGILState_Check() == 1 || return nothing
    i.last = now
    with_gil(() -> call_python(i.check))
    return nothing
end

# While a thread runs Python or waits for the interpreter, Julia's garbage collector must not wait for
# it: the thread that has the interpreter may be waiting for the collector.
macro beside_collector(call)
    return quote
        safe = ccall(:jl_gc_safe_enter, Int8, ())
        value = $(esc(call))
        ccall(:jl_gc_safe_leave, Cvoid, (Int8,), safe)
        value
    end
end

"""
    call_python(f, arguments...)

`f(arguments...)` as PythonCall does it; other threads may collect garbage meanwhile.
"""
function call_python(f::Py, arguments...)
    handed = pytuple(arguments)
    GC.@preserve f handed begin
        function_pointer, tuple_pointer = getptr(f), getptr(handed)
        result = @beside_collector PyObject_CallObject(function_pointer, tuple_pointer)
    end
    return pynew(errcheck(result))
end

function with_gil(f)
    state = @beside_collector PyGILState_Ensure()
    try
        return f()
    finally
        PyGILState_Release(state)
    end
end

"""
    without_gil(f)

`f()` while other Python threads run, if it takes its time. It calls no Python function.
"""
function without_gil(f::F) where {F}
    i = INTERRUPTS
    i.releases && !is_released() || return f()
    outer = i.thread, i.start, i.state
    i.thread, i.start, i.state = Threads.threadid(), time_ns(), C_NULL
    try
        return f()
    finally
        state = i.state
        i.thread, i.start, i.state = outer
        state == C_NULL || @beside_collector PyEval_RestoreThread(state)
    end
end

is_released() = INTERRUPTS.thread == Threads.threadid() && INTERRUPTS.state != C_NULL

"""
    released(f, arguments...)

`f(arguments...)` while other Python threads run, from before Julia compiles for it. It calls no Python
function.
"""
function released(@nospecialize(f), @nospecialize(arguments...))
    i = INTERRUPTS
    i.releases || return f(arguments...)
    outer = i.thread, i.start, i.state
    i.thread, i.start = Threads.threadid(), time_ns()
    i.state = PyEval_SaveThread()
    try
        return f(arguments...)
    finally
        state = i.state
        i.thread, i.start, i.state = outer
        @beside_collector PyEval_RestoreThread(state)
    end
end
