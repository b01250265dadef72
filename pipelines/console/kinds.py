"""The list of kinds, as text or as JSON."""

import json
from dataclasses import asdict

from limbeck.pipelines import recipe  # noqa: F401 (adds the kinds)
from limbeck.pipelines.kinds import known_kinds


def show(as_json: bool) -> None:
    """Print every kind with its family, origin and description, one per line."""
    kinds = [asdict(kind) for kind in known_kinds()]
    if as_json:
        print(json.dumps(kinds, indent=2, ensure_ascii=False))
        return
    widths = {key: max(len(kind[key]) for kind in kinds) for key in ("family", "kind", "origin")}
    for kind in kinds:
        print("  ".join([*(kind[key].ljust(width) for key, width in widths.items()), kind["description"]]))
