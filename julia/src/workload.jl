# What is compiled when the package is: the solvers and adjoints, for the types that all models
# share.

const EXAMPLE = """
function value(du, u, p, time, c, w)
    for i in eachindex(u)
        du[i] = p[1] * u[i]
    end
    return nothing
end
function vjp(g, v, u, p, time, c, w)
    for i in eachindex(u)
        g[i] = p[1] * v[i]
    end
    return nothing
end
function vjp_p(g, v, u, p, time, c, w)
    g[1] = 0
    for i in eachindex(u)
        g[1] += v[i] * u[i]
    end
    return nothing
end
function vjp_both(g, gp, v, u, p, time, c, w)
    gp[1] = 0
    for i in eachindex(u)
        g[i] = p[1] * v[i]
        gp[1] += v[i] * u[i]
    end
    return nothing
end
function vjp_t(g, v, u, p, time, c, w)
    g[1] = 0
    return nothing
end
function tgrad(du, u, p, time, c, w)
    fill!(du, 0)
    return nothing
end
function vjp_jvp(g, gp, v, k, u, p, time, c, w)
    fill!(g, 0)
    gp[1] = 0
    for i in eachindex(u)
        gp[1] += v[i] * k[i]
    end
    return nothing
end
"""

# The same for two rows that are computed one at a time.
const EXAMPLE_ROWS = replace(
    EXAMPLE, "c, w)" => "c, w, offset, first, rows)", "eachindex(u)" => "(offset + 1):(offset + rows)"
)

# The same for an extension: code cannot be generated into another package while it is compiled.
function example(::Type{T}, states::Int, pattern=nothing) where {T}
    functions = Dict{Symbol,Any}(
        :value => (du, u, p, t) -> (du .= p[1] .* u; nothing),
        :vjp => (g, v, u, p, t) -> (g .= p[1] .* v; nothing),
        :vjp_p => (g, v, u, p, t) -> (g[1] = dot(v, u); nothing),
        :vjp_both => (g, gp, v, u, p, t) -> (g .= p[1] .* v; gp[1] = dot(v, u); nothing),
        :vjp_t => (g, v, u, p, t) -> (g[1] = 0; nothing),
        :tgrad => (du, u, p, t) -> (fill!(du, 0); nothing),
    )
    return assemble(T, functions, states, 1, true, T[], pattern, Dict{Symbol,Any}())
end

# What a gradient needs of the solve, where that is not its dense output.
const KEPT = Dict("backsolve" => "nothing", "discrete" => "steps", "forward" => "nothing")

diagonal(states) = Pattern(sparse(Matrix{Bool}(I, states, states)), ones(Int, states))

function exercise(::Type{T}, method, sensitivities; states=2, rows=()) where {T}
    pattern = diagonal(states)
    source = isempty(rows) ? EXAMPLE : EXAMPLE_ROWS
    model = generate(
        T, source, states, 1, 0, 0, true, isempty(rows) ? pattern : nothing, rows
    )
    return exercise(model, method, sensitivities)
end

# A method that is loaded on demand.
function exercise_loaded(
    method, package, sensitivities; T=Float64, step=0.0, interpolates=false, states=2
)
    load(method, package, "Rodas5P", interpolates)
    pattern = states < SPARSE ? Pattern(states) : diagonal(states)
    exercise(example(T, states, pattern), method, sensitivities; step)
    return nothing
end

# With steps of a fixed length, if there is one.
function exercise(model::Model{T}, method, sensitivities; step=0.0) where {T}
    (; states) = model
    settings = Settings(method, 1e-3, 1e-3, 10_000, step, step > 0, 0.0, 0.0)
    u0, p, ts = ones(T, states), T[-1], [0.0, 0.5, 1.0]
    out, info = zeros(T, 3 * states), zeros(8)
    forward(model, settings, u0, p, ts, out, info, "nothing")
    for name in sensitivities
        keep = get(KEPT, name, "dense")
        solved = forward(model, settings, u0, p, ts, out, info, keep)
        sensealg = sensitivity(name, 1e-3, 1e-3, name == "backsolve") # their defaults
        failure = backward_reported(
            solved, sensealg, settings, ones(T, 3 * states), zeros(T, states), zeros(T, 1),
            zeros(T, 3), info,
        )
        failure === nothing || error("$method with $name: $failure")
        precompile(backward_handed, (typeof(solved), typeof(sensealg), Settings))
    end
    precompile(forward_handed, (Model{T}, Settings, String, Int))
    return nothing
