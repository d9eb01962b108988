"""Status and metadata of a model as the messages of gRPC."""

from __future__ import annotations

from collections.abc import Mapping

from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from easytransfer.serving.repository import VersionStatus
from easytransfer.serving.saved_model import SavedModelServable

SIGNATURES = "signature_def"


def status_message(states: Mapping[int, VersionStatus]) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the states of versions, the highest first."""
    message = get_model_status_pb2.GetModelStatusResponse()
    for version in sorted(states, reverse=True):
        status = message.model_version_status.add(version=version, state=states[version].state)
        status.status.error_code = error_codes_pb2.Code.Value(states[version].error_code)
        status.status.error_message = states[version].error_message
    return message


def metadata_message(servable: SavedModelServable) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Returns the signatures of a version."""
    message = get_model_metadata_pb2.GetModelMetadataResponse()
    message.model_spec.name = servable.name
    message.model_spec.version.value = servable.version
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in servable.definitions.items():
        signatures.signature_def[name].CopyFrom(definition)
    message.metadata[SIGNATURES].Pack(signatures)
    return message
