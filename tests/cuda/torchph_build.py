"""Compile torchph from its upstream sources, which needs no device: python tests/cuda/torchph_build.py [FOLDER]

TORCHPH names a clone of github.com/c-hofer/torchph; without it one is made in FOLDER. CUDA_HOME names a toolkit;
without it nvcc is that of the wheels in the extra `cuda`, of the CUDA version that torch was built for.
"""

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

UPSTREAM, COMMIT = "https://github.com/c-hofer/torchph", "8f34b31caa39e817b5bafe5a59b2e92cd128ee24"
FOLDER = Path(__file__).resolve().parents[2] / ".benchmarks"


def sources(folder=FOLDER):
    """The clone to put on the path: of `UPSTREAM` at `COMMIT`, or what TORCHPH names."""
    if "TORCHPH" in os.environ:
        return Path(os.environ["TORCHPH"])
    clone = folder / f"torchph-{COMMIT[:8]}"
    if not (clone / "torchph").exists():
        for command in (["init", "-q"], ["fetch", "-q", "--depth", "1", UPSTREAM, COMMIT],
                        ["checkout", "-q", "FETCH_HEAD"]):
            clone.mkdir(parents=True, exist_ok=True)
            subprocess.run(["git", *command], cwd=clone, check=True)
    return clone


def environment(folder=FOLDER):
    """What the environment must hold when torchph is imported for the first time, which is when it is compiled."""
    roots = map(Path, find_spec("nvidia").submodule_search_locations)
    wheels = [wheel for root in roots for wheel in sorted(root.iterdir())]
    homes = [Path(os.environ["CUDA_HOME"])] if "CUDA_HOME" in os.environ else wheels
    home = next((home for home in homes if (home / "bin" / "nvcc").exists()), None)
    if home is None:
        raise RuntimeError(f"no nvcc in {', '.join(map(str, homes))}: pip install -e '.[cuda]', or set CUDA_HOME")
    # The toolkit's own headers come first, for nvcc takes none of another version; the wheels of torch have the others.
    links = [(folder / "include" / header.name, header) for wheel in wheels for header in wheel.glob("include/*.h")
             if not (home / "include" / header.name).exists()]
    if not (home / "lib64" / "libcudart.so").exists():
        libraries = [library for wheel in wheels for library in wheel.glob("lib/libcudart.so.*")]
        links += [(folder / "lib" / "libcudart.so", library) for library in libraries]
    for link, target in links:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
    return {"CUDA_HOME": str(home), "CPATH": str(folder / "include"), "LIBRARY_PATH": str(folder / "lib"),
            "TORCH_CUDA_ARCH_LIST": f"{major}.{minor}", "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # for ninja


def build(folder=FOLDER):
    """Make `import torchph` work in this process, compiling it where that was not done before."""
    clone = sources(folder)
    os.environ.update(environment(folder))
    (folder / "extensions").mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(clone))
    return import_module("torchph.pershom.pershom_backend").__C.__file__  # raises what the compiler said, if it failed


if __name__ == "__main__":
    print(build(*map(Path, sys.argv[1:])))
