"""Does a Ray listen at an address? Ray itself would keep trying for minutes, in a call that no signal interrupts."""

from __future__ import annotations

from typing import Any

from drpo_rewards.cluster import loopback

ANSWER_S = 20.0
"""Seconds within which a Ray must answer, however busy its machine is."""


def check_is_ray(address: str) -> None:
    """Ask what listens at an address, as Ray's own processes do.

    Args:
        address: `auto`, HOST:PORT or ray://HOST:PORT.

    Raises:
        OSError: nothing listens there, or it is no Ray.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, ray_client_pb2

    host, port = loopback.find_endpoint(address)
    gcs: Any = gcs_service_pb2  # generated code without types
    client: Any = ray_client_pb2
    if address.startswith(loopback.CLIENT_SCHEME):
        ping = client.ClusterInfoRequest(type=client.ClusterInfoType.PING)
        method, request = "RayletDriver/ClusterInfo", ping
    else:
        method, request = "NodeInfoGcsService/CheckAlive", gcs.CheckAliveRequest()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # As Ray makes its channels: with TLS or a token where its environment variables ask for them.
    with init_grpc_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{method}")(request.SerializeToString(), timeout=ANSWER_S)
        except grpc.RpcError as error:
            code = error.code()
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED):
                raise OSError("another program listens there") from error
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise OSError(f"what listens there has not answered within {ANSWER_S:g} s") from error
            # Anything else, such as a missing token, is a Ray's answer.
