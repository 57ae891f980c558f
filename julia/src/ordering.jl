# Which elements are first, and running results, along the middle of `outer × n × inner`.
# Not a number counts as the largest and the smallest, as in torch: it is what a maximum gives.

"""
    argmax!(out, o, x, s, outer, n, inner, sign)

The index of the first maximum, or minimum where `sign` is -1.
"""
function argmax!(
    out::Vector{T}, o::Int, x::Vector{T}, s::Int, outer::Int, n::Int, inner::Int, sign::Int
) where {T}
    @inbounds for a in 0:(outer - 1), i in 1:inner
        start = s + a * n * inner + i
        index, best = 0, x[start]
        for j in 1:(n - 1)
            isnan(best) && break
            value = x[start + j * inner]
            if isnan(value) || sign * value > sign * best
                index, best = j, value
            end
        end
        out[o + a * inner + i] = T(index)
    end
    return nothing
end

"""
    cumargmax!(out, o, x, s, outer, n, inner, sign)

The index of the maximum so far, the last of equal ones; of the minimum where `sign` is -1.
"""
function cumargmax!(
    out::Vector{T}, o::Int, x::Vector{T}, s::Int, outer::Int, n::Int, inner::Int, sign::Int
) where {T}
    @inbounds for a in 0:(outer - 1), i in 1:inner
        start = a * n * inner + i
        index, best = 0, n > 0 ? x[s + start] : zero(T)
        for j in 0:(n - 1)
            value = x[s + start + j * inner]
            if isnan(value) || (!isnan(best) && sign * value >= sign * best)
                index, best = j, value
            end
            out[o + start + j * inner] = T(index)
        end
    end
    return nothing
end

"""
    scan!(out, o, x, s, outer, n, inner, mode)

Running sum, product or log-sum-exp, for modes 0, 1 and 2.
"""
function scan!(
    out::Vector{T}, o::Int, x::Vector{T}, s::Int, outer::Int, n::Int, inner::Int, mode::Int
) where {T}
    @inbounds for a in 0:(outer - 1)
        start = a * n * inner
        for i in 1:(n > 0 ? inner : 0)
            out[o + start + i] = x[s + start + i]
        end
        for j in 1:(n - 1), i in 1:inner
            position = start + j * inner + i
            before, value = out[o + position - inner], x[s + position]
            out[o + position] =
                mode == 0 ? before + value : mode == 1 ? before * value : logaddexp(before, value)
        end
    end
    return nothing
end

"""
    sort_order!(out, o, x, s, outer, n, inner, descending)

The indices that sort: ascending with NaN last, or descending with NaN first where `descending`
is 1; equal elements stay in order.
"""
function sort_order!(
    out::Vector{T}, o::Int, x::Vector{T}, s::Int, outer::Int, n::Int, inner::Int,
    descending::Int,
) where {T}
    order = Vector{Int}(undef, n)
    @inbounds for a in 0:(outer - 1), i in 1:inner
        start = a * n * inner + i
        for j in 1:n
            order[j] = j - 1
        end
        if descending == 1
            sort!(order; alg=MergeSort, lt=(p, q) ->
                before(x[s + start + q * inner], x[s + start + p * inner]))
        else
            sort!(order; alg=MergeSort, lt=(p, q) ->
                before(x[s + start + p * inner], x[s + start + q * inner]))
        end
        for j in 1:n
            out[o + start + (j - 1) * inner] = T(order[j])
        end
    end
    return nothing
end

@inline before(x, y) = x < y || (isnan(y) && !isnan(x))
