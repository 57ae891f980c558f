# Convolutions over one, two or three dimensions, as products of matrices: the patches that the
# kernel sees become the columns of a matrix (im2col). One or two dimensions are three with
# lengths of one in front.

struct Geometry
    batch::Int
    groups::Int
    outputs::Int # channels of the result in one group
    inputs::Int # channels of the image in one group
    image::NTuple{3,Int}
    kernel::NTuple{3,Int}
    result::NTuple{3,Int}
    stride::NTuple{3,Int}
    padding::NTuple{3,Int}
    dilation::NTuple{3,Int}
end

function Geometry(n::NTuple{22,Int})
    triple(i) = (n[i], n[i + 1], n[i + 2])
    return Geometry(
        n[1], n[2], n[3], n[4], triple(5), triple(8), triple(11), triple(14), triple(17),
        triple(20),
    )
end

patches_are_pixels(g::Geometry) =
    g.kernel == (1, 1, 1) && g.stride == (1, 1, 1) && g.padding == (0, 0, 0)

"""
    convolve!(Y, y, X, x, W, w, S, s, integers...)

`Y = W ∗ X`, all row-major from offsets `y`, `x`, `w`: the image `(batch, groups·inputs, ...)`, the
weights `(groups·outputs, inputs, ...)` and the result `(batch, groups·outputs, ...)`. `S` from `s`
is scratch memory for the patches of one group; `integers` are the fields of `Geometry`.
"""
function convolve!(
    Y::Vector{T}, y::Int, X::Vector{T}, x::Int, W::Vector{T}, w::Int, S::Vector{T}, s::Int,
    integers::Vararg{Int,22},
) where {T}
    g = Geometry(integers)
    rows, columns, pixels = g.inputs * prod(g.kernel), prod(g.result), prod(g.image)
    for i in 0:(g.batch * g.groups - 1)
        weights = w + (i % g.groups) * g.outputs * rows
        P, p = patches!(S, s, X, x + i * g.inputs * pixels, g)
        matmul!(
            Y, y + i * g.outputs * columns, W, weights, P, p, 1, g.outputs, columns, rows,
            0, rows, 1, 0, columns, 1,
        )
    end
    return nothing
end

"""
    convolve_transposed!(X, x, Y, y, W, w, S, s, integers...)

The adjoint of `convolve!` with respect to the image, which is the transposed convolution.
"""
function convolve_transposed!(
    X::Vector{T}, x::Int, Y::Vector{T}, y::Int, W::Vector{T}, w::Int, S::Vector{T}, s::Int,
    integers::Vararg{Int,22},
) where {T}
    g = Geometry(integers)
    rows, columns, pixels = g.inputs * prod(g.kernel), prod(g.result), prod(g.image)
    fill_range!(X, x + 1, g.batch * g.groups * g.inputs * pixels, zero(T))
    for i in 0:(g.batch * g.groups - 1)
        weights = w + (i % g.groups) * g.outputs * rows
        matmul!(
            S, s, W, weights, Y, y + i * g.outputs * columns, 1, rows, columns, g.outputs,
            0, 1, rows, 0, columns, 1,
        )
        add_patches!(X, x + i * g.inputs * pixels, S, s, g)
    end
    return nothing
end

"""
    convolve_weights!(W, w, Y, y, X, x, S, s, integers...)

The adjoint of `convolve!` with respect to the weights: `Y` is the cotangent of the result.
"""
function convolve_weights!(
    W::Vector{T}, w::Int, Y::Vector{T}, y::Int, X::Vector{T}, x::Int, S::Vector{T}, s::Int,
    integers::Vararg{Int,22},
) where {T}
    g = Geometry(integers)
    rows, columns, pixels = g.inputs * prod(g.kernel), prod(g.result), prod(g.image)
    fill_range!(W, w + 1, g.groups * g.outputs * rows, zero(T))
    (rows == 0 || columns == 0) && return nothing
    for i in 0:(g.batch * g.groups - 1)
        P, p = patches!(S, s, X, x + i * g.inputs * pixels, g)
        blas_product!(
            W, w + (i % g.groups) * g.outputs * rows, Y, y + i * g.outputs * columns, P, p,
            g.outputs, rows, columns, columns, 1, 1, columns, one(T),
        )
    end
    return nothing
end

