"""Tensors of the Open Inference Protocol: as JSON, and as binary data behind the JSON.

Binary BYTES elements are a 4-byte little-endian length and the bytes; FP32 is little-endian,
row major (the binary tensor data extension).
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any, get_origin

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from modelyard.core.errors import RequestInvalid
from modelyard.runtime.runtime import Answer
from modelyard.service.release_info import Column, ReleaseInfo

Parameter = bool | int | float | str
MOST_PARAMETERS = 100
UNSUPPORTED = ("shared_memory_region", "classification")
LENGTH = struct.Struct("<I")
NUMBERS = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8", "INT32": "<i4"}
TAKEN = {"BYTES": ("BYTES",), "FP64": tuple(NUMBERS)}
"""The datatypes that a column takes, by the one it is described with."""
ELEMENTS: dict[str, dict[str, Any]] = {
    "BYTES": {"type": "string"},
    "FP64": {"type": ["number", "null"]},
}
"""An element of a tensor's data, as JSON Schema."""


def _few(parameters: Any) -> Any:
    """Refuse a flood before each of its values is looked at."""
    if isinstance(parameters, dict) and len(parameters) > MOST_PARAMETERS:
        raise ValueError(
            f"there are {len(parameters):,} parameters; at most {MOST_PARAMETERS} are taken"
        )
    return parameters


Parameters = Annotated[dict[str, Parameter], BeforeValidator(_few)]


class InputTensor(BaseModel):
    """A tensor of a request; without `data` its values are in the binary part."""

    model_config = ConfigDict(extra="ignore")
    name: str
    shape: Annotated[list[int], FailFast()]
    datatype: str
    parameters: Parameters = Field(default_factory=dict)
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """An output that a request asks for."""

    model_config = ConfigDict(extra="ignore")
    name: str
    parameters: Parameters = Field(default_factory=dict)


class InferRequest(BaseModel):
    """The JSON of an inference request."""

    model_config = ConfigDict(extra="ignore")
    id: str | None = None
    parameters: Parameters = Field(default_factory=dict)
    inputs: Annotated[list[InputTensor], FailFast()]
    outputs: Annotated[list[RequestedOutput] | None, FailFast()] = None


@dataclass(frozen=True)
class Output:
    """An output of the model: BYTES (B,), FP32 (B,), or FP32 (B, C) with C names."""

    name: str
    datatype: str
    names: tuple[str, ...] | None = None

    @property
    def shape(self) -> list[int]:
        """The shape for any number of rows."""
        return [-1] if self.names is None else [-1, len(self.names)]

    def to_json(self) -> dict[str, Any]:
        """The output as a model's metadata lists it."""
        described: dict[str, Any] = {
            "name": self.name,
            "datatype": self.datatype,
            "shape": self.shape,
        }
        return described | ({"parameters": {"labels": list(self.names)}} if self.names else {})

    def values(self, answers: Sequence[Answer]) -> list[Any]:
        """One value for each element, row major."""
        found = [answer[self.name] for answer in answers]
        if self.names is None:
            return [_listed(each) if isinstance(each, list) else each for each in found]
        return [scores[name] for scores in found for name in self.names]


def _listed(names: Sequence[str]) -> str:
    """A list as one element of a tensor, in which each row has as many: JSON."""
    return json.dumps(names, ensure_ascii=False)


def outputs_of(release: ReleaseInfo) -> dict[str, Output]:
    """An answer's fields as tensors: text, a number, a number for each label, a list as JSON."""
    found = {}
    for name, field in release.wire.model_fields.items():
        if field.annotation is str or get_origin(field.annotation) is list:
            found[name] = Output(name, "BYTES")
        elif field.annotation in (float, int):
            found[name] = Output(name, "FP32")
        elif get_origin(field.annotation) is dict:
            found[name] = Output(name, "FP32", release.labels)
    return found


def rows_of(
    inputs: Sequence[InputTensor], columns: Sequence[Column], binary: bytes
) -> list[dict[str, Any]]:
    """The rows that a request's tensors hold; raises RequestInvalid."""
    names, known = [tensor.name for tensor in inputs], {each.name: each for each in columns}
    _check_names(names, columns)
    values = {}
    for tensor in inputs:
        taken = _binary_size(tensor, len(binary))
        values[tensor.name] = _values(tensor, known[tensor.name], binary[: taken or 0])
        binary = binary[taken or 0 :]
    if binary:
        raise RequestInvalid(
            f"{len(binary)} bytes follow the JSON and its tensors; binary_data_size and "
            "Inference-Header-Content-Length must account for the whole body."
        )
    if len({len(column) for column in values.values()}) > 1:
        raise RequestInvalid("The inputs have different numbers of rows.")
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _check_names(names: Sequence[str], columns: Sequence[Column]) -> None:
    optional = [each.name for each in columns if each.optional]
    needed = [each.name for each in columns if not each.optional]
    given = set(names)
    if len(given) < len(names) or not set(needed) <= given <= {*needed, *optional}:
        taken = f"{needed}, and maybe {optional}" if optional else str(needed)
        raise RequestInvalid(
            f"The request has the inputs {names}; this model takes {taken}, each once."
        )


