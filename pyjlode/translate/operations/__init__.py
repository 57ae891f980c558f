"""Operations that Julia code can be generated for; importing this fills the table."""

from . import arithmetic, indexing, memory, ordering, products, reductions, views
from .table import TABLE, in_place, is_covered, literal, plain_name

__all__ = [
    "TABLE",
    "arithmetic",
    "in_place",
    "indexing",
    "is_covered",
    "literal",
    "memory",
    "ordering",
    "plain_name",
    "products",
    "reductions",
    "views",
]
