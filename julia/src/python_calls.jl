# The entry points as juliacall calls them, compiled with the package: their arguments are numpy's
# arrays, which do not exist yet.

"""
    precompile_calls(functions...)

What juliacall does at a call of each of the functions; for [`forward_handed`](@ref) compiling that
takes a second. The names are PythonCall's own, and another version may not have them.
"""
function precompile_calls(functions...)
    isdefined(PythonCall.JlWrap, :pyjlany_call) || return nothing
    for f in functions
        precompile(PythonCall.JlWrap.pyjlany_call, (Core.Typeof(f), Py, Py))
    end
    return nothing
end

precompile_calls(
    Settings, address_table, backward_handed, backward_projected, compressed_pattern, evaluate,
    evaluate_vjp, examine, follow, forward_handed, forward_projected, forward_rows_handed, generate,
    hits, initialize, initialize_back!, interpolate, load, load_steady, retcode, sensitivity,
    set_constants!, settings, steady_state, steps, versions, with_mass, with_split,
)

# And what becomes of the arguments.
if isdefined(PythonCall.Convert, :pyconvert_fix)
    (; pyconvert_fix, pyconvert_rule_bool, pyconvert_rule_float, pyconvert_rule_int) =
        PythonCall.Convert
    for convert in (
        pyconvert_fix(Bool, pyconvert_rule_bool), pyconvert_fix(Float64, pyconvert_rule_float),
        pyconvert_fix(Integer, pyconvert_rule_int),
        pyconvert_fix(PyArray, PythonCall.Wrap.pyconvert_rule_array_nocopy),
    )
        precompile(convert, (Py,))
    end
end

const NumpyVector{T} = PyArray{T,1,true,true,T}
const Integers = NumpyVector{Int}
for T in (Float64, Float32)
    V, W = NumpyVector{T}, NumpyVector{Float64}
    precompile(forward_rows_handed, (Model{T}, Settings, String, Int))
    precompile(
        follow,
        (Model{T}, Settings, V, V, Float64, Float64, Model{T}, V, Integers, Integers, W),
    )
    precompile(backward_handed, (SolvedRows{T}, DiscreteAdjoint, Settings))
    precompile(set_constants!, (Model{T}, V))
    precompile(evaluate, (Model{T}, V, V, V, Float64))
    precompile_routines(T)
end
precompile(load, (String, String, String, Bool))
