# Backward through steps that were not kept: in parts, from checkpoints in several levels.

# Parts whose steps take no more than this many bytes are computed again at once.
const PART_BUDGET = Ref(2^24)

# How many steps of some length may be kept at once in the backward pass.
steps_at_once(tape::AbstractTape, bytes) = max(tape.limit, PART_BUDGET[] ÷ max(bytes, 1), 1)

"""
    back_in_parts!(leaf!, ends, tape, range, u, longest)

Backward through steps `range` of a tape, of which the first starts at state `u`. A part of at most
`longest` steps goes to `leaf!(part, u)`. A longer one is cut into as many as the tape may keep
states, at least two, whose starts `ends(u, parts)` finds, so that memory grows with the logarithm of
the number of steps, as does the number of evaluations a step (Griewank, Achieving logarithmic growth
of temporal and spatial complexity in reverse automatic differentiation, Optimization Methods and
Software 1, 1992; cut evenly here).
"""
function back_in_parts!(
    leaf!::F, ends::G, tape::AbstractTape, range::UnitRange{Int}, u::Vector, longest::Int
) where {F,G}
    length(range) <= longest && return leaf!(range, u)
    parts = collect(Iterators.partition(range, cld(length(range), max(tape.limit, 2))))
    between = ends(u, parts)
    for i in length(parts):-1:2
        back_in_parts!(leaf!, ends, tape, parts[i], between[i - 1], longest)
        give_back!(tape, between[i - 1])
    end
    return back_in_parts!(leaf!, ends, tape, parts[1], u, longest)
end

# The steps between the states that the tape has, last to first.
function back_in_parts!(leaf!::F, ends::G, tape::AbstractTape, longest::Int) where {F,G}
    (; states, every) = tape
    steps = length(tape.t)
    for j in length(states):-1:1
        range = ((j - 1) * every + 1):min(j * every, steps)
        back_in_parts!(leaf!, ends, tape, range, states[j], longest)
    end
    return nothing
end
