from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Instruction(_message.Message):
    __slots__ = ("run", "round", "client", "version", "held", "digest", "watermark", "arrays", "uplink", "carrier", "seed", "plan_digest", "plan", "target_bytes", "settings", "tensors", "split", "deadline", "outcome", "factor", "reason", "decay", "exchange", "claim")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNDECIDED: _ClassVar[Instruction.Outcome]
        APPLIED: _ClassVar[Instruction.Outcome]
        CLIPPED: _ClassVar[Instruction.Outcome]
        REJECTED: _ClassVar[Instruction.Outcome]
        NOT_COUNTED: _ClassVar[Instruction.Outcome]
    UNDECIDED: Instruction.Outcome
    APPLIED: Instruction.Outcome
    CLIPPED: Instruction.Outcome
    REJECTED: Instruction.Outcome
    NOT_COUNTED: Instruction.Outcome
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    UPLINK_FIELD_NUMBER: _ClassVar[int]
    CARRIER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    TARGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DECAY_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    run: int
    round: int
    client: int
    version: int
    held: int
    digest: bytes
    watermark: int
    arrays: str
    uplink: str
    carrier: str
    seed: int
    plan_digest: bytes
    plan: bytes
    target_bytes: int
    settings: _containers.RepeatedScalarFieldContainer[str]
    tensors: _containers.RepeatedScalarFieldContainer[int]
    split: int
    deadline: float
    outcome: Instruction.Outcome
    factor: float
    reason: str
    decay: float
    exchange: bytes
    claim: bytes
    def __init__(self, run: _Optional[int] = ..., round: _Optional[int] = ..., client: _Optional[int] = ..., version: _Optional[int] = ..., held: _Optional[int] = ..., digest: _Optional[bytes] = ..., watermark: _Optional[int] = ..., arrays: _Optional[str] = ..., uplink: _Optional[str] = ..., carrier: _Optional[str] = ..., seed: _Optional[int] = ..., plan_digest: _Optional[bytes] = ..., plan: _Optional[bytes] = ..., target_bytes: _Optional[int] = ..., settings: _Optional[_Iterable[str]] = ..., tensors: _Optional[_Iterable[int]] = ..., split: _Optional[int] = ..., deadline: _Optional[float] = ..., outcome: _Optional[_Union[Instruction.Outcome, str]] = ..., factor: _Optional[float] = ..., reason: _Optional[str] = ..., decay: _Optional[float] = ..., exchange: _Optional[bytes] = ..., claim: _Optional[bytes] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("status", "version", "digest", "error", "field", "message", "plan_digest", "uplink_rate", "points", "owed", "orphaned", "dropped", "claim")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[Receipt.Status]
        OK: _ClassVar[Receipt.Status]
        NEED_MODEL: _ClassVar[Receipt.Status]
        REFUSED: _ClassVar[Receipt.Status]
    STATUS_UNSPECIFIED: Receipt.Status
    OK: Receipt.Status
    NEED_MODEL: Receipt.Status
    REFUSED: Receipt.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    UPLINK_RATE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    OWED_FIELD_NUMBER: _ClassVar[int]
    ORPHANED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    status: Receipt.Status
    version: int
    digest: bytes
    error: str
    field: str
    message: str
    plan_digest: bytes
    uplink_rate: float
    points: bytes
    owed: float
    orphaned: float
    dropped: float
    claim: bytes
    def __init__(self, status: _Optional[_Union[Receipt.Status, str]] = ..., version: _Optional[int] = ..., digest: _Optional[bytes] = ..., error: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ..., plan_digest: _Optional[bytes] = ..., uplink_rate: _Optional[float] = ..., points: _Optional[bytes] = ..., owed: _Optional[float] = ..., orphaned: _Optional[float] = ..., dropped: _Optional[float] = ..., claim: _Optional[bytes] = ...) -> None: ...
