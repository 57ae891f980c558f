# Sparsity patterns of Jacobians.

"""
    Pattern(structure, colors)
    Pattern(n)

Which elements of a Jacobian can differ from zero, and a colour for each row. Rows of one colour
share no column, so that one product shows all of them (Curtis, Powell and Reid, 1974).
`Pattern(n)` is a full matrix.

# Fields
- `structure`: the pattern
- `seeds`: the rows of each colour
- `entries`: for each colour, the row and column of each of its elements, its place among the
  nonzeros of the Jacobian, and its place among those of the transpose
"""
struct Pattern
    structure::SparseMatrixCSC{Bool,Int}
    seeds::Vector{Vector{Int}}
    entries::Vector{Vector{NTuple{4,Int}}}
end

"""
    compressed_pattern(colptr, rowval, colors)

A pattern from compressed columns and colours, all counted from zero.
"""
function compressed_pattern(colptr, rowval, colors)
    n = length(colors)
    rows = Vector{Int}(rowval) .+ 1
    structure = SparseMatrixCSC(n, n, Vector{Int}(colptr) .+ 1, rows, fill(true, length(rows)))
    return Pattern(structure, Vector{Int}(colors) .+ 1)
end

Pattern(n::Int) = Pattern(sparse(trues(n, n)), collect(1:n))

function Pattern(structure::SparseMatrixCSC{Bool,Int}, colors::Vector{Int})
    count = maximum(colors; init=0)
    seeds = [Int[] for _ in 1:count]
    entries = [NTuple{4,Int}[] for _ in 1:count]
    for (row, color) in enumerate(colors)
        push!(seeds[color], row)
    end
    (; m, n, colptr, rowval) = structure
    places = SparseMatrixCSC(m, n, colptr, rowval, collect(1:length(rowval)))
    transposed = invperm(nonzeros(sparse(transpose(places))))
    for column in 1:n, place in nzrange(structure, column)
        row = rowval[place]
        push!(entries[colors[row]], (row, column, place, transposed[place]))
    end
    return Pattern(structure, seeds, entries)
end

# The pattern with the entries of another matrix too, of which no product with the Jacobian tells.
function with_entries(pattern::Pattern, matrix::SparseMatrixCSC)
    (; structure, seeds, entries) = pattern
    filled = SparseMatrixCSC(
        matrix.m, matrix.n, matrix.colptr, matrix.rowval, fill(true, length(matrix.rowval))
    )
    whole = Pattern(structure .| filled, ones(Int, size(structure, 1)))
    places = Dict((e[1], e[2]) => e for e in only(whole.entries))
    return Pattern(whole.structure, seeds, [[places[(e[1], e[2])] for e in c] for c in entries])
end

# States from which a Jacobian with few nonzeros is a sparse matrix. Below, a dense factorization is as
# quick; KLU has no float32.
const SPARSE = 128

function is_sparse(pattern::Pattern, ::Type{T}) where {T}
    n = size(pattern.structure, 1)
    return T === Float64 && n >= SPARSE && nnz(pattern.structure) <= n^2 ÷ 10
end

prototype(pattern::Pattern, ::Type{T}, n::Int) where {T} =
    is_sparse(pattern, T) && n == size(pattern.structure, 1) ?
    SparseMatrixCSC{T,Int}(pattern.structure) : zeros(T, n, n)

transposed(J::Matrix) = J
transposed(J::SparseMatrixCSC) = sparse(transpose(J))

# An element of a Jacobian, or of its negative transpose.
put!(J::Matrix, entry, value) = (J[entry[1], entry[2]] = value; nothing)
put!(J::SparseMatrixCSC, entry, value) = (nonzeros(J)[entry[3]] = value; nothing)
put_adjoint!(J::Matrix, entry, value) = (J[entry[2], entry[1]] = -value; nothing)
put_adjoint!(J::SparseMatrixCSC, entry, value) = (nonzeros(J)[entry[4]] = -value; nothing)

clear!(J::Matrix) = fill!(J, zero(eltype(J)))
clear!(J::SparseMatrixCSC) = fill!(nonzeros(J), zero(eltype(J)))
