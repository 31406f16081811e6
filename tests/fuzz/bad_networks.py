"""ONNX files with faults: bytes, graphs, numbers, and sizes that no machine has."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.bad_specs import OPTIONS, good_spec
from tests.fuzz.case import Case
from tests.importers.onnx_models import Case as Model
from tests.importers.onnx_models import floats, ints, op
from tests.importers.test_onnx_ops import CASES

HUGE = (-(2**63), -(2**31), -7, -1, 0, 1, 2, 3, 7, 10**4, 2**31 - 1, 2**31, 10**10, 2**62, 2**63 - 1)
"""Integers for extents, pads, axes and the like."""
STRANGE = (float("nan"), float("inf"), -float("inf"), 3.4e38, 1e-45, 0.0, -0.0, 1e30)

Mutation = Callable[[random.Random, onnx.ModelProto], None]


def deep() -> Model:
    """A few layers of most kinds in one network."""
    nodes = [
        op("Conv", "x k c", "a", pads=[1, 1, 1, 1]),
        op("BatchNormalization", "a s b m v", "n"),
        op("Relu", "n", "r"),
        op("AveragePool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        op("Shape", "p", "shape"),
        op("Gather", "shape zero", "batch", axis=0),
        op("Concat", "batch minus", "target", axis=0),
        op("Reshape", "p target", "f"),
        op("Gemm", "f w d", "g", transB=1),
        op("Relu", "g", "h"),
        op("Add", "g h", "i"),
        op("Split", "i", "j k2", axis=1),
        op("Concat", "k2 j", "l", axis=1),
        op("MatMul", "l w2", "y"),
    ]
    weights = {
        "k": floats(3, 2, 3, 3),
        "c": floats(3),
        "s": floats(3, seed=1),
        "b": floats(3, seed=2),
        "m": floats(3, seed=3),
        "v": np.abs(floats(3, seed=4)) + np.float32(0.5),
        "zero": ints(0),
        "minus": ints(-1),
        "w": floats(4, 12),
        "d": floats(4, seed=5),
        "w2": floats(4, 2),
    }
    return Model(nodes, [1, 2, 4, 4], (2,), weights)


SEEDS = (*CASES.values(), *[deep()] * 40)


def network_case(rng: random.Random) -> Case:
    """A mutated network and a property of the original's size."""
    seed = rng.choice(SEEDS)
    built = seed.model()
    inputs = int(np.prod([n if isinstance(n, int) else 1 for n in seed.shape[1:]])) if len(seed.shape) > 1 else None
    inputs = inputs if inputs is not None else int(np.prod([n if isinstance(n, int) else 1 for n in seed.shape]))
    outputs = int(np.prod(seed.out))
    spec = good_spec(rng, inputs, outputs)
    names = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutation = rng.choice(MUTATIONS)
        names.append(mutation.__name__)
        try:
            mutation(rng, built)
        except (
            IndexError,
            ValueError,
            TypeError,
            OverflowError,
            NotImplementedError,
        ):  # nothing there to change, or no such value
            names[-1] += " (nothing)"
    content = built.SerializeToString()
    if rng.random() < 0.12:
        byte = rng.choice(BYTES)
        names.append(byte.__name__)
        content = byte(rng, content)
    name, codes = "net.onnx", (0, 2, 3)
    if rng.random() < 0.1:
        name, content = "net.onnx.gz", gzip.compress(content)
        if rng.random() < 0.5:
            content, codes = content[: rng.randrange(len(content) - 1)], (2,)
            names.append("truncated gzip")
            if not content:  # an empty file is an empty gzip stream
                codes = (2, 3)
    # `bounds` has no time limit: bounding each of a million outputs with little memory is as slow as it must be
    if rng.random() < 0.15 and "enormous_value" not in names:
        center = io_bytes(np.zeros(inputs, dtype=np.float32))
        arguments = ("bounds", f"@{name}", "--center", "@x.npy", "--eps", "0.1", "--memory-budget", "0.5")
        return Case(" + ".join(names), {name: content, "x.npy": center}, arguments, codes)
    return Case(
        " + ".join(names), {name: content, "p.vnnlib": spec}, ("verify", f"@{name}", "@p.vnnlib", *OPTIONS), codes
    )


def io_bytes(array: np.ndarray) -> bytes:
    """A .npy file."""
    import io

    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# ---- bytes -----------------------------------------------------------------------------------------------------------


