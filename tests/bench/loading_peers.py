"""One load by one of the loaders that PyTorch people use, in a process of its own; prints JSON as load_bench does.

    loading_peers.py LOADER SIZE FILE DEVICE
"""

import json
import resource
import sys
import time

import torch

import loading_files


def torch_load(file):
    return torch.load(file, weights_only=True, map_location=device)


def torch_load_mmap(file):
    return torch.load(file, weights_only=True, mmap=True, map_location=device)


def safetensors_mmap(file):
    return safetensors.torch.load_file(file, device=device)


def fast_safetensors(file):
    loader = fastsafetensors.SafeTensorsFileLoader(fastsafetensors.SingleGroup(), device, nogds=True)
    loader.add_filenames({0: [file]})
    buffers = loader.copy_files_to_device()
    kept.extend((loader, buffers))  # the tensors are views of its buffers
    return {name: buffers.get_tensor(name) for name in loader.get_keys()}


def runai_streamer(file):
    with runai_model_streamer.SafetensorsStreamer() as streamer:
        streamer.stream_file(file)
        return {name: tensor.to(device) for name, tensor in streamer.get_tensors()}


LOADERS = {function.__name__: function for function in
           (torch_load, torch_load_mmap, safetensors_mmap, fast_safetensors, runai_streamer)}
kept = []
device = "cpu"


def status_kb(field):
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def major_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def fnv1a(data):
    """As load_bench.cc computes it."""
    value = 1469598103934665603
    for byte in data:
        value = ((value ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def ms(begin, end):
    return round((end - begin) * 1e3, 3)


def main():
    load, size, file = LOADERS[sys.argv[1]], loading_files.SIZES[sys.argv[2]], sys.argv[3]
    torch.set_num_threads(1)
    eight = torch.ones(8, 8, device=device)
    eight.matmul(eight).cpu()
    x = torch.ones(1, size.width)
    anon, faults = status_kb("RssAnon:"), major_faults()
    start = time.perf_counter()
    state = load(file)
    with torch.device("meta"):
        module = loading_files.Wide(size.width, size.layers)
    module.load_state_dict(state, assign=True)
    module.eval()
    if device != "cpu":
        torch.accelerator.synchronize()
    bound = time.perf_counter()
    anon = status_kb("RssAnon:") - anon
    with torch.inference_mode():
        answer = module(x.to(device)).contiguous().cpu()
    first = time.perf_counter()
    print(json.dumps({"loads": [{
        "bound_ms": ms(start, bound), "loaded_ms": ms(start, bound), "first_answer_ms": ms(start, first),
        "anon_kb": anon, "rss_kb": status_kb("VmRSS:"), "major_faults": major_faults() - faults,
        "hash": fnv1a(answer.numpy().tobytes())}]}))


if __name__ == "__main__":
    device = sys.argv[4]
    # The import of a loader is nobody's load.
    if sys.argv[1] == "fast_safetensors":
        import fastsafetensors
    elif sys.argv[1] == "runai_streamer":
        import runai_model_streamer
    else:
        import safetensors.torch
    main()
