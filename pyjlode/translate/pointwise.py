"""Element-wise operations: one line an operation, ATen's name and the Julia expression.

``{0}``, ``{1}``, ... are the arguments, each a floating point scalar of the model's type or a
truth value. The functions called live in ``julia/src/elementary.jl``; unlike Julia's own they
return NaN outside their domain, as torch's do.
"""

from __future__ import annotations

ARITHMETIC = {
    "aten.neg": "-{0}",
    "aten.abs": "abs({0})",
    "aten.sign": "sign({0})",
    "aten.sgn": "sign({0})",
    "aten.reciprocal": "inv({0})",
    "aten.square": "{0} * {0}",
    "aten.sqrt": "nsqrt({0})",
    "aten.rsqrt": "inv(nsqrt({0}))",
    "aten.exp": "vexp({0})",
    "aten.exp2": "exp2({0})",
    "aten.expm1": "vexpm1({0})",
    "aten.log": "vlog({0})",
    "aten.log1p": "vlog1p({0})",
    "aten.log2": "nlog2({0})",
    "aten.log10": "nlog10({0})",
    "aten.sin": "nsin({0})",
    "aten.cos": "ncos({0})",
    "aten.tan": "ntan({0})",
    "aten.asin": "nasin({0})",
    "aten.acos": "nacos({0})",
    "aten.atan": "atan({0})",
    "aten.atan2": "atan({0}, {1})",
    "aten.sinh": "sinh({0})",
    "aten.cosh": "cosh({0})",
    "aten.tanh": "vtanh({0})",
    "aten.asinh": "asinh({0})",
    "aten.acosh": "nacosh({0})",
    "aten.atanh": "natanh({0})",
    "aten.sigmoid": "sigmoid({0})",
    "aten.erf": "verf({0})",
    "aten.erfc": "erfc({0})",
    "aten.relu": "relu({0})",
    "aten.floor": "floor({0})",
    "aten.ceil": "ceil({0})",
    "aten.trunc": "trunc({0})",
    "aten.round": "round({0})",
    "aten.maximum": "nmax({0}, {1})",
    "aten.minimum": "nmin({0}, {1})",
    "aten.fmod": "nrem({0}, {1})",
    "aten.remainder": "nmod({0}, {1})",
    "aten.hypot": "hypot({0}, {1})",
    "aten.fmax": "fmaximum({0}, {1})",
    "aten.fmin": "fminimum({0}, {1})",
    "aten.copysign": "copysign({0}, {1})",
    "aten.floor_divide": "floor_divide({0}, {1})",
    "aten.gcd": "on_integers(gcd, {0}, {1})",
    "aten.bitwise_left_shift": "on_integers(shift_left, {0}, {1})",
    "aten.bitwise_right_shift": "on_integers(shift_right, {0}, {1})",
}

SPECIAL = {
    "aten.lgamma": "lgamma({0})",
    "aten.digamma": "digamma({0})",
    "aten.special_zeta": "zeta({0}, {1})",
    "aten.erfinv": "erfinv({0})",
}

COMPARISON = {
    "aten.eq": "{0} == {1}",
    "aten.ne": "{0} != {1}",
    "aten.lt": "{0} < {1}",
    "aten.le": "{0} <= {1}",
    "aten.gt": "{0} > {1}",
    "aten.ge": "{0} >= {1}",
    "aten.isnan": "isnan({0})",
    "aten.isinf": "isinf({0})",
    "aten.isfinite": "isfinite({0})",
    "aten.signbit": "signbit({0})",
}

# Of truth values; a number counts as whether it differs from zero.
LOGIC = {
    "aten.logical_not": "!{0}",
    "aten.logical_and": "{0} & {1}",
    "aten.logical_or": "{0} | {1}",
    "aten.logical_xor": "xor({0}, {1})",
}

# Of truth values, and of integers bit by bit.
BITWISE = {
    "aten.bitwise_and": "&",
    "aten.bitwise_or": "|",
    "aten.bitwise_xor": "xor",
}
