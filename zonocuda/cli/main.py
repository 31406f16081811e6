"""The command line: arguments, exit codes, and one-line errors.

Exit codes: 0 for any verdict, 1 for one that ``check`` did not confirm, where ``run`` could not run an instance, and
where ``compare`` found a contradiction, 2 for bad input and for output that cannot be
written, 3 for a network that is not supported, 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NoReturn

from zonocuda.cli.completion import SHELLS, completion
from zonocuda.cli.output import Outputs, printable
from zonocuda.cli.program import INTERRUPTED
from zonocuda.functions import parse_ulp, ulp_text
from zonocuda.version import __version__

BAD_INPUT = 2
NOT_SUPPORTED = 3


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|^-inf$", re.IGNORECASE)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}\n")


def _number(text: str) -> float:
    """A number, NaN for what is none; argparse would name the function that read it."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _positive(text: str) -> float:
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return value


def _radius(text: str) -> float:
    try:
        value = float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = math.nan
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(
            f"must be a finite number that is not negative, such as 0.03 or 8/255, got {text[:40]}"
        )
    return value


def _gibibytes(text: str) -> int:
    value = _number(text)
    count = int(value * 2**30) if math.isfinite(value) else 0
    if not count > 0:
        raise argparse.ArgumentTypeError(f"must be a positive finite number of GiB, got {text}")
    return count


def _integer(text: str) -> int:
    """An integer, -1 for what is none."""
    try:
        return int(text)
    except ValueError:
        return -1


def _seed(text: str) -> int:
    value = _integer(text)
    if not 0 <= value < 2**62:
        raise argparse.ArgumentTypeError(f"must be an integer in [0, 2^62), got {text}")
    return value


