# Convolutions of the rows of a block: each element of an image is a vector of rows, so that the
# kernel's places need no patches. Images and weights are laid out anew, the channels of a pixel side
# by side, so that the innermost loop reads memory in order.

# Outputs and inputs that are computed at a time, as many as there are registers for their sums.
const CONVOLVED = 4
const CONVOLVED_INPUTS = 3

"""
    rows_convolve!(C, c, X, x, W, w, S, s, integers..., block)

`C = W ∗ X` as in [`convolve!`](@ref), of which each element of `C` and `X` is a block of rows, one
after the other, and of `W` a number. `S` from `s` has room for `X` and for the weights, whose
outputs are filled up to a multiple of four.
"""
function rows_convolve!(
    C::Vector{T}, c::Int, X::Vector{T}, x::Int, W::Vector{T}, w::Int, S::Vector{T}, s::Int,
    integers::Vararg{Int,23},
) where {T}
    g, block = Geometry(integers[1:22]), integers[23]
    side_by_side!(S, s, X, x, g.batch, g.groups * g.inputs, prod(g.image), block)
    weights = s + g.batch * g.groups * g.inputs * prod(g.image) * block
    strides = (g.inputs * prod(g.kernel), prod(g.kernel)) # of an output and of an input
    sums_of_places!(
        C, c, S, s, weights, W, w, g, g.image, g.result, g.inputs, g.outputs, strides, block,
        Val(false),
    )
    return nothing
end

"""
    rows_convolve_transposed!(X, x, C, c, W, w, S, s, integers..., block)

The adjoint of [`rows_convolve!`](@ref) with respect to the image. `S` has room for `C` and the
weights, whose inputs are filled up.
"""
function rows_convolve_transposed!(
    X::Vector{T}, x::Int, C::Vector{T}, c::Int, W::Vector{T}, w::Int, S::Vector{T}, s::Int,
    integers::Vararg{Int,23},
) where {T}
    g, block = Geometry(integers[1:22]), integers[23]
    side_by_side!(S, s, C, c, g.batch, g.groups * g.outputs, prod(g.result), block)
    weights = s + g.batch * g.groups * g.outputs * prod(g.result) * block
    strides = (prod(g.kernel), g.inputs * prod(g.kernel))
    sums_of_places!(
        X, x, S, s, weights, W, w, g, g.result, g.image, g.outputs, g.inputs, strides, block,
        Val(true),
    )
    return nothing
end

# An image `(batch, channels, pixels)` as `(batch, pixels, channels)`, of blocks of rows.
function side_by_side!(S::Vector{T}, s, X::Vector{T}, x, batch, channels, pixels, block) where {T}
    L = Lanes{lanes(T),T}
    GC.@preserve S X for b in 0:(batch - 1), i in 0:(pixels - 1), k in 0:(channels - 1)
        to = s + ((b * pixels + i) * channels + k) * block
        from = x + ((b * channels + k) * pixels + i) * block
        for r in 0:lanes(T):(block - 1)
            store_lanes!(S, to + r, load_lanes(L, X, from + r))
        end
    end
    return nothing
end

# For each of `units` channels and pixels of the image `to` the sum over `terms` channels of `from`
# and over the kernel's places that see it.
function sums_of_places!(
    C::Vector{T}, c, S, s, weights, W, w, g, from, to, terms, units, strides, block, way
) where {T}
    places = prod(g.kernel)
    panels = cld(units, CONVOLVED)
    for group in 0:(g.groups - 1)
        pack_weights!(
            S, weights, W, w + group * g.outputs * g.inputs * places, places, terms, units, strides
        )
        for b in 0:(g.batch - 1)
            image = s + (b * prod(from) * g.groups + group) * terms * block
            result = c + (b * g.groups + group) * units * prod(to) * block
            for panel in 0:(panels - 1), r in 0:lanes(T):(block - 1)
                sum_places!(
                    C, result + r, S, image + r,
                    weights + panel * places * terms * CONVOLVED, g, from, to, terms,
                    panel * CONVOLVED, units, block, way,
                )
            end
        end
    end
    return nothing
end

# As `(panel, place, term, unit in the panel)`, zero where there is no such unit.
function pack_weights!(
    S::Vector{T}, s, W, w, places, terms, units, (unit_stride, term_stride)
) where {T}
    @inbounds for panel in 0:CONVOLVED:(units - 1), k in 0:(places - 1), t in 0:(terms - 1)
        for u in panel:(panel + CONVOLVED - 1)
            s += 1
            S[s] = u < units ? W[w + 1 + u * unit_stride + t * term_stride + k] : zero(T)
        end
    end
    return nothing
end

function sum_places!(
    C::Vector{T}, c, S::Vector{T}, s, weights, g, from, to, terms, first, units, block, way
) where {T}
    L = Lanes{lanes(T),T}
    pixels, channels = prod(to), g.groups * terms
    (K1, K2, K3), (N2, N3) = g.kernel, (from[2], from[3])
    count = min(CONVOLVED, units - first)
    at = c + first * pixels * block
    GC.@preserve C S for i1 in 0:(to[1] - 1), i2 in 0:(to[2] - 1), i3 in 0:(to[3] - 1)
        sums = ntuple(_ -> splat(L, zero(T)), Val(CONVOLVED))
        for k1 in 0:(K1 - 1)
            j1 = seen(i1, k1, g, from, 1, way)
            j1 < 0 && continue
            for k2 in 0:(K2 - 1)
                j2 = seen(i2, k2, g, from, 2, way)
                j2 < 0 && continue
                for k3 in 0:(K3 - 1)
                    j3 = seen(i3, k3, g, from, 3, way)
                    j3 < 0 && continue
                    pixel = s + ((j1 * N2 + j2) * N3 + j3) * channels * block
                    weight = weights + ((k1 * K2 + k2) * K3 + k3) * terms * CONVOLVED
                    sums = sum_terms(sums, S, pixel, weight, terms, block)
                end
            end
        end
        for u in 1:count
            store_lanes!(C, at + (u - 1) * pixels * block, sums[u])
        end
        at += block
    end
    return nothing
