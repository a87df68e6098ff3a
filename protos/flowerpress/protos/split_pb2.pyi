from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Split(_message.Message):
    __slots__ = ("kind", "step", "round", "run", "client", "token", "session", "mode", "restart", "tables_version", "tables_digest", "tables", "features", "gradients", "shape", "payload", "label_shape", "classes", "labels", "loss", "code", "text", "largest", "cut", "patience")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[Split.Kind]
        OPEN: _ClassVar[Split.Kind]
        ACK: _ClassVar[Split.Kind]
        FEATURES: _ClassVar[Split.Kind]
        GRADIENT: _ClassVar[Split.Kind]
        TAIL_INPUT: _ClassVar[Split.Kind]
        TAIL_GRADIENT: _ClassVar[Split.Kind]
        INFER: _ClassVar[Split.Kind]
        PREDICTION: _ClassVar[Split.Kind]
        ERROR: _ClassVar[Split.Kind]
        CLOSE: _ClassVar[Split.Kind]
    NONE: Split.Kind
    OPEN: Split.Kind
    ACK: Split.Kind
    FEATURES: Split.Kind
    GRADIENT: Split.Kind
    TAIL_INPUT: Split.Kind
    TAIL_GRADIENT: Split.Kind
    INFER: Split.Kind
    PREDICTION: Split.Kind
    ERROR: Split.Kind
    CLOSE: Split.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    TABLES_VERSION_FIELD_NUMBER: _ClassVar[int]
    TABLES_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    LABEL_SHAPE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    kind: Split.Kind
    step: int
    round: int
    run: int
    client: int
    token: bytes
    session: bytes
    mode: str
    restart: bool
    tables_version: int
    tables_digest: bytes
    tables: bytes
    features: str
    gradients: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    payload: bytes
    label_shape: _containers.RepeatedScalarFieldContainer[int]
    classes: int
    labels: bytes
    loss: float
    code: int
    text: str
    largest: int
    cut: str
    patience: float
    def __init__(self, kind: _Optional[_Union[Split.Kind, str]] = ..., step: _Optional[int] = ..., round: _Optional[int] = ..., run: _Optional[int] = ..., client: _Optional[int] = ..., token: _Optional[bytes] = ..., session: _Optional[bytes] = ..., mode: _Optional[str] = ..., restart: _Optional[bool] = ..., tables_version: _Optional[int] = ..., tables_digest: _Optional[bytes] = ..., tables: _Optional[bytes] = ..., features: _Optional[str] = ..., gradients: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., payload: _Optional[bytes] = ..., label_shape: _Optional[_Iterable[int]] = ..., classes: _Optional[int] = ..., labels: _Optional[bytes] = ..., loss: _Optional[float] = ..., code: _Optional[int] = ..., text: _Optional[str] = ..., largest: _Optional[int] = ..., cut: _Optional[str] = ..., patience: _Optional[float] = ...) -> None: ...
