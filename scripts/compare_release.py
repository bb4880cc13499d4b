"""Compares a release of CrewAI with the one that the engine was made for: what we rely on that moved, went or changed.

    python scripts/compare_release.py 1.15.31            a release, downloaded with pip
    python scripts/compare_release.py path/to/unpacked   a folder with the packages crewai and crewai_core in it
    python scripts/compare_release.py                    the installed release

`--diff` shows how the text of a changed name differs from the installed release. `--write` makes the release the one
that later comparisons go by, and lists what install() checks. Exits with 1 where something differs.

CrewAI is read, not imported, so a release that does not work with this Python can be compared too. How a new release
gets supported: docs/new-release.md.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NAMES = ROOT / "fastcrew_async" / "install" / "names.py"
SNAPSHOT = Path(__file__).with_name("crewai_release.json")
# What the engine does in CrewAI's place, by our file: where one of these changed, the file may have to follow.
COPIED = Path(__file__).with_name("crewai_copied.json")
PACKAGES = ("crewai", "crewai_core")

# Classes, and one module, whose private attributes the engine reads from objects that it is given.
OWNERS = (
    "crewai.agent.core:Agent",
    "crewai.agents.agent_executor:AgentExecutor",
    "crewai.agents.agent_executor:AgentExecutorState",
    "crewai.crew:Crew",
    "crewai.events.event_bus:CrewAIEventsBus",
    "crewai.events.event_listener:EventListener",
    "crewai.flow.runtime:Flow",
    "crewai.llms.base_llm:BaseLLM",
    "crewai.llms.providers.openai.completion:OpenAICompletion",
    "crewai.memory.encoding_flow:EncodingFlow",
    "crewai.memory.memory_scope:MemoryScope",
    "crewai.memory.recall_flow:RecallFlow",
    "crewai.memory.unified_memory:Memory",
    "crewai.task:Task",
    "crewai.tasks.llm_guardrail:LLMGuardrail",
    "crewai.telemetry.telemetry:Telemetry",
    "crewai.tools.base_tool:Tool",
    "crewai.tools.structured_tool:CrewStructuredTool",
    "crewai.tools.tool_usage:ToolUsage",
    "crewai.utilities.file_store",
    "crewai.utilities.rpm_controller:RPMController",
    "crewai.utilities.task_output_storage_handler:TaskOutputStorageHandler",
)

# Imported when they are first needed, and until then install() looks into their source: what they inherit is not there.
DEFERRED = ("crewai.memory.encoding_flow", "crewai.memory.recall_flow")


@dataclass(frozen=True)
class Found:
    """Where a name is defined, as what, and its text; for a class its own members too."""

    at: str
    kind: str
    text: str
    members: tuple[str, ...] = ()

    def entry(self) -> dict[str, Any]:
        """As the snapshot keeps it."""
        if self.kind == "class":
            return {"at": self.at, "kind": self.kind, "members": list(self.members)}
        if self.kind == "module":
            return {"at": self.at, "kind": self.kind}
        return {"at": self.at, "kind": self.kind, "hash": hashlib.sha256(self.text.encode()).hexdigest()[:16]}


class _Scope:
    """The names of a module's or a class's body, with what defines each."""

    def __init__(self, body: list[ast.stmt], module: str, is_package: bool) -> None:
        self.nodes: dict[str, list[ast.stmt]] = defaultdict(list)
        self.imports: dict[str, tuple[str, str]] = {}
        self._package = module if is_package else module.rpartition(".")[0]
        self._read(body)

    def _read(self, body: Iterable[ast.AST]) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.nodes[node.name].append(node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        self.nodes[target.id].append(node)
            elif isinstance(node, ast.ImportFrom):
                source = node.module or ""
                if node.level:
                    package = self._package.split(".")
                    source = ".".join([*package[: len(package) - node.level + 1], *filter(None, [source])])
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = (source, alias.name)
            elif isinstance(node, (ast.If, ast.Try, ast.With)):
                self._read(ast.iter_child_nodes(node))
            elif isinstance(node, ast.ExceptHandler):
                self._read(node.body)


class Release:
    """CrewAI's source in a folder, looked up by ``module:Class.attribute``."""

    def __init__(self, folder: Path) -> None:
        places = [folder, folder / "src", folder.parent]
        self.folder = next((place for place in places if (place / "crewai" / "__init__.py").is_file()), folder)
        init = self.folder / "crewai" / "__init__.py"
        if not init.is_file():
            raise FileNotFoundError(f"there is no package crewai in {folder}")
        found = re.search(r'^__version__ = "(.+)"', init.read_text(encoding="utf-8"), re.MULTILINE)
        self.version = found[1] if found else "unknown"
        self.find = cache(self._find)
        self._scope = cache(self._read_scope)
        self._lines = cache(self._read_lines)
        self._class = cache(self._read_class)
        self._texts = cache(self._read_texts)

    def has_package(self, name: str) -> bool:
        """Whether the package that `name` is in was given at all."""
        return (self.folder / re.split(r"[.:]", name)[0] / "__init__.py").is_file()

    def is_module(self, name: str) -> bool:
        """Whether there is a module of that name."""
        return self._path(name) is not None

    def places(self, name: str) -> list[str]:
        """Where the last part of a name is defined now, anywhere in CrewAI; three at most."""
        last = re.split(r"[.:]", name)[-1]
        pattern = re.compile(
            rf"^\s*(?:async def|def|class) {re.escape(last)}\b|^\s*(?:self\.)?{re.escape(last)}\s*[:=][^=]", re.M
        )
        return [module for module, text in self._texts().items() if last in text and pattern.search(text)][:3]

    def _read_texts(self) -> dict[str, str]:
        return {
            self._name(path): path.read_text(encoding="utf-8")
            for package in PACKAGES
            for path in sorted((self.folder / package).rglob("*.py"))
        }

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.folder).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _path(self, module: str) -> Path | None:
        base = self.folder.joinpath(*module.split("."))
        return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)

    def _read_lines(self, module: str) -> list[str]:
        path = self._path(module)
        return path.read_text(encoding="utf-8").splitlines() if path else []

    def _read_scope(self, module: str) -> _Scope | None:
        path = self._path(module)
        if path is None:
            return None
        return _Scope(ast.parse("\n".join(self._lines(module))).body, module, path.name == "__init__.py")

    def _find(self, name: str) -> Found | None:
        module, _, path = name.partition(":")
        scope = self._scope(module)
        if scope is None:
            return None
        if not path:
            return Found(module, "module", "")
        first, *rest = path.split(".")
        if first not in scope.nodes:
            source, original = scope.imports.get(first, ("", ""))
            if not source:
                return None
            if self.is_module(f"{source}.{original}"):
                return self.find(":".join(filter(None, [f"{source}.{original}", ".".join(rest)])))
            return self.find(f"{source}:{'.'.join([original, *rest])}")
        if not rest:
            return self._found(module, path, scope.nodes[first])
        node = scope.nodes[first][-1]
        return self._member(module, node, rest) if isinstance(node, ast.ClassDef) and len(rest) == 1 else None

    def _member(self, module: str, cls: ast.ClassDef, rest: list[str]) -> Found | None:
        own, set_by_methods = self._class(module, cls)
        if rest[0] in own.nodes:
            return self._found(module, f"{cls.name}.{rest[0]}", own.nodes[rest[0]])
        if rest[0] in set_by_methods:
            return Found(f"{module}:{cls.name}.{rest[0]}", "attribute", "")
        for base in cls.bases:
            expression = base.value if isinstance(base, ast.Subscript) else base
            if isinstance(expression, ast.Name):
                found = self.find(f"{module}:{expression.id}.{rest[0]}")
                if found is not None:
                    return found
        return None

    def _read_class(self, module: str, cls: ast.ClassDef) -> tuple[_Scope, set[str]]:
        """A class's body, and the attributes that its methods set."""
        stores = {
            node.attr
            for node in ast.walk(cls)
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        }
        return _Scope(cls.body, module, False), stores

    def _found(self, module: str, path: str, nodes: list[ast.stmt]) -> Found:
        texts, members = [], ()
        for node in nodes:  # a property with its setter, overloads
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            texts.append(textwrap.dedent("\n".join(self._lines(module)[first - 1 : node.end_lineno])))
        last = nodes[-1]
        kind = "value"
        if isinstance(last, ast.ClassDef):
            kind, members = "class", tuple(sorted(_Scope(last.body, module, False).nodes))
        elif isinstance(last, (ast.FunctionDef, ast.AsyncFunctionDef)):
            kind = "function"
        return Found(f"{module}:{path}", kind, "\n".join(texts), members)


