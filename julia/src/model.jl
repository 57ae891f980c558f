# A model: the functions generated from one torch function, behind types that never change.

"`f!(du, u, p, t)` on flat vectors."
const RightHandSide{T} = Wrapped{Tuple{Vector{T},Vector{T},Vector{T},Float64}}

"`vjp!(g, v, u, p, t)`: `g = vᵀ ∂f/∂(u, p or t)` on flat vectors."
const VectorJacobian{T} = Wrapped{Tuple{Vector{T},Vector{T},Vector{T},Vector{T},Float64}}

"`vjp!(g, gp, v, u, p, t)`: the products for `u` and for `p` at once."
const JointVectorJacobian{T} =
    Wrapped{Tuple{Vector{T},Vector{T},Vector{T},Vector{T},Vector{T},Float64}}

"""
`vjp_jvp!(g, gp, v, k, u, p, t)`: the gradient of `v · (∂f/∂u k + s ∂f/∂t)`, where `k` ends with
`s` and `g` with the derivative with respect to `t`.
"""
const SecondDerivative{T} = Wrapped{
    Tuple{Vector{T},Vector{T},Vector{T},Vector{T},Vector{T},Vector{T},Float64}
}

# Comes after `Model`, see split.jl.
abstract type AbstractSplit{T} end

"""
    Model{T}

The right-hand side of an ODE and its vector-Jacobian products, for states of element type `T`.

# Fields
- `value`, `vjp`, `vjp_p`, `vjp_both`, `vjp_t`, `tgrad`, `vjp_jvp`: the functions; those that were not asked for do nothing
- `states`, `parameters`: lengths of `u` and `p`
- `has_derivatives`, `depends_on_time`: which of the functions can give anything but zero
- `constants`: numbers that the functions read and that need no gradient
- `pattern`: the sparsity of the Jacobian; `nothing` where it was not looked for
- `batch`: the functions for some rows of the state; `nothing` where rows depend on each other
- `functions`: what stands behind the wrappers; none where it calls Python, or is of rows
- `replicas`: the same model for further threads, see [`replicas`](@ref)
- `mass`: what stands before the derivative; `nothing` for the identity
- `split`: the parts of which the right-hand side is the sum, see [`Split`](@ref); or `nothing`
"""
struct Model{T}
    value::RightHandSide{T}
    vjp::VectorJacobian{T}
    vjp_p::VectorJacobian{T}
    vjp_both::JointVectorJacobian{T}
    vjp_t::VectorJacobian{T}
    tgrad::RightHandSide{T}
    vjp_jvp::SecondDerivative{T}
    states::Int
    parameters::Int
    has_derivatives::Bool
    depends_on_time::Bool
    constants::Vector{T}
    pattern::Union{Nothing,Pattern}
    batch::Union{Nothing,Batch{T}}
    functions::Dict{Symbol,Any}
    replicas::Vector{Model{T}}
    mass::Union{Nothing,Mass{T}}
    split::Union{Nothing,AbstractSplit{T}}
end

# A generated function with the memory that it works in.
struct Generated{F,T} <: Function
    f::F
    constants::Vector{T}
    workspace::Vector{T}
end
(g::Generated)(du, u, p, t) = g.f(du, u, p, t, g.constants, g.workspace)
(g::Generated)(out, v, u, p, t) = g.f(out, v, u, p, t, g.constants, g.workspace)
(g::Generated)(out, out_p, v, u, p, t) = g.f(out, out_p, v, u, p, t, g.constants, g.workspace)
(g::Generated)(out, out_p, v, k, u, p, t) =
    g.f(out, out_p, v, k, u, p, t, g.constants, g.workspace)

# ∂f/∂t element by element, where only its products with vectors were generated.
struct TimeGradient{T} <: Function
    vjp_t::VectorJacobian{T}
    seed::Vector{T}
    value::Vector{T}
end
TimeGradient(vjp_t::VectorJacobian{T}, states::Int) where {T} =
    TimeGradient{T}(vjp_t, zeros(T, states), zeros(T, 1))

function (g::TimeGradient{T})(du, u, p, t) where {T}
    for i in eachindex(g.seed)
        g.seed[i] = one(T)
        g.vjp_t(g.value, g.seed, u, p, t)
        g.seed[i] = zero(T)
        du[i] = g.value[1]
    end
    return nothing
end

no_derivative(arguments...) = nothing

