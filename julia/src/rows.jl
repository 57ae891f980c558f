# Routines on the rows of a block. In a block's memory the rows are the fastest dimension: element i
# of row r lies at `place + i * block + r`. The places beyond the last row hold copies of it, so that
# every loop over rows has the same length.

# What a processor loads at once, in the widest vectors that are common.
const Lanes{N,T} = NTuple{N,VecElement{T}}
lanes(::Type{T}) where {T} = 64 ÷ sizeof(T)

@inline load_lanes(::Type{L}, x::Vector{T}, i::Int) where {N,T,L<:Lanes{N,T}} =
    unsafe_load(Ptr{L}(pointer(x, i + 1)))
@inline store_lanes!(x::Vector{T}, i::Int, value::L) where {N,T,L<:Lanes{N,T}} =
    unsafe_store!(Ptr{L}(pointer(x, i + 1)), value)
@inline splat(::Type{Lanes{N,T}}, x::T) where {N,T} = ntuple(_ -> VecElement(x), Val(N))

for (T, name) in ((Float64, "f64"), (Float32, "f32")), N in (2, 4, 8, 16)
    L, routine = Lanes{N,T}, "llvm.fmuladd.v$N$name"
    @eval @inline add_product(x::$L, y::$L, z::$L) =
        ccall($routine, llvmcall, $L, ($L, $L, $L), x, y, z)
end

@inline total(x::Lanes{2}) = x[1].value + x[2].value
@inline function total(x::Lanes{N,T}) where {N,T}
    low, high = ntuple(i -> x[i], Val(N ÷ 2)), ntuple(i -> x[i + N ÷ 2], Val(N ÷ 2))
    return total(add_product(low, splat(Lanes{N ÷ 2,T}, one(T)), high))
end

"""
    load_rows!(w, place, x, offset, first, width, n, block)

Bring `n` rows of `width` numbers from the row-major matrix at `offset` in `x`, from row `first`,
into a block's memory.
"""
function load_rows!(
    w::Vector{T}, place::Int, x::Vector{T}, offset::Int, first::Int, width::Int, n::Int, block::Int
) where {T}
    from = offset + first * width
    width == 1 && return load_narrow!(w, place, x, from, n, block, Val(1))
    width == 2 && return load_narrow!(w, place, x, from, n, block, Val(2))
    width == 3 && return load_narrow!(w, place, x, from, n, block, Val(3))
    width == 4 && return load_narrow!(w, place, x, from, n, block, Val(4))
    # A few columns at a time, so that the lines of `x` are read once.
    @inbounds for some in 0:8:(width - 1)
        columns = some:(min(some + 8, width) - 1)
        for r in 0:(n - 1), i in columns
            w[place + i * block + r + 1] = x[from + r * width + i + 1]
        end
        repeat_last!(w, place + some * block, length(columns), n, block)
    end
    return nothing
end

function load_narrow!(w, place, x, from, n, block, ::Val{W}) where {W}
    @inbounds @simd ivdep for r in 1:n
        Base.Cartesian.@nexprs 4 i ->
            i <= W && (w[place + (i - 1) * block + r] = x[from + (r - 1) * W + i])
    end
    return repeat_last!(w, place, W, n, block)
end

function repeat_last!(w, place, width, n, block)
    @inbounds for i in 0:(width - 1)
        last = w[place + i * block + n]
        for r in (n + 1):block
            w[place + i * block + r] = last
        end
    end
    return nothing
end

"""
    store_rows!(w, place, x, offset, first, width, n, block)

The way back of [`load_rows!`](@ref).
"""
function store_rows!(
    w::Vector{T}, place::Int, x::Vector{T}, offset::Int, first::Int, width::Int, n::Int, block::Int
) where {T}
    from = offset + first * width
    width == 1 && return store_narrow!(w, place, x, from, n, block, Val(1))
    width == 2 && return store_narrow!(w, place, x, from, n, block, Val(2))
    width == 3 && return store_narrow!(w, place, x, from, n, block, Val(3))
    width == 4 && return store_narrow!(w, place, x, from, n, block, Val(4))
    @inbounds for some in 0:8:(width - 1)
        for r in 0:(n - 1), i in some:(min(some + 8, width) - 1)
            x[from + r * width + i + 1] = w[place + i * block + r + 1]
        end
    end
    return nothing
