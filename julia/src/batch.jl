# Models of a batch whose rows do not depend on each other: parts of them, in threads.

"`f!(du, u, p, t, w, offset, first, rows)`: of some rows, see [`Batch`](@ref)."
const RowsRightHandSide{T} = Wrapped{
    Tuple{Vector{T},Vector{T},Vector{T},Float64,Vector{T},Int,Int,Int}
}

"`vjp!(g, v, u, p, t, w, offset, first, rows)`, likewise."
const RowsVectorJacobian{T} = Wrapped{
    Tuple{Vector{T},Vector{T},Vector{T},Vector{T},Float64,Vector{T},Int,Int,Int}
}

"`vjp!(g, gp, v, u, p, t, w, offset, first, rows)`, likewise."
const RowsJointVectorJacobian{T} = Wrapped{
    Tuple{Vector{T},Vector{T},Vector{T},Vector{T},Vector{T},Float64,Vector{T},Int,Int,Int},
}

# The parts of a batch are the same whatever the number of threads, and so are sums over them.
const MOST_PARTS = 16

# Operations in one call, and in a backward sweep, from which threads save more than they cost.
const THREADED_CALL = Ref(1_000_000)
const THREADED_SWEEP = Ref(2_000_000)

"""
    Batch{T}

A model's functions for some rows: `rows` of them, the first of which is number `first`, and lies
in vectors that are like the state at row `offset`. Sums, such as the gradients of weights, are over
these rows. `w` is memory of length `workspace` to work in.

# Fields
- `value`, `vjp`, `vjp_p`, `vjp_both`, `vjp_t`: as of a [`Model`](@ref)
- `rows`, `width`: how many rows there are, and how many numbers the state has for each
- `part`: how many rows a part has; a multiple of the block that the functions compute at a time
- `work`: about how many operations the right-hand side takes for a row
- `memory`: to work in, for each part
"""
struct Batch{T}
    value::RowsRightHandSide{T}
    vjp::RowsVectorJacobian{T}
    vjp_p::RowsVectorJacobian{T}
    vjp_both::RowsJointVectorJacobian{T}
    vjp_t::RowsVectorJacobian{T}
    rows::Int
    width::Int
    part::Int
    work::Int
    memory::Vector{Vector{T}}
end

function Batch{T}(
    functions, states::Int, rows::Int, block::Int, work::Int, workspace::Int
) where {T}
    part = block * cld(cld(rows, MOST_PARTS), block)
    memory = [Vector{T}(undef, workspace) for _ in 1:cld(rows, part)]
    value, vjp, vjp_p, vjp_both, vjp_t = functions
    return Batch{T}(
        RowsRightHandSide{T}(value), RowsVectorJacobian{T}(vjp), RowsVectorJacobian{T}(vjp_p),
        RowsJointVectorJacobian{T}(vjp_both), RowsVectorJacobian{T}(vjp_t), rows, states ÷ rows,
        part, work, memory,
    )
end

# The first row of a part, counted from zero, and how many it has.
parts(batch::Batch) = length(batch.memory)
first_row(batch::Batch, i::Int) = (i - 1) * batch.part
count_rows(batch::Batch, i::Int) = min(batch.part, batch.rows - first_row(batch, i))

# A generated function of rows.
struct GeneratedRows{F,T} <: Function
    f::F
    constants::Vector{T}
end
(g::GeneratedRows)(du, u, p, t, w, offset::Int, first::Int, rows::Int) =
    g.f(du, u, p, t, g.constants, w, offset, first, rows)
(g::GeneratedRows)(out, v, u, p, t, w, offset::Int, first::Int, rows::Int) =
    g.f(out, v, u, p, t, g.constants, w, offset, first, rows)
(g::GeneratedRows)(out, out_p, v, u, p, t, w, offset::Int, first::Int, rows::Int) =
    g.f(out, out_p, v, u, p, t, g.constants, w, offset, first, rows)

# The function of all rows where each row has a result of its own.
struct InParts{W,T} <: Function
    f::W
    batch::Batch{T}
end

function (f::InParts)(du, u, p, t)
    each_part(f.batch) do first, rows, w
        f.f(du, u, p, t, w, first, first, rows)
    end
    return nothing
end

function (f::InParts)(g, v, u, p, t)
    each_part(f.batch) do first, rows, w
        f.f(g, v, u, p, t, w, first, first, rows)
    end
    return nothing
end

# The function of all rows where there are sums over them.
struct InOne{W,T} <: Function
    f::W
    batch::Batch{T}
end
(f::InOne)(g, v, u, p, t) = f.f(g, v, u, p, t, f.batch.memory[1], 0, 0, f.batch.rows)
(f::InOne)(g, gp, v, u, p, t) = f.f(g, gp, v, u, p, t, f.batch.memory[1], 0, 0, f.batch.rows)

function each_part(f::F, batch::Batch) where {F}
    if batch.work * batch.rows < THREADED_CALL[]
        f(0, batch.rows, batch.memory[1])
    else
        in_threads(i -> f(first_row(batch, i), count_rows(batch, i), batch.memory[i]), parts(batch))
    end
    return nothing
end

"""
    in_threads(f, n)

`f(1)`, ..., `f(n)`, in as many threads as Julia has. All have ended when it returns, or throws what
one of them threw: none may go on in memory that is Python's.
"""
function in_threads(f::F, n::Int) where {F}
    next = Threads.Atomic{Int}(1)
    others = min(n, Threads.nthreads()) - 1
    tasks = [Threads.@spawn(take_turns(f, next, n)) for _ in 1:others]
    try
        take_turns(f, next, n)
        foreach(await, tasks)
    finally
        stop_others(() -> foreach(settle, tasks))
    end
    for task in tasks
        istaskfailed(task) && throw(task.exception)
    end
    return nothing
end

# Waits for the others and looks for signals: `wait` would not.
function await(task)
    start = time_ns()
    while !istaskdone(task)
        now = time_ns()
        check_signals(now)
        now - start < 200_000 ? yield() : Libc.systemsleep(1e-4)
    end
    return nothing
end

function settle(task)
    try
        wait(task)
    catch failure
        failure isa TaskFailedException || rethrow()
    end
    return nothing
end

function take_turns(f::F, next, n) where {F}
    while (i = Threads.atomic_add!(next, 1)) <= n
        f(i)
    end
    return nothing
end
