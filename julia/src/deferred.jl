# Functions of any type behind fixed signatures.

"""
    Deferred{W}(f)

`f` behind the `FunctionWrapper` type `W`. It is compiled when it is first called: of a model's
functions a solve and its gradient call two or three. All that solves calls one, so here signals are
looked for.
"""
mutable struct Deferred{W} <: Function
    const f::Any
    const clock::Clock
    wrapper::W
    Deferred{W}(@nospecialize(f)) where {W} = new{W}(f, Clock())
end

function (d::Deferred{W})(arguments::Vararg{Any,N}) where {W,N}
    isdefined(d, :wrapper) || compile!(d)
    tick!(d.clock)
    return d.wrapper(arguments...)
end

@noinline compile!(d::Deferred{W}) where {W} = (d.wrapper = W(d.f); nothing)

"A function of arguments of the types `A`, which gives nothing."
const Wrapped{A} = Deferred{FunctionWrapper{Nothing,A}}
