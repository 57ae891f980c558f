# Products of matrices that lie in flat vectors, at offsets and with strides counted from zero.

"""
    matmul!(C, c, A, a, B, b, batch, m, n, k, A_batch, A_row, A_column, B_batch, B_row, B_column)

`C[i] = A[i] * B[i]` for `batch` pairs of an `m × k` and a `k × n` matrix, `C` row-major from
offset `c`. Of each matrix's row and column stride, one is 1.
"""
function matmul!(
    C::Vector{T}, c::Int, A::Vector{T}, a::Int, B::Vector{T}, b::Int,
    batch::Int, m::Int, n::Int, k::Int,
    A_batch::Int, A_row::Int, A_column::Int, B_batch::Int, B_row::Int, B_column::Int,
) where {T}
    for i in 0:(batch - 1)
        start = c + i * m * n
        if is_small(m, n, k)
            small_product!(
                C, start, A, a + i * A_batch, B, b + i * B_batch,
                m, n, k, A_row, A_column, B_row, B_column,
            )
        else
            blas_product!(
                C, start, A, a + i * A_batch, B, b + i * B_batch,
                m, n, k, A_row, A_column, B_row, B_column,
            )
        end
    end
    return nothing
end

# Where the call of BLAS costs more than the product: below some hundred operations, and for one or
# two rows, which BLAS takes no advantage of, up to some thousands.
is_small(m::Int, n::Int, k::Int) = m * n * k <= (m <= 2 ? 8192 : 128)

function small_product!(C, c, A, a, B, b, m, n, k, A_row, A_column, B_row, B_column)
    T = eltype(C)
    @inbounds if B_column == 1
        for i in 0:(m - 1)
            row = c + i * n
            @simd ivdep for j in 1:n
                C[row + j] = zero(T)
            end
            for l in 0:(k - 1)
                x = A[a + 1 + i * A_row + l * A_column]
                @simd ivdep for j in 0:(n - 1)
                    C[row + 1 + j] = muladd(x, B[b + 1 + l * B_row + j], C[row + 1 + j])
                end
            end
        end
    else
        for i in 0:(m - 1), j in 0:(n - 1)
            s = zero(T)
            @simd for l in 0:(k - 1)
                s = muladd(A[a + 1 + i * A_row + l * A_column], B[b + 1 + l + j * B_column], s)
            end
            C[c + 1 + i * n + j] = s
        end
    end
    return nothing
end

# BLAS is column-major: row-major C is C', and C' = B' * A'. The product is added to `beta * C`.
function blas_product!(
    C, c, A, a, B, b, m, n, k, A_row, A_column, B_row, B_column, beta=zero(eltype(C))
)
    # The stride of a dimension of length one can be any; BLAS checks it against the other's length.
    first_flag, first_stride = B_column == 1 ? ('N', max(B_row, n)) : ('T', max(B_column, k))
    second_flag, second_stride = A_column == 1 ? ('N', max(A_row, k)) : ('T', max(A_column, m))
    gemm!(
        first_flag, second_flag, n, m, k, B, b, first_stride, A, a, second_stride, C, c, n, beta,
    )
    return nothing
end

for (T, routine) in ((Float64, :dgemm_), (Float32, :sgemm_))
    @eval function gemm!(
        flag_A::Char, flag_B::Char, m::Int, n::Int, k::Int,
        A::Vector{$T}, a::Int, A_stride::Int, B::Vector{$T}, b::Int, B_stride::Int,
        C::Vector{$T}, c::Int, C_stride::Int, beta::$T,
    )
        GC.@preserve A B C ccall(
            (BLAS.@blasfunc($routine), BLAS.libblastrampoline), Cvoid,
            (
                Ref{UInt8}, Ref{UInt8}, Ref{BLAS.BlasInt}, Ref{BLAS.BlasInt}, Ref{BLAS.BlasInt},
                Ref{$T}, Ptr{$T}, Ref{BLAS.BlasInt}, Ptr{$T}, Ref{BLAS.BlasInt},
                Ref{$T}, Ptr{$T}, Ref{BLAS.BlasInt}, Clong, Clong,
            ),
            flag_A, flag_B, m, n, k,
            one($T), pointer(A, a + 1), max(1, A_stride), pointer(B, b + 1), max(1, B_stride),
            beta, pointer(C, c + 1), max(1, C_stride), 1, 1,
        )
        return nothing
    end
end

"""
    fill_range!(x, start, count, value)

Set `count` elements of `x` from index `start`.
"""
function fill_range!(x::Vector, start::Int, count::Int, value)
    @inbounds for i in start:(start + count - 1)
        x[i] = value
    end
    return nothing
end
