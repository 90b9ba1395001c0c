"""Frechet and kernel distance between the pictures of a row and reference pictures, by torchmetrics.

With the features of Inception these are FID and KID. Its weights are one file, `WEIGHTS`. With the feature map of the
settings they are distances in that space: for small worlds, and where there is no Inception.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from drpo.data.pictures import read_rgb
from drpo.data.prompts.downloads import data_folder, download
from drpo.data.prompts.source import Origin, RemoteFile
from drpo.errors import ConfigError, DownloadError, EvaluationError
from drpo.evaluation.diversity import PictureFeatures

Extractor = Callable[[NDArray[np.uint8]], Tensor]
"""Maps pictures (N, H, W, 3) to features (N, D)."""

WEIGHTS = Origin(
    homepage="https://github.com/toshas/torch-fidelity",
    licence="Apache-2.0",
    revision="v0.2.0",
    files=(
        RemoteFile(
            "weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        ),
    ),
)
"""The Inception of 2015 from TensorFlow, with which published FIDs are computed."""
WEIGHTS_SET = "inception"
_HASH = "6726825d"
"""The beginning of its SHA-256, which its authors put into its name."""

MISSING_INCEPTION = "--fid: Inception needs torch-fidelity: pip install 'drpo[fid]', or take --fid-features map instead"

_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_KID_SUBSETS = 100
_KID_SUBSET = 1000
"""The pictures of a subset, as published KIDs have; of fewer than twice as many, half of them."""
_BATCH = 32


@dataclass(frozen=True)
class Distances:
    """The distances of two sets of pictures.

    Attributes:
        frechet: the Frechet distance of two Gaussians, FID.
        kernel, kernel_std: mean and deviation over subsets of the squared maximum mean discrepancy, KID.
        pictures, references: how many there are of each.
    """

    frechet: float
    kernel: float
    kernel_std: float
    pictures: int
    references: int


class _Features(nn.Module):
    """What torchmetrics takes as a network, given features that are computed already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features_ND: Tensor) -> Tensor:
        return features_ND


def measure_distances(features_ND: Tensor, reference_ND: Tensor, *, paired: bool = False) -> Distances:
    """Computes both distances from features.

    Args:
        features_ND, reference_ND: of the pictures and of the references.
        paired: whether the n-th of both are of the same prompt and noise. The kernel distance then leaves out what a
            picture has in common with its own partner, as it leaves out what it has in common with itself: its
            estimator takes all pictures for independent, and would be far below 0 otherwise.

    Raises:
        EvaluationError: there are fewer than two pictures on one side.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    count, references = len(features_ND), len(reference_ND)
    if min(count, references) < 2:
        raise EvaluationError(f"a distance of distributions needs at least two pictures, not {min(count, references)}")
    network, subset = _Features(features_ND.shape[1]), min(_KID_SUBSET, max(2, min(count, references) // 2))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # that all features are kept in memory
        torch.manual_seed(0)  # of the subsets
        frechet = FrechetInceptionDistance(feature=network)
        kernel = KernelInceptionDistance(feature=network, subsets=_KID_SUBSETS, subset_size=subset)
        for features, real in ((reference_ND.double(), True), (features_ND.double(), False)):
            frechet.update(features, real=real)
            kernel.update(features, real=real)
        mean, deviation = (
            _paired_kernel_distance(features_ND.double(), reference_ND.double(), subset) if paired else kernel.compute()
        )
        return Distances(float(frechet.compute()), float(mean), float(deviation), count, references)


def _paired_kernel_distance(features_ND: Tensor, reference_ND: Tensor, subset: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation over subsets of the squared discrepancy without the kernels of a picture and its partner."""
    from torchmetrics.image.kid import poly_kernel

    def mean_of_others(kernel_SS: Tensor) -> Tensor:
        return (kernel_SS.sum() - kernel_SS.trace()) / (subset * (subset - 1))

    found = []
    for _ in range(_KID_SUBSETS):
        chosen_S = torch.randperm(len(features_ND))[:subset]
        one_SD, other_SD = features_ND[chosen_S], reference_ND[chosen_S]
        within = mean_of_others(poly_kernel(one_SD, one_SD)) + mean_of_others(poly_kernel(other_SD, other_SD))
        found.append(within - 2 * mean_of_others(poly_kernel(one_SD, other_SD)))
    distances = torch.stack(found)
    return distances.mean(), distances.std(unbiased=False)


