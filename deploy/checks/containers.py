"""Holds the container files to hadolint, to pyproject.toml and to each other."""

import json
import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from checks.project import Project
from checks.tools import findings_of

PINNED_BASE = re.compile(r"python:(\d+\.\d+\.\d+)-slim-[a-z]+")
WITHOUT_TORCH = ("scorer-cpu", "scorer-gpu")
"""Container files whose images hold no torch."""
CATALOG_EXTRA = "postgresql"
"""What a server takes beside its own extra, to share a state with others."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of a container file, continuation lines joined."""

    keyword: str
    argument: str

    def words(self) -> list[str]:
        """The argument's words: those of the JSON form, or as a shell would split them, options left out."""
        if self.argument.startswith("["):
            return [str(word) for word in json.loads(self.argument)]
        return [word for word in shlex.split(self.argument) if not word.startswith("--")]


@dataclass(frozen=True)
class ContainerFile:
    """A parsed container file."""

    path: Path
    instructions: tuple[Instruction, ...]

    @classmethod
    def read(cls, path: Path) -> "ContainerFile":
        """Parses the file."""
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
        split = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
        return cls(path, tuple(Instruction(keyword.upper(), rest.strip()) for keyword, _, rest in split))

    @property
    def name(self) -> str:
        """`scorer-cpu` for deploy/scorer-cpu.Dockerfile."""
        return self.path.name.removesuffix(".Dockerfile")

    def arguments_of(self, keyword: str) -> list[Instruction]:
        """The instructions of one keyword in the last stage, which is what the image holds."""
        last_from = max(i for i, found in enumerate(self.instructions) if found.keyword == "FROM")
        return [found for found in self.instructions[last_from:] if found.keyword == keyword]

    def bases(self) -> list[str]:
        """The images that its stages start from."""
        return [found.words()[0] for found in self.instructions if found.keyword == "FROM"]

    def extras(self, project: Project) -> list[str]:
        """The extras of the project that its pip lines name."""
        wheel = re.escape(project.name)
        runs = " ".join(found.argument for found in self.instructions if found.keyword == "RUN")
        named = re.findall(rf"{wheel}(?:-\*\.whl\))?\[([^\]]*)\]", runs)
        return [extra.strip() for group in named for extra in group.split(",")]

    def command(self) -> list[str]:
        """What is run where nothing else is said, after the entry point."""
        return [word for found in self.arguments_of("CMD") for word in found.words()]

    def serves(self) -> bool:
        """Whether that is a server."""
        return self.command()[:1] == ["serve"]

    def user(self) -> str | None:
        """What the image runs as, `uid:gid`."""
        users = self.arguments_of("USER")
        return users[-1].argument if users else None


def read_all(root: Path) -> list[ContainerFile]:
    """Every container file, by name."""
    return [ContainerFile.read(path) for path in sorted((root / "deploy").glob("*.Dockerfile"))]


def problems_of(root: Path) -> list[str]:
    """All that is wrong with the container files of the repository at `root`."""
    files = read_all(root)
    if not files:
        return ["deploy: no container file (*.Dockerfile) found"]
    paths = [str(file.path.relative_to(root)) for file in files]
    problems = findings_of("hadolint", ["--no-color", *paths], directory=root)
    project = Project.read(root)
    pins = _pins(root)
    for file, path in zip(files, paths, strict=True):
        found = [
            *_base_problems(file, project),
            *_runtime_problems(file, project),
            *_extra_problems(file, project, pins),
            *_state_problems(file),
            *_copy_problems(file, root),
        ]
        problems.extend(f"{path}: {problem}" for problem in found)
    if len(bases := {base for file in files for base in file.bases()}) > 1:
        problems.append(
            f"deploy: the container files start from different images: {', '.join(sorted(bases))}"
        )
    return problems


def _base_problems(file: ContainerFile, project: Project) -> list[str]:
    problems = []
    for base in file.bases():
        pinned = PINNED_BASE.fullmatch(base)
        if pinned is None:
            problems.append(f"base image {base} is not pinned as python:X.Y.Z-slim-<release>")
        elif pinned[1] not in project.requires_python:
            problems.append(f"base image {base} is not the Python{project.requires_python} of pyproject.toml")
    return problems


