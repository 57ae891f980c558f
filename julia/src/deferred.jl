# Functions of any type behind fixed signatures.

"""
    Deferred{W}(f)

`f` behind the `FunctionWrapper` type `W`. It is compiled when it is first called: of a model's
functions a solve and its gradient call two or three. All that solves calls one, so here signals are
looked for, after so many calls as take some milliseconds.
"""
mutable struct Deferred{W} <: Function
    const f::Any
    const clock::Clock
    calls::Int # until the next look
    wrapper::W
    Deferred{W}(@nospecialize(f)) where {W} = new{W}(f, Clock(), 1)
end

function (d::Deferred{W})(arguments::Vararg{Any,N}) where {W,N}
    (d.calls -= 1) > 0 || pause!(d)
    return d.wrapper(arguments...)
end

# The first call is one of these.
@noinline function pause!(d::Deferred{W}) where {W}
    isdefined(d, :wrapper) || (d.wrapper = W(d.f))
    d.calls = next_look!(d.clock)
    return nothing
end

"A function of arguments of the types `A`, which gives nothing."
const Wrapped{A} = Deferred{FunctionWrapper{Nothing,A}}
