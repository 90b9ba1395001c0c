"""The whole table: generate what is missing, score it, measure it, and write tables and grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from drpo.config import Config
from drpo.errors import ConfigError
from drpo.evaluation.diversity import PictureFeatures, measure_diversity
from drpo.evaluation.metric import ShownMetric
from drpo.evaluation.plan import PlannedImage
from drpo.evaluation.table.distribution import (
    Extractor,
    extract,
    find_inception,
    measure_distances,
    read_references,
    use_feature_map,
    use_inception,
)
from drpo.evaluation.table.grid import write_grid
from drpo.evaluation.table.options import TableOptions
from drpo.evaluation.table.painters import Model
from drpo.evaluation.table.pictures import PictureFolder, append_lines, open_row, read_lines
from drpo.evaluation.table.prompt_set import PromptSet
from drpo.evaluation.table.render import Column, Table
from drpo.evaluation.table.scores import ScoreFile, asked_rewards, choose_columns
from drpo.evaluation.table.statistics import Cell, Values, make_cell
from drpo.shapes.variety import add, effective_number, look
from drpo.training.build import build_generator, load_features
from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.client import RankingClient

PAPER_FACTORS = {"pickscore": 100.0, "clip": 100.0, "hpsv2": 100.0, "image_reward": 10.0}
"""What the paper's tables multiply the scores of these rewards by."""

DIVERSITY, COLOURS, PLACES = "diversity", "colours in use", "places in use"
"""Columns that no reward pays for: a model that wins by always drawing the same has less of them."""


Draw = Callable[[Path, Model], None]
"""Generates all missing pictures of a row, in its folder."""
Progress = Callable[[str], None]
"""Called with what is done next."""


def evaluate_rows(
    config: Config,
    out: Path,
    models: Sequence[Model],
    sets: Sequence[PromptSet],
    options: TableOptions,
    client: RankingClient,
    *,
    draw: Draw,
    kept: Path | None = None,
    device: str = "cpu",
    progress: Progress = lambda text: None,
) -> Table:
    """Evaluates rows on sets of prompts, and writes everything into a folder. What is there already is not made again.

    Args:
        config: the settings: their rewards, generator and feature map.
        out: the folder.
        models: the rows.
        sets: the sets of prompts.
        options: what the table shows.
        client: a client of the ranking service.
        draw: generates the missing pictures of a row.
        kept: the folder of the pictures and scores, which several tables may share; None: `out`.
        device: of the feature map and of Inception.
        progress: called with what is done next.

    Raises:
        ConfigError: a name is wrong, or a row's folder has pictures of another model.
        EvaluationError, drpo_rewards.errors.RewardsError: see the parts.
    """
    columns = choose_columns(options.rewards, config.rewards, client.models())
    names = [model.row.name for model in models]
    problems = options.find_problems(names)
    if problems:
        raise ConfigError("\n".join(problems))
    against = options.against if options.against is not None else names[0]
    kept = kept if kept is not None else out
    folders = {model.row.name: open_row(kept, model) for model in models}
    evaluation = _Evaluation(config, out, kept, models, sets, options, device)

    with ThreadPoolExecutor(1, thread_name_prefix="rows") as background:
        scoring: list[Future[None]] = []
        try:
            for model in models:
                progress(f"{model.row.name}: pictures")
                evaluation.renew_metadata(model)
                draw(folders[model.row.name], model)
                scoring.append(background.submit(evaluation.score, model, columns, client))
            for model, scored in zip(models, scoring, strict=True):
                progress(f"{model.row.name}: scores")
                scored.result()
        finally:
            for scored in scoring:  # only after an error
                scored.cancel()
    progress("diversity and distances")
    table = evaluation.tabulate(columns, against)
    table.write(out)
    progress("grids")
    evaluation.write_grids()
    return table