"""
    generate(kind, source, states, parameters, constants, workspace, depends_on_time, pattern, rows)

Compile the Julia source of a model. `kind` is `"float32"` or `"float64"`; `source` defines
`value`; where the model has derivatives, `vjp`, `vjp_p`, `vjp_both` and `vjp_t`; for implicit methods
`tgrad`, and for the discrete adjoint of some `vjp_jvp`. `constants` and `workspace` are lengths.
Where the functions are of some rows, `rows` has the number of rows, of those computed at a time, and
of the operations that one takes.
"""
function generate(
    kind, source, states, parameters, constants, workspace, depends_on_time, pattern, rows
)
    return generate(
        kind == "float32" ? Float32 : Float64, String(source), Int(states), Int(parameters),
        Int(constants), Int(workspace), Bool(depends_on_time), pattern, Tuple{Vararg{Int}}(rows),
    )
end

function generate(
    ::Type{T}, source::String, states::Int, parameters::Int, constants::Int, workspace::Int,
    depends_on_time::Bool, pattern::Union{Nothing,Pattern}=nothing, rows::Tuple{Vararg{Int}}=(),
) where {T}
    c = zeros(T, constants)
    w = Vector{T}(undef, isempty(rows) ? workspace : 0)
    # Of `Any`: each function is of a new type, for which a container that narrows its element type
    # would be compiled again, in more time than the function itself.
    functions = Dict{Symbol,Any}()
    for definition in definitions(Meta.parseall(source).args)
        # Anonymous: names would pile up in the module, one set a model.
        f = Core.eval(Pyjlode, anonymous(definition))
        functions[definition.args[1].args[1]] =
            isempty(rows) ? Generated(f, c, w) : GeneratedRows(f, c)
    end
    isempty(rows) ||
        return assemble_rows(T, functions, states, parameters, depends_on_time, c, rows, workspace)
    return assemble(T, functions, states, parameters, depends_on_time, c, pattern, functions)
end

# All rows' functions, from those of some.
function assemble_rows(
    ::Type{T}, functions, states, parameters, depends_on_time, constants, rows, workspace
) where {T}
    names = (:value, :vjp, :vjp_p, :vjp_both, :vjp_t)
    some = Any[get(functions, name, no_derivative) for name in names]
    batch = Batch{T}(some, states, rows..., workspace)
    whole = Dict{Symbol,Any}(:value => InParts(batch.value, batch))
    if haskey(functions, :vjp)
        whole[:vjp] = InParts(batch.vjp, batch)
        whole[:vjp_p] = InOne(batch.vjp_p, batch)
        whole[:vjp_both] = InOne(batch.vjp_both, batch)
        whole[:vjp_t] = InOne(batch.vjp_t, batch)
    end
    return assemble(
        T, whole, states, parameters, depends_on_time, constants, nothing, Dict{Symbol,Any}(), batch
    )
end

function assemble(
    ::Type{T}, functions::Dict{Symbol,Any}, states, parameters, depends_on_time, constants, pattern,
    replicable::Dict{Symbol,Any}, batch::Union{Nothing,Batch{T}}=nothing,
) where {T}
    found(name, default=no_derivative) = get(functions, name, default)
    vjp_t = VectorJacobian{T}(found(:vjp_t))
    by_products = pattern === nothing ? no_derivative : TimeGradient(vjp_t, states)
    return Model{T}(
        RightHandSide{T}(functions[:value]), VectorJacobian{T}(found(:vjp)),
        VectorJacobian{T}(found(:vjp_p)), JointVectorJacobian{T}(found(:vjp_both)),
        vjp_t, RightHandSide{T}(found(:tgrad, by_products)),
        SecondDerivative{T}(found(:vjp_jvp)),
        states, parameters, haskey(functions, :vjp), depends_on_time, constants, pattern,
        batch, replicable, Model{T}[], nothing, nothing,
    )
end

"""
    replicas(model, count)

At most `count` models that may be used at the same time: `model` itself, and others with
workspaces of their own. It is only the one where the right-hand side is in Python.
"""
function replicas(model::Model{T}, count::Int) where {T}
    isempty(model.functions) && return [model]
    while length(model.replicas) + 1 < count
        workspace = similar(model.functions[:value].workspace)
        functions = Dict{Symbol,Any}(
            name => with_workspace(f, workspace) for (name, f) in model.functions
        )
        (; states, parameters, depends_on_time, constants, pattern) = model
        push!(
            model.replicas,
            assemble(
                T, functions, states, parameters, depends_on_time, constants, pattern, functions
            ),
        )
    end
    return [model; model.replicas[1:(count - 1)]]
end

# Not compiled for every model anew.
with_workspace(@nospecialize(f), workspace) = Generated(f.f, f.constants, workspace)

definitions(expressions) = filter(e -> e isa Expr && e.head === :function, expressions)

function anonymous(definition::Expr)
    call, body = definition.args
    return Expr(:function, Expr(:tuple, call.args[2:end]...), body)
end

"""
    set_constants!(model, values)

Give a model the current values of the tensors that it reads and that need no gradient.
"""
function set_constants!(model::Model{T}, values::PyArray{T}) where {T}
    copyto!(model.constants, plain(values))
    return nothing
