"""Run by the Python that has kserve: what its clients get from a hearthd, as JSON. Arguments: gRPC's and HTTP's port."""

import asyncio
import json
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

VALUES = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)


def request(model, binary):
    given = InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(VALUES, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[given], request_id="7")


def answer(got):
    output, = got.outputs
    return {"id": got.id, "model": got.model_name, "values": output.as_numpy().tolist()}


async def over_grpc(port):
    client = InferenceGRPCClient(f"127.0.0.1:{port}", retries=0)
    said = {"live": await client.is_server_live(), "ready": await client.is_server_ready(),
            "infer": answer(await client.infer(request("batched", True))),
            "model_ready": await client.is_model_ready("batched")}
    try:
        await client.infer(request("nobody", True))
    except grpc.RpcError as error:
        said["refusal"] = error.code().name
    await client.close()
    return said


async def over_http(port):
    client, base = InferenceRESTClient(RESTConfig(protocol="v2", retries=0)), f"http://127.0.0.1:{port}"
    said = {"live": await client.is_server_live(base), "ready": await client.is_server_ready(base),
            "infer": answer(await client.infer(base, request("batched", True), model_name="batched")),
            "json": answer(await client.infer(base, request("batched", False), model_name="batched")),
            "model_ready": await client.is_model_ready(base, "batched")}
    await client.close()
    return said


async def main(grpc_port, http_port):
    print(json.dumps({"grpc": await over_grpc(grpc_port), "http": await over_http(http_port)}))


asyncio.run(main(*sys.argv[1:]))
