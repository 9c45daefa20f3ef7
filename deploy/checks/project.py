"""What pyproject.toml says: version, commands, extras and all that an extra brings in directly."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


@dataclass(frozen=True)
class Project:
    """The parts of pyproject.toml that containers and manifests refer to."""

    name: str
    version: str
    requires_python: SpecifierSet
    dependencies: tuple[Requirement, ...]
    extras: dict[str, tuple[Requirement, ...]]
    commands: frozenset[str]

    @classmethod
    def read(cls, root: Path) -> "Project":
        """Of the repository at `root`."""
        document = tomllib.loads((root / "pyproject.toml").read_text())
        project = document["project"]
        return cls(
            name=project["name"],
            version=project["version"],
            requires_python=SpecifierSet(project["requires-python"]),
            dependencies=tuple(map(Requirement, project["dependencies"])),
            extras={
                extra: tuple(map(Requirement, requirements))
                for extra, requirements in project["optional-dependencies"].items()
            },
            commands=frozenset(project["entry-points"][f"{project['name']}.commands"]),
        )

    def requirements_of(self, extra: str) -> list[Requirement]:
        """Of the project with that extra, extras of extras followed; the project itself is not among them."""
        found = list(self.dependencies)
        seen = set()
        open_extras = [extra]
        while open_extras:
            name = open_extras.pop()
            if name in seen:
                continue
            seen.add(name)
            for requirement in self.extras[name]:
                if canonicalize_name(requirement.name) == self.name:
                    open_extras.extend(requirement.extras)
                else:
                    found.append(requirement)
        return found
