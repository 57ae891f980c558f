"""The route by which juliapkg installs the Julia side, as far as it can be tried offline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pyjlode import methods, runtime
from pyjlode.install import packages_code
from pyjlode.steady_state import METHODS as STEADY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(runtime.__file__).parent
LISTED = json.loads((PACKAGE / "juliapkg.json").read_text())["packages"]
PROJECT = tomllib.loads((runtime.julia_package() / "Project.toml").read_text())
#: Those of the extensions are loaded with the first use.
NEEDED = PROJECT["deps"] | PROJECT["weakdeps"]
STANDARD = {"LinearAlgebra", "Random", "SparseArrays"}


def test_the_list_is_the_julia_package_s() -> None:
    """Name, UUID and bounds; PythonCall is juliacall's own to list."""
    expected = {
        name: {"uuid": uuid, "version": PROJECT["compat"][name]}
        for name, uuid in NEEDED.items()
        if name not in STANDARD | {"PythonCall"}
    }
    assert expected == {name: LISTED[name] for name in expected}
    # The others are what these use, whose releases broke each other.
    others = set(LISTED) - set(expected)
    assert "OrdinaryDiffEqDifferentiation" in others


def test_juliapkg_reads_it() -> None:
    """With its own parser, together with juliacall's list."""
    from juliapkg.compat import Compat
    from juliapkg.deps import find_requirements

    compat, packages = find_requirements()
    assert compat is not None
    found = {p.name: p for p in packages}
    for name, entry in LISTED.items():
        assert found[name].uuid == entry["uuid"]
        assert Compat.parse(entry["version"])
    from semver import Version

    assert Version.parse("1.10.9") in Compat.parse(PROJECT["compat"]["julia"])


@pytest.fixture(scope="module")
def loaded() -> dict[str, tuple[str, str]]:
    """UUID and version of the packages that Julia really loaded."""
    main = runtime.start().main
    # Packages that are loaded on demand, each by one of its methods.
    for method in {m.package: m for m in methods() if m.julia}.values():
        main.Pyjlode.load(method.algorithm, method.package, method.backward, method.interpolates)
    for name in STEADY:
        main.Pyjlode.load_steady(name)
    main.Pyjlode.load_extensions()
    code = """
    Dict(k.name => (string(k.uuid), string(something(pkgversion(m), VERSION)))
         for (k, m) in Base.loaded_modules if k.uuid !== nothing)
    """
    return {str(k): (str(v[0]), str(v[1])) for k, v in main.seval(code).items()}


def test_loaded_packages_fit(julia: str, loaded: dict[str, tuple[str, str]]) -> None:
    from juliapkg.compat import Compat
    from semver import Version

    bounds = {name: (uuid, PROJECT["compat"][name]) for name, uuid in NEEDED.items()}
    bounds |= {name: (entry["uuid"], entry["version"]) for name, entry in LISTED.items()}
    for name, (uuid, admitted) in bounds.items():
        found, version = loaded[name]
        assert found == uuid, name
        assert Version.parse(version) in Compat.parse(admitted), (name, version)


def test_code_that_adds_the_packages(julia: str, loaded: dict[str, tuple[str, str]]) -> None:
    """Julia reads it: the versions that are loaded are among those that it asks for."""
    code = packages_code().replace("Pkg.add(", "identity(")
    source = runtime.start().source
    names = (*LISTED, "PythonCall")
    versions = ", ".join(f'"{name}" => v"{loaded[name][1]}"' for name in names)
    shown = f"""
    found = Dict({versions})
    foreach(s -> println(s.name, " ", found[s.name] in s.version), x)
    """
    done = subprocess.run(
        [source.exe, "--startup-file=no", "-e", f"x = begin\n{code}\nend\n{shown}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = [f"{name} true" for name in names]
    assert done.stdout.splitlines() == expected, done.stderr


def test_julia_s_resolver_accepts_it(
    julia: str, loaded: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    """A registry in a folder with one version of each package, and Pkg's resolver on our list."""
    registry = tmp_path / "Registry"
    entries = []
    for name in (*LISTED, "PythonCall"):
        uuid, version = loaded[name]
        folder = registry / name
        folder.mkdir(parents=True)
        (folder / "Package.toml").write_text(
            f'name = "{name}"\nuuid = "{uuid}"\nrepo = "https://example.invalid/{name}.git"\n'
        )
        (folder / "Versions.toml").write_text(f'["{version}"]\ngit-tree-sha1 = "{"0" * 40}"\n')
        (folder / "Compat.toml").write_text('[0]\njulia = "1.10-1"\n')
        entries.append(f'{uuid} = {{ name = "{name}", path = "{name}" }}')
    (registry / "Registry.toml").write_text(
        'name = "Temporary"\nuuid = "11111111-2222-3333-4444-555555555555"\n'
        'repo = "https://example.invalid/r.git"\n[packages]\n' + "\n".join(entries) + "\n"
    )
    source = runtime.start().source
    code = f"""
    import Pkg
    registry = Pkg.Registry.RegistryInstance(raw"{registry}")
    list = {json.dumps(dict(LISTED)).replace("{", "Dict(").replace("}", ")").replace(": ", " => ")}
    specs = [Pkg.Types.PackageSpec(name=n, uuid=Base.UUID(d["uuid"]),
        version=Pkg.Types.semver_spec(d["version"])) for (n, d) in list]
    env = Pkg.Types.EnvCache()
    _, deps = Pkg.Operations.resolve_versions!(
        env, [registry], specs, VERSION, false)
    for s in specs
        println(s.name, " ", s.version)
    end
    """

    def resolve(code: str) -> subprocess.CompletedProcess:
        project = tmp_path / "project"
        project.mkdir(exist_ok=True)
        (project / "Project.toml").touch()
        return subprocess.run(
            [source.exe, "--startup-file=no", f"--project={project}", "-e", code],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = resolve(code)
    assert done.returncode == 0, done.stderr
    chosen = dict(line.split() for line in done.stdout.strip().splitlines())
    for name in LISTED:
        assert chosen[name] == loaded[name][1]
    # And it refuses bounds that no version meets: the resolver really looked.
    wanted = LISTED["SciMLSensitivity"]["version"]
    refused = resolve(code.replace(f'"version" => "{wanted}"', '"version" => "99"', 1))
    assert refused.returncode != 0
    assert "SciMLSensitivity" in refused.stderr
