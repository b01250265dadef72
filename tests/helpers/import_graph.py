"""The imports between Limbeck's modules, read from the source: at the top, inside functions, and for type checkers only."""

import ast
import os
from collections.abc import Mapping
from pathlib import Path

Graph = Mapping[str, frozenset[str]]


def import_graph(package: Path) -> Graph:
    """For each module of a package folder, the modules of that package that it imports anywhere."""
    files = {_name(path, package): path for path in _sources(package)}
    return {name: frozenset(_imports(ast.parse(path.read_text(encoding="utf-8")), files)) for name, path in files.items()}


def cycles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one module, and the modules that import themselves."""
    found, assigned = [], set[str]()
    for module in sorted(graph):
        if module not in assigned:
            component = {other for other in _reached(graph, module) if module in _reached(graph, other)}
            assigned |= component | {module}
            if component:
                found.append(sorted(component | {module}))
    return found


def _sources(package: Path) -> list[Path]:
    walked = os.walk(package, followlinks=True)  # src/limbeck contains links
    return [Path(folder, name) for folder, _, names in walked for name in names if name.endswith(".py")]


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.AST, known: Mapping[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"a relative import in line {node.lineno}"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found |= {whole} if whole in known else {node.module} & known.keys()
    return found


def _reached(graph: Graph, start: str) -> set[str]:
    """The modules reachable from `start` by at least one import."""
    reached, waiting = set[str](), [start]
    while waiting:
        for module in graph[waiting.pop()] - reached:
            reached.add(module)
            waiting.append(module)
    return reached