end

function store_narrow!(w, place, x, from, n, block, ::Val{W}) where {W}
    @inbounds @simd ivdep for r in 1:n
        Base.Cartesian.@nexprs 4 i ->
            i <= W && (x[from + (r - 1) * W + i] = w[place + (i - 1) * block + r])
    end
    return nothing
end

"""
    rows_product!(C, c, X, x, W, w, batch, outer, units, terms, C_batch, C_outer, C_unit,
                  X_batch, X_outer, X_term, W_batch, W_term, W_unit, block)

`C[b, o, u] = Σ W[b, t, u] X[b, o, t]`, summed over `t`: of `C` and `X` each element is a block of
rows, of `W` a number. The strides are those of these dimensions.
"""
function rows_product!(
    C::Vector{T}, c::Int, X::Vector{T}, x::Int, W::Vector{T}, w::Int,
    batch::Int, outer::Int, units::Int, terms::Int, C_batch::Int, C_outer::Int, C_unit::Int,
    X_batch::Int, X_outer::Int, X_term::Int, W_batch::Int, W_term::Int, W_unit::Int, block::Int,
) where {T}
    N = lanes(T)
    strides = (C_unit, X_term, W_term, W_unit)
    for b in 0:(batch - 1), o in 0:(outer - 1)
        to, from = c + b * C_batch + o * C_outer, x + b * X_batch + o * X_outer
        weights = w + b * W_batch
        r = 0
        while r + 2N <= block
            panel!(C, to + r, X, from + r, W, weights, units, terms, strides, Val(2))
            r += 2N
        end
        while r < block
            panel!(C, to + r, X, from + r, W, weights, units, terms, strides, Val(1))
            r += N
        end
    end
    return nothing
end

# All units, for `R` vectors of rows; of four units the sums of one vector fill half the registers
# that most processors have, and those of two leave none for the factors.
@inline function panel!(C, to, X, from, W, weights, units, terms, strides, ::Val{R}) where {R}
    C_unit, _, _, W_unit = strides
    u = 0
    while u + 4 <= units
        for r in 0:lanes(eltype(C)):((R - 1) * lanes(eltype(C)))
            units!(
                C, to + u * C_unit + r, X, from + r, W, weights + u * W_unit, terms, strides,
                Val(1), Val(4),
            )
        end
        u += 4
    end
    if u + 2 <= units
        units!(C, to + u * C_unit, X, from, W, weights + u * W_unit, terms, strides, Val(R), Val(2))
        u += 2
    end
    if u < units
        units!(C, to + u * C_unit, X, from, W, weights + u * W_unit, terms, strides, Val(R), Val(1))
    end
    return nothing
end

# `U` units, for `R` vectors of rows: the sums stay in registers.
function units!(
    C::Vector{T}, to, X::Vector{T}, from, W::Vector{T}, weights, terms, strides, ::Val{R}, ::Val{U}
) where {T,R,U}
    N = lanes(T)
    L = Lanes{N,T}
    C_unit, X_term, W_term, W_unit = strides
    sums = ntuple(_ -> ntuple(_ -> splat(L, zero(T)), Val(R)), Val(U))
    GC.@preserve C X W begin
        for t in 0:(terms - 1)
            weight, row = weights + 1 + t * W_term, from + t * X_term
            x = ntuple(u -> splat(L, @inbounds W[weight + (u - 1) * W_unit]), Val(U))
            y = ntuple(i -> load_lanes(L, X, row + (i - 1) * N), Val(R))
            sums = add_products(sums, x, y)
        end
        for u in 1:U, i in 1:R
            store_lanes!(C, to + (u - 1) * C_unit + (i - 1) * N, sums[u][i])
        end
    end
    return nothing
