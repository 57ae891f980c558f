# Solvers by name.

const EXPLICIT = Dict{String,Any}(
    "Euler" => Euler, "Midpoint" => Midpoint, "Heun" => Heun, "RK4" => RK4, "BS3" => BS3,
    "DP5" => DP5, "Tsit5" => Tsit5, "Vern6" => Vern6, "Vern7" => Vern7, "Vern8" => Vern8,
    "Vern9" => Vern9,
)
const IMPLICIT = Dict{String,Any}(
    "Rosenbrock23" => Rosenbrock23, "Rodas4" => Rodas4, "Rodas5P" => Rodas5P,
)

# By method, the one that makes its gradient's solves, where that is another.
const BACKWARD = Dict{String,String}()

# Methods whose interpolation is worse than their steps.
const STEPS_ONTO_SAVE_POINTS = Set{String}()

"""
    load(method, package, backward, interpolates)

Load a method's package where it is not there from the start, as it takes a second or two. It must
be a call of its own: a function that runs already does not see methods that were loaded after it
began. `"AutoTsit5(Rosenbrock23)"` is a method that switches to the one in brackets, whose package
is meant, while the problem is stiff. `backward` is the method of the continuous adjoints' solves;
`interpolates` says whether states within a step are as good as those at its end.
"""
function load(method, package, backward, interpolates)
    name = String(method)
    BACKWARD[name] = String(backward)
    Bool(interpolates) || push!(STEPS_ONTO_SAVE_POINTS, name)
    load_algorithm(name, package)
    return nothing
end

function load_algorithm(name, package)
    (haskey(EXPLICIT, name) || haskey(IMPLICIT, name)) && return nothing
    package = String(package)
    loaded = Base.require(Base.identify_package(Pyjlode, package))
    if haskey(TORCHDIFFEQ, name)
        EXPLICIT[name] = explicit_rk(loaded, TORCHDIFFEQ[name])
    elseif endswith(name, ')')
        outer, inner = split(chop(name), '(')
        load_algorithm(inner, package) # what else is said is of the switching method
        IMPLICIT[name] = switching(String(outer), IMPLICIT[inner])
    else
        constructor = getglobal(loaded, Symbol(name))
        explicit = Base.invokelatest(is_explicit, constructor)
        (explicit ? EXPLICIT : IMPLICIT)[name] =
            package == "OrdinaryDiffEqSDIRK" ? Base.invokelatest(checked, loaded, constructor) :
            serial(name, constructor)
        takes_velocity = package == "OrdinaryDiffEqRKN" || name == "VelocityVerlet"
        if takes_velocity || package == "OrdinaryDiffEqSymplecticRK"
            PARTITIONED[name] = takes_velocity
        end
    end
    return nothing
end

"""
    load_extensions(backwards=false)

Load the packages that have an extension of ours, as far as they are installed: the first time that
compiles them, in the minutes that the first solves with them would take else. Of two processes, of
which one goes backwards, each compiles what the other has not.
"""
function load_extensions(backwards=false)
    for name in sort!(collect(keys(weak_dependencies())); rev=Bool(backwards))
        package = weak_dependency(name)
        Base.locate_package(package) === nothing || Base.require(package)
    end
    return nothing
end

weak_dependencies() = Base.parsed_toml(joinpath(pkgdir(Pyjlode), "Project.toml"))["weakdeps"]
weak_dependency(name) = Base.PkgId(Base.UUID(weak_dependencies()[name]), name)

is_explicit(constructor) = !OrdinaryDiffEqCore.isimplicit(constructor())

# Some methods run their stages in threads unless told not to: a model's memory is for one.
function serial(name, constructor)
    threaded = startswith(name, "KuttaPRK") || occursin("Extrapolation", name) ||
        name in ("AitkenNeville", "PDIRK44")
    return threaded ? (; options...) -> constructor(; threading=false, options...) : constructor
end

"""
    MeasuredRate

For the Newton iteration of the SDIRK methods: every stage is to measure how fast it converges.

OrdinaryDiffEqNonlinearSolve 2.0.1 stops after one iteration where a rate of earlier stages promises
enough. That rate falls from stage to stage while iterations are exact, below 1e-10, and is believed
still when they are not, with another step or beyond a kink; and these methods start their stages
from zero, so that what is left over may be many tolerances.
"""
struct MeasuredRate end

