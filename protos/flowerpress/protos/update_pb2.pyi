from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UpdateHeader(_message.Message):
    __slots__ = ("kind", "run", "round", "client", "sequence", "base", "result", "manifest_digest", "manifest", "tensor", "recipe", "codec", "length", "metadata")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[UpdateHeader.Kind]
        DELTA: _ClassVar[UpdateHeader.Kind]
        MODEL: _ClassVar[UpdateHeader.Kind]
    KIND_UNSPECIFIED: UpdateHeader.Kind
    DELTA: UpdateHeader.Kind
    MODEL: UpdateHeader.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    kind: UpdateHeader.Kind
    run: int
    round: int
    client: int
    sequence: int
    base: bytes
    result: bytes
    manifest_digest: bytes
    manifest: Manifest
    tensor: _containers.RepeatedScalarFieldContainer[int]
    recipe: _containers.RepeatedScalarFieldContainer[bytes]
    codec: _containers.RepeatedScalarFieldContainer[int]
    length: _containers.RepeatedScalarFieldContainer[int]
    metadata: str
    def __init__(self, kind: _Optional[_Union[UpdateHeader.Kind, str]] = ..., run: _Optional[int] = ..., round: _Optional[int] = ..., client: _Optional[int] = ..., sequence: _Optional[int] = ..., base: _Optional[bytes] = ..., result: _Optional[bytes] = ..., manifest_digest: _Optional[bytes] = ..., manifest: _Optional[_Union[Manifest, _Mapping]] = ..., tensor: _Optional[_Iterable[int]] = ..., recipe: _Optional[_Iterable[bytes]] = ..., codec: _Optional[_Iterable[int]] = ..., length: _Optional[_Iterable[int]] = ..., metadata: _Optional[str] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("tensor",)
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    tensor: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    def __init__(self, tensor: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "shape", "dtype")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: int
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[int] = ...) -> None: ...
