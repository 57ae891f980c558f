# Memory that dropped solves hold.
#
# Julia collects what is young often and cheaply, and all of it only when memory runs short: tapes and
# solutions that lived through a few solves stay for gigabytes.

# Bytes that may be held beyond twice those in use.
const ALLOWANCE = 1 << 29
const LIMIT = Ref(ALLOWANCE)

"""
    collect_when_due()

Collect garbage if more is held than was in use after the last collection of all, and give what the
system's allocator keeps back to the system.
"""
function collect_when_due()
    Base.gc_live_bytes() > LIMIT[] || return nothing
    GC.gc(false)
    Base.gc_live_bytes() > LIMIT[] || return nothing
    # What has a finalizer goes with the collection after the one that finds it.
    GC.gc(true)
    GC.gc(true)
    LIMIT[] = ALLOWANCE + 2 * Base.gc_live_bytes()
    give_memory_back()
    return nothing
end

# Of the C libraries only glibc keeps much, and can be asked.
function give_memory_back()
    Sys.islinux() || return nothing
    try
        ccall(:malloc_trim, Cint, (Csize_t,), 0)
    catch # another C library
    end
    return nothing
end
