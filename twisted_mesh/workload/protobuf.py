"""Messages of protobuf made of a table of their fields, in a pool of their own.

Another module with the same messages, py-spiffe's or Envoy's for one, may be loaded in the same process: in the pool
that all share they would be twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from pki.errors import Malformed

_Field = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
}
_MAP, _REPEATED = "map of ", "repeated "

#: Of each message, by its full name, the fields with their numbers and kinds: ``string``, ``bytes``, ``int32`` or
#: the full name of a message, perhaps behind ``repeated`` or (by strings) ``map of``.
Schema = Mapping[str, Mapping[str, tuple[int, str]]]


@frozen
class Messages:
    """The messages of ``schema``; a package stands in it behind those that it uses."""

    what: str
    """What they are of, for sentences: ``the Workload API``."""
    schema: Schema = field(repr=False)
    imports: Sequence[FileDescriptor] = field(default=(), repr=False)
    """Of protobuf's own, what the schema uses besides."""
    _classes: Mapping[str, Any] = field(init=False, repr=False)
    """By their names without a package."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_classes", _made(self.schema, self.imports))

    def new(self, name: str, /, **fields: Any) -> Any:
        """A message, as protobuf has it."""
        return self._classes[name](**fields)

    def read(self, name: str, data: bytes) -> Any:
        """The message in ``data``. Raises :class:`Malformed`."""
        message = self.new(name)
        try:
            message.ParseFromString(data)
        except (DecodeError, ValueError, RecursionError):
            raise Malformed(f"this is no {name} of {self.what}") from None
        return message


def write(message: Any) -> bytes:
    """Equal messages are equal bytes."""
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _made(schema: Schema, imports: Sequence[FileDescriptor]) -> Mapping[str, Any]:
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for full, fields in schema.items():
        package, _, name = full.rpartition(".")
        file = files.setdefault(
            package,
            descriptor_pb2.FileDescriptorProto(
                name=package or "messages",
                package=package,
                syntax="proto3",
                dependency=[imported.name for imported in imports],
            ),
        )
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            _add(message, full, field_name, number, kind)
            used = kind.removeprefix(_REPEATED).rpartition(".")[0]
            if used in files and used not in (package, *file.dependency):
                file.dependency.append(used)
    pool = DescriptorPool()
    for imported in imports:
        pool.AddSerializedFile(imported.serialized_pb)
    for file in files.values():
        pool.AddSerializedFile(file.SerializeToString())
    return {
        full.rpartition(".")[2]: GetMessageClass(pool.FindMessageTypeByName(full))
        for full in schema
    }


def _add(
    message: descriptor_pb2.DescriptorProto, full: str, name: str, number: int, kind: str
) -> None:
    if kind.startswith(_MAP):
        entry = message.nested_type.add(
            name="".join(map(str.capitalize, name.split("_"))) + "Entry"
        )
        entry.options.map_entry = True
        _add(entry, "", "key", 1, "string")
        _add(entry, "", "value", 2, kind.removeprefix(_MAP))
        kind = f"{_REPEATED}{full}.{entry.name}"
    single = kind.removeprefix(_REPEATED)
    made = message.field.add(
        name=name,
        number=number,
        type=_KINDS.get(single, _Field.TYPE_MESSAGE),
        label=_Field.LABEL_OPTIONAL if kind == single else _Field.LABEL_REPEATED,
    )
    if single not in _KINDS:
        made.type_name = f".{single}"
