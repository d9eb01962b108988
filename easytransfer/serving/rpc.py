"""The gRPC protocol: PredictionService and ModelService on TensorFlow Serving's own messages."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from easytransfer.errors import ResourceError
from easytransfer.savedmodel.calling import Arrays
from easytransfer.serving.access import Gate
from easytransfer.serving.examples import examples_of_input
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.messages import SIGNATURES, metadata_message, status_message
from easytransfer.serving.repository import Target
from easytransfer.serving.saved_model import array_of
from easytransfer.serving.servable import LoadedSignature
from easytransfer.serving.service import Answer, Record, Service
from easytransfer.serving.settings import ServingConfig

_METHODS = {"tensorflow/serving/classify": "classify", "tensorflow/serving/regress": "regress"}
_Context = grpc.aio.ServicerContext


class _Calls:
    """What every method shares.

    Args:
        service: Answers.
        gate: Who may ask.
        most_bytes: Largest array in a request.
    """

    def __init__(self, service: Service, gate: Gate, most_bytes: int) -> None:
        self._service, self._gate, self._most_bytes = service, gate, most_bytes

    async def _answer(self, api: str, context: _Context, call: Callable[[Record], Awaitable[Any]]) -> Any:
        """Runs one call; a failure leaves as its status."""
        try:
            self._gate.check(dict(context.invocation_metadata() or ()).get("authorization"))
            with self._service.observed(api, "GRPC") as record:
                return await call(record)
        except ServingFailure as failure:
            await context.abort(grpc.StatusCode[failure.code], str(failure))

    async def _plain_answer(self, context: _Context, call: Callable[[], Any]) -> Any:
        """The same for what asks no model, and is neither counted nor logged."""
        try:
            self._gate.check(dict(context.invocation_metadata() or ()).get("authorization"))
            return call()
        except ServingFailure as failure:
            await context.abort(grpc.StatusCode[failure.code], str(failure))


class PredictionService(_Calls, prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference and GetModelMetadata."""

    async def Predict(self, request: Any, context: _Context) -> Any:
        """Answers with the tensors of a signature, or those of them that the filter names."""

        def inputs_of(signature: LoadedSignature) -> Arrays:
            unknown = sorted(set(request.output_filter) - set(signature.outputs))
            if unknown:
                raise ServingFailure("INVALID_ARGUMENT", f"output tensor alias not found in signature: {unknown[0]}")
            return {name: array_of(tensor, self._most_bytes) for name, tensor in request.inputs.items()}

        async def call(record: Record) -> Any:
            spec = request.model_spec
            answer = await self._service.predict(
                record, _target(spec), spec.signature_name, inputs_of, context.time_remaining()
            )
            reply = predict_pb2.PredictResponse(model_spec=_spec(answer))
            for name in request.output_filter or answer.outputs:
                reply.outputs[name].CopyFrom(_tensor(answer, name))
            return reply

        return await self._answer("predict", context, call)

    async def Classify(self, request: Any, context: _Context) -> Any:
        """Answers with labels and scores for each example."""

        async def call(record: Record) -> Any:
            answer, result = await self._classified(record, request.model_spec, request.input, context)
            return classification_pb2.ClassificationResponse(model_spec=_spec(answer), result=result)

        return await self._answer("classify", context, call)

    async def Regress(self, request: Any, context: _Context) -> Any:
        """Answers with a number for each example."""

        async def call(record: Record) -> Any:
            answer, result = await self._regressed(record, request.model_spec, request.input, context)
            return regression_pb2.RegressionResponse(model_spec=_spec(answer), result=result)

        return await self._answer("regress", context, call)

    async def MultiInference(self, request: Any, context: _Context) -> Any:
        """Answers several classify and regress tasks on the same examples; all of one version of a model."""

        async def call(record: Record) -> Any:
            targets = {str(_target(task.model_spec)) for task in request.tasks}
            if len(targets) != 1:
                raise ServingFailure("INVALID_ARGUMENT", "the tasks must be for one model, at least one of them")
            # Held over all tasks: a version that appears between them must not answer some of them.
            with self._service.repository.lease(_target(request.tasks[0].model_spec)) as servable:
                reply = inference_pb2.MultiInferenceResponse()
                for task in request.tasks:
                    task.model_spec.version.value = servable.version
                    await self._task(record, task, request.input, reply.results.add(), context)
                return reply

        return await self._answer("multi_inference", context, call)

    async def GetModelMetadata(self, request: Any, context: _Context) -> Any:
        """Answers with the signatures of a version."""

        def call() -> Any:
            wrong = [field for field in request.metadata_field if field != SIGNATURES]
            if wrong or not request.metadata_field:
                named = f"Metadata field {wrong[0]} is not supported" if wrong else "no metadata field is named"
                raise ServingFailure("INVALID_ARGUMENT", f"{named}; accepted: {SIGNATURES}")
            with self._service.repository.lease(_target(request.model_spec)) as servable:
                return metadata_message(servable)

        return await self._plain_answer(context, call)

    async def _classified(self, record: Record, spec: Any, examples: Any, context: _Context) -> tuple[Answer, Any]:
        answer, rows = await self._service.classify(
            record, _target(spec), spec.signature_name, lambda: examples_of_input(examples), context.time_remaining()
        )
        result = classification_pb2.ClassificationResult()
        for row in rows:
            classes = result.classifications.add().classes
            for label, score in row:
                classes.add(label=label, score=score)
        return answer, result

    async def _regressed(self, record: Record, spec: Any, examples: Any, context: _Context) -> tuple[Answer, Any]:
        answer, values = await self._service.regress(
            record, _target(spec), spec.signature_name, lambda: examples_of_input(examples), context.time_remaining()
        )
        result = regression_pb2.RegressionResult()
        for value in values:
            result.regressions.add(value=value)
        return answer, result

    async def _task(self, record: Record, task: Any, examples: Any, result: Any, context: _Context) -> None:
        api = _METHODS.get(task.method_name)
        if api is None:
            raise ServingFailure(
                "UNIMPLEMENTED", f"unsupported method {task.method_name}; accepted: {sorted(_METHODS)}"
            )
        record.api = api
        if api == "classify":
            answer, found = await self._classified(record, task.model_spec, examples, context)
            result.classification_result.CopyFrom(found)
        else:
            answer, found = await self._regressed(record, task.model_spec, examples, context)
            result.regression_result.CopyFrom(found)
        record.api = "multi_inference"
        result.model_spec.CopyFrom(_spec(answer))


