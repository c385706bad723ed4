"""The models that the conformance suite asks for, written as a server's repository.

  python models.py --out DIR                     TorchScript with a model.yaml, for hearth
  python models.py --out DIR --layout libtorch   TorchScript with a config.pbtxt, for Triton's PyTorch backend
  python models.py --out DIR --layout python     numpy with a config.pbtxt, for Triton's Python backend

What each of them does is written down once as a TorchScript module (nets.py) and once as a line of numpy. `labelled`
has a config.pbtxt in every layout, for only there can classes have names.
"""

import argparse
import dataclasses
import pathlib

DATATYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
             "BF16", "BYTES")
LAYOUTS = ("hearth", "libtorch", "python")


@dataclasses.dataclass
class Spec:
    """One model. Tensors are (name, datatype, dims), as config.pbtxt has them: without the batch's dimension."""

    name: str
    module: object  # module(nets, version) -> nn.Module; None: a file that is no model
    inputs: list
    outputs: list
    numpy: str  # the answer, from the list x of inputs
    max_batch_size: int = 0
    versions: tuple = (1,)
    instances: int = 0
    pbtxt: str = ""  # more of config.pbtxt
    yaml: str = ""  # the same in model.yaml
    labels: tuple = ()
    numpy_before: str = ""  # statements before `numpy`


def tensors(datatype, dims, *names):
    return [(name, datatype, dims) for name in names]


def plain(name, datatype, dims, module, numpy, **more):
    return Spec(name, module, tensors(datatype, dims, "INPUT0"), tensors(datatype, dims, "OUTPUT0"), numpy, **more)


SEQUENCE = """\
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 8 }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] }
  ]
$STATE}
"""
STATE = """\
  state [
    { input_name: "STATE" output_name: "STATE_OUT" data_type: TYPE_FP32 dims: [ 1 ]
      initial_state: { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true name: "zero" } }
  ]
"""

MODELS = [
    *(plain(f"identity_{datatype.lower()}", datatype, [-1, -1], lambda nets, version: nets.Identity(), "[x[0]]")
      for datatype in DATATYPES if datatype != "BYTES"),
    # TorchScript's strings are lists.
    plain("identity_bytes", "BYTES", [-1], lambda nets, version: nets.Words(), "[x[0]]"),
    Spec("simple", lambda nets, version: nets.AddSub(), tensors("INT32", [16], "INPUT0", "INPUT1"),
         tensors("INT32", [16], "OUTPUT0", "OUTPUT1"), "[x[0] + x[1], x[0] - x[1]]", max_batch_size=8),
    plain("versions", "FP32", [-1, -1], lambda nets, version: nets.Times(version), "[x[0] * numpy.float32(version)]",
          versions=(1, 2, 10)),
    *(plain(f"comes_and_goes_{i}", "FP32", [-1, -1], lambda nets, version: nets.Times(2), "[x[0] * numpy.float32(2)]")
      for i in range(3)),
    Spec("slow", lambda nets, version: nets.Slow(), [("INPUT0", "FP32", [-1]), ("INPUT1", "INT64", [1])],
         tensors("FP32", [-1], "OUTPUT0"), "[x[0]]", instances=1, numpy_before="time.sleep(float(x[1].sum()) / 1000)"),
    plain("fails", "FP32", [-1, -1], lambda nets, version: nets.Fails(), "[x[0]]",
          numpy_before="if x[0].sum() > 0: raise ValueError('nothing positive, please')"),
    plain("broken", "FP32", [-1, -1], None, "[x[0]]"),
    plain("labelled", "FP32", [4], lambda nets, version: nets.Identity(), "[x[0]]", max_batch_size=8,
          labels=("ant", "bee", "cow", "dog")),
    plain("queued", "FP32", [4], lambda nets, version: nets.Identity(), "[x[0]]", max_batch_size=8,
          pbtxt="dynamic_batching { max_queue_delay_microseconds: 100000 }\n", yaml="batching: {max_delay: 100ms}\n"),
    Spec("accumulator", lambda nets, version: nets.Accumulator(), tensors("FP32", [1], "INPUT0"),
         tensors("FP32", [1], "OUTPUT0"), "", max_batch_size=1, instances=1, pbtxt=SEQUENCE,
         yaml="sequences: {idle_timeout: 1m}\n"),
]