def _ulp(text: str) -> str:
    """What ``--ulp`` states, in one order."""
    try:
        return ulp_text(parse_ulp(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of 1 or more, got {text}")
    return value


_JSON_HELP = "write the whole result to F (schema: docs/json.md); '-': to standard output, the lines to standard error"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="zonocuda", description="Neural network verification with zonotopes.")
    parser.add_argument("--version", action="version", version=f"zonocuda {__version__}")
    commands = parser.add_subparsers(dest="command", parser_class=_Parser)

    shared = _Parser(add_help=False)
    shared.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where to compute")
    shared.add_argument(
        "--backend", default="auto", choices=["auto", "native", "reference"], help="native ops (auto) or plain torch"
    )
    shared.add_argument(
        "--direction",
        default="auto",
        choices=["auto", "forward", "dual"],
        help="how neurons are bounded: by zonotopes forward, by dual passes, or by what costs less (auto)",
    )
    shared.add_argument(
        "--memory-budget", type=_gibibytes, metavar="GIB", help="for generators (default: a share of what is free)"
    )

    deciding = _Parser(add_help=False)
    deciding.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "float64"],
        help="of the bounds (auto: float32, and float64 for what that leaves open)",
    )
    deciding.add_argument(
        "--effort", default="standard", choices=["fast", "standard", "max"], help="how dear proofs may be"
    )
    deciding.add_argument(
        "--split",
        default="auto",
        choices=["auto", "input", "neuron", "none"],
        help="what to split where the bounds alone do not decide: the box of inputs, or neurons by their sign "
        "(auto: the box where at most 20 inputs vary, neurons where more than 8 do; without --timeout for 60 s each)",
    )
    deciding.add_argument(
        "--leaf",
        default="lp",
        choices=["lp", "milp", "none"],
        help="where neurons are split: linear programs for small parts (lp), and mixed ones that look for a "
        "counterexample (milp); a solver is never believed",
    )
    deciding.add_argument(
        "--semantics",
        default="real",
        choices=["real", "float32", "float64", "float16", "bfloat16"],
        help="the arithmetic in which a proof holds: real numbers, or the network as executed, sums in any order",
    )
    deciding.add_argument(
        "--ulp",
        type=_ulp,
        default="",
        metavar="F=K,...",
        help="with --semantics float32 or float64: assume that the machine computes functions within K units in the "
        "last place, as exp=2,tanh=3; nothing guarantees it, and the verdict's meaning repeats it",
    )
    deciding.add_argument("--seed", type=_seed, default=0, help="of the search for counterexamples")

    verify = commands.add_parser("verify", parents=[shared, deciding], help="decide a property of a network")
    verify.add_argument("net", metavar="NET", help="network, .onnx or .onnx.gz")
    verify.add_argument("spec", metavar="SPEC", help="property, .vnnlib or .vnnlib.gz")
    verify.add_argument(
        "--timeout",
        type=_positive,
        default=math.inf,
        metavar="S",
        help="seconds, from when the files are loaded on (default: none)",
    )
    verify.add_argument(
        "--certificate", dest="proof", metavar="F", help="write what check needs to prove the verdict again to F"
    )
    verify.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="keep the state of searches in DIR, every few seconds and on SIGTERM or Ctrl-C",
    )
    verify.add_argument("--resume", action="store_true", help="go on with what is in the directory of --checkpoint")
    verify.add_argument(
        "--executor",
        choices=["local", "ray"],
        help="share searches by splitting out over processes of this machine, or a Ray cluster",
    )
    verify.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="how many do (default: the cores, 1 on a GPU, or the cluster's); alone: of this machine",
    )
    verify.add_argument("--json", metavar="F", help=_JSON_HELP)
    verify.add_argument("--results-file", metavar="F", help="write the verdict to F in the format of VNN-COMP")
    much = verify.add_mutually_exclusive_group()
    much.add_argument("-v", "--verbose", action="store_true", help="print margins, layers, times and versions, too")
    much.add_argument("-q", "--quiet", action="store_true", help="print the verdict alone")

    run = commands.add_parser("run", parents=[shared, deciding], help="decide many properties, several at once")
    run.add_argument(
        "instances",
        metavar="INSTANCES",
        help="VNN-COMP's instances.csv, a folder of files, or MODULE:FUNCTION in Python that returns pairs of files",
    )
    run.add_argument("--out", metavar="DIR", help="write results, counterexamples and logs to DIR, as they come")
    run.add_argument("--resume", action="store_true", help="go on with the results in DIR")
    run.add_argument("--jobs", type=_count, metavar="N", help="processes (default: the cores; 1 on a GPU)")
    run.add_argument("--timeout", type=_positive, metavar="S", help="seconds for each (default: the list's own)")
    run.add_argument(
        "--worker-memory",
        type=_gibibytes,
        metavar="GIB",
        help="that a process may take when it is loaded, on a CPU (default: an equal part of what is free)",
    )
    run.add_argument(
        "--certificates", action="store_true", help="write to DIR what check needs to prove verdicts again"
    )
    run.add_argument(
        "--executor", default="local", choices=["local", "ray"], help="processes of this machine, or a Ray cluster"
    )
    run.add_argument("-q", "--quiet", action="store_true", help="print the summary alone")

    compare = commands.add_parser("compare", help="two sets of results side by side, contradictions first")
    compare.add_argument("first", metavar="FIRST", help="folder that run wrote, or VNN-COMP's file of results")
    compare.add_argument("second", metavar="SECOND", help="another")
    compare.add_argument("--json", metavar="F", help="write the comparison and cactus data to F (docs/fleet.md)")
    compare.add_argument("--html", metavar="F", help="write a page with contradictions first and a cactus plot to F")

    report = commands.add_parser("report", help="one page about a folder of results")
    report.add_argument("folder", metavar="DIR", help="folder that run wrote")
    report.add_argument("--html", metavar="F", help="write the page to F (default: DIR/report.html)")

    check = commands.add_parser("check", help="prove a verdict again from its certificate, by exact arithmetic")
    check.add_argument("certificate", metavar="CERT", help="what verify --certificate wrote")
    check.add_argument("net", metavar="NET", help="the network")
    check.add_argument("spec", metavar="SPEC", help="the property")
    check.add_argument("--exact", action="store_true", help="compute everything in balls of 128 bits, which takes long")

    check.add_argument(
        "--jobs", type=_count, default=1, metavar="N", help="processes that share regions, rows and leaves"
    )
    check.add_argument("--resume", metavar="FILE", help="note here what is done, and go on with what was done before")

    bounds = commands.add_parser("bounds", parents=[shared], help="bound a network's outputs on a ball")
    bounds.add_argument("net", metavar="NET", help="network, .onnx or .onnx.gz")
    bounds.add_argument("--center", required=True, metavar="X.npy", help="center of the ball: one input, any shape")
    bounds.add_argument("--eps", required=True, type=_radius, metavar="E", help="radius in the L-infinity norm")
    bounds.add_argument("--dtype", default="float64", choices=["float32", "float64"], help="of the bounds")
    bounds.add_argument("--json", metavar="F", help=_JSON_HELP)
    bounds.add_argument("--clip", nargs=2, type=float, metavar=("LOW", "HIGH"), help="range of valid inputs")

    audit = commands.add_parser("audit", help="which derivatives at ties a model's gradient depends on")
    audit.add_argument("model", metavar="MODEL", help="network, .onnx or .onnx.gz")
    audit.add_argument("--data", required=True, metavar="X.npy", help="inputs [n, ...]")
    audit.add_argument("--labels", metavar="Y.npy", help="classes [n]: the loss is the cross entropy (else: the sum)")
    audit.add_argument("--dtypes", default="float32", metavar="A,B", help="float16, bfloat16, float32, float64")
    audit.add_argument("--batch-size", type=_count, default=256, metavar="N", help="of the minibatches")
    audit.add_argument("--no-certificates", action="store_true", help="ask no theorem, which saves time")
    audit.add_argument("--json", metavar="F", help=_JSON_HELP)
    audit.add_argument("--html", metavar="F", help="write a page with a picture for each layer to F")

    commands.add_parser("info", help="what this build of zonocuda can do")

    shells = commands.add_parser("completion", help="print what makes a shell complete this command line")
    shells.add_argument("shell", choices=SHELLS, help='bash, zsh: eval "$(zonocuda completion bash)"; fish: source it')
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return BAD_INPUT
    if options.command == "completion":
        print(completion(parser, options.shell), end="")
        return 0
    given = vars(options)
    if options.command == "report" and options.html is None:
        options.html = os.path.join(options.folder, "report.html")
    try:
        _refuse_swapped(given.get("net"), given.get("spec"))
        paths = {option: given.get(name) for name, option in _OUTPUTS.items()}
        inputs = [given[name] for name in _INPUTS if given.get(name) is not None]
        with warnings.catch_warnings(), Outputs(paths, inputs) as outputs:
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # of the libraries below: what matters is an error here, of one line
            return _run(options, outputs)
    except (ValueError, OSError, ImportError) as error:
        return _fail(error, BAD_INPUT)
    except (MemoryError, RuntimeError) as error:
        from zonocuda.host_memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return _fail("out of memory", BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


_OUTPUTS = {"json": "--json", "proof": "--certificate", "results_file": "--results-file", "html": "--html"}
_FLEET = ("run", "compare", "report")
_INPUTS = ("net", "spec", "certificate", "center", "model", "data", "labels", "first", "second")


def _refuse_swapped(net: str | None, spec: str | None) -> None:
    if net is None or spec is None:
        return
    is_property, is_network = net.endswith((".vnnlib", ".vnnlib.gz")), spec.endswith((".onnx", ".onnx.gz"))
    if is_property or is_network:
        wrong = f"{net} is a property" if is_property else f"{spec} is a network"
        raise ValueError(f"{wrong}, by its name: did you swap NET and SPEC?")


def _load() -> None:
    """Loads the commands, and torch, without collecting garbage: nearly all that is made then stays."""
    gc.disable()
    try:
        from zonocuda.cli import commands as commands
    finally:
        gc.freeze()
        gc.enable()


def _run(options: argparse.Namespace, outputs: Outputs) -> int:
    if options.command in _FLEET:
        from zonocuda.cli import fleet  # which loads no torch: its workers do

        code = {"run": fleet.run, "compare": fleet.compare, "report": fleet.report}[options.command](options, outputs)
        outputs.raise_faults()
        return code
    if "torch" not in sys.modules:
        _load()  # after arguments and outputs are known to be good
    from zonocuda.cli import commands
    from zonocuda.importers import UnsupportedNetworkError

    run: dict[str, Callable[[argparse.Namespace, Outputs], int | None]] = {
        "verify": commands.verify,
        "check": commands.check,
        "bounds": commands.bounds,
        "audit": commands.audit,
        "info": commands.info,
    }
    try:
        code = run[options.command](options, outputs) or 0
    except UnsupportedNetworkError as error:
        return _fail(error, NOT_SUPPORTED)
    outputs.raise_faults()
    return code


def _fail(error: BaseException | str, code: int) -> int:
    message = " ".join(str(error).split())
    print(f"zonocuda: {printable(message)}", file=sys.stderr)
    return code
