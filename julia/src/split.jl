# Equations split into a stiff and a nonstiff part, for implicit-explicit methods.

"""
    Split{T}

The parts of a right-hand side, each with its parameters at the time of the solve.
"""
struct Split{T} <: AbstractSplit{T}
    stiff::Model{T}
    nonstiff::Model{T}
    p::NTuple{2,Vector{T}}
end

"""
    with_split(model, stiff, p, nonstiff, q)

The model, which is of the sum of two others, solved as such a sum. Its gradients are its own.
"""
function with_split(model::Model{T}, stiff::Model{T}, p, nonstiff::Model{T}, q) where {T}
    split = Split(stiff, nonstiff, map(x -> [copy(plain(x)); zero(T)], (p, q)))
    return changed(model; split)
end

# A function of the solver's with parameters of its own.
struct WithParameters{F,T} <: Function
    f::F
    p::Vector{T}
end
(w::WithParameters)(out, u, p, t) = w.f(out, u, w.p, t)

# The problem of a model as the solver gets it, as a sum where it is one.
function split_or_whole(model::Model{T}, implicit, u0, span, p) where {T}
    model.split === nothing && return ode_problem(ode_function(model, implicit), u0, span, p)
    (; stiff, nonstiff) = model.split
    p1, p2 = model.split.p
    with(f, p) = WithParameters(f, p)
    (; f, jac, tgrad, jac_prototype) = ode_function(stiff, true)
    first = ODEFunction{true,SciMLBase.FullSpecialize}(
        with(f, p1); jac=with(jac, p1), tgrad=with(tgrad, p1), jac_prototype
    )
    second = ODEFunction{true,SciMLBase.FullSpecialize}(with(ode_function(nonstiff, false).f, p2))
    sum = SciMLBase.SplitFunction{true,SciMLBase.FullSpecialize}(first, second)
    return SciMLBase.SplitODEProblem(sum, u0, span, p)
end
