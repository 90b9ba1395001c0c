"""When a run is evaluated while it trains, and what is done with what was found."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drpo.config import Config
from drpo.errors import EvaluationError
from drpo.method.features.base import FeatureMap
from drpo.training import collective
from drpo.training.best import keep_if_best
from drpo.training.evaluations import EVALUATIONS_FILE, EvaluationsLog, find_number, judge_again, judge_stop
from drpo.training.random_state import random_state, set_random_state
from drpo.training.trainer import DrPOTrainer
from drpo.watching.evaluator import Evaluator, call_together
from drpo.watching.grid import Cell, draw, plan_grid, write_grid
from drpo_rewards.client import RankingClient

log = logging.getLogger(__name__)


class RunWatch:
    """Evaluates the adapter at every `evaluation.every` steps, from step 0 on, and at the end.

    Args:
        config: the settings of the run, with `evaluation.every` above 0.
        run_dir: the run's folder.
        trainer: with the weights, restored.
        feature_map: of the run; None if it has none.
        client: of the ranking service.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        trainer: DrPOTrainer,
        feature_map: FeatureMap | None,
        client: RankingClient,
    ) -> None:
        self._settings = config.evaluation
        self._keep_best = config.training.keep_best
        self._stop_if = config.training.stop_if
        self._run_dir = run_dir
        self._trainer = trainer
        self._evaluator = Evaluator(config, trainer.generator, feature_map, client)
        self._rows = plan_grid(config.evaluation, self._evaluator.planned)
        is_first = collective.rank() == 0
        self._log = EvaluationsLog(run_dir / EVALUATIONS_FILE, after=trainer.step) if is_first else None

    def visit(self, elapsed: float, *, last: bool = False) -> str:
        """Evaluates if it is time; every worker must call this after each step, and before the first.

        Args:
            elapsed: seconds of training so far.
            last: whether the run has ended; then its last step is evaluated too.

        Returns:
            Why the run must end now, as a sentence; "" if it need not.
        """
        step = self._trainer.step
        if not last and step % self._settings.every:
            return ""
        # the evaluation of this step is there if the run goes on from here
        mine = judge_again(self._log.lines, step, self._stop_if) if self._log is not None else None
        known: str | None = collective.gather(mine)[0]
        if known is not None:
            return "" if last else known
        started = time.perf_counter()
        line: dict[str, Any] = {"step": step, "time_s": round(elapsed, 3)}
        with _unchanged_random_state():
            try:
                self._evaluate(line, last=last)
            except EvaluationError as error:
                line["error"] = str(error)
                log.warning("the evaluation at step %d failed: %s", step, error)
        line["seconds"] = round(time.perf_counter() - started, 3)
        if self._log is not None:
            try:
                self._log.write(line)
            except Exception as error:
                log.warning("the evaluation at step %d could not be logged: %s", step, error)
        return line.get("stopped", "")

    def _evaluate(self, line: dict[str, Any], *, last: bool) -> None:
        """Adds what is found to the line, which is the same on every worker, as far as it comes."""
        trainer = self._trainer
        line["images"] = len(self._evaluator.planned)
        line["present"] = self._evaluator.measure({cell for row in self._rows for cell in row.cells})
        if self._rows:
            line["grid"] = self._draw_grid(self._evaluator.pictures)
        if not last and (why := judge_stop(line, self._stop_if)):  # a run that has ended anyway is not ended by it
            line["stopped"] = why
        if trainer.average is not None:
            line["images"] *= 2
            with trainer.average.applied():
                line["averaged"] = self._evaluator.measure()
        if self._keep_best is not None:
            value = find_number(line, self._keep_best, "training.keep_best")
            line["best"] = call_together(lambda: self._keep(value))

    def _draw_grid(self, mine: dict[Cell, NDArray[np.uint8]]) -> str:
        """Writes the grid on the first worker.

        Args:
            mine: the pictures that this worker's evaluation has drawn already. The others are drawn here.
        """
        cells = [cell for row in self._rows for cell in row.cells]
        drawn = {cell for share in collective.gather(list(mine)) for cell in share}
        missing = [cell for cell in cells if cell not in drawn][collective.rank() :: collective.world_size()]
        mine |= call_together(lambda: {cell: draw(self._trainer.generator, cell) for cell in missing})
        pictures = {cell: picture for share in collective.gather(mine) for cell, picture in share.items()}
        return call_together(
            lambda: write_grid(self._run_dir, self._trainer.step, self._rows, pictures) if self._log is not None else ""
        )

    def _keep(self, value: float) -> bool:
        assert self._keep_best is not None
        if self._log is None:
            return False
        return keep_if_best(
            self._run_dir,
            self._trainer.generator.adapter,
            step=self._trainer.step,
            metric=self._keep_best,
            value=value,
            higher_is_better=self._evaluator.higher_is_better(self._keep_best),
        )


@contextmanager
def _unchanged_random_state() -> Iterator[None]:
    """After this block the process's random state is as before."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
