"""adapter-best/: the adapter of the best evaluation so far, and best.json, which says which one that was.

{"step": 150, "metric": "geneval/strict", "value": 0.58}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drpo.generators.base import Adapter
from drpo.training.files import replace_folder, write_text
from drpo.training.run_folder import ADAPTER_BEST

BEST_FILE = "best.json"


def keep_if_best(
    run_dir: Path, adapter: Adapter, *, step: int, metric: str, value: float, higher_is_better: bool
) -> bool:
    """Replaces adapter-best/ by the adapter if no evaluation of this metric was better. Returns whether it did.

    Raises:
        StorageError: it could not be written. The old one is unchanged.
    """
    best = read_best(run_dir)
    if best is not None and best["metric"] == metric:
        gain = value - best["value"] if higher_is_better else best["value"] - value
        if gain <= 0:
            return False
    with replace_folder(run_dir / ADAPTER_BEST) as partial:
        adapter.save(partial)
        write_text(partial / BEST_FILE, json.dumps({"step": step, "metric": metric, "value": value}) + "\n")
    return True


def read_best(run_dir: Path) -> dict[str, Any] | None:
    """What best.json of a run says; None if there is none, or if it is damaged."""
    try:
        best = json.loads((run_dir / ADAPTER_BEST / BEST_FILE).read_text(encoding="utf-8"))
        return {"step": int(best["step"]), "metric": str(best["metric"]), "value": float(best["value"])}
    except (OSError, ValueError, LookupError, TypeError):
        return None