class ModelService(_Calls, model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; the set of models is changed through `models.config`, not by clients."""

    async def GetModelStatus(self, request: Any, context: _Context) -> Any:
        """Answers with the states of one version or of all."""
        status = self._service.repository.status
        return await self._plain_answer(context, lambda: status_message(status(_target(request.model_spec))))

    async def HandleReloadConfigRequest(self, request: Any, context: _Context) -> Any:
        """Refuses."""

        def call() -> Any:
            raise ServingFailure(
                "UNIMPLEMENTED", "clients cannot change the models; edit models.config, which the server reads again"
            )

        return await self._plain_answer(context, call)


class MessageCheck(grpc.aio.ServerInterceptor):
    """Refuses bytes that are no message; gRPC itself takes them for a failure of the server and logs a traceback."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Returns the handler of a call, with the check in front."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def checked(data: bytes, context: _Context) -> Any:
            try:
                request = handler.request_deserializer(data)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not a message of this method")
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(checked, None, handler.response_serializer)


class RpcServer:
    """The port of gRPC.

    Args:
        config: Settings.
        service: Answers.
        gate: Who may ask.
        most_bytes: Largest request.
        ready: Whether requests should be sent here.
    """

    def __init__(
        self, config: ServingConfig, service: Service, gate: Gate, most_bytes: int, ready: Callable[[], bool]
    ) -> None:
        self._config = config
        options = [("grpc.max_receive_message_length", most_bytes), ("grpc.max_send_message_length", -1)]
        # Without the last one a second server would silently share the port.
        self._server = grpc.aio.server(interceptors=[MessageCheck()], options=[*options, ("grpc.so_reuseport", 0)])
        add_services(self._server, service, gate, most_bytes, ready)

    async def start(self) -> int:
        """Listens, and returns the port.

        Raises:
            ResourceError: It is taken.
        """
        config = self._config
        try:
            port = self._add_port()
        except RuntimeError as error:
            raise ResourceError(f"cannot listen on {config.host}:{config.grpc_port}", fix="see --grpcPort") from error
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Answers what is running, and ends."""
        await self._server.stop(self._config.drain_seconds)

    def _add_port(self) -> int:
        config = self._config
        address = f"{f'[{config.host}]' if ':' in config.host else config.host}:{config.grpc_port}"
        if config.tls_cert is None:
            return self._server.add_insecure_port(address)
        pair = (Path(str(config.tls_key)).read_bytes(), Path(config.tls_cert).read_bytes())
        return self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))


def add_services(
    server: grpc.aio.Server, service: Service, gate: Gate, most_bytes: int, ready: Callable[[], bool]
) -> None:
    """Adds both services, and the standard health service if its package is installed.

    Args:
        server: Not started yet.
        service: Answers.
        gate: Who may ask.
        most_bytes: Largest array in a request.
        ready: Whether requests should be sent here.
    """
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(service, gate, most_bytes), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(service, gate, most_bytes), server)
    if importlib.util.find_spec("grpc_health") is None:
        return
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    class Health(health_pb2_grpc.HealthServicer):
        """Of the whole server, which is the empty name."""

        async def Check(self, request: Any, context: _Context) -> Any:
            """Answers with the state now."""
            if request.service:
                await context.abort(grpc.StatusCode.NOT_FOUND, "only the empty service name is known")
            states = health_pb2.HealthCheckResponse
            return states(status=states.SERVING if ready() else states.NOT_SERVING)

        async def Watch(self, request: Any, context: _Context) -> Any:
            """Refuses."""
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask with Check")

    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)


def _target(spec: Any) -> Target:
    choice = spec.WhichOneof("version_choice")
    return Target(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _spec(answer: Answer) -> Any:
    spec = predict_pb2.PredictResponse().model_spec
    spec.name, spec.version.value, spec.signature_name = answer.name, answer.version, answer.signature.name
    return spec


def _tensor(answer: Answer, name: str) -> Any:
    dtype = tf.dtypes.as_dtype(answer.signature.outputs[name].dtype)
    return tf.make_tensor_proto(answer.outputs[name], dtype)
