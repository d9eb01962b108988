"""What can be set about the server; no TensorFlow here, so that help and mistakes are answered at once."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from easytransfer.config.schema import ConfigModel, setting

TOKEN_VARIABLE = "EASYTRANSFER_SERVING_TOKEN"


class ServingConfig(ConfigModel):
    """Server of exported models."""

    model_dir: str | None = setting(None, "Exports, see below; may stand first, without its flag.", path="one")
    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    rest_port: int = setting(8501, "Port of the REST protocol and the page; 0 takes a free one.", ge=0, le=65535)
    grpc_port: int = setting(8500, "Port of the gRPC protocol; 0 takes a free one.", ge=0, le=65535)
    batching_config: str | None = setting(
        None, "File of batching parameters; that beside the models when not given, else built-in values.", path="one"
    )
    poll_seconds: float = setting(2.0, "How often to look for new versions and changed labels; 0 for never.", ge=0)
    request_seconds: float = setting(30.0, "Longest time of a request; a client's own limit may be less.", gt=0)
    max_request_mb: float = setting(16.0, "Largest request, in MiB.", gt=0)
    drain_delay_seconds: float = setting(
        0.0, "After SIGTERM: go on taking requests for so long while readiness already says no.", ge=0
    )
    drain_seconds: float = setting(30.0, "After SIGTERM: time to answer the requests that are running.", gt=0)
    tls_cert: str | None = setting(None, "File of the certificate chain, for TLS on both ports.", path="one")
    tls_key: str | None = setting(None, "File of its private key.", path="one")
    token_file: str | None = setting(
        None, f"File with the token clients must send as `Bearer`; {TOKEN_VARIABLE} holds one, too.", path="one"
    )
    access_log: bool = setting(True, "One line of JSON for each request, without its contents.")
    log_format: Literal["text", "json"] = setting("json", "Form of all other messages.")

    @model_validator(mode="after")
    def _certificate_and_key(self) -> ServingConfig:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both or neither")
        return self
