# Tensors of indices. Integers are floating point numbers of the model's type here, and exact. An
# index that is out of bounds, or not a number, never touches memory: a read gives NaN in its
# place, and a write makes its whole result NaN, since where it belongs nobody knows. A solver
# recovers from NaN by a smaller step, or fails and says so.
#
# Every routine sees a tensor as `outer × length × inner`, row-major, from an offset counted from
# zero, and works along the dimension in the middle.

"The row that an index means, from 0; -1 where it is none of `rows`."
@inline checked(x::T, rows::Int) where {T} = 0 <= x < rows ? unsafe_trunc(Int, x) : -1

"""
    take_rows!(out, o, x, s, index, k, outer, rows, count, inner)

`out[a, j, :] = x[a, index[j], :]` for `count` indices into `rows`.
"""
function take_rows!(
    out::Vector{T}, o::Int, x::Vector{T}, s::Int, index::Vector{T}, k::Int,
    outer::Int, rows::Int, count::Int, inner::Int,
) where {T}
    @inbounds for a in 0:(outer - 1), j in 0:(count - 1)
        row = checked(index[k + 1 + j], rows)
        target = o + (a * count + j) * inner
        if row < 0
            fill_range!(out, target + 1, inner, T(NaN))
            continue
        end
        source = s + (a * rows + row) * inner
        @simd ivdep for i in 1:inner
            out[target + i] = x[source + i]
        end
    end
    return nothing
end

"""
    put_rows!(out, o, values, s, index, k, outer, rows, count, inner, accumulate)

`out[a, index[j], :] = values[a, j, :]`, or `+=` where `accumulate` is 1.
"""
function put_rows!(
    out::Vector{T}, o::Int, values::Vector{T}, s::Int, index::Vector{T}, k::Int,
    outer::Int, rows::Int, count::Int, inner::Int, accumulate::Int,
) where {T}
    @inbounds for a in 0:(outer - 1), j in 0:(count - 1)
        row = checked(index[k + 1 + j], rows)
        row < 0 && return fill_range!(out, o + 1, outer * rows * inner, T(NaN))
        target, source = o + (a * rows + row) * inner, s + (a * count + j) * inner
        if accumulate == 1
            @simd ivdep for i in 1:inner
                out[target + i] += values[source + i]
            end
        else
            @simd ivdep for i in 1:inner
                out[target + i] = values[source + i]
            end
        end
    end
    return nothing
end

"""
    gather!(out, o, x, s, index, k, outer, rows, count, inner)

`out[a, j, i] = x[a, index[a, j, i], i]`.
"""
function gather!(
    out::Vector{T}, o::Int, x::Vector{T}, s::Int, index::Vector{T}, k::Int,
    outer::Int, rows::Int, count::Int, inner::Int,
) where {T}
    @inbounds for a in 0:(outer - 1), j in 0:(count - 1), i in 1:inner
        position = (a * count + j) * inner + i
        row = checked(index[k + position], rows)
        out[o + position] = row < 0 ? T(NaN) : x[s + (a * rows + row) * inner + i]
    end
    return nothing
end

"""
    scatter!(out, o, source, s, index, k, outer, rows, count, inner, mode)

`out[a, index[a, j, i], i] = source[a, j, i]` for mode 0; what is there combined with the source
by `+`, `*`, the maximum or the minimum for modes 1 to 4.
"""
function scatter!(
    out::Vector{T}, o::Int, source::Vector{T}, s::Int, index::Vector{T}, k::Int,
    outer::Int, rows::Int, count::Int, inner::Int, mode::Int,
) where {T}
    @inbounds for a in 0:(outer - 1), j in 0:(count - 1), i in 1:inner
        position = (a * count + j) * inner + i
        row = checked(index[k + position], rows)
        row < 0 && return fill_range!(out, o + 1, outer * rows * inner, T(NaN))
        target = o + (a * rows + row) * inner + i
        out[target] = combine(mode, out[target], source[s + position])
    end
    return nothing
end

@inline function combine(mode::Int, old::T, new::T) where {T}
    mode == 0 && return new
    mode == 1 && return old + new
    mode == 2 && return old * new
    return mode == 3 ? nmax(old, new) : nmin(old, new)
end

"""
    searchsorted!(out, o, edges, s, values, k, outer, count, edges_outer, n, right)

For each of `outer × count` values, how many of the `n` sorted edges lie below it (`right` 1: or
equal it). Each outer row has edges of its own, unless `edges_outer` is 1.
"""
function searchsorted!(
    out::Vector{T}, o::Int, edges::Vector{T}, s::Int, values::Vector{T}, k::Int,
    outer::Int, count::Int, edges_outer::Int, n::Int, right::Int,
) where {T}
    @inbounds for a in 0:(outer - 1), j in 1:count
        value = values[k + a * count + j]
        start = s + (edges_outer == 1 ? 0 : a * n)
        low, high = 0, n
        while low < high
            middle = (low + high) >>> 1
            edge = edges[start + 1 + middle]
            # Negated, so that a value that is not a number comes after every edge, as in torch.
            below = right == 1 ? !(edge > value) : !(edge >= value)
            below ? (low = middle + 1) : (high = middle)
        end
        out[o + a * count + j] = T(low)
    end
    return nothing
end

"""
    nonzero!(out, o, mask, s, n, count)

The positions of the `count` elements of `mask` that are not zero; NaN if there are not as many.
"""
function nonzero!(
    out::Vector{T}, o::Int, mask::Vector{T}, s::Int, n::Int, count::Int
) where {T}
    found = 0
    @inbounds for i in 1:n
        iszero(mask[s + i]) && continue
        found += 1
        found <= count && (out[o + found] = T(i - 1))
    end
    found == count || fill_range!(out, o + 1, count, T(NaN))
    return nothing
end

"""
    repeats!(out, o, counts, s, n, total)

Each `i - 1` repeated `counts[i]` times, `total` numbers; NaN if the counts give another total.
"""
function repeats!(
    out::Vector{T}, o::Int, counts::Vector{T}, s::Int, n::Int, total::Int
) where {T}
    filled = 0
    @inbounds for i in 1:n
        times = counts[s + i]
        if !(0 <= times <= total - filled)
            filled = -1
            break
        end
        fill_range!(out, o + filled + 1, unsafe_trunc(Int, times), T(i - 1))
        filled += unsafe_trunc(Int, times)
    end
    filled == total || fill_range!(out, o + 1, total, T(NaN))
    return nothing
end
