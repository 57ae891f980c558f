"""Operations that Julia code can be generated for; importing this fills the table."""

from . import (
    arithmetic,
    complex,
    convolution,
    fourier,
    indexing,
    linalg,
    memory,
    ordering,
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
    "indexing",
    "is_covered",
    "linalg",
    "literal",
    "memory",
    "ordering",
    "plain_name",
    "products",
    "reductions",
    "resampling",
    "views",
]
