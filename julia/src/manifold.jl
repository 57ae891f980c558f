# Projections of states onto a manifold, where functions of them are zero.

"""
    Manifold{T}

Where a residual of the state is zero: for each of `rows` equal parts of the state, `conditions`
numbers that depend on that part alone.

# Fields
- `model`, `p`: gives the residuals, then for each of them its derivative by its part of the state;
  and its parameters
- `tangent`, `tangent_p`: for gradients: of a state with multipliers behind it, it gives the
  derivative of the residuals' sum weighted by these, then the residuals; `nothing` without
- `abstol`: the largest residual that counts as zero; NaN for one of rounding's size
- `values`: what `model` gave last
- `start`, `state`, `argument`, `pulled`: room
- `residual`: the largest one, as a multiple of what counts as zero, where a projection failed
- `constants`: the models' at the time of the solve
"""
mutable struct Manifold{T}
    const model::Model{T}
    const p::Vector{T}
    const tangent::Union{Nothing,Model{T}}
    const tangent_p::Vector{T}
    const rows::Int
    const conditions::Int
    const abstol::Float64
    const maxiters::Int
    const values::Vector{T}
    const start::Vector{T}
    const state::Vector{T}
    const argument::Vector{T}
    const pulled::Vector{T}
    residual::Float64
    const constants::Vector{Vector{T}}
end

function Manifold(
    model::Model{T}, p::Vector{T}, tangent, tangent_p::Vector{T}, states, rows, conditions,
    abstol, maxiters,
) where {T}
    count = rows * conditions
    room(n) = zeros(T, n)
    constants = [copy(m.constants) for m in (model, tangent) if m !== nothing]
    return Manifold{T}(
        model, p, tangent, tangent_p, rows, conditions, Float64(abstol), Int(maxiters),
        room(count * (1 + states ÷ rows)), room(states), room(states), room(states + count),
        room(states + count), 0.0, constants,
    )
end

width(m::Manifold) = length(m.state) ÷ m.rows

# The transposed derivative of row `b`'s residuals, and the residuals.
function conditions(m::Manifold, b::Int)
    n, k = width(m), m.conditions
    from = m.rows * k + (b - 1) * k * n
    return reshape(view(m.values, (from + 1):(from + k * n)), n, k),
    view(m.values, ((b - 1) * k + 1):(b * k))
end

# The part of a state that is row `b`'s.
part(m::Manifold, u, b::Int) = view(u, ((b - 1) * width(m) + 1):(b * width(m)))

"""
    project!(manifold, u, t)

Replace `u` by the nearest state on the manifold, by Newton's method for that state and Lagrange's
multipliers without the second derivatives of the residuals (Hairer, Lubich and Wanner, Geometric
Numerical Integration, IV.4). Returns whether it succeeded, and whether `u` changed. Afterwards
`values` are those at `u`.
"""
function project!(m::Manifold{T}, u::Vector{T}, t) where {T}
    copyto!(m.start, u)
    way = step = zero(T)
    small = eps(T)^(T(4) / 5) * max(one(T), maximum(abs, u; init=zero(T)))^2
    for iteration in 0:(m.maxiters)
        m.model.value(m.values, u, m.p, Float64(t))
        m.residual = all(isfinite, m.values) ? largest_residual(m, u) : Inf
        # Along the manifold what is left is about the whole way, by the curvature, times the last
        # step; it counts because gradients are those of the nearest state.
        m.residual <= 1 && way * step <= small && return true, iteration > 0
        isfinite(m.residual) && iteration < m.maxiters || break
        step = newton_step!(m, u)
        iteration == 0 && (way = step)
    end
    return false, true
end

# The nearest state on what the manifold looks like from `u`; the length of the step there.
function newton_step!(m::Manifold{T}, u) where {T}
    longest = zero(T)
    for b in 1:(m.rows)
        slopes, residuals = conditions(m, b)
        row, start = part(m, u, b), part(m, m.start, b)
        step = along_normals(slopes, residuals .+ slopes' * (start .- row))
        step .= start .- step .- row
        row .+= step
        longest = max(longest, maximum(abs, step; init=zero(T)))
    end
    return longest
end

# As a multiple of what counts as zero.
function largest_residual(m::Manifold{T}, u) where {T}
    largest, small = 0.0, Float64(eps(T))^(4 / 5)
    for b in 1:(m.rows)
        slopes, residuals = conditions(m, b)
        row = part(m, u, b)
        for (j, residual) in enumerate(residuals)
            zero_at = m.abstol
            if isnan(zero_at)
                size = sum(abs(slopes[i, j] * row[i]) for i in eachindex(row))
                zero_at = small * max(1.0, size)
            end
            largest = max(largest, abs(residual) / zero_at)
        end
    end
    return largest
end

# The shortest x with slopes' x = wanted. Conditions may repeat each other.
along_normals(slopes, wanted) = solve_pivoted(qr(Matrix(slopes'), ColumnNorm()), wanted)

# The y nearest to slopes y = x.
multipliers(slopes, x) = solve_pivoted(qr(Matrix(slopes), ColumnNorm()), x)

function solve_pivoted(factors, b::AbstractVector{T}) where {T}
    m, n = size(factors)
    x = zeros(T, max(m, n), 1)
    x[1:m, 1] .= b
    ldiv!(factors, x, eps(T)^(T(3) / 4))
    return x[1:n, 1]
end
