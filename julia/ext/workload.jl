# What is compiled when this extension is: the methods that have gradients, and the usual ones else.

function exercise(::Type{T}, method, ito; noises=0, fixed=true) where {T}
    f = Pyjlode.example(T, 2)
    # With one noise the diffusion is of the length of the state, and its product is of two more.
    product = noises == 0 ? nothing : Pyjlode.example(T, 4)
    p, u0, out, info = T[-1], ones(T, 2), zeros(T, 4), zeros(4)
    equation = sde(f, p, f, p, product, p, 2, noises)
    if !fixed
        solve_adaptive(
            equation, method, ito, u0, [0.0, 0.1], 1, 1e-2, 1e-2, 0.01, 1e-6, 1000, out, info
        )
        return nothing
    end
    t, places = [0.0, 0.1, 0.3], [0, 2]
    W, Z = zeros(T, 4), zeros(T, 4)
    solve_fixed(equation, method, ito, u0, t, W, Z, places, out, info, false)
    method in ("EM", "EulerHeun", "RKMil") || return nothing
    steps = solve_fixed(equation, method, ito, u0, t, W, T[], places, out, info, true)
    backward(steps, ones(T, 4), places, zeros(T, 2), zeros(T, 1), zeros(T, 1))
    return nothing
end

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32)
            exercise(T, "EM", true)
            exercise(T, "RKMil", true)
            exercise(T, "EulerHeun", false)
        end
        exercise(Float64, "RKMil", false)
        exercise(Float64, "EM", true; noises=1)
        exercise(Float64, "EulerHeun", false; noises=1)
        exercise(Float64, "SRIW1", true)
        exercise(Float64, "SRA1", true; noises=1)
        exercise(Float64, "SOSRI", true; fixed=false)
    end
end