end

@inline function sum_terms(
    sums::NTuple{U,L}, S::Vector{T}, pixel, weight, terms, block
) where {U,N,T,L<:Lanes{N,T}}
    for t in 0:(terms - 1)
        x = load_lanes(L, S, pixel + t * block)
        y = ntuple(u -> splat(L, @inbounds S[weight + t * U + u]), Val(U))
        sums = map((y, sum) -> add_product(x, y, sum), y, sums)
    end
    return sums
end

# Which pixel along a dimension the kernel's place `k` sees for the result `i`, or, on the way back,
# which result sees the pixel `i` there; -1 for none.
@inline function seen(i, k, g, from, d, ::Val{back}) where {back}
    stride, shift = g.stride[d], k * g.dilation[d] - g.padding[d]
    if back
        j = i - shift
        if stride != 1
            j, left = divrem(j, stride)
            left == 0 || return -1
        end
    else
        j = i * stride + shift
    end
    return j < from[d] ? j : -1 # where it is below zero, it is so already
end

"""
    rows_convolve_weights!(W, w, C, c, X, x, S, s, integers..., n, block)

Add the adjoint of [`rows_convolve!`](@ref) with respect to the weights, over the first `n` rows.
`C` is the cotangent of the result. `S` has room for both.
"""
function rows_convolve_weights!(
    W::Vector{T}, w::Int, C::Vector{T}, c::Int, X::Vector{T}, x::Int, S::Vector{T}, s::Int,
    integers::Vararg{Int,24},
) where {T}
    g, n, block = Geometry(integers[1:22]), integers[23], integers[24]
    inputs, outputs = g.groups * g.inputs, g.groups * g.outputs
    images, results = s, s + g.batch * inputs * prod(g.image) * block
    side_by_side!(S, images, X, x, g.batch, inputs, prod(g.image), block)
    side_by_side!(S, results, C, c, g.batch, outputs, prod(g.result), block)
    n < block && clear_padding!(S, results, block, g.batch * outputs * prod(g.result), n, block)
    for group in 0:(g.groups - 1), o in 0:CONVOLVED:(g.outputs - 1)
        left = results + (group * g.outputs + o) * block
        right = images + group * g.inputs * block
        to = w + (group * g.outputs + o) * g.inputs * prod(g.kernel)
        if o + CONVOLVED <= g.outputs
            contract_inputs!(W, to, S, left, right, g, n, block, Val(CONVOLVED))
        else
            for a in 0:(g.outputs - o - 1)
                to_one = to + a * g.inputs * prod(g.kernel)
                contract_inputs!(W, to_one, S, left + a * block, right, g, n, block, Val(1))
            end
        end
    end
    return nothing
end

@inline function contract_inputs!(W, w, S, left, right, g, n, block, outputs::Val)
    i, places = 0, prod(g.kernel)
    while i + CONVOLVED_INPUTS <= g.inputs
        contract_places!(
            W, w + i * places, S, left, right + i * block, g, n, block, outputs,
            Val(CONVOLVED_INPUTS),
        )
        i += CONVOLVED_INPUTS
    end
    while i < g.inputs
        contract_places!(
            W, w + i * places, S, left, right + i * block, g, n, block, outputs, Val(1)
        )
        i += 1
    end
    return nothing
end

function contract_places!(
    W::Vector{T}, w, S::Vector{T}, left, right, g, n, block, ::Val{O}, ::Val{I}
) where {T,O,I}
    N = lanes(T) ÷ 2 # so that all sums have registers
    L = Lanes{N,T}
    outputs, inputs = g.groups * g.outputs * block, g.groups * g.inputs * block
    places, vectors = prod(g.kernel), cld(n, N) - 1
    (_, K2, K3), (N1, N2, N3), (M1, M2, M3) = g.kernel, g.image, g.result
    GC.@preserve S for k in CartesianIndices(g.kernel)
        shift = (k.I .- 1) .* g.dilation .- g.padding
        (in1, in2, in3) = map(see_image, shift, g.stride, g.image, g.result)
        sums = ntuple(_ -> ntuple(_ -> splat(L, zero(T)), Val(I)), Val(O))
        for b in 0:(g.batch - 1), i1 in in1, i2 in in2
            j1, j2 = i1 * g.stride[1] + shift[1], i2 * g.stride[2] + shift[2]
            y = left + ((b * M1 + i1) * M2 + i2) * M3 * outputs
            x = right + (((b * N1 + j1) * N2 + j2) * N3 + shift[3]) * inputs
            for i3 in in3, r in 0:vectors
                at_y, at_x = y + i3 * outputs + r * N, x + i3 * g.stride[3] * inputs + r * N
                ys = ntuple(o -> load_lanes(L, S, at_y + (o - 1) * block), Val(O))
                xs = ntuple(i -> load_lanes(L, S, at_x + (i - 1) * block), Val(I))
                sums = add_products(sums, ys, xs)
            end
        end
        place = w + ((k[1] - 1) * K2 + k[2] - 1) * K3 + k[3]
        @inbounds for o in 1:O, i in 1:I
            W[place + ((o - 1) * g.inputs + i - 1) * places] += total(sums[o][i])
        end
    end
    return nothing
end

# The results, along one dimension, whose kernel's place lies inside the image.
@inline see_image(shift, stride, image, result) =
    max(0, cld(-shift, stride)):min(result - 1, fld(image - 1 - shift, stride))
