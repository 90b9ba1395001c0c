"""Reading and checking of images: each becomes an (H, W, 3) uint8 RGB array, or an error says why not.

Conversions with only one possible result are made: grey and palette to RGB, EXIF rotation, dropping an opaque alpha
channel. Other images are refused, because their conversion would decide what a reward sees: transparency, 16 bits,
CMYK, several frames. No URL is fetched. `image_files.py` reads the headers of files.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.ImageFile import ImageFile as OpenImage
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from drpo_rewards.api.arrays import ArrayLike, is_array, to_pixels
from drpo_rewards.api.contract import Options
from drpo_rewards.api.image_files import ImageFile, png_is_whole, read_file
from drpo_rewards.errors import InvalidImageError, RequestTooLargeError, RewardsError
from drpo_rewards.reading import read_at_most

DECODERS: dict[str, type[OpenImage]] = {"PNG": PngImageFile, "JPEG": JpegImageFile, "WEBP": WebPImageFile}

COPY_STEP = 1 << 20  # pixels that are copied in one step. A step holds Python's lock, and other threads wait.

ImageLike = np.ndarray | ArrayLike | Image.Image | bytes | str | PathLike[str]
Images = np.ndarray | ArrayLike | Sequence[ImageLike]


@dataclass(frozen=True)
class ImageLimits:
    """How large one image and one group may be, in pixels; checked before anything is decoded.

    Attributes:
        max_scans: scans of one JPEG file. An encoder makes 1 to about 20, and each takes time for the whole picture.
        max_webp_pixels: of one WebP file. Pillow copies the picture that it decoded while it holds Python's lock, so
            all other threads wait: about 17 ms for 4096x4096 pixels, 100 ms if two are decoded at once.
    """

    min_side: int = 8
    max_pixels: int = 4096 * 4096
    max_group_pixels: int = 8 * 4096 * 4096
    max_scans: int = 64
    max_webp_pixels: int = 2048 * 2048

    def check(self, width: int, height: int, field: str) -> None:
        """Check the size of one image.

        Raises:
            InvalidImageError: it is too small or too large; the error names `field`.
        """
        if min(width, height) < self.min_side:
            raise InvalidImageError(
                f"{field} is {width}x{height}; each side needs at least {self.min_side} pixels", field=field
            )
        if width * height > self.max_pixels:
            raise InvalidImageError(
                f"{field} is {width}x{height}; at most {self.max_pixels} pixels are allowed", field=field
            )

    def reserve_time(self, decode_s: float, field: str) -> None:
        """Allow any time: only a service counts it."""

    def spend_time(self, cpu_s: float, field: str) -> None:
        """Allow any time: only a service counts it."""


DEFAULT_LIMITS = ImageLimits()
# For clients: the service's own configuration says how large an image may be.
ANY_SIZE = ImageLimits(1, *[sys.maxsize] * 4)
MOST_FILE_BYTES = 1_000_000_000  # that a client reads of one file


class DecodingLimits(Protocol):
    """What the decoding of an image may cost: ImageLimits, or a request's Allowance."""

    @property
    def max_scans(self) -> int:
        """The most scans that one JPEG file may have."""
        ...

    @property
    def max_webp_pixels(self) -> int:
        """The most pixels that one WebP file may have."""
        ...

    def check(self, width: int, height: int, field: str) -> None:
        """Raise a RewardsError if an image of this size is not allowed. Called before it is decoded."""
        ...

    def reserve_time(self, decode_s: float, field: str) -> None:
        """Raise a RewardsError if the estimated processor time is too much. Called before it is decoded."""
        ...

    def spend_time(self, cpu_s: float, field: str) -> None:
        """Raise a RewardsError if these seconds of a processor are too many. Called often while it is decoded."""
        ...


