# The steps of many rows, from the forward solve to the backward one.

# The steps of one row: where they begin in the vectors of `Steps`, and how many there are.
struct RowSteps
    step::Int
    steps::Int
    state::Int
    states::Int
    stage::Int
    every::Int
    keeps::Bool
end

"""
    Steps{T}

The tapes of several rows one after the other in flat vectors, as a tape of small vectors for every
row would be millions of objects. See [`Tape`](@ref) for the fields.
"""
struct Steps{T}
    rows::Vector{RowSteps}
    t::Vector{Float64}
    dt::Vector{Float64}
    inside::Vector{Int}
    upto::Vector{Int}
    states::Vector{T}
    stages::Vector{T}
end
Steps{T}() where {T} = Steps{T}(RowSteps[], Float64[], Float64[], Int[], Int[], T[], T[])

function store!(steps::Steps, tape::Tape)
    (; tableau) = tape
    push!(
        steps.rows,
        RowSteps(
            length(steps.t), length(tape.t), length(steps.states), length(tape.states),
            length(steps.stages), tape.every, tape.keeps,
        ),
    )
    append!(steps.t, tape.t)
    append!(steps.dt, tape.dt)
    append!(steps.inside, tape.inside)
    append!(steps.upto, tape.upto)
    for u in tape.states
        append!(steps.states, u)
    end
    n, next = tape.model.states, length(steps.stages) + 1
    evaluations = length(tape.stages) * (tableau.stages - tableau.first + 1) + tableau.first - 1
    tape.keeps && resize!(steps.stages, length(steps.stages) + n * evaluations)
    for (step, stages) in enumerate(tape.stages)
        for i in (step == 1 ? 1 : tableau.first):(tableau.stages)
            copyto!(steps.stages, next, stages[i], 1, n)
            next += n
        end
    end
    return nothing
end

# Room for about as many steps as the part before had.
function reserve!(steps::Steps, before::Steps)
    for name in (:rows, :t, :dt, :inside, :upto, :states, :stages)
        sizehint!(getfield(steps, name), length(getfield(before, name)))
    end
    return nothing
end
reserve!(solutions::Vector{Any}, before::Vector{Any}) = nothing

# The other way: a row's steps onto a tape.
function load!(tape::Tape, steps::Steps, row::RowSteps)
    restart!(tape)
    (; tableau, model) = tape
    for (to, from) in ((tape.t, steps.t), (tape.dt, steps.dt))
        append!(to, view(from, (row.step + 1):(row.step + row.steps)))
    end
    for (to, from) in ((tape.inside, steps.inside), (tape.upto, steps.upto))
        append!(to, view(from, (row.step + 1):(row.step + row.steps)))
    end
    tape.every, tape.keeps = row.every, row.keeps
    n = model.states
    for i in 1:(row.states)
        u = room_for_state(tape)
        push!(tape.states, copyto!(u, 1, steps.states, row.state + (i - 1) * n + 1, n))
    end
    row.keeps || return nothing
    next = row.stage + 1
    for step in 1:(row.steps)
        stages = room_for_stages(tape)
        if tableau.first == 2
            stages[1] = step > 1 ? tape.stages[step - 1][tableau.last] : tape.start
        end
        for i in (step == 1 ? 1 : tableau.first):(tableau.stages)
            copyto!(stages[i], 1, steps.stages, next, n)
            next += n
        end
        push!(tape.stages, stages)
    end
    return nothing
end
