# The integral of a vector along the adjoint's steps, with its error controlled. Gauss's rule over whole
# steps, as SciMLSensitivity has it, is only as near as the integrand is smooth over a step; and the
# adjoint's steps see nothing of what only the parameters' gradients depend on, such as an input that
# is interpolated in time.

# Lobatto's rule of four points within Kronrod's of seven, on [-1, 1], from Gander and Gautschi,
# "Adaptive Quadrature - Revisited" (2000). Both have the ends: a kink beside an end shows there.
const INNER_NODES = (-sqrt(2 / 3), -sqrt(1 / 5), 0.0, sqrt(1 / 5), sqrt(2 / 3))
const INNER_FINE = (432, 625, 672, 625, 432) ./ 1470
const END_FINE = 77 / 1470
const INNER_COARSE = (0, 5, 0, 5, 0) ./ 6
const END_COARSE = 1 / 6

# A piece holds at most so many of the forward solution's steps, which are short where the right-hand side
# changes fast; the adjoint's own may be long there.
const FORWARD_STEPS = 4

# More than any integrand needs; a quadrature that does not end raises.
const MOST_PIECES = 100_000

"""
    Integral(prototype, rtol, atol)

An integral of a vector like `prototype`, so far: `total`. The error of a piece is within `atol`, or
`rtol` times the component's total.
"""
mutable struct Integral{T}
    const total::Vector{T}
    const fine::Vector{T}
    const coarse::Vector{T}
    const tolerance::Vector{T}
    const value::Vector{T}
    left_value::Vector{T}
    right_value::Vector{T}
    const rtol::Float64
    const atol::Float64
end

function Integral(prototype::Vector{T}, rtol, atol) where {T}
    vectors = (zero(prototype) for _ in 1:7)
    return Integral{T}(vectors..., max(Float64(rtol), 32eps(T)), Float64(atol))
end

"""
    add_step!(integrand!, integral, from, to, steps)

Add the integral of `integrand!(out, t)` over one step of the adjoint. `steps` are the times of the
forward solution's. The ends are approached from within, as `integrand!` may jump there.
"""
function add_step!(integrand!, integral::Integral, from, to, steps)
    low, high = minmax(from, to)
    within!(out, t) = integrand!(out, clamp(t, nextfloat(low), prevfloat(high)))
    within!(integral.left_value, from)
    for stop in stops(steps, from, to)
        add_piece!(within!, integral, from, stop)
        from = stop
    end
    return add_piece!(within!, integral, from, to)
end

# Some of the steps' times between two others, in the order from one to the other.
function stops(steps, from, to)
    low, high = minmax(from, to)
    inner = if steps[1] < steps[end]
        (searchsortedlast(steps, low) + 1):(searchsortedfirst(steps, high) - 1)
    else
        (searchsortedlast(steps, high; rev=true) + 1):(searchsortedfirst(steps, low; rev=true) - 1)
    end
    forwards = (from < to) == (steps[1] < steps[end])
    return @view steps[(forwards ? inner : reverse(inner))[FORWARD_STEPS:FORWARD_STEPS:end]]
end

# Pieces are halved until both rules agree, and grow again where they do.
function add_piece!(integrand!, integral::Integral, from, to)
    left, right = from, to
    apply_rules!(integrand!, integral, left, right)
    set_tolerance!(integral)
    for _ in 1:MOST_PIECES
        middle = (left + right) / 2
        if agree(integral) || middle == left || middle == right
            integral.total .+= integral.fine
            integral.left_value, integral.right_value = integral.right_value, integral.left_value
            right == to && return nothing
            length = 2(right - left)
            left = right
            right = abs(to - left) <= abs(length) ? to : left + length
        else
            right = middle
        end
        apply_rules!(integrand!, integral, left, right)
    end
    throw(BackwardFailure("MaxIters", Float64(left)))
end

# The value at the left end is known.
function apply_rules!(integrand!, integral::Integral{T}, left, right) where {T}
    (; fine, coarse, value, left_value, right_value) = integral
    half, middle = (right - left) / 2, (right + left) / 2
    integrand!(right_value, right)
    @. fine = T(half * END_FINE) * (left_value + right_value)
    @. coarse = T(half * END_COARSE) * (left_value + right_value)
    for i in eachindex(INNER_NODES)
        integrand!(value, middle + half * INNER_NODES[i])
        fine .+= T(half * INNER_FINE[i]) .* value
        iseven(i) && (coarse .+= T(half * INNER_COARSE[i]) .* value)
    end
    return nothing
end

# Components that cancel to less than their own rounding errors are as near as the largest one.
function set_tolerance!(integral::Integral{T}) where {T}
    (; total, fine, tolerance, rtol, atol) = integral
    largest = maximum(abs, fine; init=zero(T))
    @. tolerance = atol + rtol * max(abs(total), abs(fine)) + 8eps(T) * largest
    return nothing
end

# Where a value is not finite, refining does not help; the gradient's own check says so.
function agree(integral::Integral)
    (; fine, coarse, tolerance) = integral
    return !any(abs(fine[i] - coarse[i]) > tolerance[i] for i in eachindex(fine))
end
