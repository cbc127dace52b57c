"""llama.cpp itself, through the package `llama-cpp-python`: it makes K-quants, and runs what was written, to verify it.

Both happen in processes of their own: llama.cpp ends its process where an assumption of its does not hold.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bunny.core.errors import UserError

FIX = "pip install llama-cpp-python (it compiles for some minutes and needs a C++ compiler and cmake)"
QUANTISE = """
import ctypes, llama_cpp, sys
quiet = llama_cpp.llama_log_callback(lambda level, words, data: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
settings = llama_cpp.llama_model_quantize_default_params()
settings.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3].upper())
settings.nthread = int(sys.argv[4])
if llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(settings)):
    raise SystemExit("llama.cpp could not quantise the file")
"""


def installed() -> bool:
    """Whether llama-cpp-python is there."""
    return importlib.util.find_spec("llama_cpp") is not None


def check_installed(what: str) -> None:
    """Raise UserError that says how to install it, and that `what` needs it."""
    if not installed():
        raise UserError(f"{what} needs llama-cpp-python", fix=FIX)


def quantise(source: Path, out: Path, kind: str, threads: int = 0) -> None:
    """The GGUF file `source` in another kind of numbers, e.g. q4_k_m. threads: 0: all cores."""
    run(["-c", QUANTISE, str(source), str(out), kind, str(threads)], f"{out}: llama.cpp could not make {kind}")


def run(words: Sequence[str], wrong: str) -> None:
    """Python with these words. Raises UserError with `wrong` and the process's last line."""
    ran = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or [f"it ended with code {ran.returncode}"])[-1]
        raise UserError(f"{wrong}: {last}", fix="please report this")