end

# The second equation is algebraic.
function exercise_mass(::Type{T}, method) where {T}
    model = with_mass(generate(T, EXAMPLE, 2, 1, 0, 0, true, Pattern(2)), T[1 0; 0 0])
    settings = Settings(method, 1e-3, 1e-3, 10_000, 0.0, false, 0.0, 0.0)
    u0, p, ts, out, info = T[1, 1], T[-1], [0.0, 0.5, 1.0], zeros(T, 6), zeros(8)
    start = initialize(model, u0, p, 0.0, 1e-3, 1e-3, true)
    solved = forward(model, settings, copy(start.u), p, ts, out, info, "steps")
    backward(
        solved, DiscreteAdjoint(), settings, ones(T, 6), zeros(T, 2), zeros(T, 1), zeros(T, 3), info
    )
    initialize_back!(start, ones(T, 2), zeros(T, 2), zeros(T, 1), zeros(T, 1))
    return nothing
end

# The sum of two equations, one of them stiff, as methods of the kind implicit-explicit take it.
function exercise_split(method, keep)
    whole, stiff, nonstiff = (example(Float64, 2, Pattern(2)) for _ in 1:3)
    model = changed(whole; split=Split(stiff, nonstiff, ([-1.0, 0.0], [-1.0, 0.0])))
    settings = Settings(method, 1e-3, 1e-3, 10_000, 0.0, false, 0.0, 0.0)
    ts, out, info = [0.0, 0.5, 1.0], zeros(6), zeros(8)
    solved = forward(model, settings, ones(2), [-1.0], ts, out, info, keep)
    keep == "steps" || return nothing
    backward(
        solved, DiscreteAdjoint(), settings, ones(6), zeros(2), zeros(1), zeros(3), info
    )
    return nothing
end

exercise_rows(::Type{T}, method, keep, name) where {T} =
    exercise_rows(generate(T, EXAMPLE, 2, 1, 0, 0, true), method, keep, name)

# Two workers, so that what runs in threads is compiled too.
function exercise_rows(model::Model{T}, method, keep, name) where {T}
    settings = Settings(method, 1e-3, 1e-3, 10_000, 0.0, false, 0.0, 0.0)
    p, ts = T[-1], [0.0, 0.5, 1.0]
    out, info = zeros(T, 12), zeros(16)
    WORKERS[] = 2
    solved = forward_rows(model, settings, T[1, 2, 3, 4], p, ts, out, info, keep)
    if keep != "values"
        sensealg = sensitivity(name, 1e-3, 1e-3, false)
        backward(
            solved, sensealg, settings, ones(T, 12), zeros(T, 4), zeros(T, 1), zeros(T, 3), info
        )
    end
    WORKERS[] = 0
    return nothing
end

const EXAMPLE_EVENTS = """
function value(du, u, p, time, c, w)
    du[1] = u[1] - p[1]
    du[2] = u[2] + p[1]
    return nothing
end
"""

# A solve until its last step or an event, an interpolation, and the look at a failure.
function exercise_steps(::Type{T}, method) where {T}
    model = generate(T, EXAMPLE, 2, 1, 0, 0, true)
    settings = Settings(method, 1e-3, 1e-3, 10_000, 0.0, false, 0.0, 0.0)
    events = generate(T, EXAMPLE_EVENTS, 2, 1, 0, 0, true)
    watch = Watch(events, T[0.5], [0, 1], [1, 0])
    found = follow(model, settings, T[1, -2], T[-1], 0.0, 1.0, watch, zeros(8))
    steps(found)
    hits(found)
    for order in (0, 1)
        interpolate(found.solved, [0.5], zeros(T, 2), order)
    end
    examine(found.solved, zeros(T, 2), zeros(T, 2))
    return nothing
end

const EXAMPLE_MANIFOLD = """
function value(du, u, p, time, c, w)
    du[1] = u[1] * u[1] + u[2] * u[2] - p[1]
    du[2] = 2 * u[1]
    du[3] = 2 * u[2]
    return nothing
end
"""

