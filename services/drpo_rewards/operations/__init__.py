"""The calls of the service: one file each, one line in the catalogue below.

`base` says what an operation is. The gateway offers every operation of the catalogue over HTTP, gRPC and handles, and
every client can `call` it.
"""

from __future__ import annotations

from typing import Any

from drpo_rewards.operations.base import Operation
from drpo_rewards.operations.compare import Compare
from drpo_rewards.operations.rank import Rank
from drpo_rewards.operations.rerank import Rerank
from drpo_rewards.operations.score import ScoreGroups

RANK = Rank()
SCORE = ScoreGroups()
COMPARE = Compare()
RERANK = Rerank()

OPERATIONS: dict[str, Operation[Any, Any]] = {operation.name: operation for operation in (RANK, SCORE, COMPARE, RERANK)}