class _MeteredFile(io.BytesIO):
    """A file that counts the decoder's time whenever the decoder reads on, at the latest at the next scan."""

    def __init__(self, file: ImageFile, limits: DecodingLimits, field: str) -> None:
        super().__init__()
        for part in file.parts:
            for at in range(0, len(part), COPY_STEP):
                self.write(part[at : at + COPY_STEP])
        self.seek(0)
        self._stops = list(file.scans)
        self._limits = limits
        self._field = field
        self._counted = time.thread_time()

    def count(self) -> None:
        now = time.thread_time()
        self._limits.spend_time(now - self._counted, self._field)
        self._counted = now

    def read(self, size: int | None = -1) -> bytes:
        self.count()
        at = self.tell()
        while self._stops and self._stops[0] <= at:
            del self._stops[0]
        if self._stops and size is not None and size > self._stops[0] - at:
            size = self._stops[0] - at
        return super().read(size)


def decode(data: bytes, *, field: str = "image", limits: DecodingLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Decode a PNG, JPEG or WebP file to (H, W, 3) uint8 RGB.

    Raises:
        InvalidImageError: the image cannot be used; the error names `field`.
    """
    return decode_file(read_checked(data, field=field, limits=limits), field=field, limits=limits)


def read_checked(
    data: bytes | memoryview, *, field: str = "image", limits: DecodingLimits = DEFAULT_LIMITS
) -> ImageFile:
    """Read the headers of a file and check what they state, before anything is decoded.

    Raises:
        InvalidImageError: the image cannot be used; the error names `field`.
        RequestTooLargeError: it takes more memory or time than is left.
    """
    started = time.thread_time()
    file = read_file(data, field=field, max_scans=limits.max_scans)
    limits.spend_time(time.thread_time() - started, field)
    limits.check(file.width, file.height, field)
    if file.kind == "WEBP" and file.width * file.height > limits.max_webp_pixels:
        raise InvalidImageError(
            f"{field} is a WebP file of {file.width}x{file.height}; at most {limits.max_webp_pixels} pixels are "
            "allowed in this format; send PNG, JPEG or plain pixels",
            field=field,
        )
    limits.reserve_time(file.decode_s, field)
    return file


def decode_file(file: ImageFile, *, field: str = "image", limits: DecodingLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Decode a file whose headers have been checked.

    Raises:
        InvalidImageError: its pixels cannot be used; the error names `field`.
    """
    metered = _MeteredFile(file, limits, field)
    try:
        with DECODERS[file.kind](metered) as image:
            if image.size != (file.width, file.height):
                raise InvalidImageError(f"{field} is damaged: it states two different sizes", field=field)
            image.getexif()[ExifTags.Base.Orientation] = file.orientation
            image.load()
            if file.kind == "PNG":
                if _ends_empty(image) and not png_is_whole(file.data):
                    raise InvalidImageError(f"{field} is truncated or damaged: its last rows are missing", field=field)
                _widen_transparent_grey(image, file.bits)
            pixels = to_rgb(image, field=field)
        metered.count()
        return pixels
    except (RewardsError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly every kind of exception for damaged files
        raise InvalidImageError(f"{field} is truncated or damaged: {error}", field=field) from None


def _widen_transparent_grey(image: Image.Image, bits: int) -> None:
    """Give the transparent grey of a PNG of 2 or 4 bits the scale that Pillow has given its pixels, as browsers do."""
    grey = image.info.get("transparency")
    if image.mode == "L" and isinstance(grey, int):
        top = (1 << bits) - 1
        image.info["transparency"] = (grey & top) * (255 // top)


def _ends_empty(image: Image.Image) -> bool:
    """Return whether one of the last two rows is 0: where data are missing, the last one is, or its neighbour.

    Of an interlaced picture, each second row comes last.
    """
    return any(
        image.crop((0, row, image.width, row + 1)).getbbox() is None for row in (image.height - 2, image.height - 1)
    )


def to_rgb(image: Image.Image, *, field: str = "image") -> np.ndarray:
    """Convert a PIL image to (H, W, 3) uint8, upright.

    Raises:
        InvalidImageError: the conversion would be a guess; the error names `field`.
    """
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # otherwise the next line would copy the image
        image = ImageOps.exif_transpose(image)
    has_alpha = image.mode in ("LA", "RGBA") or "transparency" in image.info
    if image.mode in ("1", "L", "LA", "P") or (image.mode == "RGB" and has_alpha):  # exact in RGB or RGBA
        image = image.convert("RGBA" if has_alpha else "RGB")
    if image.mode == "RGBA":
        if image.getchannel("A").getextrema()[0] != 255:
            raise InvalidImageError(f"{field} has transparent pixels; put it on a background first", field=field)
        image = image.convert("RGB")
    if image.mode != "RGB":
        raise InvalidImageError(f"{field} has mode {image.mode}; convert it to 8-bit RGB first", field=field)
    return _to_array(image)


def _to_array(image: Image.Image) -> np.ndarray:
    """Copy the pixels of an RGB image, a large one in strips."""
    rows = max(1, COPY_STEP // image.width)
    if rows >= image.height:
        return np.asarray(image)
    pixels_HW3 = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels_HW3[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels_HW3


def from_rgb8(
    data: bytes | memoryview, width: int, height: int, *, field: str = "image", limits: DecodingLimits = DEFAULT_LIMITS
) -> np.ndarray:
    """View plain RGB8 bytes as (height, width, 3) uint8, without copying.

    Raises:
        InvalidImageError: the number of bytes does not fit the size; the error names `field`.
    """
    limits.check(width, height, field)
    if len(data) != 3 * width * height:
        raise InvalidImageError(
            f"{field}: {width}x{height} RGB8 needs {3 * width * height} bytes, but has {len(data)}", field=field
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)


def check_array(array: Any, *, field: str = "image", limits: DecodingLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Return `array` if it is an (H, W, 3) uint8 picture within the limits.

    Raises:
        InvalidImageError: it is not; the error names `field`.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        actual = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InvalidImageError(f"{field} must be a (height, width, 3) uint8 array; this is {actual}", field=field)
    limits.check(array.shape[1], array.shape[0], field)
    return array


def check_images(images: Sequence[np.ndarray], options: Options, limits: ImageLimits = DEFAULT_LIMITS) -> None:
    """Check the number of images, the size of each, and the size of all together.

    Raises:
        InvalidRequestError: they do not fit the request or the limits (RequestTooLargeError: all together).
    """
    options.check_count(len(images))
    pixels = 0
    for index, image in enumerate(images):
        pixels += check_array(image, field=options.image_field(index), limits=limits)[..., 0].size
    if pixels > limits.max_group_pixels:
        raise RequestTooLargeError(
            f"the images have {pixels} pixels together; at most {limits.max_group_pixels} are allowed",
            field=options.image_list,
        )


def load(image: ImageLike, *, field: str = "image") -> np.ndarray | bytes:
    """Prepare a client's image for sending: an (H, W, 3) uint8 array, or a file's bytes unchanged.

    Raises:
        InvalidImageError: it is not an image, or its file cannot be read; the error names `field`.
    """
    if is_array(image):
        return check_array(to_pixels(image, field=field), field=field, limits=ANY_SIZE)
    if isinstance(image, Image.Image):
        ANY_SIZE.check(*image.size, field)
        try:
            return to_rgb(image, field=field)
        except (InvalidImageError, MemoryError):
            raise
        except Exception as error:  # its file is closed or damaged; decoders raise nearly every kind of exception
            raise InvalidImageError(
                f"{field} cannot be read: {str(error) or type(error).__name__}", field=field
            ) from error
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | PathLike):
        try:
            return read_at_most(Path(image), MOST_FILE_BYTES)
        except OSError as error:
            raise InvalidImageError(f"{field}: cannot read {image}: {error.strerror}", field=field) from error
        except ValueError as error:  # a path cannot hold the byte 0
            raise InvalidImageError(f"{field}: cannot read {str(image)!r}: {error}", field=field) from error
    raise InvalidImageError(
        f"{field} is a {type(image).__name__}; give an array, a tensor, a PIL image, bytes or a path", field=field
    )


def encode_png(image: np.ndarray) -> bytes:
    """Encode an (H, W, 3) uint8 picture as PNG. This is too slow for the hot path."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