@dataclass(frozen=True)
class _Evaluation:
    """The parts of a table."""

    _config: Config
    _out: Path
    _kept: Path
    _models: Sequence[Model]
    _sets: Sequence[PromptSet]
    _options: TableOptions
    _device: str

    def renew_metadata(self, model: Model) -> None:
        """Gives the pictures of a row that are there the metadata that their prompts have now."""
        for prompts in self._sets:
            self._pictures(model, prompts).renew_metadata(prompts.planned)

    def score(self, model: Model, columns: Mapping[ShownMetric, ModelInfo], client: RankingClient) -> None:
        """Scores what is missing of a row."""
        for prompts in self._sets:
            rewards = asked_rewards(columns, prompts)
            scores = self._scores(model, prompts)
            missing = scores.missing(prompts.planned, rewards) if rewards else []
            if missing:
                scores.score(missing, self._pictures(model, prompts), client, rewards)

    def tabulate(self, columns: Mapping[ShownMetric, ModelInfo], against: str) -> Table:
        """The table of all that was scored and measured."""
        made = []
        for prompts in self._sets:
            asked = asked_rewards(columns, prompts)
            made += [self._score_column(prompts, shown, against) for shown in columns if shown.reward in asked]
            if self._options.diversity and max(one.number for one in prompts.planned) > 0:
                made.append(self._diversity_column(prompts, against))
            if self._options.diversity and prompts.of_shapes:
                made += self._variety_columns(prompts)
            if self._options.fid is not None:
                made += self._distance_columns(prompts)
        counts = "; ".join(f"{one.name}: {len(one.planned)} pictures a row, mean over {one.mean}" for one in self._sets)
        settings = {
            "prompts": {one.name: {"images": len(one.planned), "mean": one.mean} for one in self._sets},
            "models": {model.row.name: model.row.what for model in self._models},
            "seed": self._config.evaluation.seed,
            "scale": self._options.scale,
            "rewards": {info.name: info.version for info in columns.values()},
        }
        return Table([model.row.name for model in self._models], against, made, [f"{counts}."], settings)

    def _score_column(self, prompts: PromptSet, shown: ShownMetric, against: str) -> Column:
        factor = 100.0 if shown.percentage else 1.0
        if self._options.scale == "paper" and shown.metric is None:
            factor = PAPER_FACTORS.get(shown.reward, 1.0)
        values, extra = {}, {}
        for model in self._models:
            scores = self._scores(model, prompts)
            numbers = [scores.numbers(one)[shown.name] * factor for one in prompts.planned]
            values[model.row.name] = _prompt_means(prompts.planned, numbers)
            extra[model.row.name] = _count_right(prompts.planned, numbers) if shown.percentage else {}
        title = f"{shown.name}{' %' if shown.percentage else ''}"
        digits = 1 if shown.percentage else 2 if factor != 1 else 3
        cells = self._cells(values, extra, prompts, against)
        return Column(prompts.name, title, shown.higher_is_better, digits, factor, cells)

    def _cells(
        self, values: Mapping[str, Values], extra: Mapping[str, Mapping[str, float]], prompts: PromptSet, against: str
    ) -> dict[str, Cell]:
        reference = values[against]
        return {
            name: make_cell(one, None if name == against else reference, prompts.mean, extra=extra.get(name))
            for name, one in values.items()
        }

    def _diversity_column(self, prompts: PromptSet, against: str) -> Column:
        values = {model.row.name: self._diversity(model, prompts) for model in self._models}
        return Column(prompts.name, DIVERSITY, cells=self._cells(values, {}, prompts, against))

    def _diversity(self, model: Model, prompts: PromptSet) -> Values:
        """The diversity of each prompt, read from the disk or measured."""
        path = self._kept / "scores" / model.row.folder / f"{prompts.folder}-diversity.jsonl"
        features = self._config.features.model_dump(mode="json")
        keep = {(one["task"], one["prompt"]): one for one in read_lines(path) if one["features"] == features}
        pictures, values = self._pictures(model, prompts), dict[tuple[str, str], float]()
        for (task, prompt), group in groupby(prompts.planned, key=lambda one: (one.record.task, one.record.prompt)):
            images = list(group)
            seeds = [one.seed for one in images]
            line = keep.get((task, prompt))
            if line is None or line["seeds"] != seeds:
                found = self._features.of(np.stack([pictures.read(one.key) for one in images]), prompt)
                value = measure_diversity(found)
                line = {"task": task, "prompt": prompt, "seeds": seeds, "features": features, DIVERSITY: value}
                append_lines(path, [line])
            values[task, prompt] = line[DIVERSITY]
        return values

    def _variety_columns(self, prompts: PromptSet) -> list[Column]:
        """The effective numbers of colours and places where the prompts leave them open."""
        colors, places = {}, {}
        for model in self._models:
            pictures = self._pictures(model, prompts)
            seen = add(look(pictures.read(one.key), one.record.metadata or {}) for one in prompts.planned)
            colors[model.row.name] = Cell(effective_number(seen.colors), extra={"objects": seen.colors.total()})
            places[model.row.name] = Cell(effective_number(seen.places), extra={"objects": seen.places.total()})
        return [
            Column(prompts.name, COLOURS, True, 1, cells=colors),
            Column(prompts.name, PLACES, True, 1, cells=places),
        ]

    def _distance_columns(self, prompts: PromptSet) -> list[Column]:
        """FID and KID of each row; the row that is the reference itself has none."""
        source = str(self._options.fid)
        by_name = {model.row.name: model for model in self._models}
        if source in by_name:
            reference_ND = self._extract(by_name[source], prompts)
        else:
            reference_ND = extract(read_references(source), self._extractor)
        frechet, kernel = {}, {}
        for name, model in by_name.items():
            if name != source:
                found = measure_distances(self._extract(model, prompts), reference_ND, paired=source in by_name)
                sizes = {"pictures": found.pictures, "references": found.references}
                frechet[name] = Cell(found.frechet, extra=sizes)
                kernel[name] = Cell(1000 * found.kernel, extra={"deviation": 1000 * found.kernel_std})
        inception = self._options.fid_features == "inception"
        names = ("FID", "KID x1000") if inception else ("Frechet distance", "kernel distance x1000")
        return [
            Column(prompts.name, f"{names[0]} to {source}", False, 2, cells=frechet),
            Column(prompts.name, f"{names[1]} to {source}", False, 2, 1000, kernel),
        ]

    def _extract(self, model: Model, prompts: PromptSet) -> Any:
        pictures = self._pictures(model, prompts)
        return extract((pictures.read(one.key) for one in prompts.planned), self._extractor)

    def write_grids(self) -> None:
        """Writes grid-SET.webp: the first picture of the first prompts, in turn from each task."""
        for prompts in self._sets:
            chosen = _choose_examples(prompts.planned, self._options.grid)
            if chosen:
                rows = []
                for model in self._models:
                    pictures = self._pictures(model, prompts)
                    rows.append((model.row.name, [pictures.read(one.key) for one in chosen]))
                write_grid(self._out / f"grid-{prompts.folder}.webp", rows, [one.record.prompt for one in chosen])

    def _pictures(self, model: Model, prompts: PromptSet) -> PictureFolder:
        return PictureFolder(self._kept / "pictures" / model.row.folder / prompts.folder)

    def _scores(self, model: Model, prompts: PromptSet) -> ScoreFile:
        return ScoreFile(self._kept / "scores" / model.row.folder / f"{prompts.folder}.jsonl")

    @cached_property
    def _features(self) -> PictureFeatures:
        generator = build_generator(self._config, device=self._device, adapter=False)
        return PictureFeatures(load_features(self._config, generator, device=self._device), generator)

    @cached_property
    def _extractor(self) -> Extractor:
        if self._options.fid_features == "map":
            return use_feature_map(self._features)
        return use_inception(find_inception(), self._device)