def flipped(rng: random.Random, content: bytes) -> bytes:
    """Some bits of the file flipped."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncated(rng: random.Random, content: bytes) -> bytes:
    """Its beginning."""
    return content[: rng.randrange(len(content))]


def cut(rng: random.Random, content: bytes) -> bytes:
    """A part is missing, or there twice."""
    begin = rng.randrange(len(content))
    end = min(len(content), begin + rng.choice((1, 4, 30, 300)))
    return content[:begin] + content[begin:end] * rng.choice((0, 0, 2, 3)) + content[end:]


def noise(rng: random.Random, content: bytes) -> bytes:
    """Random bytes in the place of a part, or of all."""
    if rng.random() < 0.2:
        return rng.randbytes(rng.choice((0, 1, 7, 300)))
    begin = rng.randrange(len(content))
    return content[:begin] + rng.randbytes(rng.choice((1, 4, 40))) + content[begin:]


BYTES = (flipped, truncated, cut, noise)


# ---- graphs ----------------------------------------------------------------------------------------------------------


def drop_node(rng: random.Random, m: onnx.ModelProto) -> None:
    del m.graph.node[rng.randrange(len(m.graph.node))]


def duplicate_node(rng: random.Random, m: onnx.ModelProto) -> None:
    m.graph.node.append(rng.choice(m.graph.node))


def reorder_nodes(rng: random.Random, m: onnx.ModelProto) -> None:
    nodes = list(m.graph.node)
    rng.shuffle(nodes)
    del m.graph.node[:]
    m.graph.node.extend(nodes)


def _tensors(m: onnx.ModelProto) -> list[str]:
    return [name for node in m.graph.node for name in (*node.input, *node.output)] + [
        "x",
        "y",
        "",
        "absent",
        "\n\u0000",
    ]


def rewire(rng: random.Random, m: onnx.ModelProto) -> None:
    """An input of a node becomes another tensor: cycles, constants for values, values for constants, nothing."""
    node = rng.choice(m.graph.node)
    node.input[rng.randrange(len(node.input))] = rng.choice(_tensors(m))


def rename_output(rng: random.Random, m: onnx.ModelProto) -> None:
    node = rng.choice(m.graph.node)
    node.output[rng.randrange(len(node.output))] = rng.choice(_tensors(m))


def change_arity(rng: random.Random, m: onnx.ModelProto) -> None:
    node = rng.choice(m.graph.node)
    names = rng.choice((node.input, node.output))
    if rng.random() < 0.5:
        names.append(rng.choice(_tensors(m)))
    else:
        del names[rng.randrange(len(names)) :]


def change_operator(rng: random.Random, m: onnx.ModelProto) -> None:
    kinds = sorted({node.op_type for case in CASES.values() for node in case.nodes})
    others = ["Sigmoid", "If", "Loop", "Scan", "", "\u2603", "Softmax", "NonZero", "RandomNormal", "ConstantOfShape"]
    node = rng.choice(m.graph.node)
    node.op_type = rng.choice(kinds + others)
    if rng.random() < 0.1:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "x", "ai.onnx"))


def change_attribute(rng: random.Random, m: onnx.ModelProto) -> None:
    """Another value, another type, a missing one, or an unknown one."""
    node = rng.choice([node for node in m.graph.node if node.attribute] or list(m.graph.node))
    values: list[object] = [rng.choice(HUGE), rng.choice(STRANGE), b"SAME_UPPER", b"\xff", [rng.choice(HUGE)] * 2]
    values += [[rng.choice(HUGE) for _ in range(rng.randrange(5))], [1.5], ["a"], floats(2), "VALID", []]
    known = ["axis", "axes", "pads", "strides", "dilations", "group", "kernel_shape", "to", "perm", "alpha", "epsilon"]
    known += ["auto_pad", "mode", "split", "num_outputs", "keepdims", "ceil_mode", "transA", "transB", "unknown"]
    attribute = rng.choice(node.attribute) if node.attribute else None
    name = attribute.name if attribute is not None and rng.random() < 0.7 else rng.choice(known)
    kept = [a for a in node.attribute if a.name != name]
    if attribute is not None and attribute.ints and rng.random() < 0.7:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(HUGE)
        return
    del node.attribute[:]
    node.attribute.extend(kept)
    if rng.random() < 0.8:
        value = rng.choice(values)
        array = numpy_helper.from_array(value, "a") if isinstance(value, np.ndarray) else value
        node.attribute.append(helper.make_attribute(name, array))


def strange_attribute(rng: random.Random, m: onnx.ModelProto) -> None:
    """An attribute whose fields contradict its type."""
    attribute = rng.choice(rng.choice([node for node in m.graph.node if node.attribute]).attribute)
    attribute.type = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14))


# ---- weights ---------------------------------------------------------------------------------------------------------


def drop_weight(rng: random.Random, m: onnx.ModelProto) -> None:
    del m.graph.initializer[rng.randrange(len(m.graph.initializer))]


def change_extents(rng: random.Random, m: onnx.ModelProto) -> None:
    tensor = rng.choice(m.graph.initializer)
    if rng.random() < 0.5:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(HUGE)
    else:
        del tensor.dims[:]
        tensor.dims.extend(rng.choice(HUGE) for _ in range(rng.randrange(5)))


def change_type(rng: random.Random, m: onnx.ModelProto) -> None:
    tensor = rng.choice(m.graph.initializer)
    tensor.data_type = rng.randrange(30)


def change_data(rng: random.Random, m: onnx.ModelProto) -> None:
    tensor = rng.choice(m.graph.initializer)
    tensor.raw_data = rng.choice(BYTES)(rng, tensor.raw_data)


def strange_numbers(rng: random.Random, m: onnx.ModelProto) -> None:
    tensor = rng.choice(m.graph.initializer)
    array = numpy_helper.to_array(tensor).copy()
    choice = rng.choice(HUGE) if np.issubdtype(array.dtype, np.integer) else rng.choice(STRANGE)
    array.reshape(-1)[rng.randrange(array.size)] = choice
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def text_weights(rng: random.Random, m: onnx.ModelProto) -> None:
    tensor = rng.choice(m.graph.initializer)
    array = np.array([rng.choice((True, False))] * 3) if rng.random() < 0.5 else np.array(["a", "b"], dtype=object)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def external(rng: random.Random, m: onnx.ModelProto) -> None:
    """Data in another file: none, outside, a device, a negative or a huge part."""
    tensor = rng.choice(m.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = ("absent", "../../etc/passwd", "/etc/passwd", "/dev/zero", "p.vnnlib", "", "net.onnx", "\u0000", ".")
    for key, value in (
        ("location", rng.choice(places)),
        ("offset", str(rng.choice(HUGE))),
        ("length", rng.choice((str(rng.choice(HUGE)), "x", ""))),
    ):
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=value)


def external_attribute(rng: random.Random, m: onnx.ModelProto) -> None:
    """A weight becomes a Constant node whose data lie elsewhere."""
    position = rng.randrange(len(m.graph.initializer))
    tensor = onnx.TensorProto()
    tensor.CopyFrom(m.graph.initializer[position])
    del m.graph.initializer[position]
    if rng.random() < 0.7:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=rng.choice(("net.onnx", "absent", "/etc/passwd", "setup.py")))
    node = helper.make_node("Constant", [], [tensor.name], value=tensor)
    m.graph.node.insert(0, node)


def repeated_weight(rng: random.Random, m: onnx.ModelProto) -> None:
    m.graph.initializer.append(rng.choice(m.graph.initializer))


def sparse_weight(rng: random.Random, m: onnx.ModelProto) -> None:
    sparse = m.graph.sparse_initializer.add()
    sparse.values.CopyFrom(rng.choice(m.graph.initializer))


# ---- sizes -----------------------------------------------------------------------------------------------------------


def enormous_constant(rng: random.Random, m: onnx.ModelProto) -> None:
    """A constant of an absurd size, made by a node of a few bytes, which the network adds to its input."""
    extents = [rng.choice((10**3, 10**5, 10**9, 10**12, 2**40)) for _ in range(rng.choice((1, 2, 3)))]
    shape = numpy_helper.from_array(ints(*extents), "enormous_shape")
    one = numpy_helper.from_array(np.ones(1, dtype=np.float32), "enormous_one")
    first, last, step = (
        numpy_helper.from_array(np.float32(v).reshape(()), f"enormous_{i}") for i, v in enumerate((0, 1e12, 1))
    )
    repeats = numpy_helper.from_array(ints(extents[0]), "enormous_repeats")
    m.graph.initializer.extend([shape, one, first, last, step, repeats])
    maker = rng.choice(
        [
            op("ConstantOfShape", "enormous_shape", "enormous"),
            op("Expand", "enormous_one enormous_shape", "enormous"),
            op("Tile", "enormous_one enormous_repeats", "enormous"),
            op("Range", "enormous_0 enormous_1 enormous_2", "enormous"),
        ]
    )
    _first(m, maker, op("Add", "x enormous", "bigger"), "bigger")


def _first(m: onnx.ModelProto, *nodes: object) -> None:
    """Puts nodes before all others; the last argument names the tensor that they read in the place of x."""
    *made, name = nodes
    for node in m.graph.node:
        for i, entry in enumerate(node.input):
            if entry == "x":
                node.input[i] = str(name)
    for position, node in enumerate(made):
        m.graph.node.insert(position, node)


def enormous_value(rng: random.Random, m: onnx.ModelProto) -> None:
    """Padding or expansion of what depends on the input, to an absurd size, of which a later node keeps one part."""
    rank = len(m.graph.input[0].type.tensor_type.shape.dim)
    extent = rng.choice((10**4, 10**6, 10**8, 10**9, 10**12, 2**62))
    pads = numpy_helper.from_array(ints(*[0] * rank, *[0] * (rank - 1), extent), "enormous_pads")
    shape = numpy_helper.from_array(ints(extent, *[1] * rank), "enormous_shape")
    m.graph.initializer.extend([pads, shape])
    maker = op("Pad", "x enormous_pads", "enormous") if rng.random() < 0.7 else op("Expand", "x enormous_shape", "e")
    _first(m, maker, maker.output[0])


def many_nodes(rng: random.Random, m: onnx.ModelProto) -> None:
    """A long chain of nodes before the first one."""
    count = 300
    names = ["x", *(f"link{i}" for i in range(count))]
    _first(m, *(op("Relu", a, b) for a, b in pairwise(names)), names[-1])


# ---- the model around the graph --------------------------------------------------------------------------------------


def change_opset(rng: random.Random, m: onnx.ModelProto) -> None:
    choice = rng.randrange(4)
    if choice == 0:
        del m.opset_import[:]
    elif choice == 1:
        m.opset_import.append(m.opset_import[0])
    elif choice == 2:
        m.opset_import.append(helper.make_opsetid("com.example", 1))
    else:
        m.opset_import[0].version = rng.choice((*HUGE, 6, 8, 9, 10, 11, 12, 14, 18, 21))


def change_model(rng: random.Random, m: onnx.ModelProto) -> None:
    choice = rng.randrange(4)
    if choice == 0:
        m.ir_version = rng.choice(HUGE)
    elif choice == 1:
        m.functions.add(name="Relu", domain="")
    elif choice == 2:
        m.training_info.add()
    else:
        m.ClearField("graph")


def change_input(rng: random.Random, m: onnx.ModelProto) -> None:
    tensor = m.graph.input[0].type.tensor_type
    choice = rng.randrange(8)
    if choice == 0:
        tensor.elem_type = rng.randrange(25)
    elif choice == 1:
        tensor.ClearField("shape")
    elif choice == 2:
        rng.choice(tensor.shape.dim).dim_value = rng.choice(HUGE)
    elif choice == 3:
        rng.choice(tensor.shape.dim).dim_param = "n"
    elif choice == 4:
        tensor.shape.dim.add(dim_value=rng.choice((1, 2)))
    elif choice == 5:
        m.graph.input.append(rng.choice((m.graph.input[0], m.graph.output[0])))
    elif choice == 6:
        del m.graph.input[:]
    else:
        m.graph.input[0].ClearField("type")


def change_output(rng: random.Random, m: onnx.ModelProto) -> None:
    choice = rng.randrange(5)
    if choice == 0:
        del m.graph.output[:]
    elif choice == 1:
        m.graph.output[0].name = rng.choice(_tensors(m))
    elif choice == 2:
        m.graph.output.append(m.graph.output[0])
    elif choice == 3:
        m.graph.output[0].type.tensor_type.elem_type = rng.randrange(25)
    else:
        m.graph.output[0].type.tensor_type.shape.dim.add(dim_value=rng.choice(HUGE))


def change_names(rng: random.Random, m: onnx.ModelProto) -> None:
    for node in m.graph.node:
        node.name = rng.choice(("", "same", "x", "y", "\n", "a\u0000b", "\u2603", "n" * 5000))


MUTATIONS: tuple[Mutation, ...] = (
    drop_node,
    duplicate_node,
    reorder_nodes,
    rewire,
    rewire,
    rename_output,
    change_arity,
    change_operator,
    change_operator,
    change_attribute,
    change_attribute,
    change_attribute,
    strange_attribute,
    drop_weight,
    change_extents,
    change_type,
    change_data,
    strange_numbers,
    strange_numbers,
    text_weights,
    external,
    external_attribute,
    repeated_weight,
    sparse_weight,
    enormous_constant,
    enormous_value,
    many_nodes,
    change_opset,
    change_model,
    change_input,
    change_output,
    change_names,
)
