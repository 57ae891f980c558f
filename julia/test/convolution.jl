using Pyjlode: convolve!, convolve_transposed!, convolve_weights!, max_pool!, max_pool_backward!
using Pyjlode: lanes, rows_convolve!, rows_convolve_transposed!, rows_convolve_weights!

# Row-major tensors are Julia arrays with their dimensions reversed: (w, h, d, channel, batch).
function direct(x, w, groups, stride, padding, dilation, result)
    outputs, inputs = size(w, 5) ÷ groups, size(w, 4)
    y = zeros(eltype(x), reverse(result)..., size(w, 5), size(x, 5))
    for o in CartesianIndices(y), c in 1:inputs, k in CartesianIndices(size(w)[1:3])
        at = (o.I[1:3] .- 1) .* reverse(stride) .- reverse(padding) .+
             (k.I .- 1) .* reverse(dilation) .+ 1
        all(1 .<= at .<= size(x)[1:3]) || continue
        group = (o[4] - 1) ÷ outputs
        y[o] += w[k.I..., c, o[4]] * x[at..., group * inputs + c, o[5]]
    end
    return y
end

const CONVOLUTIONS = (
    # batch, groups, outputs, inputs, image, kernel, stride, padding, dilation
    (2, 1, 4, 3, (1, 1, 7), (1, 1, 3), (1, 1, 1), (0, 0, 1), (1, 1, 1)),
    (2, 1, 2, 3, (1, 5, 6), (1, 3, 2), (1, 2, 1), (0, 1, 1), (1, 1, 2)),
    (1, 2, 2, 1, (3, 4, 5), (2, 3, 3), (1, 1, 2), (1, 0, 2), (1, 1, 1)),
    (3, 1, 5, 1, (1, 4, 4), (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1)),
    (1, 1, 1, 1, (1, 1, 2), (1, 1, 2), (1, 1, 1), (0, 0, 3), (1, 1, 1)),
    (2, 1, 1, 6, (1, 1, 4), (1, 1, 4), (1, 1, 1), (0, 0, 0), (1, 1, 1)),
)

@testset "convolution $T $c" for T in (Float32, Float64), c in CONVOLUTIONS
    batch, groups, outputs, inputs, image, kernel, stride, padding, dilation = c
    result = (image .+ 2 .* padding .- dilation .* (kernel .- 1) .- 1) .÷ stride .+ 1
    x = randn(T, reverse(image)..., groups * inputs, batch)
    w = randn(T, reverse(kernel)..., inputs, groups * outputs)
    v = randn(T, reverse(result)..., groups * outputs, batch)
    integers = (
        batch, groups, outputs, inputs, image..., kernel..., result..., stride..., padding...,
        dilation...,
    )
    scratch = fill(T(NaN), inputs * prod(kernel) * prod(result) + 1)
    y, gx, gw = (fill(T(NaN), length(z) + 2) for z in (v, x, w))
    convolve!(y, 2, vec(x), 0, vec(w), 0, scratch, 1, integers...)
    convolve_transposed!(gx, 2, vec(v), 0, vec(w), 0, scratch, 1, integers...)
    convolve_weights!(gw, 2, vec(v), 0, vec(x), 0, scratch, 1, integers...)
    expected = direct(x, w, groups, stride, padding, dilation, result)
    @test y[3:end] ≈ vec(expected)
    # Convolution is linear in each argument: its adjoints have the same scalar product.
    @test sum(gx[3:end] .* vec(x)) ≈ sum(v .* expected) rtol = sqrt(eps(T)) atol = sqrt(eps(T))
    @test sum(gw[3:end] .* vec(w)) ≈ sum(v .* expected) rtol = sqrt(eps(T)) atol = sqrt(eps(T))
    other = randn(T, size(x)...)
    @test sum(gx[3:end] .* vec(other)) ≈
          sum(v .* direct(other, w, groups, stride, padding, dilation, result)) rtol =
        sqrt(eps(T)) atol = sqrt(eps(T))
    @test (@allocated convolve!(y, 2, vec(x), 0, vec(w), 0, scratch, 1, integers...)) < 1000
end

# Of rows the numbers lie side by side.
by_rows(x, rows) = vec(permutedims(reshape(x, :, rows)))
by_batch(x, rows) = vec(permutedims(reshape(x, rows, :)))

@testset "convolution of rows, $T $c" for T in (Float32, Float64), c in CONVOLUTIONS
    batch, groups, outputs, inputs, image, kernel, stride, padding, dilation = c
    block = lanes(T)
    rows, n = block * batch, block - 3
    result = (image .+ 2 .* padding .- dilation .* (kernel .- 1) .- 1) .÷ stride .+ 1
    rest = (
        groups, outputs, inputs, image..., kernel..., result..., stride..., padding..., dilation...
    )
    # A row's images follow each other, so that a batch of rows is one of rows times images.
    x = randn(T, groups * inputs * prod(image) * rows)
    v = randn(T, groups * outputs * prod(result) * rows)
    v[(length(v) ÷ block * n + 1):end] .= 0 # rows that do not count
    w = randn(T, groups * outputs * inputs * prod(kernel))
    scratch = fill(T(NaN), inputs * prod(kernel) * prod(result))
    y, gx, gw = similar(v), similar(x), similar(w)
    convolve!(y, 0, x, 0, w, 0, scratch, 0, rows, rest...)
    convolve_transposed!(gx, 0, v, 0, w, 0, scratch, 0, rows, rest...)
    convolve_weights!(gw, 0, v, 0, x, 0, scratch, 0, rows, rest...)
    room = length(x) + length(v) + 4 * length(w) + 1
    found, found_x, found_w = (fill(T(NaN), 2 + length(z)) for z in (y, gx, gw))
    found_w .= 1 # what is there already
    X, V = by_rows(x, block), by_rows(v, block)
    rows_convolve!(found, 2, X, 0, w, 0, fill(T(NaN), room), 1, batch, rest..., block)
    @test by_batch(found[3:end], block) ≈ y
    rows_convolve_transposed!(found_x, 2, V, 0, w, 0, fill(T(NaN), room), 1, batch, rest..., block)
    @test by_batch(found_x[3:end], block) ≈ gx
    for i in n:(block - 1)
        V[(i + 1):block:end] .= NaN # copies of the last row, in truth
    end
    rows_convolve_weights!(found_w, 2, V, 0, X, 0, fill(T(NaN), room), 1, batch, rest..., n, block)
    @test found_w[3:end] .- 1 ≈ gw rtol = 100sqrt(eps(T)) atol = 100eps(T)
end

@testset "max pooling" begin
    x = Float64[1, 5, 2, 0, 7, 3, 4, 4, 1]
    integers = (1, 1, 1, 1, 1, 3, 3, 1, 2, 2, 1, 2, 2, 1, 1, 1, 0, 0, 0, 1, 1, 1)
    y = zeros(8)
    max_pool!(y, 0, x, 0, integers...)
    @test y == [7, 7, 7, 7, 4, 4, 4, 4]
    g = fill(NaN, 9)
    max_pool_backward!(g, 0, [1.0, 2, 3, 4], 0, y, 4, 1, 9, 4)
    @test g == [0, 0, 0, 0, 10, 0, 0, 0, 0]
    x[5] = NaN
    max_pool!(y, 0, x, 0, integers...)
    @test all(isnan, y[1:4])
end
