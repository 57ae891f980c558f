# What a failed solve shows when it is made again with an eye on every evaluation.

# The right-hand side, and where it first made a value that is not finite of a state that is.
mutable struct Examined{T} <: Function
    const value::RightHandSide{T}
    const state::Vector{T}
    time::Float64
end

function (f::Examined)(du, u, p, t)
    f.value(du, u, p, t)
    if isnan(f.time) && !all(isfinite, du) && all(isfinite, u)
        f.time = t
        copyto!(f.state, u)
    end
    return nothing
end

"""
    examine(solved, last, nonfinite) -> time

Make a failed solve again. `last` gets its last state, and `nonfinite` the first state at which the
right-hand side was not finite, whose time is returned, or NaN.
"""
function examine(solved::Solved{T}, last::PyArray{T}, nonfinite::PyArray{T}) where {T}
    return examine(solved, plain(last), plain(nonfinite))
end

function examine(solved::Solved{T}, last::Vector{T}, nonfinite::Vector{T}) where {T}
    (; model) = solved
    examined = Examined{T}(model.value, nonfinite, NaN)
    watched = changed(model; value=RightHandSide{T}(examined))
    beside_python(model, solved.settings) do
        with_constants(() -> last_state!(last, solved, watched), model, solved.constants)
    end
    return examined.time
end

# The last state of the same solve of another model.
function last_state!(last, solved::Solved, model)
    (; settings, ts, p, solution) = solved
    problem = ode_problem(
        ode_function(model, is_implicit(settings.method)), copy(solution.prob.u0),
        (ts[1], ts[end]), p,
    )
    integrator = started(
        problem, algorithm(settings.method, problem); solver_options(settings, ts, problem)...,
        saveat=ts, dense=false, save_everystep=false,
    )
    solve!(integrator)
    return copyto!(last, integrator.u)
end