end

# Do something with the constants of an earlier solve, after which they are the current ones again.
function with_constants(action::F, model::Model, constants) where {F}
    current = copy(model.constants)
    copyto!(model.constants, constants)
    try
        return action()
    finally
        copyto!(model.constants, current)
    end
end

# What the solvers call. SciML's adjoints pass views of their own states too, which a FunctionWrapper
# would convert to copies, and the result would be lost.
struct OnVectors{T,W} <: Function
    wrapper::W
    OnVectors{T}(wrapper::W) where {T,W} = new{T,W}(wrapper)
end

function (f::OnVectors{T})(du, u, p, t) where {T}
    GC.@preserve du u p begin
        target = as_vector(T, du)
        f.wrapper(target, as_vector(T, u), as_vector(T, p), Float64(t))
        give_back!(du, target)
    end
    return nothing
end

function (f::OnVectors{T})(out, v, u, p, t) where {T}
    GC.@preserve out v u p begin
        target = as_vector(T, out)
        f.wrapper(target, as_vector(T, v), as_vector(T, u), as_vector(T, p), Float64(t))
        give_back!(out, target)
    end
    return nothing
end

vector(::Type{T}, x::Vector{T}) where {T} = x
vector(::Type{T}, x) where {T} = Vector{T}(x)

# The same without a copy where the numbers lie side by side; the caller preserves their array.
const View{T} = SubArray{T,1,Vector{T},<:Tuple{AbstractUnitRange{Int}},true}

as_vector(::Type{T}, x) where {T} = vector(T, x)
as_vector(::Type{T}, x::View{T}) where {T} = unsafe_wrap(Vector{T}, pointer(x), length(x))

give_back!(x, found) = copyto!(x, found)
give_back!(x::Union{Vector{T},View{T}}, ::Vector{T}) where {T} = x

function ode_function(model::Model{T}, implicit::Bool) where {T}
    value = OnVectors{T}(model.value)
    vjp, vjp_p = OnVectors{T}(model.vjp), OnVectors{T}(model.vjp_p)
    implicit || return ODEFunction{true,SciMLBase.FullSpecialize}(value; vjp, vjp_p)
    pattern = jacobian_pattern(model)
    options = (;
        vjp, vjp_p, jac=Jacobian(model, pattern), tgrad=OnVectors{T}(model.tgrad),
        jac_prototype=prototype(pattern, T, model.states),
    )
    model.mass === nothing && return ODEFunction{true,SciMLBase.FullSpecialize}(value; options...)
    return ODEFunction{true,SciMLBase.FullSpecialize}(
        value; options..., mass_matrix=model.mass.matrix
    )
end

# With a mass matrix the initial state is consistent already, see [`initialize`](@ref).
function ode_problem(f, u0, span, p)
    f.mass_matrix isa UniformScaling &&
        return ODEProblem{true,SciMLBase.FullSpecialize}(f, u0, span, p)
    return ODEProblem{true,SciMLBase.FullSpecialize}(
        f, u0, span, p; initializealg=SciMLBase.NoInit()
    )
end

"""
    with_mass(model, M)
    with_mass(model, starts, rows, values)

The model of `M u' = f(u, p, t)`, with the same functions. A matrix smaller than the state counts
for each of its parts of that length. A sparse one is given by its columns' starts, rows and values,
of which places count from zero.
"""
with_mass(model::Model{T}, M::PyArray) where {T} = with_mass(model, Matrix{T}(M))

function with_mass(
    model::Model{T}, starts::PyArray, rows::PyArray, values::PyArray
) where {T}
    n = length(starts) - 1
    places(x) = Vector{Int}(x) .+ 1
    return with_mass(model, SparseMatrixCSC(n, n, places(starts), places(rows), Vector{T}(values)))
end

function with_mass(model::Model{T}, M::AbstractMatrix{T}) where {T}
    mass, pattern = in_blocks(M, model.states ÷ size(M, 1), jacobian_pattern(model))
    return changed(model; mass, pattern)
end

# The same types, so that nothing is compiled anew.
function changed(model::Model{T}; fields...) where {T}
    return Model{T}((get(fields, k, getfield(model, k)) for k in fieldnames(Model))...)
end

"Versions of Julia and of the packages that solve; SciMLSensitivity's as it is installed."
function versions()
    packages = (OrdinaryDiffEqCore, PythonCall)
    found = Dict(string(nameof(m)) => string(pkgversion(m)) for m in packages)
    found["Julia"] = string(VERSION)
    path = Base.locate_package(weak_dependency("SciMLSensitivity"))
    if path !== nothing
        project = Base.parsed_toml(joinpath(dirname(dirname(path)), "Project.toml"))
        found["SciMLSensitivity"] = project["version"]
    end
    return found
end
