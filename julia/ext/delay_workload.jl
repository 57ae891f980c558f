# What is compiled when this extension is: the default method, with its gradient.

# y' = p y(t - 1), of states side by side; code cannot be generated into another package while this
# one is compiled.
function example(::Type{T}) where {T}
    functions = Dict{Symbol,Any}(
        :value => (dz, z, p, t) -> (dz[1] = p[1] * z[2]; dz[2] = 0; nothing),
        :vjp_both =>
            (g, gp, v, z, p, t) -> (g[1] = 0; g[2] = p[1] * v[1]; gp[1] = v[1] * z[2]; nothing),
        :vjp => (g, v, z, p, t) -> (g[1] = 0; g[2] = p[1] * v[1]; nothing),
    )
    return Pyjlode.assemble(T, functions, 2, 1, false, T[], nothing, Dict{Symbol,Any}())
end

# The past 1 + p t.
function example_history(::Type{T}) where {T}
    functions = Dict{Symbol,Any}(
        :value => (h, u, p, t) -> (h[1] = 1 + p[1] * t; nothing),
        :vjp_both => (g, gp, v, u, p, t) -> (g[1] = 0; gp[1] = v[1] * t; nothing),
        :vjp => (g, v, u, p, t) -> (g[1] = 0; nothing),
        :vjp_t => (g, v, u, p, t) -> (g[1] = p[1] * v[1]; nothing),
    )
    return Pyjlode.assemble(T, functions, 1, 1, true, T[], nothing, Dict{Symbol,Any}())
end

function exercise(::Type{T}, method::String, history) where {T}
    ts, out, last, info = [0.0, 1.5, 2.5], zeros(T, 3), zeros(T, 1), zeros(6)
    equation = dde(example(T), T[-1], history, T[0], [1.0], 1, 0.0, T[1])
    settings = Settings(method, 1e-4, 1e-6, 1000, 0.0, false, 0.0, 0.0)
    steps, _ = solve_delayed(equation, settings, ts, out, last, info, true)
    gradients = (zeros(T, 1), zeros(T, 1), zeros(T, 1), zeros(1), zeros(3))
    backward(steps, ones(T, 3), gradients..., true, info)
    return out, gradients
end

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32)
            exercise(T, "Tsit5", nothing)
            exercise(T, "Tsit5", example_history(T))
        end
    end
end
