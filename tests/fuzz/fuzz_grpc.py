"""Target that sends gRPC requests to the embedded server, without a socket."""

from __future__ import annotations

from typing import Any

from fuzz_case import Folder, NoCase, Target
from fuzz_inputs import files, keyed, texts
from fuzz_serving import COLUMNS, MOST_BYTES, NEEDED, SIGNATURES, TOKEN, server
from hypothesis import strategies as st

RPC_CODES = {"INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "UNIMPLEMENTED", "DEADLINE_EXCEEDED"}
REQUESTS = {
    "Predict": "PredictRequest",
    "Classify": "ClassificationRequest",
    "Regress": "RegressionRequest",
    "MultiInference": "MultiInferenceRequest",
    "GetModelMetadata": "GetModelMetadataRequest",
    "GetModelStatus": "GetModelStatusRequest",
    "HandleReloadConfigRequest": "ReloadConfigRequest",
}


class Aborted(Exception):
    """What `abort` of a call raises."""


class Context:
    """What a method knows of its call."""

    def __init__(self, token: str, seconds: float | None) -> None:
        self._token, self._seconds = token, seconds

    def invocation_metadata(self) -> Any:
        return (("authorization", self._token),)

    def time_remaining(self) -> float | None:
        return self._seconds

    async def abort(self, code: Any, details: str) -> None:
        assert code.name in RPC_CODES, f"{code.name}: {details}"
        assert 0 < len(details.encode()) < MOST_BYTES * 4, len(details)
        raise Aborted


def call(given: tuple[int, Any, int | None, bool, float | None], folder: Folder) -> None:
    """A call: an answer that can be sent, or a code that blames the client."""
    number, wanted, model, known, seconds = given
    method, token = list(REQUESTS)[number], f"Bearer {TOKEN}" if known else "Bearer no"
    request = request_of(method, wanted)
    for place in [request, *getattr(request, "tasks", [])] if model is not None else []:
        if hasattr(place, "model_spec"):
            fill(place.model_spec, MODELS[model])
    service = next(service for service in server().calls if hasattr(service, method))
    try:
        answer = server().loop.run_until_complete(getattr(service, method)(request, Context(token, seconds)))
    except Aborted:
        return
    answer.SerializeToString()


def request_of(method: str, wanted: Any) -> Any:
    """Returns the request of a method from its wire form or its fields."""
    from google.protobuf import symbol_database
    from google.protobuf.message import DecodeError

    import easytransfer.serving.rpc  # noqa: F401 - makes the messages known

    try:
        request = symbol_database.Default().GetSymbol(f"tensorflow.serving.{REQUESTS[method]}")()
        request.ParseFromString(wanted) if isinstance(wanted, bytes) else fill(request, wanted)
    except (DecodeError, ValueError):
        raise NoCase from None  # gRPC refuses it before any code of ours, or it cannot be sent at all
    return request


def fill(message: Any, fields: dict[str, Any]) -> None:
    """Sets the fields of a message, of those in it, and of those in its maps and lists."""
    for name, value in fields.items():
        place = getattr(message, name)
        if isinstance(value, list):
            for item in value:
                fill(place.add(), item) if isinstance(item, dict) else place.append(item)
        elif isinstance(value, dict) and not hasattr(place, "SetInParent"):
            for key, item in value.items():
                fill(place[key], item)
        elif isinstance(value, dict):
            place.SetInParent()
            fill(place, value)
        else:
            setattr(message, name, value)


def lists(item: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(item, max_size=most)


def fields(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=known)


INT = st.one_of(st.integers(-1, 9), st.sampled_from([2**31 - 1, -(2**31), 300]))
LONG = st.one_of(st.integers(-2, 5), st.sampled_from([2**31, 2**40, 2**62, 2**63 - 1, -(2**63)]))
FLOAT = st.floats(width=32)
TWO, FIVE = {"size": 2}, {"size": 5}
GOOD_TENSORS = [
    {"dtype": 1, "tensor_shape": {"dim": [TWO]}, "float_val": [0.5]},
    {"dtype": 1, "tensor_shape": {"dim": [TWO, FIVE]}, "tensor_content": bytes(40)},
    {"dtype": 1, "tensor_shape": {"dim": [TWO, TWO, TWO]}, "float_val": [1.0, 2.0]},
    {"dtype": 7, "tensor_shape": {"dim": [TWO]}, "string_val": [b"a", b"\xff"]},
    {"dtype": 10, "tensor_shape": {"dim": [TWO]}, "bool_val": [True]},
    {"dtype": 4, "tensor_shape": {"dim": [TWO]}, "int_val": [255, 0]},
]
ANY_TENSOR = fields(
    dtype=st.one_of(st.sampled_from([1, 1, 3, 4, 7, 7, 9, 10, 14, 19, 20, 21, 23]), st.integers(-1, 130)),
    tensor_shape=st.one_of(
        fields(dim=st.lists(fields(size=st.integers(0, 3)), min_size=1, max_size=2)),
        fields(dim=lists(fields(size=LONG, name=texts()), 5), unknown_rank=st.booleans()),
    ),
    tensor_content=st.binary(max_size=24),
    float_val=lists(FLOAT),
    double_val=lists(st.floats()),
    int_val=lists(INT),
    int64_val=lists(LONG),
    string_val=lists(st.one_of(st.binary(max_size=9), texts().map(str.encode))),
    bool_val=lists(st.booleans()),
    half_val=lists(INT),
    scomplex_val=lists(FLOAT),
    variant_val=lists(fields(type_name=texts(), metadata=st.binary(max_size=9)), 1),
    resource_handle_val=lists(fields(device=texts(), name=texts()), 1),
)
TENSOR = st.one_of(st.sampled_from(GOOD_TENSORS), st.sampled_from(GOOD_TENSORS), ANY_TENSOR)
SPEC = fields(
    name=st.sampled_from(["toy"] * 9 + ["", "no", "../toy"]),
    signature_name=st.one_of(st.sampled_from(list(SIGNATURES)), texts()),
    version=fields(value=st.one_of(st.sampled_from([2, 3]), LONG)),
    version_label=st.one_of(st.sampled_from(["stable", "canary"]), texts()),
)
FEATURE = fields(
    bytes_list=fields(value=lists(st.binary(max_size=9))),
    float_list=fields(value=lists(FLOAT)),
    int64_list=fields(value=lists(LONG)),
)
EXAMPLE = fields(features=fields(feature=keyed(["x", "name"], FEATURE)))
INPUT = st.one_of(
    fields(example_list=fields(examples=lists(EXAMPLE))),
    fields(example_list_with_context=fields(examples=lists(EXAMPLE), context=EXAMPLE)),
)
TASK = fields(
    model_spec=SPEC,
    method_name=st.one_of(st.sampled_from(["tensorflow/serving/classify", "tensorflow/serving/regress"]), texts()),
)
CONFIG = fields(model_config_list=fields(config=lists(fields(name=texts(), base_path=texts()), 1)))
DRAWN = {
    "Predict": fields(model_spec=SPEC, inputs=keyed(COLUMNS, TENSOR), output_filter=lists(texts(["y", "tag"]), 2)),
    "Classify": fields(model_spec=SPEC, input=INPUT),
    "Regress": fields(model_spec=SPEC, input=INPUT),
    "MultiInference": fields(tasks=lists(TASK), input=INPUT),
    "GetModelMetadata": fields(model_spec=SPEC, metadata_field=lists(texts(["signature_def"]), 2)),
    "GetModelStatus": fields(model_spec=SPEC),
    "HandleReloadConfigRequest": fields(config=CONFIG),
}
TOY = {"name": "toy"}
PAIR = {"example_list": {"examples": [{"features": {"feature": {"x": {"float_list": {"value": [0.5]}}}}}] * 2}}
GOOD_CALLS = {
    "Predict": {"model_spec": TOY, "inputs": {"x": GOOD_TENSORS[0]}},
    "Classify": {"model_spec": {**TOY, "signature_name": "classify", "version": {"value": 2}}, "input": PAIR},
    "Regress": {"model_spec": {**TOY, "signature_name": "regress", "version_label": "canary"}, "input": PAIR},
    "MultiInference": {
        "tasks": [
            {"model_spec": {**TOY, "signature_name": name}, "method_name": f"tensorflow/serving/{name}"}
            for name in ("classify", "regress")
        ],
        "input": PAIR,
    },
    "GetModelMetadata": {"model_spec": TOY, "metadata_field": ["signature_def"]},
    "GetModelStatus": {"model_spec": TOY},
    "HandleReloadConfigRequest": {},
}
NUMBERS = st.sampled_from([0] * 10 + [1, 2, 3] * 4 + [4, 5, 6])
SECONDS_LEFT = st.sampled_from([None] * 20 + [5.0, 1e12, 0.0, -1.0])
# Which model and signature are asked, whatever the texts became; None leaves what stands in the request.
VERSIONS = ({}, {"version": {"value": 2}}, {"version_label": "canary"})
MODELS = [{**TOY, "signature_name": name, **version} for name in SIGNATURES for version in VERSIONS]
KNOWN = st.sampled_from([True] * 30 + [False])


def models(method: str) -> st.SearchStrategy[int | None]:
    """Places in `MODELS` that fit a method, sometimes others."""
    fit = [i for i, spec in enumerate(MODELS) if spec["signature_name"] == method.lower()]
    return st.sampled_from([*fit * 10, *range(len(MODELS)), *[None] * (90 if method == "MultiInference" else 5)])


def requests(method: str, model: int | None) -> st.SearchStrategy[Any]:
    """Fields of a request that fit the method and the signature, any fields, or the wire form of a request."""
    good = GOOD_CALLS[method]
    fit: st.SearchStrategy[Any] = st.just(good)
    if method == "Predict" and model is not None:
        names = SIGNATURES[MODELS[model]["signature_name"]]
        fit = st.fixed_dictionaries({"inputs": st.fixed_dictionaries(dict.fromkeys(names, TENSOR))})
    wires = st.deferred(lambda: files(request_of(method, good).SerializeToString()))
    return st.integers(0, 3).flatmap(lambda kind: DRAWN[method] if kind == 3 else wires if kind == 2 else fit)


@st.composite
def calls(draw: Any) -> tuple[int, Any, int | None, bool, float | None]:
    """What `call` takes."""
    number = draw(NUMBERS)
    model = draw(models(list(REQUESTS)[number]))
    return number, draw(requests(list(REQUESTS)[number], model)), model, draw(KNOWN), draw(SECONDS_LEFT)


GRPC_TARGETS = NEEDED * (Target("grpc", calls(), call, heavy=True, prepare=server),)