def _binary_size(tensor: InputTensor, left: int) -> int | None:
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
        raise RequestInvalid(
            f"Input {tensor.name!r} says binary_data_size {str(size)[:20]}, and {left} bytes "
            "are there; does Inference-Header-Content-Length give the length of the JSON?"
        )
    return size


def _values(tensor: InputTensor, column: Column, binary: bytes) -> list[Any]:
    refuse_unsupported(tensor.parameters)
    if tensor.datatype not in TAKEN[column.datatype]:
        raise RequestInvalid(
            f"Input {tensor.name!r} has datatype {tensor.datatype[:20]!r}; it takes "
            f"{' or '.join(TAKEN[column.datatype])}."
        )
    rows = _rows_of_shape(tensor)
    if "binary_data_size" in tensor.parameters:
        values: list[Any] = _elements(tensor, column, binary)
    elif tensor.data is None:
        raise RequestInvalid(f"Input {tensor.name!r} has neither data nor binary_data_size.")
    else:
        values = _flat(tensor.data)
    if len(values) != rows:
        raise RequestInvalid(
            f"Input {tensor.name!r} has shape {tensor.shape} and {len(values)} elements."
        )
    return values


def _rows_of_shape(tensor: InputTensor) -> int:
    shape = tensor.shape
    if len(shape) not in (1, 2) or shape[0] < 0 or shape[1:] not in ([], [1]):
        raise RequestInvalid(
            f"Input {tensor.name!r} has shape {str(shape)[:80]}; it takes [B] or [B, 1] for B rows."
        )
    return shape[0]


def _flat(data: list[Any]) -> list[Any]:
    return [item for each in data for item in (each if isinstance(each, list) else [each])]


def _elements(tensor: InputTensor, column: Column, binary: bytes) -> list[Any]:
    """The elements of a tensor's binary data."""
    if tensor.datatype == "BYTES":
        parts = list(_parts(tensor.name, binary))
        return parts if column.is_binary else _texts(tensor.name, parts)
    numbers = np.dtype(NUMBERS[tensor.datatype])
    if len(binary) % numbers.itemsize:
        raise RequestInvalid(
            f"The binary data of input {tensor.name!r} has {len(binary)} bytes, and an element of "
            f"{tensor.datatype} has {numbers.itemsize}."
        )
    found: list[Any] = np.frombuffer(binary, numbers).tolist()
    return found


def _parts(name: str, binary: bytes) -> Iterator[bytes]:
    position = 0
    for number in count(1):
        if position == len(binary):
            return
        start = position + LENGTH.size
        length = LENGTH.unpack_from(binary, position)[0] if start <= len(binary) else len(binary)
        position = start + length
        if position > len(binary):
            raise RequestInvalid(
                f"The binary data of input {name!r} ends inside element {number}; each "
                "is a 4-byte little-endian length and that many bytes."
            )
        yield binary[start:position]


def _texts(name: str, parts: Iterable[bytes]) -> list[str]:
    texts: list[str] = []
    for part in parts:
        try:
            texts.append(part.decode())
        except UnicodeDecodeError:
            raise RequestInvalid(
                f"Element {len(texts) + 1} of input {name!r} is not UTF-8; send text in UTF-8."
            ) from None
    return texts


def refuse_unsupported(parameters: Mapping[str, Parameter]) -> None:
    """Refuse parameters that would ask for another answer: RequestInvalid."""
    for name in UNSUPPORTED:
        if name in parameters:
            raise RequestInvalid(f"The parameter {name!r} is not supported by this service.")


def wanted(asked: InferRequest, known: Mapping[str, Output]) -> list[tuple[Output, bool]]:
    """The outputs to give, each with whether as binary data; raises RequestInvalid."""
    binary = asked.parameters.get("binary_data_output") is True
    if not asked.outputs:
        return [(output, binary) for output in known.values()]
    found: dict[str, tuple[Output, bool]] = {}
    for output in asked.outputs:
        if output.name not in known:
            raise RequestInvalid(
                f"There is no output {output.name[:80]!r}; there are: {', '.join(known)}."
            )
        if output.name in found:
            raise RequestInvalid(
                f"The output {output.name!r} is asked for twice; ask for each once."
            )
        refuse_unsupported(output.parameters)
        as_binary = output.parameters.get("binary_data", binary) is True
        found[output.name] = (known[output.name], as_binary)
    return list(found.values())


def written(
    answers: Sequence[Answer], outputs: Iterable[tuple[Output, bool]]
) -> tuple[list[dict[str, Any]], bytes]:
    """Answers as output tensors, and the binary data that follows the JSON."""
    tensors, parts = [], []
    for output, as_binary in outputs:
        shape = [len(answers), *output.shape[1:]]
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": shape,
        }
        values = output.values(answers)
        if as_binary:
            parts.append(_bytes(values, output.datatype))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            tensor["data"] = values
        tensors.append(tensor)
    return tensors, b"".join(parts)


def _bytes(values: Sequence[Any], datatype: str) -> bytes:
    if datatype == "FP32":
        return np.asarray(values, dtype="<f4").tobytes()
    encoded = [value.encode() for value in values]
    return b"".join(LENGTH.pack(len(each)) + each for each in encoded)
