# The backward solve. SciMLSensitivity's `adjoint_sensitivities` does not hand back the return code
# of the solve it makes, and gradients from a solve that stopped early look like any others (its
# issue 1012). So its problems are built and solved here, and every return code is looked at.

const Continuous = Union{BacksolveAdjoint,GaussAdjoint,InterpolatingAdjoint,QuadratureAdjoint}

"""
    continuous_adjoint(name, rtol, atol, checkpointing)

A continuous adjoint by its short name. All use the supplied vector-Jacobian product:
`ZygoteVJP()` is SciMLSensitivity's choice that goes straight to it, without probing other tools.
"""
function Pyjlode.continuous_adjoint(name, rtol, atol, checkpointing)
    autojacvec = ZygoteVJP()
    name == "gauss" && return GaussAdjoint(; autojacvec, checkpointing=Bool(checkpointing))
    name == "interpolating" &&
        return InterpolatingAdjoint(; autojacvec, checkpointing=Bool(checkpointing))
    name == "backsolve" && return BacksolveAdjoint(; autojacvec, checkpointing=Bool(checkpointing))
    name == "quadrature" &&
        return QuadratureAdjoint(; autojacvec, abstol=Float64(atol), reltol=Float64(rtol))
    throw(ArgumentError("unknown sensitivity algorithm $name"))
end

function Pyjlode.backward(
    solved::Solved{T}, sensealg::Continuous, settings::Settings, cotangent::Vector{T},
    gradient_u::Vector{T}, gradient_p::Vector{T}, gradient_t::Vector{T}, info::Vector{Float64},
) where {T}
    n, ts = solved.model.states, solved.ts
    fill!(gradient_t, zero(T))
    if length(ts) > 1 && ts[1] != ts[end]
        loss = CotangentAt{T}(cotangent, n)
        trajectory = backward_trajectory(solved, sensealg, info)
        method = backward_method(settings.method)
        adjoint = Adjoint(
            solved.model, trajectory, with_method(settings, method), ts[2:end], loss, info
        )
        λ, dp = adjoint_solve(adjoint, sensealg)
        copyto!(gradient_u, λ)
        copyto!(gradient_p, 1, dp, 1, length(gradient_p))
        isempty(gradient_t) || time_gradients!(gradient_t, solved, cotangent, λ)
    else
        fill!(gradient_u, zero(T))
        fill!(gradient_p, zero(T))
        info[1] = 1
    end
    for i in 1:n
        gradient_u[i] += cotangent[i]
    end
    return check_finite(ts[1], gradient_u, gradient_p, gradient_t)
end

# The loss's derivative at save point `i + 1`, for SciMLSensitivity's discrete costs.
struct CotangentAt{T} <: Function
    values::Vector{T}
    n::Int
end
(c::CotangentAt)(out, u, p, t, i) = (copyto!(out, 1, c.values, i * c.n + 1, c.n); nothing)

# The solution that the adjoint is linearised about.
function backward_trajectory(solved::Solved, sensealg, info)
    method = backward_method(solved.settings.method)
    method == solved.settings.method && return solved.solution
    (; model, ts, p) = solved
    settings = with_method(solved.settings, method)
    problem = ODEProblem{true,SciMLBase.FullSpecialize}(
        ode_function(model, is_implicit(method)), solved.solution.prob.u0, (ts[1], ts[end]), p
    )
    dense = !(sensealg isa BacksolveAdjoint)
    solution, reached = run_solver(problem, algorithm(method, problem), settings, ts, dense)
    report!(info, solution, reached)
    info[1] == 1 || throw(BackwardFailure(string(solution.retcode), reached))
    return solution
end

# What every kind of adjoint solve needs.
struct Adjoint{T,S}
    model::Model{T}
    trajectory::S
    settings::Settings
    ts::Vector{Float64}
    loss::CotangentAt{T}
    info::Vector{Float64}
end

const LAST_ONLY = (; save_everystep=false, save_start=false, save_end=true)

function solve_adjoint(adjoint::Adjoint, problem; options...)
    (; settings, info) = adjoint
    span = abs(problem.tspan[2] - problem.tspan[1])
    method = algorithm(settings.method, problem)
    integrator = init(
        problem, method; keywords(settings, span)..., tstops=adjoint.ts, options...
    )
    retune!(integrator.controller_cache, settings)
    solution = solve!(integrator)
    report!(info, solution, integrator.t)
    info[1] == 1 && integrator.t == problem.tspan[2] ||
        throw(BackwardFailure(string(solution.retcode), Float64(integrator.t)))
    return solution
