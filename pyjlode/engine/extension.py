"""Extensions of the Julia package: what needs packages that are loaded with the first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from ..runtime import julia_error

if TYPE_CHECKING:
    from .julia import JuliaEngine

_loaded: dict[str, Any] = {}


def load(engine: JuliaEngine, name: str, packages: Mapping[str, str], what: str) -> Any:
    """An extension's module, with its packages; Julia runs once a process, and so does this.

    Parameters
    ----------
    engine : JuliaEngine
    name : str
        The extension's, as in ``julia/Project.toml``.
    packages : mapping of str to str
        The packages that it is for, with their UUIDs.
    what : str
        What needs them, for the message.

    Raises
    ------
    UnsupportedError
        If Julia's environment lacks one of them, or has versions that do not fit.
    """
    if name in _loaded:
        return _loaded[name]
    seval = engine.runtime.main.seval
    require = seval("(name, uuid) -> (Base.require(Base.PkgId(Base.UUID(uuid), name)); nothing)")
    for package, uuid in packages.items():
        try:
            require(package, uuid)
        except julia_error() as error:
            raise UnsupportedError(
                f"Julia has no {package}, which {what} need; `pyjlode setup` installs it, or add "
                "it to your environment."
            ) from error
    found = seval("name -> Base.get_extension(Pyjlode, Symbol(name))")(name)
    if found is None:
        raise UnsupportedError(
            f"{', '.join(packages)} in your Julia environment do not fit this pyjlode; `pyjlode "
            "setup` installs those that do."
        )
    _loaded[name] = found
    return found
