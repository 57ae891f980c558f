# What is compiled when this extension is.

# Code cannot be generated into another package while this one is compiled.
function example_rates(::Type{T}) where {T}
    functions = Dict{Symbol,Any}(:value => (du, u, p, t) -> (du .= p[1]; nothing))
    return Pyjlode.assemble(T, functions, 1, 1, false, T[], nothing, Dict{Symbol,Any}())
end

function exercise_jumps(::Type{T}, method, variable) where {T}
    rate, p = example_rates(T), T[1]
    drift = variable ? rate : nothing
    example = process(rate, p, drift, p, [1.0, -1.0], 1, 1000)
    between = variable ? between_jumps("Tsit5", 1e-6, 1e-8, Inf, 1000) : nothing
    solve_jumps(example, method, between, zeros(T, 2), [0.0, 0.5, 1.0], 1, zeros(T, 6))
    return nothing
end

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32)
            exercise_jumps(T, "Direct", false)
            exercise_jumps(T, "Direct", true)
        end
    end
end