end

function adjoint_solve(
    adjoint::Adjoint, sensealg::Union{BacksolveAdjoint,InterpolatingAdjoint}
)
    (; trajectory, settings, ts, loss) = adjoint
    problem, _ = ODEAdjointProblem(
        trajectory, sensealg, algorithm(settings.method), ts, loss,
        nothing, nothing, nothing, nothing, Val(true);
        checkpoints=[trajectory.prob.tspan[1]; ts], abstol=settings.atol, reltol=settings.rtol,
    )
    # The backwards state's own equation is not linear; its Jacobian is left to finite differences.
    sensealg isa BacksolveAdjoint || (problem = with_jacobian(problem, adjoint))
    z = solve_adjoint(adjoint, problem; LAST_ONLY...).u[end]
    n = adjoint.model.states
    return z[1:n], z[(n + 1):(n + length(trajectory.prob.p))]
end

function adjoint_solve(adjoint::Adjoint, sensealg::GaussAdjoint)
    (; trajectory, settings, ts, loss) = adjoint
    integrand = SciMLSensitivity.GaussIntegrand(trajectory, sensealg, ts, nothing)
    integral = Integral(trajectory.prob.p, minimum(settings.rtol), minimum(settings.atol))
    integrate = DiscreteCallback(
        (u, t, integrator) -> true, AddStep(integral, integrand, zero(trajectory.prob.u0));
        save_positions=(false, false),
    )
    problem, jumps, _ = ODEAdjointProblem(
        trajectory, sensealg, algorithm(settings.method), integrand, integrate,
        ts, loss, nothing, nothing, nothing, nothing, Val(true);
        checkpoints=[trajectory.prob.tspan[1]; ts], abstol=settings.atol, reltol=settings.rtol,
    )
    solution = solve_adjoint(
        adjoint, with_jacobian(problem, adjoint);
        LAST_ONLY..., callback=CallbackSet(integrate, jumps),
    )
    return solution.u[end], integral.total
end

# Integrates over the step that the adjoint made last, before the loss's derivatives are added to `λ`.
struct AddStep{T,F}
    integral::Integral{T}
    integrand::F
    λ::Vector{T}
end

function (add::AddStep)(integrator)
    (; integral, integrand, λ) = add
    add_step!(integral, integrator.tprev, integrator.t, integrand.sol.t) do out, t
        integrator(λ, t)
        integrand(out, t, λ)
    end
    return SciMLBase.derivative_discontinuity!(integrator, false)
end

function adjoint_solve(adjoint::Adjoint, sensealg::QuadratureAdjoint)
    (; trajectory, settings, ts, loss) = adjoint
    problem, _ = ODEAdjointProblem(
        trajectory, sensealg, algorithm(settings.method), ts, loss,
        nothing, nothing, nothing, nothing, Val(true),
    )
    solution = solve_adjoint(
        adjoint, with_jacobian(problem, adjoint); save_everystep=true, save_start=true
    )
    integrand = SciMLSensitivity.AdjointSensitivityIntegrand(
        trajectory, solution, sensealg, nothing
    )
    integral = Integral(trajectory.prob.p, sensealg.reltol, sensealg.abstol)
    for i in length(solution.t):-1:2
        solution.t[i] == solution.t[i - 1] && continue # where a loss's derivative is added
        add_step!(integrand, integral, solution.t[i], solution.t[i - 1], trajectory.t)
    end
    return solution.u[end], integral.total
end

function with_jacobian(problem, adjoint::Adjoint{T}) where {T}
    is_implicit(adjoint.settings.method) || return problem
    n, m = adjoint.model.states, length(problem.u0)
    p = adjoint.trajectory.prob.p
    pattern = jacobian_pattern(adjoint.model)
    jac = AdjointJacobian(Jacobian(adjoint.model, pattern), adjoint.trajectory, zero(p))
    jac_prototype = m == n ? transposed(prototype(pattern, T, n)) : zeros(T, m, m)
    f = ODEFunction{true,SciMLBase.FullSpecialize}(problem.f.f; jac, jac_prototype)
    return ODEProblem(f, problem.u0, problem.tspan, problem.p; problem.kwargs...)
end