def extract(pictures: Iterable[NDArray[np.uint8]], extractor: Extractor) -> Tensor:
    """The features (N, D) of pictures of any sizes.

    Raises:
        EvaluationError: there are no pictures.
    """
    features, batch = [], list[NDArray[np.uint8]]()
    for picture_HWC in pictures:
        if batch and (len(batch) == _BATCH or batch[0].shape != picture_HWC.shape):
            features.append(extractor(np.stack(batch)))
            batch = []
        batch.append(picture_HWC)
    if batch:
        features.append(extractor(np.stack(batch)))
    if not features:
        raise EvaluationError("there are no reference pictures")
    return torch.cat(features)


def use_feature_map(features: PictureFeatures) -> Extractor:
    """The means over tokens of every key of a feature map, in one vector."""

    def of(pictures_NHWC: NDArray[np.uint8]) -> Tensor:
        found: Mapping[str, Tensor] = features.of(pictures_NHWC)
        return torch.cat([tokens_NTD.mean(dim=1) for tokens_NTD in found.values()], dim=1)

    return of


def has_inception() -> bool:
    """Whether the package that has Inception's network is installed."""
    return find_spec("torch_fidelity") is not None


def find_inception() -> Path:
    """The file of Inception's weights, which is downloaded if it is not on this machine.

    Raises:
        ConfigError: torch-fidelity is not installed, or the file is another one.
        DownloadError: it cannot be downloaded; the message says where a copy of it may be put.
    """
    if not has_inception():
        raise ConfigError(MISSING_INCEPTION)
    file = data_folder() / WEIGHTS_SET / WEIGHTS.files[0].name
    if not file.is_file():
        try:
            download(WEIGHTS_SET, WEIGHTS)
        except DownloadError as error:
            raise DownloadError(f"--fid: {error}; a copy of {WEIGHTS.files[0].url} may lie at {file}") from error
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if not found.startswith(_HASH):
        raise ConfigError(f"--fid: {file} is not Inception's file: its SHA-256 begins with {found[:8]}, not {_HASH}")
    return file


def use_inception(weights: Path, device: str = "cpu") -> Extractor:
    """Inception's 2048 features, as published FIDs use them."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    network: Any = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights)).to(device)

    @torch.no_grad()
    def of(pictures_NHWC: NDArray[np.uint8]) -> Tensor:
        return network(torch.from_numpy(pictures_NHWC).permute(0, 3, 1, 2).to(device)).cpu()

    return of


def read_references(source: str) -> Iterator[NDArray[np.uint8]]:
    """The pictures of a folder, or of a data set of the hub.

    Args:
        source: a folder, whose pictures are taken from all its folders, or hub:ORG/NAME[:SPLIT].

    Raises:
        ConfigError: there is no such folder or data set, it has no pictures, or one of them cannot be read.
    """
    if source.startswith("hub:"):
        yield from _read_dataset(source.removeprefix("hub:"))
        return
    found = Path(source).expanduser().rglob("*")
    files = sorted(file for file in found if file.suffix.lower() in _ENDINGS and not file.is_dir())
    if not files:
        raise ConfigError(f"--fid: there are no pictures ({', '.join(sorted(_ENDINGS))}) in {source}")
    for file in files:
        try:
            yield read_rgb(file)
        except ConfigError as error:
            raise ConfigError(f"--fid: {error}; remove the file or replace it") from error


def _read_dataset(name: str) -> Iterator[NDArray[np.uint8]]:
    import datasets

    source, _, split = name.partition(":")
    try:
        rows = datasets.load_dataset(source, split=split or "train", streaming=True)
        first = next(iter(rows))
    except Exception as error:  # the library raises errors of a dozen kinds
        raise ConfigError(f"--fid: the data set {source} cannot be read: {error}") from error
    column = next((key for key, value in first.items() if isinstance(value, Image.Image)), None)
    if column is None:
        raise ConfigError(f"--fid: the data set {source} has no column of pictures, only {', '.join(first)}")
    for number, row in enumerate(rows):
        try:
            yield read_rgb(row[column])
        except ConfigError as error:
            raise ConfigError(f"--fid: row {number} of the data set {source}: {error}") from error