# A first iteration never suffices by its rate, and the second one's is its own.
function measure_rate!(newton)
    newton.iter == 1 && (newton.prev_θ = 1)
    newton.iter == 2 && (newton.prev_θ = 0)
    return nothing
end

"""
    checked(package, constructor)

The constructor of an SDIRK method whose Newton iteration and error estimate are as they should be.

OrdinaryDiffEqSDIRK 2.7.1 smooths the estimate `e` of a step by `(I / (γ dt) - J) \\ e`, where Hosea
and Shampine, Analysis and implementation of TR-BDF2, 1996, have `(I - γ dt J) \\ e`. That is `γ dt`
times as much: too little by orders of magnitude for short steps, which were too long so (errors of
6000 tolerances at `rtol=1e-7` on an oscillator, TRBDF2), and too much for long ones. Without the
smoothing, steps are as many within some percent as with the right one.
"""
function checked(package, constructor)
    smooth = hasproperty(constructor(), :smooth_est) ? (; smooth_est=false) : (;)
    nlsolve = package.NLNewton(; relax=MeasuredRate())
    return (; options...) -> constructor(; nlsolve, smooth..., options...)
end

const SWITCHING = Dict(
    "AutoTsit5" => AutoTsit5, "AutoDP5" => AutoDP5, "AutoVern6" => AutoVern6,
    "AutoVern7" => AutoVern7, "AutoVern8" => AutoVern8, "AutoVern9" => AutoVern9,
)
switching(name, stiff) = (; options...) -> SWITCHING[name](stiff(; options...))

# Runge-Kutta methods that only torchdiffeq has: the rows of a, then b, the embedded b, and orders.
const TORCHDIFFEQ = Dict(
    "rk4" => ([[1 / 3], [-1 / 3, 1], [1, -1, 1]], [1, 3, 3, 1] ./ 8, nothing, (4, 0)),
    "heun3" => ([[1 / 3], [0, 2 / 3]], [1, 0, 3] ./ 4, nothing, (3, 0)),
    "fehlberg2" => (
        [[1 / 2], [1 / 256, 255 / 256]], [1 / 512, 255 / 256, 1 / 512],
        [1 / 256, 255 / 256, 0], (2, 1),
    ),
)

function explicit_rk(package, (rows, b, embedded, (order, adaptiveorder)))
    n = length(b)
    a = zeros(n, n)
    for (i, row) in enumerate(rows), (j, x) in enumerate(row)
        a[i + 1, j] = x
    end
    αEEst = something(embedded, Float64[])
    tableau = OrdinaryDiffEqCore.DiffEqBase.ExplicitRKTableau(
        a, vec(sum(a; dims=2)), b, order; adaptiveorder, αEEst
    )
    return () -> package.ExplicitRK(; tableau)
end

is_implicit(method::String) = haskey(IMPLICIT, method)

# Jacobians are supplied, but for the backsolve adjoint's, whose equation is not linear: finite
# differences there, as functions behind a FunctionWrapper take no dual numbers.
function algorithm(method::String, problem=nothing)
    is_implicit(method) || return EXPLICIT[method]()
    sparse = problem !== nothing && problem.f.jac_prototype isa SparseMatrixCSC
    sparse || return IMPLICIT[method](; autodiff=AutoFiniteDiff())
    return IMPLICIT[method](; autodiff=AutoFiniteDiff(), linsolve=KLUFactorization())
end

# Gradients of an implicit method's solve come from Rodas5P, forward and backward. The adjoint of a
# stiff problem jumps at every save point, and the fast part of a jump dies within one step.
# Gradients are made from interpolations of such steps, and those of the SDIRK methods, Hermite's,
# can be wrong by orders of magnitude where every step is right; the multistep methods restart at
# every save point. Rodas5P has an interpolation of its own for stiff problems. For explicit
# methods without a tableau, `load` is told which method is to stand in.
backward_method(method::String) =
    get(() -> is_implicit(method) ? "Rodas5P" : method, BACKWARD, method)

# The steps of these must be of one length throughout.
needs_even_steps(method::String) = occursin(r"^ABM?\d", method)