def _prompt_means(planned: Sequence[PlannedImage], numbers: Sequence[float]) -> Values:
    """The mean over the images of each prompt."""
    groups: dict[tuple[str, str], list[float]] = {}
    for one, number in zip(planned, numbers, strict=True):
        groups.setdefault((one.record.task, one.record.prompt), []).append(number)
    return {key: float(np.mean(group)) for key, group in groups.items()}


def _count_right(planned: Sequence[PlannedImage], numbers: Sequence[float]) -> dict[str, float]:
    """GenEval's other two numbers, in percent: images that are right, and prompts with any that is."""
    if not set(numbers) <= {0.0, 100.0}:
        return {}
    prompts: dict[tuple[str, str], float] = {}
    for one, number in zip(planned, numbers, strict=True):
        key = one.record.task, one.record.prompt
        prompts[key] = max(prompts.get(key, 0.0), number)
    return {"correct_images": float(np.mean(numbers)), "correct_prompts": float(np.mean(list(prompts.values())))}


def _choose_examples(planned: Sequence[PlannedImage], count: int) -> list[PlannedImage]:
    """The first image of `count` prompts, in turn from each task."""
    tasks: dict[str, list[PlannedImage]] = {}
    for one in planned:
        if one.number == 0:
            tasks.setdefault(one.record.task, []).append(one)
    longest = max(map(len, tasks.values()), default=0)
    in_turn = [images[i] for i in range(longest) for images in tasks.values() if i < len(images)]
    return in_turn[:count]
