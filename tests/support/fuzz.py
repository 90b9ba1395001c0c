"""Strategies of generated requests: damaged bytes, protobuf messages with any values, and picture files of any kind."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

CALLS = int(os.environ.get("DRPO_FUZZ_CALLS", "500"))
"""About how many calls all fuzz tests make together; `make fuzz` makes 10,000."""


def examples(share: float) -> settings:
    """Settings for this share of the calls. They are the same in every run."""
    unhealthy = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    count = max(10, round(share * CALLS))
    return settings(max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=unhealthy)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which a few parts are replaced, removed or repeated."""
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(begin + 40, len(data))))
        middle = draw(st.binary(max_size=8) | st.just(data[begin:end] * 2) | st.sampled_from([b"\r\n", b"--b", b'"']))
        data = data[:begin] + middle + data[end:]
    return data


# -- protobuf -----------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)

_SCALARS: dict[int, Callable[[FieldDescriptor], st.SearchStrategy[Any]]] = {
    FieldDescriptor.TYPE_BOOL: lambda _: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: lambda _: st.floats() | st.floats(-2, 2),
    FieldDescriptor.TYPE_UINT32: lambda _: st.integers(0, 20) | st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: lambda _: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_STRING: lambda _: st.text(max_size=20),
    FieldDescriptor.TYPE_BYTES: lambda _: st.binary(max_size=60),
    FieldDescriptor.TYPE_ENUM: lambda field: st.sampled_from([value.number for value in field.enum_type.values] + [99]),
}


@st.composite
def messages(draw: st.DrawFn, kind: type[Any], known: dict[str, st.SearchStrategy[Any]]) -> Any:
    """Messages of a class, whose fields are left out or have any value of their type.

    Args:
        draw: from hypothesis.
        kind: the class.
        known: by the name of a field or of a message, values that the service may accept; they are drawn more often.
    """
    message = kind()
    if isinstance(message, struct_pb2.Struct):
        message.update(draw(st.dictionaries(st.text(max_size=8), _JSON, max_size=3)))
        return message
    for field in message.DESCRIPTOR.fields:
        if draw(st.integers(0, 3)) == 0:
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            name, amount = field.message_type.fields
            target = getattr(message, field.name)
            for key, value in draw(st.dictionaries(_value(name, known), _value(amount, known), max_size=2)).items():
                target[key] = value
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_value(field, known), max_size=4)))
        elif field.message_type:
            getattr(message, field.name).CopyFrom(draw(_value(field, known)))
        else:
            setattr(message, field.name, draw(_value(field, known)))
    return message


def _value(field: FieldDescriptor, known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    if field.message_type:
        anything, name = messages(field.message_type._concrete_class, known), field.message_type.name
    else:
        anything, name = _SCALARS[field.type](field), field.name
    return known[name] | known[name] | known[name] | anything if name in known else anything


# -- pictures -----------------------------------------------------------------------------------------------------

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F")
_FILE_TYPES = ("PNG", "JPEG", "WEBP", "MPO", "GIF", "TIFF", "BMP")


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """Files of every type, layout and size, some of them with a profile, a rotation or frames, many of them damaged."""
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    seed = draw(st.integers(0, 2**16))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    mode = draw(st.sampled_from(_MODES))
    image = image.convert("RGB" if mode in ("I;16", "F") else mode) if mode != "RGBA" else image
    if mode in ("I;16", "F"):
        image = image.convert("I" if mode == "I;16" else "F")
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["exif"] = draw(st.sampled_from([_rotation(6), _rotation(9), b"Exif\0\0damaged"]))
    if draw(st.booleans()):
        options["icc_profile"] = draw(st.binary(max_size=200))
    if draw(st.integers(0, 5)) == 0:
        options |= {"save_all": True, "append_images": [image]}
    file = io.BytesIO()
    try:
        image.save(file, draw(st.sampled_from(_FILE_TYPES)), **options)
    except (OSError, ValueError, KeyError, TypeError, SyntaxError):  # this type cannot hold this layout
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG")
    data = file.getvalue()
    return draw(damaged(data)) if draw(st.booleans()) else data


def _rotation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()