PYTHON_MODEL = '''\
import time

import numpy
import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        version = {version}
        x = [utils.get_input_tensor_by_name(request, name).as_numpy() for name in {inputs}]
        {before}
        values = {numpy}
        wanted = request.requested_output_names()
        return utils.InferenceResponse([utils.Tensor(name, value) for name, value in zip({outputs}, values)
                                        if name in wanted])
'''

# The Python backend carries no state: the model has it, and there is one instance.
PYTHON_ACCUMULATOR = '''\
import numpy
import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        value, start = (utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("INPUT0", "START"))
        sequence = request.correlation_id()
        before = numpy.zeros_like(value) if start.any() else self.totals[sequence]
        self.totals[sequence] = before + value
        return utils.InferenceResponse([utils.Tensor("OUTPUT0", self.totals[sequence])])
'''


def enum(datatype):
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def config_pbtxt(spec, layout):
    lines = [f'name: "{spec.name}"']
    lines.append('backend: "python"' if layout == "python" else 'platform: "pytorch_libtorch"')
    lines.append(f"max_batch_size: {spec.max_batch_size}")
    for kind, listed in (("input", spec.inputs), ("output", spec.outputs)):
        for name, datatype, dims in listed:
            label = ' label_filename: "labels.txt"' if kind == "output" and spec.labels else ""
            lines.append(f'{kind} [ {{ name: "{name}" data_type: {enum(datatype)} dims: {dims}{label} }} ]')
    count = f"count: {spec.instances} " if spec.instances else ""
    lines.append(f"instance_group [ {{ {count}kind: KIND_CPU }} ]")
    if len(spec.versions) > 1:
        lines.append("version_policy { all { } }")
    state = STATE if layout != "python" else ""
    return "\n".join(lines) + "\n" + spec.pbtxt.replace("$STATE", state)


def model_yaml(spec):
    batch = [-1] if spec.max_batch_size else []
    lines = [f"max_batch_size: {spec.max_batch_size}"] if spec.max_batch_size else []
    if spec.instances:
        lines.append(f"instances: {spec.instances}")
    for kind, listed in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        lines.append(f"{kind}:")
        lines += [f"  - {{name: {name}, datatype: {datatype}, shape: {batch + dims}}}"
                  for name, datatype, dims in listed]
    return "\n".join(lines) + "\n" + spec.yaml


def python_model(spec, version):
    if spec.name == "accumulator":
        return PYTHON_ACCUMULATOR
    before = spec.numpy_before or "pass"
    initialize = "pass" if spec.module else "raise ValueError('this model is broken')"
    return PYTHON_MODEL.format(version=version, before=before, numpy=spec.numpy, initialize=initialize,
                               inputs=[name for name, *_ in spec.inputs], outputs=[name for name, *_ in spec.outputs])


def write_version(spec, version, folder, layout):
    folder.mkdir(parents=True)
    if layout == "python":
        (folder / "model.py").write_text(python_model(spec, version))
    elif spec.module is None:
        (folder / "model.pt").write_bytes(b"this is no model" * 100)
    else:
        import nets  # pylint: disable=import-outside-toplevel
        import torch  # pylint: disable=import-outside-toplevel
        module = spec.module(nets, version)
        if layout == "hearth" and spec.name == "accumulator":
            module = nets.Sum()  # keeps its state itself
        torch.jit.save(torch.jit.script(module.eval()), str(folder / "model.pt"))


def write(out, layout="hearth"):
    """Writes all of them below `out`."""
    for spec in MODELS:
        if layout == "python" and spec.name == "identity_bf16":
            continue  # numpy has no such type
        home = pathlib.Path(out) / spec.name
        for version in spec.versions:
            write_version(spec, version, home / str(version), layout)
        if layout == "hearth" and not spec.labels:
            (home / "model.yaml").write_text(model_yaml(spec))
        else:
            (home / "config.pbtxt").write_text(config_pbtxt(spec, layout))
        if spec.labels:
            (home / "labels.txt").write_text("\n".join(spec.labels) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="a folder; models are added to it")
    parser.add_argument("--layout", choices=LAYOUTS, default="hearth")
    arguments = parser.parse_args()
    write(arguments.out, arguments.layout)


if __name__ == "__main__":
    main()
