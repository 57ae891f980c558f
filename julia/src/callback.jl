# Callback mode: a right-hand side that could not be translated stays in Python and is called from
# the solve. Slow, and right.

"""
    callback_model(kind, value, pull, states, parameters)

A model of two Python functions: `value(du, u, p, t)` writes the derivative into `du`, and
`pull(which, out, v, u, p, t)` a vector-Jacobian product into `out`, with respect to the state
(`which` = 0), the parameters (1) or time (2).
"""
function callback_model(kind, value::Py, pull::Py, states, parameters)
    T = kind == "float32" ? Float32 : Float64
    vjp_t = VectorJacobian{T}(PythonPull(pull, 2))
    return Model{T}(
        RightHandSide{T}(PythonValue(value)),
        VectorJacobian{T}(PythonPull(pull, 0)),
        VectorJacobian{T}(PythonPull(pull, 1)),
        JointVectorJacobian{T}(PythonPullBoth(pull)),
        vjp_t, RightHandSide{T}(TimeGradient(vjp_t, Int(states))),
        SecondDerivative{T}(no_derivative),
        Int(states), Int(parameters), true, true, T[], nothing, nothing, Dict{Symbol,Any}(),
        Model{T}[], nothing, nothing,
    )
end

struct PythonValue <: Function
    f::Py
end
(c::PythonValue)(du, u, p, t) = (call_python(c.f, du, u, p, t); nothing)

struct PythonPull <: Function
    f::Py
    which::Int
end
(c::PythonPull)(out, v, u, p, t) = (call_python(c.f, c.which, out, v, u, p, t); nothing)

struct PythonPullBoth <: Function
    f::Py
end

function (c::PythonPullBoth)(g, gp, v, u, p, t)
    call_python(c.f, 0, g, v, u, p, t)
    call_python(c.f, 1, gp, v, u, p, t)
    return nothing
end

"Whether any function of a model is Python's."
function calls_python(model::Model)
    model.value.f isa PythonValue && return true
    model.split === nothing && return false
    return calls_python(model.split.stiff) || calls_python(model.split.nonstiff)
end
calls_python(::Nothing) = false
calls_python(settings::Settings) = settings.norm.f !== nothing
calls_python(_) = true # a function of the caller's

"`f()`, during which Python's other threads run if none of `parts` calls a Python function."
beside_python(f::F, parts...) where {F} = any(calls_python, parts) ? f() : without_gil(f)
