# Solves that tell Python of each step.

using OrdinaryDiffEqCore: handle_tstop!, handle_tstop_step!, loopfooter!, loopheader!,
    perform_step!, postamble!

run!(integrator, ::Nothing) = solve!(integrator)
run!(integrator, watch::Py) = watched!(integrator, watch)

"""
    watched!(integrator, watch)

`solve!`, with `watch(what, t, u, dt)` called as torchdiffeq calls its callbacks: `"step"` before
each attempt at a step, then `"accept"` or `"reject"`, all with the state, the time and the length
at its start. The loop is OrdinaryDiffEq's.
"""
function watched!(integrator, watch::Py)
    (; opts) = integrator
    while !isempty(opts.tstops)
        stop = first(opts.tstops)
        while integrator.t < stop
            loopheader!(integrator)
            code = SciMLBase.check_error!(integrator)
            successful_retcode(code) || return integrator.sol
            t, dt, u = integrator.t, integrator.dt, copy(integrator.uprev)
            call_python(watch, "step", t, u, dt)
            last = integrator.next_step_tstop
            last ? handle_tstop_step!(integrator) : perform_step!(integrator, integrator.cache)
            loopfooter!(integrator)
            accepted = !opts.adaptive || integrator.accept_step
            call_python(watch, accepted ? "accept" : "reject", t, u, dt)
            (isempty(opts.tstops) || last) && break
        end
        handle_tstop!(integrator)
    end
    postamble!(integrator)
    (; sol) = integrator
    sol.retcode == SciMLBase.ReturnCode.Default || return sol
    return integrator.sol = SciMLBase.solution_new_retcode(sol, SciMLBase.ReturnCode.Success)
end
