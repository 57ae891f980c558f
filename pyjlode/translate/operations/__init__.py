"""Operations that Julia code can be generated for; importing this fills the table."""

from . import (
    arithmetic,
    complex,
    convolution,
    fourier,
    linalg,
    memory,
    products,
    reductions,
    resampling,
    views,
)
from .table import TABLE, assign, in_place, is_covered, literal, plain_name

__all__ = [
    "TABLE",
    "arithmetic",
    "assign",
    "complex",
    "convolution",
    "fourier",
    "in_place",
    "is_covered",
    "linalg",
    "literal",
    "memory",
    "plain_name",
    "products",
    "reductions",
    "resampling",
    "views",
]
