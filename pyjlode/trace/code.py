"""What a piece of Python code reads by name, from its bytecode.

A function's behaviour rests on the globals, the attributes and the closed-over variables that its
code loads. Names that it stores into, counts up or appends to are not read: their values reach no
result.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Calls by which code can reach attributes whose names it does not spell.
_DYNAMIC = {
    "__dict__", "__getattribute__", "__getstate__", "__reduce__", "__reduce_ex__", "asdict",
    "astuple", "attrgetter", "copy", "deepcopy", "dir", "dumps", "fields", "getattr_static",
    "getmembers", "methodcaller", "replace", "vars",
}  # fmt: skip
_BY_NAME = {"getattr", "hasattr"}

# By these a module's parts are reached without their names.
_MEMBERS = {
    "_buffers", "_modules", "_parameters", "buffers", "children", "functional_call", "get_buffer",
    "get_parameter", "get_submodule", "modules", "named_buffers", "named_children",
    "named_modules", "named_parameters", "parameters", "stack_module_state", "state_dict",
}  # fmt: skip

# What these read cannot be told.
_OPAQUE = {
    "__builtins__", "__globals__", "__import__", "_getframe", "compile", "currentframe", "eval",
    "exec", "f_globals", "f_locals", "get_objects", "globals", "import_module", "input", "locals",
    "open",
}  # fmt: skip

_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"}
_VARIABLE = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
_FILLERS = {"CACHE", "EXTENDED_ARG", "NOP", "NOT_TAKEN", "PRECALL", "RESUME"}
_CONSTANT = {"LOAD_CONST", "LOAD_SMALL_INT"}
_SHUFFLES = {
    "COPY", "DUP_TOP", "DUP_TOP_TWO", "LOAD_DEREF", "LOAD_FAST", "LOAD_FAST_BORROW", "ROT_THREE",
    "ROT_TWO", "SWAP",
}  # fmt: skip
_STORES = {"STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF", "STORE_NAME"}

# Methods that change a container of Python's own and give nothing.
_CHANGES = {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "update"}


@dataclass(frozen=True)
class Names:
    """What code reads, itself and in the functions inside it.

    Attributes
    ----------
    globals, attributes, variables : frozenset of str
        Names of globals, of attributes of anything, and of closed-over variables.
    changed : frozenset of str
        Names of any of these kinds that the code changes the contents of and reads nowhere.
    imports : tuple of (int, str)
        Modules that it imports: the level of a relative import, and the name.
    opaque : str
        What of it hides other reads, such as ``globals``; empty if nothing does.
    dynamic : bool
        Whether it may read attributes by names that it does not spell.
    members : bool
        Whether it may reach parts of modules so.
    compares : bool
        Whether it compares for equality.
    """

    globals: frozenset[str]
    attributes: frozenset[str]
    variables: frozenset[str]
    changed: frozenset[str]
    imports: tuple[tuple[int, str], ...]
    opaque: str
    dynamic: bool
    members: bool
    compares: bool


# By identity, with the code itself: to hash one takes longer than to compare a few.
_known: dict[int, tuple[types.CodeType, Names]] = {}


def names_of(code: types.CodeType) -> Names:
    """What ``code`` reads.

    Examples
    --------
    >>> def step(self, t, y):
    ...     self.count += 1
    ...     self.log.append(1)
    ...     self.last = y
    ...     return -self.rate * y
    >>> found = names_of(step.__code__)
    >>> sorted(found.attributes), sorted(found.changed)
    (['append', 'rate'], ['log'])
    """
    known = _known.get(id(code))
    if known is not None:
        return known[1]
    found = _look(code)
    if len(_known) > 8192:  # functions made anew all the time
        _known.clear()
    _known[id(code)] = (code, found)
    return found


def _look(code: types.CodeType) -> Names:
    found: dict[str, set[str]] = {"global": set(), "attribute": set(), "variable": set()}
    changed: set[str] = set()
    imports: list[tuple[int, str]] = []
    compares = dynamic = False
    for part in _parts(code):
        steps = [i for i in dis.get_instructions(part) if i.opname not in _FILLERS]
        for place, step in enumerate(steps):
            name, kind = step.argval, _kind(step.opname)
            compares = compares or _compares(step)
            if step.opname == "IMPORT_NAME":
                imports.append((_level(steps, place), str(name)))
            if name in _BY_NAME and kind is not None:
                spelled_there = _name_given(steps, place)
                dynamic = dynamic or spelled_there is None
                found["attribute"].add(spelled_there or name)
            if kind is None or _is_counter(steps, place):
                continue
            if _changes_only(steps, place):
                changed.add(name)
            else:
                found[kind].add(name)
    if "@py_builtins" in found["global"]:  # pytest writes these into an assert, for its message
        found["global"] -= {"@py_builtins", "@pytest_ar"}
        found["attribute"].discard("locals")
    spelled = found["global"] | found["attribute"]
    return Names(
        globals=frozenset(found["global"] | (changed - found["attribute"])),
        attributes=frozenset(found["attribute"]),
        variables=frozenset(found["variable"]),
        changed=frozenset(changed - spelled - found["variable"]),
        imports=tuple(imports),
        opaque=min(spelled & _OPAQUE, default=""),
        dynamic=dynamic or bool(spelled & _DYNAMIC),
        members=bool(spelled & _MEMBERS),
        compares=compares,
    )


def _parts(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _parts(constant)


def _kind(operation: str) -> str | None:
    if operation in _ATTRIBUTE:
        return "attribute"
    if operation in _GLOBAL:
        return "global"
    return "variable" if operation in _VARIABLE else None


def _compares(step: dis.Instruction) -> bool:
    text = str(step.argrepr)
    return step.opname == "CONTAINS_OP" or (
        step.opname == "COMPARE_OP" and ("==" in text or "!=" in text)
    )


def _name_given(steps: Sequence[dis.Instruction], place: int) -> str | None:
    """The name in ``getattr(x, "name")``; None where it is not a constant."""
    for step in steps[place + 1 :]:
        if step.opname in _CONSTANT and isinstance(step.argval, str):
            return step.argval
        if "CALL" in step.opname:
            return None
    return None


def _level(steps: Sequence[dis.Instruction], place: int) -> int:
    """Of a relative import: the constant that is loaded two places before."""
    level = steps[place - 2].argval if place >= 2 else 0
    return level if isinstance(level, int) else 0


def _is_counter(steps: Sequence[dis.Instruction], place: int) -> bool:
    """Whether what is loaded has a constant added and is stored where it was, and no more."""
    rest = steps[place + 1 : place + 7]
    if len(rest) < 3 or rest[0].opname not in _CONSTANT or not _is_arithmetic(rest[1]):
        return False
    for step in rest[2:]:
        if step.opname in _STORES:
            return bool(step.argval == steps[place].argval)
        if step.opname not in _SHUFFLES:
            return False
    return False


def _is_arithmetic(step: dis.Instruction) -> bool:
    name = step.opname
    if name == "BINARY_OP":
        return "[" not in str(step.argrepr)
    return name.startswith(("BINARY_", "INPLACE_")) and name != "BINARY_SUBSCR"


def _changes_only(steps: Sequence[dis.Instruction], place: int) -> bool:
    """Whether what is loaded is appended to, or counted up at a constant place of it."""
    rest = steps[place + 1 : place + 12]
    if rest and rest[0].opname in _ATTRIBUTE and rest[0].argval in _CHANGES:
        return True
    if not rest or rest[0].opname not in _CONSTANT:
        return False
    rest = [s for s in rest[1:] if s.opname not in _SHUFFLES]
    if len(rest) < 4 or not _is_subscript(rest[0]) or rest[1].opname not in _CONSTANT:
        return False
    return _is_arithmetic(rest[2]) and rest[3].opname == "STORE_SUBSCR"


def _is_subscript(step: dis.Instruction) -> bool:
    return step.opname == "BINARY_SUBSCR" or (
        step.opname == "BINARY_OP" and "[" in str(step.argrepr)
    )
