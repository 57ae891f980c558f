"""Parts of the Julia half that are loaded, with the packages they need, when first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from ..runtime import julia_error

if TYPE_CHECKING:
    from .julia import JuliaEngine


def require(engine: JuliaEngine, extension: str, packages: Mapping[str, str], what: str) -> Any:
    """A package extension, by its module's name, after the packages (name and UUID) it waits for.

    ``what`` is what they are for.

    Raises
    ------
    UnsupportedError
        If Julia's environment has them not, or not in a version that fits.
    """
    seval = engine.runtime.main.seval
    by_id = "(name, uuid) -> let id = Base.PkgId(Base.UUID(uuid), name); {} end"
    has = seval(by_id.format("Base.locate_package(id) !== nothing"))
    load = seval(by_id.format("Base.require(id); nothing"))
    for name, uuid in packages.items():
        if not has(name, uuid):
            raise UnsupportedError(
                f"Julia has no {name}, which {what} need; `pyjlode setup` installs it, or add it "
                "to your environment."
            )
        try:
            load(name, uuid)
        except julia_error() as error:
            raise UnsupportedError(
                f"{name}, which {what} need, does not load in your Julia environment: "
                f"{str(error).splitlines()[0]}"
            ) from error
    found = seval("name -> Base.get_extension(Pyjlode, Symbol(name))")(extension)
    if found is None:
        raise UnsupportedError(
            f"{', '.join(packages)} in your Julia environment do not fit this pyjlode; `pyjlode "
            "setup` installs those that do."
        )
    return found
