"""What shells complete: every command, option and choice of the parser, and files of the kind that a command reads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zonocuda.cli.completion import SHELLS, commands_of, completion
from zonocuda.cli.main import build_parser, main

BASH = shutil.which("bash") or ""
PARSER = build_parser()


def replies(folder: Path, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    listed = " ".join(f"'{word}'" for word in ("zonocuda", *words))
    program = (
        f"{completion(PARSER, 'bash')}\ncompopt() {{ :; }}\nCOMP_WORDS=({listed}); COMP_CWORD={len(words)}\n"
        'COMPREPLY=(); _zonocuda; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run([BASH, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(not BASH, reason="no bash")
def test_bash_completes_commands_options_choices_and_files(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx.gz", "c.vnnlib", "d.json", "e.txt"):
        (tmp_path / name).touch()
    (tmp_path / "nets").mkdir()
    assert replies(tmp_path, "") == {*commands_of(PARSER), "-h", "--help", "--version"}
    assert replies(tmp_path, "ver") == {"verify"}
    assert replies(tmp_path, "verify", "--dev") == {"--device"}
    assert replies(tmp_path, "verify", "--device", "") == {"auto", "cpu", "cuda"}
    assert replies(tmp_path, "verify", "--effort", "s") == {"standard"}
    assert replies(tmp_path, "verify", "--timeout", "") == set()
    assert replies(tmp_path, "verify", "") == {"a.onnx", "b.onnx.gz", "c.vnnlib", "nets"}
    assert replies(tmp_path, "check", "d") == {"d.json"}
    assert replies(tmp_path, "verify", "--json", "e") == set()  # which is bash's own: files of any name
    assert replies(tmp_path, "completion", "") == set(SHELLS)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_option_is_in_every_script(shell: str) -> None:
    script = completion(PARSER, shell)
    for command, parser in commands_of(PARSER).items():
        for action in parser._actions:
            for flag in action.option_strings:
                text = flag if shell != "fish" else f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                assert text in script, (command, flag)
            for choice in action.choices or ():
                assert str(choice) in script


def test_the_command_prints_the_script_and_loads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("autoload -U +X bashcompinit")
    assert printed.endswith(completion(PARSER, "bash"))
    program = (
        "import sys; from zonocuda.cli.main import main; main(['completion', 'fish']); "
        "assert 'torch' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    assert (
        subprocess.run([sys.executable, "-c", program], cwd=root, stdout=subprocess.DEVNULL, timeout=60).returncode == 0
    )
