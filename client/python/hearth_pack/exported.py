"""torch.export's programs as TorchScript."""

import torch
import torch.utils._pytree as pytree
from torch.fx.graph import CodeGen

from hearth_pack.errors import PackError, first_line

# What export notes down about its inputs; the shapes are hearthd's to check.
_ASSERTIONS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range",
               "sym_constrain_range_for_size")


def load(path):
    try:
        return torch.export.load(path)
    except Exception as error:  # what a foreign zip raises depends on what it lacks
        raise PackError(f"'{path}' is not a program that torch.export.load reads: {first_line(error)}") from error


def graph_module(program):
    """A new module of the program; it shares the parameters, and has buffers of its own, which runs may change."""
    try:
        module = program.module(check_guards=False)
    except TypeError:  # before PyTorch 2.9 there are none
        module = program.module()
    copies = {}
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = copies.setdefault(id(buffer), buffer.clone())
    return module


class Reference(torch.nn.Module):
    """The exported program, called with its inputs by name whatever their structure was."""

    def __init__(self, program):
        super().__init__()
        self.graph = graph_module(program)
        # The names that its state has in the program: those of graph, without its own.
        self.names = list(self.graph.state_dict())
        self.input_names = [node.target for node in self.graph.graph.nodes if node.op == "placeholder"]

    def forward(self, **named):
        args, kwargs = pytree.tree_unflatten([named[name] for name in self.input_names], self.graph._in_spec)
        return self.graph(*args, **kwargs)


def example_inputs(program):
    """{input: tensor} that it was exported with; None when they are not tensors, or were not kept."""
    if not program.example_inputs:
        return None
    leaves = pytree.tree_leaves(program.example_inputs)
    names = Reference(program).input_names
    if len(leaves) != len(names) or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return None
    return dict(zip(names, leaves))


def script(program):
    """The graph as code that TorchScript compiles: the same operators in the same order, nothing traced again, so
    that what export kept open (a batch dimension, say) stays open."""
    module = graph_module(program)
    module._forward_pre_hooks.clear()
    module._forward_hooks.clear()
    graph = module.graph
    for node in reversed(list(graph.nodes)):
        if node.op != "call_function":
            continue
        if getattr(node.target, "_opname", "") in _ASSERTIONS and not node.users:
            graph.erase_node(node)
        elif node.target is torch.ops.aten.sym_size.int:
            node.op, node.target = "call_method", "size"
        elif isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
    for node in graph.nodes:
        if node.op == "call_function":  # TorchScript takes a device by its name
            node.args, node.kwargs = pytree.tree_map(
                lambda leaf: str(leaf) if isinstance(leaf, torch.device) else leaf, (node.args, dict(node.kwargs)))
    output = graph.output_node()
    results = pytree.tree_unflatten(pytree.tree_leaves(output.args[0]), module._out_spec)
    output.args = (results,)
    graph.set_codegen(CodeGen())
    module.recompile()
    try:
        return torch.jit.script(module)
    except Exception as error:
        raise PackError(f"TorchScript cannot express the exported program: {first_line(error)}; pack the module "
                        "that it was exported from, as MODULE:FACTORY") from error