end

@inline add_products(sums, left, right) =
    map((row, x) -> map((s, y) -> add_product(x, y, s), row, right), sums, left)

"""
    rows_contract!(C, c, A, a, B, b, S, scratch, batch, m, n, repeat, C_batch, C_row, C_column,
                   A_batch, A_row, A_repeat, B_batch, B_repeat, B_column, rows, block)

`C[k, i, j] += Σ A[k, i, l] B[k, l, j]`, summed over `l` and the first `rows` rows of the block: of
`A` and `B` each element is a block of rows, of `C` a number, and `C_column` is 1. From `scratch` on
`S` has room for a block of `n` numbers, and as many as processors load at once.
"""
function rows_contract!(
    C::Vector{T}, c::Int, A::Vector{T}, a::Int, B::Vector{T}, b::Int, S::Vector{T}, scratch::Int,
    batch::Int, m::Int, n::Int, repeat::Int, C_batch::Int, C_row::Int, C_column::Int,
    A_batch::Int, A_row::Int, A_repeat::Int, B_batch::Int, B_repeat::Int, B_column::Int,
    rows::Int, block::Int,
) where {T}
    for k in 0:(batch - 1), l in 0:(repeat - 1)
        to = c + k * C_batch
        left, right = a + k * A_batch + l * A_repeat, b + k * B_batch + l * B_repeat
        if m >= 12 && n >= 12
            contract_turned!(
                C, to, A, left, B, right, m, n, C_row, A_row, B_column, S, scratch, rows
            )
            continue
        elseif rows < block
            # The copies of the last row count for nothing.
            clear_padding!(A, left, A_row, m, rows, block)
            clear_padding!(B, right, B_column, n, rows, block)
        end
        strides = (C_row, C_column, A_row, B_column)
        i = 0
        while i + 4 <= m
            target, from = to + i * C_row, left + i * A_row
            contract_columns!(C, target, A, from, B, right, n, strides, block, Val(4))
            i += 4
        end
        while i < m
            target, from = to + i * C_row, left + i * A_row
            contract_columns!(C, target, A, from, B, right, n, strides, block, Val(1))
            i += 1
        end
    end
    return nothing
end

@inline function contract_columns!(C, to, A, left, B, right, n, strides, block, I::Val)
    _, C_column, _, B_column = strides
    j = 0
    while j + 2 <= n
        target, from = to + j * C_column, right + j * B_column
        contract!(C, target, A, left, B, from, strides, block, I, Val(2))
        j += 2
    end
    if j < n
        target, from = to + j * C_column, right + j * B_column
        contract!(C, target, A, left, B, from, strides, block, I, Val(1))
    end
    return nothing
end

function contract!(
    C::Vector{T}, to, A::Vector{T}, left, B::Vector{T}, right, strides, block, ::Val{I}, ::Val{J}
) where {T,I,J}
    N = lanes(T) ÷ 2 # so that all sums have registers
    L = Lanes{N,T}
    C_row, C_column, A_row, B_column = strides
    sums = ntuple(_ -> ntuple(_ -> splat(L, zero(T)), Val(J)), Val(I))
    GC.@preserve A B begin
        for r in 0:N:(block - 1)
            x = ntuple(i -> load_lanes(L, A, left + (i - 1) * A_row + r), Val(I))
            y = ntuple(j -> load_lanes(L, B, right + (j - 1) * B_column + r), Val(J))
            sums = add_products(sums, x, y)
        end
    end
    @inbounds for i in 1:I, j in 1:J
        C[to + 1 + (i - 1) * C_row + (j - 1) * C_column] += total(sums[i][j])
    end
    return nothing
end