def relied_on(release: Release, package: Path = ROOT / "fastcrew_async") -> dict[str, set[str]]:
    """Every name of CrewAI that our source imports, takes from what it imported, overrides, or reads as a private
    attribute of an object; with the files that do."""
    names: dict[str, set[str]] = defaultdict(set)
    for file, tree in _sources(package):
        bound = dict(_bound(tree, release))
        for name in (*bound.values(), *_taken(tree, bound, release)):
            names[name].add(file)
    return dict(names)


def _sources(package: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def checked(release: Release, package: Path = ROOT / "fastcrew_async") -> list[str]:
    """What ``fastcrew_async/install/names.py`` has to list: the names that the engine takes from classes and
    modules. That its imports are there shows when they run; what a constructor sets does not show on a class."""
    names = set()
    for file, tree in _sources(package):
        if file.startswith(("engine/", "install/")):
            names.update(_taken(tree, dict(_bound(tree, release)), release))
    lazy = ("crewai.llms.providers.", "crewai.a2a.")  # imported by those who have the package that they need
    found = {name: place for name in names if (place := release.find(name)) and not name.startswith(lazy)}
    return sorted(
        name
        for name, place in found.items()
        if place.kind in ("function", "value") and (place.at == name or name.partition(":")[0] not in DEFERRED)
    )


def _taken(tree: ast.Module, bound: dict[str, str], release: Release) -> Iterator[str]:
    """The names that a module of ours takes from what it imported, and the private ones of what it is given."""
    if not bound:
        return
    private = set()
    of_our_own = _of_our_own(tree, bound)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id in bound:
                yield from _existing(release, bound[node.value.id], node.attr)
            private.add(node.attr if node not in of_our_own else "")
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in bound:
                    for name in (member.name for member in node.body if hasattr(member, "name")):
                        yield from _existing(release, bound[base.id], name)
        elif isinstance(node, ast.Call):
            yield from _by_text(node, bound, release)
            private.update(keyword.arg for keyword in node.keywords if keyword.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            private.add(node.value)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            private.add(node.name if node not in of_our_own else "")
    for name in private:
        if re.fullmatch(r"_[A-Za-z]\w*", name):
            for owner in OWNERS:
                yield from _existing(release, owner, name)


def _bound(tree: ast.Module, release: Release) -> Iterator[tuple[str, str]]:
    """The names by which a module of ours has what is CrewAI's."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield alias.asname or alias.name, full if release.is_module(full) else f"{node.module}:{alias.name}"
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            module = _imported_module(node.value, constants)
            if module:
                yield node.targets[0].id, module


def _of_our_own(tree: ast.Module, bound: dict[str, str]) -> set[ast.AST]:
    """Functions, and attributes of ``self``, in places that cannot be an override of CrewAI's."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    of_crewai = {c.name for c in classes if any(isinstance(b, ast.Name) and b.id in bound for b in c.bases)}
    ours: set[ast.AST] = {node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    for cls in classes:
        if cls.name not in of_crewai:
            for node in ast.walk(cls):
                of_self = (
                    isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
                )
                if of_self or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    ours.add(node)
    return ours


def _imported_module(node: ast.expr, constants: dict[str, Any]) -> str | None:
    """The module of ``import_module(...)``, if it is one of CrewAI's."""
    if (
        not isinstance(node, ast.Call)
        or not node.args
        or ast.unparse(node.func) not in ("import_module", "sys.modules.get")
    ):
        return None
    name = node.args[0]
    value = constants.get(name.id) if isinstance(name, ast.Name) else getattr(name, "value", None)
    return value if isinstance(value, str) and value.split(".")[0] in PACKAGES else None


def _by_text(node: ast.Call, bound: dict[str, str], release: Release) -> Iterator[str]:
    """``Pair.of(Crew, "a", "b")``, ``Patch(..., Crew, "kickoff", ...)``: names given as texts beside their class."""
    texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    for argument in node.args:
        if isinstance(argument, ast.Name) and argument.id in bound:
            for text in texts:
                yield from _existing(release, bound[argument.id], text)


def _existing(release: Release, owner: str, attribute: str) -> Iterator[str]:
    name = f"{owner}.{attribute}" if ":" in owner else f"{owner}:{attribute}"
    if attribute.isidentifier() and release.find(name) is not None:
        yield name


def used_by(release: Release) -> dict[str, set[str]]:
    """The files of ours that rely on each name, or do what it does in its place."""
    used = relied_on(release)
    for file, copied in json.loads(COPIED.read_text(encoding="utf-8")).items():
        for name in copied:
            used.setdefault(name, set()).add(file)
    return used


def snapshot(release: Release) -> dict[str, Any]:
    """What later comparisons go by.

    Raises:
        LookupError: a name that we rely on is not there.
    """
    names = {}
    for name in sorted(used_by(release)):
        found = release.find(name)
        if found is None:
            raise LookupError(f"{name} is not in CrewAI {release.version}, and fastcrew_async relies on it")
        names[name] = found.entry()
    return {"crewai": release.version, "names": names}


@dataclass(frozen=True)
class Difference:
    """One name that is not what it was."""

    what: str
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.what:<8} {self.name}{'  ' + self.detail if self.detail else ''}"


def compare(known: dict[str, Any], release: Release, used: dict[str, set[str]]) -> list[Difference]:
    """How the names of a snapshot stand in a release. `used` says which of our files rely on each."""
    differences = []
    for name, entry in known["names"].items():
        if not release.has_package(name):
            continue
        files = "in " + ", ".join(sorted(used.get(name, ())))
        found = release.find(name)
        if found is None:
            places = release.places(name)
            differences.append(Difference("gone", name, f"{files}; now perhaps in {', '.join(places) or 'nothing'}"))
            continue
        now = found.entry()
        if now["at"] != entry["at"]:
            differences.append(Difference("moved", name, f"from {entry['at']} to {now['at']}; {files}"))
        if entry["at"] != name and entry["at"] in known["names"]:
            continue  # an import of what is told under the name of its definition
        if now.get("hash") != entry.get("hash"):
            differences.append(Difference("changed", name, files))
        before, after = set(entry.get("members", ())), set(now.get("members", ()))
        if before != after:
            changes = [*(f"+{member}" for member in sorted(after - before)), *(f"-{m}" for m in sorted(before - after))]
            differences.append(Difference("members", name, f"{' '.join(changes)}; {files}"))
    order = ["gone", "moved", "changed", "members"]
    return sorted(differences, key=lambda difference: (order.index(difference.what), difference.name))


def installed() -> Release:
    """The release that this Python would import."""
    spec = importlib.util.find_spec("crewai")
    if spec is None or spec.origin is None:
        sys.exit("CrewAI is not installed here")
    return Release(Path(spec.origin).parent.parent)


def _download(version: str, folder: Path) -> Release:
    for package in ("crewai", "crewai-core"):  # older releases have no crewai-core
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(
            [*command, "--dest", str(folder), f"{package}=={version}"], check=False, capture_output=True, text=True
        )
        if done.returncode and package == "crewai":
            sys.exit(done.stderr)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return Release(folder)


def _diff(name: str, old: Release, new: Release) -> str:
    before, after = old.find(name), new.find(name)
    if before is None or after is None:
        return ""
    return "\n".join(
        difflib.unified_diff(before.text.splitlines(), after.text.splitlines(), before.at, after.at, lineterm="", n=2)
    )


def snapshot_text(known: dict[str, Any]) -> str:
    """A line a name, so that a change of the file shows what changed."""
    names = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in known["names"].items())
    return f'{{"crewai": "{known["crewai"]}", "names": {{\n{names}\n}}}}\n'


def names_text(names: list[str]) -> str:
    """The module that ``install()`` reads."""
    lines = "".join(f'    "{name}",\n' for name in names)
    return f"""\"\"\"What the engine takes from CrewAI; written by ``scripts/compare_release.py --write``.\"\"\"

NAMES = (
{lines})
\"\"\"Each as ``module:name`` or ``module:Class.attribute``.\"\"\"
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("release", nargs="?", help="a version, or a folder; by default the installed one")
    parser.add_argument("--diff", action="store_true", help="show how the text of changed names differs")
    parser.add_argument("--write", action="store_true", help=f"write {SNAPSHOT.name} and {NAMES.name}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.release is None:
            release = installed()
        elif Path(options.release).is_dir():
            release = Release(Path(options.release))
        else:
            release = _download(options.release, Path(folder))
        if options.write:
            SNAPSHOT.write_text(snapshot_text(snapshot(release)), encoding="utf-8")
            NAMES.write_text(names_text(checked(release)), encoding="utf-8")
            return 0
        known = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
        base = installed()
        differences = compare(known, release, used_by(base))
        for difference in differences:
            print(difference)
            if options.diff and difference.what == "changed":
                print(textwrap.indent(_diff(difference.name, base, release), "    "))
        counts = f"{len(known['names'])} names of CrewAI {known['crewai']} in CrewAI {release.version}"
        print(f"{counts}: {len(differences)} differences")
        return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