# The patches of one image as the columns of a row-major matrix, a row a channel and kernel place.
function patches!(S::Vector{T}, s::Int, X::Vector{T}, x::Int, g::Geometry) where {T}
    patches_are_pixels(g) && return X, x
    n3 = g.result[3]
    each_row(s, x, g) do target, source, lo, hi
        @inbounds begin
            for j in 1:lo
                S[target + j] = zero(T)
            end
            @simd ivdep for j in lo:(hi - 1)
                S[target + 1 + j] = X[source + 1 + j * g.stride[3]]
            end
            for j in (max(lo, hi) + 1):n3
                S[target + j] = zero(T)
            end
        end
    end
    return S, s
end

# The adjoint of `patches!`: each element of a patch is added to the pixel that it came from.
function add_patches!(X::Vector{T}, x::Int, S::Vector{T}, s::Int, g::Geometry) where {T}
    each_row(s, x, g) do source, target, lo, hi
        @inbounds @simd ivdep for j in lo:(hi - 1)
            X[target + 1 + j * g.stride[3]] += S[source + 1 + j]
        end
    end
    return nothing
end

# Calls `f(patch, pixel, lo, hi)` for each run of patches along the last dimension: the offsets of
# the run and of the pixel that its first element sees (which may lie outside), and the range of
# the run that lies inside the image.
@inline function each_row(f::F, s::Int, x::Int, g::Geometry) where {F}
    (N1, N2, N3), (n1, n2, n3) = g.image, g.result
    for channel in 0:(g.inputs - 1), k1 in 0:(g.kernel[1] - 1), k2 in 0:(g.kernel[2] - 1),
        k3 in 0:(g.kernel[3] - 1)

        first3 = k3 * g.dilation[3] - g.padding[3]
        lo = clamp(cld(-first3, g.stride[3]), 0, n3)
        hi = clamp(fld(N3 - 1 - first3, g.stride[3]) + 1, lo, n3)
        for o1 in 0:(n1 - 1), o2 in 0:(n2 - 1)
            i1 = o1 * g.stride[1] + k1 * g.dilation[1] - g.padding[1]
            i2 = o2 * g.stride[2] + k2 * g.dilation[2] - g.padding[2]
            inside = 0 <= i1 < N1 && 0 <= i2 < N2
            pixel = x + ((channel * N1 + i1) * N2 + i2) * N3 + first3
            f(s, pixel, inside ? lo : 0, inside ? hi : 0)
            s += n3
        end
    end
    return nothing
end

"""
    max_pool!(Y, y, X, x, integers...)

The largest value of each window and, after all of them, its place in the image, counted from zero.
"""
function max_pool!(
    Y::Vector{T}, y::Int, X::Vector{T}, x::Int, integers::Vararg{Int,22},
) where {T}
    g = Geometry(integers)
    pixels, windows = prod(g.image), prod(g.result)
    places = y + g.batch * windows
    for i in 0:(g.batch - 1)
        for (j, o) in enumerate(CartesianIndices(reverse(g.result)))
            value, place = window_max(X, x + i * pixels, reverse(o.I) .- 1, g)
            Y[y + i * windows + j] = value
            Y[places + i * windows + j] = place
        end
    end
    return nothing
end

function window_max(X::Vector{T}, x::Int, o::NTuple{3,Int}, g::Geometry) where {T}
    (N1, N2, N3), start = g.image, o .* g.stride .- g.padding
    value, place = T(-Inf), -1
    for k1 in 0:(g.kernel[1] - 1), k2 in 0:(g.kernel[2] - 1), k3 in 0:(g.kernel[3] - 1)
        i1, i2, i3 = start .+ (k1, k2, k3) .* g.dilation
        (0 <= i1 < N1 && 0 <= i2 < N2 && 0 <= i3 < N3) || continue
        position = (i1 * N2 + i2) * N3 + i3
        candidate = X[x + 1 + position]
        if place < 0 || candidate > value || isnan(candidate)
            value, place = candidate, position
        end
    end
    return value, place
end

"""
    max_pool_backward!(X, x, Y, y, I, i, batch, pixels, windows)

Add each cotangent in `Y` to the place in the image that `I` names.
"""
function max_pool_backward!(
    X::Vector{T}, x::Int, Y::Vector{T}, y::Int, I::Vector{T}, i::Int, batch::Int, pixels::Int,
    windows::Int,
) where {T}
    fill_range!(X, x + 1, batch * pixels, zero(T))
    for b in 0:(batch - 1), j in (b * windows + 1):((b + 1) * windows)
        X[x + b * pixels + 1 + Int(I[i + j])] += Y[y + j]
    end
    return nothing
end
