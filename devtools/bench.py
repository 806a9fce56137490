"""`dev.py bench [NAME] [arguments]` runs benches/NAME.py with an imported ComfyUI, or lists the benches."""

import ast
import os
import runpy
import sys

from ..commands.comfyui import import_comfyui
from .launch import ROOT

BENCHES = ROOT / "benches"


def available() -> dict[str, str]:
    """Returns every bench by name, with the first line of its docstring."""
    return {
        file.stem: (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        for file in sorted(BENCHES.glob("[!_]*.py"))
    }


def main(name: str | None = None, *arguments: str) -> None:
    benches = available()
    if name is None:
        print("\n".join(f"{bench:<12} {line}" for bench, line in benches.items()))
        return
    if name not in benches:
        sys.exit(f"dev.py bench: there is no bench {name!r}; choose one of {', '.join(benches)}")
    # Weights that are allocated late, whether of a fold or of a plain copy, are on scattered small pages and cost 5 to
    # 7 % of a step on a CPU. On large pages, every alternative runs at full speed. torch reads this when it is
    # imported.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    import_comfyui()
    from comfy.cli_args import args

    args.use_pytorch_cross_attention = True  # the default of ComfyUI on a GPU
    sys.path[:0] = [str(BENCHES), str(ROOT / "tests" / "support")]
    sys.argv = [f"dev.py bench {name}", *arguments]
    runpy.run_path(str(BENCHES / f"{name}.py"), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