def _runtime_problems(file: ContainerFile, project: Project) -> list[str]:
    problems = []
    user = file.user()
    if user is None or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
        problems.append(f"USER is {user}; expected numbers other than 0, uid:gid, in the last stage")
    if not file.arguments_of("HEALTHCHECK"):
        problems.append("no HEALTHCHECK in the last stage; HEALTHCHECK NONE where there is nothing to ask")
    if [stop.argument for stop in file.arguments_of("STOPSIGNAL")] != ["SIGTERM"]:
        problems.append("STOPSIGNAL is not SIGTERM, on which the server drains")
    entry = [word for found in file.arguments_of("ENTRYPOINT") for word in found.words()]
    command = file.command()
    if entry != [project.name] or not command or command[0] not in project.commands:
        problems.append(f"it runs {[*entry, *command]}; expected {project.name} and one of its commands")
    ports = [port for found in file.arguments_of("EXPOSE") for port in found.words()]
    listens = [word.rpartition(":")[2] for option, word in pairwise(command) if option == "--listen"]
    if ports != listens:
        problems.append(f"it exposes {ports}, but its command listens on {listens}")
    for check in file.arguments_of("HEALTHCHECK"):
        asked = re.findall(r":(\d+)\"", check.argument)
        if asked != listens:
            problems.append(f"HEALTHCHECK asks port {asked}, but the command listens on {listens}")
    return problems


def _extra_problems(file: ContainerFile, project: Project, pins: dict[str, str]) -> list[str]:
    extras = file.extras(project)
    if not extras:
        return [f"no pip line installs {project.name} with an extra"]
    problems = [f"pyproject.toml has no extra {extra!r}" for extra in extras if extra not in project.extras]
    if file.serves() and CATALOG_EXTRA not in extras:
        problems.append(
            f"it serves, but lacks extra {CATALOG_EXTRA!r}, which several servers on one state need"
        )
    for extra in extras:
        requirements = project.requirements_of(extra) if extra in project.extras else []
        if file.name in WITHOUT_TORCH and any(requirement.name == "torch" for requirement in requirements):
            problems.append(f"extra {extra!r} brings torch into an image that is to hold none")
        problems.extend(
            problem for requirement in requirements if (problem := _pin_problem(requirement, pins))
        )
    return problems


def _state_problems(file: ContainerFile) -> list[str]:
    """A server's state is a volume that its user may write to, also on a read-only root file system."""
    if not file.serves():
        return []
    volumes = [volume for found in file.arguments_of("VOLUME") for volume in found.words()]
    states = [word for option, word in pairwise(file.command()) if option == "--state"]
    if not states or states != volumes:
        return [f"--state is {states}, but its volumes are {volumes}; expected the same one"]
    owner, _, group = (file.user() or "").partition(":")
    made = f"install --directory --owner={owner} --group={group} {states[0]}"
    if not any(made in found.argument for found in file.arguments_of("RUN")):
        return [f"{states[0]} is not made for USER {file.user()}; expected: {made}"]
    return []


def _pin_problem(requirement: Requirement, pins: dict[str, str]) -> str | None:
    pin = pins.get(canonicalize_name(requirement.name))
    if pin is None:
        return f"constraints.txt does not pin {requirement.name}, which it installs"
    if pin not in requirement.specifier:
        return f"constraints.txt pins {requirement.name} to {pin}, but pyproject.toml asks for {requirement}"
    return None


def _pins(root: Path) -> dict[str, str]:
    """Versions by canonical name, from constraints.txt."""
    lines = (root / "deploy" / "constraints.txt").read_text().splitlines()
    pins = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in pins}


def _copy_problems(file: ContainerFile, root: Path) -> list[str]:
    """What is copied from the repository must be there, and .dockerignore must let it through."""
    lines = (root / ".dockerignore").read_text().splitlines()
    let_through = [Path(line[1:]) for line in lines if line.startswith("!")]
    problems = []
    for copy in file.instructions:
        if copy.keyword != "COPY" or "--from=" in copy.argument:
            continue
        for source in map(Path, copy.words()[:-1]):
            if not (root / source).exists():
                problems.append(f"COPY {source}: there is no such file")
            elif not any(source.is_relative_to(kept) or kept.is_relative_to(source) for kept in let_through):
                problems.append(f"COPY {source}: .dockerignore keeps it out of the build")
    return problems
