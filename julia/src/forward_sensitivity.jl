# Forward sensitivities: the derivatives of the state solved along with it.

"Forward sensitivities, as a sensitivity algorithm."
struct ForwardSensitivity end

"""
    Variational{T}

The right-hand side of the state and of its derivatives `S` with respect to the initial state and
the parameters, which follow it column by column: `dS/dt = (∂f/∂u) S + [0 ∂f/∂p]`. Both Jacobians
are made row by row, from vector-Jacobian products with unit vectors.
"""
struct Variational{T} <: Function
    model::Model{T}
    unit::Vector{T}
    row::Vector{T}
    row_p::Vector{T}
    state::Vector{T}
    slope::Vector{T}
    products::Base.RefValue{Int}
end

function Variational(model::Model{T}) where {T}
    n = model.states
    return Variational{T}(
        model, zeros(T, n), zeros(T, n), zeros(T, max(model.parameters, 1)), zeros(T, n),
        zeros(T, n), Ref(0),
    )
end

function (f::Variational{T})(dz::Vector{T}, z::Vector{T}, p::Vector{T}, t) where {T}
    (; model, unit, row, row_p, state, slope) = f
    n, m, time = model.states, model.parameters, Float64(t)
    copyto!(state, 1, z, 1, n)
    model.value(slope, state, p, time)
    copyto!(dz, slope)
    for i in 1:n
        unit[i] = one(T)
        if m == 0
            model.vjp(row, unit, state, p, time)
        else
            model.vjp_both(row, row_p, unit, state, p, time)
        end
        unit[i] = zero(T)
        for column in 1:(n + m)
            total = column > n ? row_p[column - n] : zero(T)
            for j in 1:n
                total += row[j] * z[column * n + j]
            end
            dz[column * n + i] = total
        end
    end
    f.products[] += n
    return nothing
end

function backward(
    solved::Solved{T}, ::ForwardSensitivity, settings::Settings, cotangent::Vector{T},
    gradient_u::Vector{T}, gradient_p::Vector{T}, gradient_t::Vector{T}, info::Vector{Float64},
) where {T}
    (; model, ts, p) = solved
    n, m, f = model.states, length(gradient_p), Variational(model)
    z = zeros(T, n * (1 + n + model.parameters))
    copyto!(z, 1, solved.solution.prob.u0, 1, n)
    foreach(i -> z[i * n + i] = one(T), 1:n)
    problem = ODEProblem{true,SciMLBase.FullSpecialize}(
        ODEFunction{true,SciMLBase.FullSpecialize}(f), z, (ts[1], ts[end]), p
    )
    solution, reached = run_solver(
        problem, algorithm(settings.method, problem), settings, ts, false
    )
    report!(info, solution, reached)
    info[1] == 1 && length(solution.u) == length(ts) ||
        throw(BackwardFailure(string(solution.retcode), reached))
    foreach(g -> fill!(g, zero(T)), (gradient_u, gradient_p, gradient_t))
    for i in 2:length(ts)
        weight = view(cotangent, ((i - 1) * n + 1):(i * n))
        sensitivities = reshape(view(solution.u[i], (n + 1):length(z)), n, :)
        for j in 1:n
            gradient_u[j] += dot(weight, view(sensitivities, :, j))
        end
        for j in 1:m
            gradient_p[j] += dot(weight, view(sensitivities, :, n + j))
        end
    end
    isempty(gradient_t) || time_gradients!(gradient_t, solved, cotangent, gradient_u)
    for i in 1:n
        gradient_u[i] += cotangent[i]
    end
    info[3] = f.products[]
    return check_finite(ts[1], gradient_u, gradient_p, gradient_t)
end
