"""The protocol's data types, safetensors' and torch's, side by side."""

import torch

# As in the Open Inference Protocol, and in model.yaml.
PROTOCOL = {
    "BOOL": torch.bool, "UINT8": torch.uint8, "INT8": torch.int8, "INT16": torch.int16, "INT32": torch.int32,
    "INT64": torch.int64, "FP16": torch.float16, "BF16": torch.bfloat16, "FP32": torch.float32,
    "FP64": torch.float64,
}
SAFETENSORS = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
    "F64": torch.float64, "C64": torch.complex64,
}
# What only newer releases of PyTorch have.
for _bits in ("16", "32", "64"):
    if hasattr(torch, f"uint{_bits}"):
        PROTOCOL[f"UINT{_bits}"] = SAFETENSORS[f"U{_bits}"] = getattr(torch, f"uint{_bits}")
for _name, _torch in (("F8_E5M2", "float8_e5m2"), ("F8_E4M3", "float8_e4m3fn"), ("F8_E8M0", "float8_e8m0fnu")):
    if hasattr(torch, _torch):
        SAFETENSORS[_name] = getattr(torch, _torch)

PROTOCOL_NAMES = {dtype: name for name, dtype in PROTOCOL.items()}
SAFETENSORS_NAMES = {dtype: name for name, dtype in SAFETENSORS.items()}


def byte_view(tensor):
    """The tensor's elements one after the other, as a one-dimensional uint8 tensor."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def raw_bytes(tensor):
    """The same as a buffer that can be written and hashed; no copy where none is needed."""
    return memoryview(byte_view(tensor).numpy())