const EXAMPLE_TANGENT = """
function value(du, u, p, time, c, w)
    du[1], du[2] = 2 * u[1] * u[3], 2 * u[2] * u[3]
    du[3] = u[1] * u[1] + u[2] * u[2] - p[1]
    return nothing
end
function vjp(g, v, u, p, time, c, w)
    g[1] = 2 * (u[3] * v[1] + u[1] * v[3])
    g[2] = 2 * (u[3] * v[2] + u[2] * v[3])
    g[3] = 2 * (u[1] * v[1] + u[2] * v[2])
    return nothing
end
function vjp_p(gp, v, u, p, time, c, w)
    gp[1] = -v[3]
    return nothing
end
"""

# Steps projected onto a manifold, and their gradient.
function exercise_projected(::Type{T}, method) where {T}
    model = generate(T, EXAMPLE, 2, 1, 0, 0, true)
    values = generate(T, EXAMPLE_MANIFOLD, 2, 1, 0, 0, false)
    tangent = generate(T, EXAMPLE_TANGENT, 3, 1, 0, 0, false)
    settings = Settings(method, 1e-3, 1e-3, 10_000, 0.0, false, 0.0, 0.0)
    ts, out, info = [0.0, 0.5, 1.0], zeros(T, 6), zeros(8)
    manifold = Manifold(values, T[1], tangent, T[1], 2, 1, 1, NaN, 50)
    solved = forward_projected(model, settings, T[0.6, 0.8], T[-1], ts, out, info, manifold, 0)
    backward_projected(solved, ones(T, 6), zeros(T, 2), zeros(T, 1), zeros(T, 1), info)
    return nothing
end

for method in keys(EXPLICIT), adaptive in (true, false)
    method == "Euler" && adaptive && continue # it has no error estimate
    tableau(method, adaptive)
end

foreach(implicit_tableau, ROSENBROCK)

# The routines that generated code calls, each with its number of operands and of integers.
const ROUTINES = (
    (load_rows!, 2, 4), (store_rows!, 2, 4), (rows_product!, 3, 14), (rows_contract!, 4, 15),
    (rows_multiply!, 3, 14), (rows_convolve!, 4, 23), (rows_convolve_transposed!, 4, 23),
    (rows_convolve_weights!, 4, 24), (convolve!, 4, 22), (convolve_transposed!, 4, 22),
    (convolve_weights!, 4, 22), (matmul!, 3, 10), (take_rows!, 3, 4), (put_rows!, 3, 5),
    (gather!, 3, 4), (scatter!, 3, 5),
    (searchsorted!, 3, 5), (nonzero!, 2, 2), (repeats!, 2, 2), (argmax!, 2, 4),
    (cumargmax!, 2, 4), (scan!, 2, 4), (sort_order!, 2, 4),
)

function precompile_routines(::Type{T}) where {T}
    for (routine, operands, integers) in ROUTINES
        types = (repeat([Vector{T}, Int], operands)..., repeat([Int], integers)...)
        precompile(routine, types) || error("no method of $routine for $types")
    end
    return nothing
end

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32)
            exercise(T, "Tsit5", ("discrete", "forward"))
            exercise(T, "Tsit5", ("discrete",); rows=(2, 1, 10))
            exercise_rows(T, "Tsit5", "values", "discrete")
            exercise_rows(T, "Tsit5", "steps", "discrete")
            exercise_steps(T, "Tsit5")
            exercise_projected(T, "Tsit5")
            # The names that torchdiffeq's users know.
            for method in ("BS3", "DP5", "Heun")
                exercise(example(T, 2), method, ("discrete",))
            end
            for method in ("Euler", "Midpoint")
                exercise(example(T, 2), method, ("discrete",); step=0.1)
            end
            exercise(T, "Rodas5P", ("discrete",))
            exercise(T, "Rodas4", ("discrete",))
            exercise(T, "Rosenbrock23", ())
        end
        exercise(example(Float64, 2), "Vern7", ("discrete",))
        exercise(example(Float64, 2), "Vern9", ("discrete",))
        exercise(Float64, "Rodas5P", ("forward",))
        exercise(Float64, "Rodas5P", ("discrete",); states=SPARSE)
        exercise_mass(Float64, "Rodas5P")
        exercise_steps(Float64, "Rodas5P")
    end
end
