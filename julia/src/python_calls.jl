# The entry points as juliacall calls them, compiled with the package: their arguments are numpy's
# arrays, which do not exist yet.

# The names are PythonCall's own. Where another version has not all of them, what they do is compiled
# when it is first done.
function if_defined(f)
    try
        f()
    catch error
        error isa UndefVarError || rethrow()
    end
    return nothing
end

"""
    precompile_calls(functions...)

What juliacall does at a call of each of the functions: for [`forward_handed`](@ref) that takes a
second to compile.
"""
function precompile_calls(functions...)
    if_defined() do
        for f in functions
            precompile(PythonCall.JlWrap.pyjlany_call, (Core.Typeof(f), Py, Py))
        end
    end
    return nothing
end

"""
    precompile_entry_points()

What Python calls in every session. Packages that come later can make some of it void, which is then
compiled again with the extension that loads them.
"""
function precompile_entry_points()
    precompile_calls(
        Settings, address_table, backward_handed, backward_projected, compressed_pattern, evaluate,
        evaluate_vjp, examine, follow, forward_handed, forward_projected, forward_rows_handed,
        generate, hits, initialize, initialize_back!, interpolate, load, load_steady, retcode,
        sensitivity, set_constants!, settings, steady_state, steps, versions, with_mass, with_split,
    )
    precompile_conversions()
    for T in (Float64, Float32)
        precompile_solves(T)
    end
    precompile(load, (String, String, String, Bool))
    return nothing
end

# What becomes of the arguments and of what is returned.
function precompile_conversions()
    if_defined() do
        (; pyconvert_fix, pyconvert_rule_bool, pyconvert_rule_float, pyconvert_rule_int) =
            PythonCall.Convert
        for (T, rule) in (
            (Bool, pyconvert_rule_bool), (Float64, pyconvert_rule_float),
            (Integer, pyconvert_rule_int),
            (PyArray, PythonCall.Wrap.pyconvert_rule_array_nocopy),
        )
            precompile(pyconvert_fix(T, rule), (Py,))
        end
        (; _pyjl_callmethod, _pyjl_dealloc, _pyjl_new) = PythonCall.JlWrap.Cjl
        pointer = Ptr{PythonCall.C.PyObject}
        precompile(_pyjl_callmethod, (pointer, pointer))
        precompile(_pyjl_new, (pointer, pointer, pointer))
        precompile(_pyjl_dealloc, (pointer,))
        precompile(PythonCall.JlWrap.pyjlany_getattr, (Module, Py))
        for T in (Float64, Float32)
            precompile(Py, (Model{T},))
        end
    end
    return nothing
end

const NumpyVector{T} = PyArray{T,1,true,true,T}
const Integers = NumpyVector{Int}

function precompile_solves(::Type{T}) where {T}
    V, W = NumpyVector{T}, NumpyVector{Float64}
    precompile(forward_rows_handed, (Model{T}, Settings, String, Int))
    precompile(
        follow,
        (Model{T}, Settings, V, V, Float64, Float64, Model{T}, V, Integers, Integers, W),
    )
    precompile(backward_handed, (SolvedRows{T}, DiscreteAdjoint, Settings))
    precompile(set_constants!, (Model{T}, V))
    precompile(evaluate, (Model{T}, V, V, V, Float64))
    precompile(compressed_pattern, (Integers, Integers, Integers))
    precompile_routines(T)
    return nothing
end

precompile_entry_points()
