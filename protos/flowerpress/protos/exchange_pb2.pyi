from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Exchange(_message.Message):
    __slots__ = ("kind", "offset", "data", "claim", "run", "round", "client", "token", "code", "text")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[Exchange.Kind]
        UPLOAD: _ClassVar[Exchange.Kind]
        DOWNLOAD: _ClassVar[Exchange.Kind]
        CHUNK: _ClassVar[Exchange.Kind]
        ACK: _ClassVar[Exchange.Kind]
        DONE: _ClassVar[Exchange.Kind]
        ERROR: _ClassVar[Exchange.Kind]
        PROBE: _ClassVar[Exchange.Kind]
    NONE: Exchange.Kind
    UPLOAD: Exchange.Kind
    DOWNLOAD: Exchange.Kind
    CHUNK: Exchange.Kind
    ACK: Exchange.Kind
    DONE: Exchange.Kind
    ERROR: Exchange.Kind
    PROBE: Exchange.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: Exchange.Kind
    offset: int
    data: bytes
    claim: BlobClaim
    run: int
    round: int
    client: int
    token: bytes
    code: int
    text: str
    def __init__(self, kind: _Optional[_Union[Exchange.Kind, str]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., claim: _Optional[_Union[BlobClaim, _Mapping]] = ..., run: _Optional[int] = ..., round: _Optional[int] = ..., client: _Optional[int] = ..., token: _Optional[bytes] = ..., code: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class BlobClaim(_message.Message):
    __slots__ = ("sequence", "length", "digest")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    length: int
    digest: bytes
    def __init__(self, sequence: _Optional[int] = ..., length: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class ExchangeTerms(_message.Message):
    __slots__ = ("address", "token", "tls", "certificate", "patience")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    address: str
    token: bytes
    tls: bool
    certificate: bytes
    patience: float
    def __init__(self, address: _Optional[str] = ..., token: _Optional[bytes] = ..., tls: _Optional[bool] = ..., certificate: _Optional[bytes] = ..., patience: _Optional[float] = ...) -> None: ...
