"""Calls between Ray Serve deployments, by value or by reference, whichever is faster for the size of the images.

By value (gRPC directly between the processes) a small group takes about a third of the time that it takes by reference
(Ray's object store). A large group must go by reference: it is not copied then, and a message may have at most 4 MB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import ray
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle

from drpo_rewards.errors import ServiceUnavailableError

BY_VALUE_BYTES = 3_000_000


class SharedImages(Sequence[np.ndarray]):
    """Images for several deployments, which get them from one copy in Ray's object store.

    Args:
        images: the images.
        reference: to their copy, if there is one already.
    """

    def __init__(self, images: Sequence[np.ndarray], reference: ray.ObjectRef | None = None) -> None:
        self._images = images
        self._reference = reference
        self._placing: asyncio.Task[ray.ObjectRef] | None = None

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        return self._images[index]

    def __len__(self) -> int:
        return len(self._images)

    async def place(self) -> ray.ObjectRef:
        """Put the images into the object store at the first call. They stay there as long as this object lives."""
        if self._reference is not None:
            return self._reference
        if self._placing is None:
            self._placing = asyncio.create_task(asyncio.to_thread(ray.put, self._images))
        return await asyncio.shield(self._placing)


@dataclass(frozen=True)
class PlacedImages:
    """Images for a deployment that hands them on. Ray resolves a reference only if it is an argument by itself."""

    reference: ray.ObjectRef

    async def open(self) -> SharedImages:
        """The images, which are not copied, with the reference for those that get them next.

        Raises:
            ServiceUnavailableError: they are lost, with the machine or the process that had them.
        """
        try:
            return SharedImages(await self.reference, self.reference)
        except RayError as error:
            raise ServiceUnavailableError(f"the images were lost on their way: {type(error).__name__}") from None


class Caller:
    """Calls methods of one deployment with images.

    Args:
        handle: of the deployment.
        hands_on: it gives the images to other deployments, so a large group arrives as PlacedImages.
    """

    def __init__(self, handle: DeploymentHandle, *, hands_on: bool = False) -> None:
        self._hands_on = hands_on
        self._by_reference = handle
        self._by_value = handle.options(_by_reference=False)

    async def call(self, method: str, images: Sequence[np.ndarray] = (), *arguments: Any) -> Any:
        """Call `method(images, *arguments)`, or `method(*arguments)` if there are no images."""
        if not len(images):
            return await getattr(self._by_value, method).remote(*arguments)
        large = sum(image.nbytes for image in images) > BY_VALUE_BYTES
        sent: Any = images
        if large:  # copied in a thread: Serve would copy in the loop through which all calls go
            sent = await (images if isinstance(images, SharedImages) else SharedImages(images)).place()
            sent = PlacedImages(sent) if self._hands_on else sent
        elif isinstance(images, SharedImages):
            sent = list(images)
        return await getattr(self._by_reference if large else self._by_value, method).remote(sent, *arguments)