# The same by outer products, for which `B` is turned so that its rows lie together: where a sum over
# the lanes of each element would cost more.
function contract_turned!(
    C::Vector{T}, to, A::Vector{T}, left, B::Vector{T}, right, m, n, C_row, A_row, B_column,
    S::Vector{T}, scratch, rows,
) where {T}
    N = lanes(T)
    width = N * cld(n, N)
    turn!(S, scratch, B, right, n, B_column, width, rows)
    for i in 0:4:(m - 1)
        target, from = to + i * C_row, left + i * A_row
        if i + 4 <= m
            outer_products!(C, target, A, from, S, scratch, n, width, C_row, A_row, rows, Val(4))
        else
            for k in 0:(m - i - 1)
                outer_products!(
                    C, target + k * C_row, A, from + k * A_row, S, scratch, n, width, C_row, A_row,
                    rows, Val(1),
                )
            end
        end
    end
    return nothing
end

function turn!(S::Vector{T}, scratch, B::Vector{T}, right, n, B_column, width, rows) where {T}
    @inbounds for some in 0:8:(width - 1)
        for r in 0:(rows - 1), j in some:(some + 7)
            S[scratch + r * width + j + 1] = j < n ? B[right + j * B_column + r + 1] : zero(T)
        end
    end
    return nothing
end

@inline function outer_products!(C, to, A, left, S, scratch, n, width, C_row, A_row, rows, I::Val)
    N = lanes(eltype(C))
    for j in 0:N:(n - 1)
        outer!(C, to + j, A, left, S, scratch + j, min(N, n - j), width, C_row, A_row, rows, I)
    end
    return nothing
end

# One vector of columns; a second would leave the factors no registers, as in `panel!`.
function outer!(
    C::Vector{T}, to, A::Vector{T}, left, S::Vector{T}, from, count, width, C_row, A_row, rows,
    ::Val{I},
) where {T,I}
    L = Lanes{lanes(T),T}
    sums = ntuple(_ -> splat(L, zero(T)), Val(I))
    GC.@preserve C A S begin
        for r in 0:(rows - 1)
            y = load_lanes(L, S, from + r * width)
            x = ntuple(i -> splat(L, @inbounds A[left + (i - 1) * A_row + r + 1]), Val(I))
            sums = map((x, sum) -> add_product(x, y, sum), x, sums)
        end
        for i in 1:I
            at, some = to + (i - 1) * C_row, sums[i]
            if count == lanes(T)
                store_lanes!(C, at, add_product(splat(L, one(T)), some, load_lanes(L, C, at)))
            else
                @inbounds for k in 1:count
                    C[at + k] += some[k].value
                end
            end
        end
    end
    return nothing
end

function clear_padding!(x::Vector{T}, place, stride, count, rows, block) where {T}
    @inbounds for i in 0:(count - 1), r in rows:(block - 1)
        x[place + i * stride + r + 1] = zero(T)
    end
    return nothing
end

"""
    rows_multiply!(C, c, A, a, B, b, batch, m, n, k, C_batch, C_row, C_column,
                   A_batch, A_row, A_column, B_batch, B_row, B_column, block)

`C[l, i, j] = Σ A[l, i, h] B[l, h, j]`, summed over `h`, for every row by itself: each element is a
block of rows.
"""
function rows_multiply!(
    C::Vector{T}, c::Int, A::Vector{T}, a::Int, B::Vector{T}, b::Int,
    batch::Int, m::Int, n::Int, k::Int, C_batch::Int, C_row::Int, C_column::Int,
    A_batch::Int, A_row::Int, A_column::Int, B_batch::Int, B_row::Int, B_column::Int, block::Int,
) where {T}
    L = Lanes{lanes(T),T}
    GC.@preserve A B C for l in 0:(batch - 1), i in 0:(m - 1), j in 0:(n - 1)
        to, left = c + l * C_batch + i * C_row + j * C_column, a + l * A_batch + i * A_row
        right = b + l * B_batch + j * B_column
        for r in 0:lanes(T):(block - 1)
            sum = splat(L, zero(T))
            for h in 0:(k - 1)
                x = load_lanes(L, A, left + h * A_column + r)
                y = load_lanes(L, B, right + h * B_row + r)
                sum = add_product(x, y, sum)
            end
            store_lanes!(C, to + r, sum)
        end
    end
    return nothing
end
