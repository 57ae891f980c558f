# What Python needs to make a solve's steps again in torch, for derivatives of the gradient.

"""
    accepted_steps(solved)

The steps that a solve with a tape accepted: their starts and lengths, and after each step how many
save points lie before its end and up to it, as in [`Tape`](@ref).
"""
accepted_steps(solved::Solved) = accepted_steps(solved.tape)
accepted_steps(tape::AbstractTape) = (tape.t, tape.dt, tape.inside, tape.upto)

"""
    tableau_fields(solved)

What its method computes in a step: `("explicit", a, b, c, weights, first, stages, last)` with the
fields of [`Tableau`](@ref), or `("rosenbrock", a, C, b, c, d, γ, weights)` with those of
[`RosenbrockTableau`](@ref). Of another method only its kind, `("other",)`.
"""
tableau_fields(solved::Solved) = tableau_fields(solved.tape.tableau)
tableau_fields(::ImplicitTableau) = ("other",)

function tableau_fields(x::Tableau)
    return ("explicit", matrix(x.a), x.b, x.c, matrix(x.weights), x.first, x.stages, x.last)
end

function tableau_fields(x::RosenbrockTableau)
    return ("rosenbrock", matrix(x.a), matrix(x.C), x.b, x.c, x.d, x.γ, matrix(x.weights))
end

# Rows, padded with zeros to the length of the longest.
function matrix(rows::Vector{Vector{Float64}})
    found = zeros(length(rows), maximum(length, rows))
    for (i, row) in enumerate(rows)
        found[i, eachindex(row)] = row
    end
    return found
end
