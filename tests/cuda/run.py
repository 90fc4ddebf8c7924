"""Everything that needs a CUDA device, in parts of at most ten minutes: make cuda, or

    python tests/cuda/run.py [--results FILE] [--again] [PART ...]

Each part runs in a process of its own; what it found is in the results (JSON, by default .benchmarks/cuda.json) as
soon as it is done, and a part that has succeeded there is not run again, unless --again says so. Exits with 1 when a
part failed. The part "torchph" needs what torchph_build.py needs.
"""

import argparse
import json
import linecache
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
import torchph_build

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 10
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # the CPU only to try this script out
MOST = {"cosine": 15, "fixed": 15, "centred": 20, "nearest": 40}  # times nn.Linear, an SVD aside


def call(*command, **env):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, env=os.environ | env, capture_output=True,
                          text=True)
    return {"ok": done.returncode == 0, "output": (done.stdout + done.stderr)[-6000:]}


def part_tests():
    """All tests that are named after CUDA."""
    return call("-m", "pytest", "-q", "-rs", "-o", "addopts=--strict-markers", "-p", "no:nbmake", "-k", "cuda", "tests")


def part_ranks():
    """The checks of two ranks, by NCCL."""
    if torch.cuda.device_count() < 2:
        return {"ok": True, "skipped": f"two CUDA devices are needed, found {torch.cuda.device_count()}"}
    with tempfile.TemporaryDirectory() as folder:
        done = call("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "tests/ranks.py",
                    f"{folder}/results", PYTHONPATH=str(ROOT))
        found = [json.loads(file.read_text()) for file in sorted(Path(folder).iterdir())]
    return done | {"ok": done["ok"] and len(found) == 2 and not any(any(x.values()) for x in found), "checks": found}


def losses():
    """Name -> what one training step computes, on 10 classes, 512 features, 128 samples."""
    from ncbook import FixedETFHead, LearnedHead, NearestETFHead, densification_loss

    heads = {"nn.Linear": torch.nn.Linear(512, 10), "cosine": LearnedHead(512, 10, cosine=True),
             "fixed": FixedETFHead(512, 10), "centred": FixedETFHead(512, 10, centred=True),
             "nearest": NearestETFHead(512, 10)}
    targets = (torch.arange(128) % 10).to(DEVICE)

    def of(head):
        head = head.to(DEVICE)
        arguments = () if isinstance(head, torch.nn.Linear) else (targets,)
        return lambda x: F.cross_entropy(head(x, *arguments), targets)

    beta = torch.ones((), device=DEVICE)
    return {name: of(head) for name, head in heads.items()} | {
        "densification": lambda x: densification_loss(x.unflatten(0, (8, 16)), beta)}


def part_syncs():
    """Times that the host waits for the device in a training step, eager and compiled; only the SVD may."""
    steps = losses()
    steps |= {f"{name}, compiled": torch.compile(loss) for name, loss in steps.items()}
    return judge_waits({name: waits(loss) for name, loss in steps.items()})


def waits(loss):
    """The lines of code at which the host waits for the device in one training step."""
    x = torch.randn(128, 512, device=DEVICE, requires_grad=True)
    for _ in range(2):
        loss(x).backward()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        loss(x).backward()
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename}:{w.lineno}: {linecache.getline(w.filename, w.lineno).strip()}"
            for w in caught if "called a synchronizing" in str(w.message)]


def judge_waits(where):
    unexpected = {name: [line for line in lines if not re.search(r"linalg[._]svd", line)]
                  for name, lines in where.items()}
    return {"ok": not any(unexpected.values()), "unexpected": unexpected, "waits": where}


def median_ms(function, rounds=50):
    def wait():
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    times = []
    for _ in range(rounds + 5):
        wait()
        start = time.perf_counter()
        function()
        wait()
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times[5:])[rounds // 2]


def part_speed():
    """Forward and backward in ms, beside nn.Linear and a bare thin SVD, eager and compiled; heads within MOST."""
    found = {}
    for name, loss in losses().items():
        x = torch.randn(128, 512, device=DEVICE, requires_grad=True)
        found[name] = median_ms(lambda loss=loss, x=x: loss(x).backward())
        compiled = torch.compile(loss)
        found[f"{name}, compiled"] = median_ms(lambda compiled=compiled, x=x: compiled(x).backward())
    for num_classes, dim in ((10, 512), (100, 512), (1000, 2048)):
        matrix = torch.randn(dim, num_classes - 1, device=DEVICE)
        found[f"SVD {dim}x{num_classes - 1}"] = median_ms(lambda m=matrix: torch.linalg.svd(m, full_matrices=False), 5)
    return judge_speed(found)


def judge_speed(ms):
    allowed = {f"{name}{how}": most * ms["nn.Linear"] + ms["SVD 512x9"] * (name == "nearest")
               for name, most in MOST.items() for how in ("", ", compiled")}
    slow = {name: f"{ms[name]:.2f} ms, at most {most:.2f} allowed" for name, most in allowed.items() if ms[name] > most}
    return {"ok": not slow, "slow": slow, "ms": ms}


def part_torchph():
    """torchph, compiled from its upstream sources, against the built-in backend: deaths, gradients, time."""
    from ncbook import h0_death_times

    found = {"ok": True, "library": torchph_build.build()}
    for shape in ((8, 16, 128), (32, 64, 512)):
        for p in (1, 2):
            results = []
            for backend in ("auto", "torchph"):
                generator = torch.Generator(DEVICE).manual_seed(0)
                points = torch.randn(shape, device=DEVICE, generator=generator, requires_grad=True)
                deaths = h0_death_times(points, p, backend)
                deaths.square().sum().backward()
                results.append((deaths.detach(), points.grad))
                found[f"ms {shape} p={p} {backend}"] = median_ms(
                    lambda points=points, p=p, backend=backend: h0_death_times(points, p, backend).sum().backward(), 10)
            (a, b), (c, d) = results
            errors = [float((x - y).abs().max() / y.abs().max()) for x, y in ((c, a), (d, b))]
            found[f"largest differences {shape} p={p}"] = errors
            found["ok"] &= max(errors) < 1e-5
    return found


PARTS = {name.removeprefix("part_"): value for name, value in list(globals().items()) if name.startswith("part_")}


def run_part(name):
    """What a part finds, in a process of its own, which ends with all that it has started when its time is over."""
    process = subprocess.Popen([sys.executable, __file__, "--inside", name], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        output, errors = process.communicate(timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"ok": False, "error": f"took more than {MINUTES} minutes"}
    return json.loads(output.splitlines()[-1]) if process.returncode == 0 else {"ok": False, "error": errors[-6000:]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--results", type=Path, default=ROOT / ".benchmarks" / "cuda.json")
    parser.add_argument("--again", action="store_true", help="run parts that have succeeded too")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there are the parts {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    if arguments.inside:
        return print(json.dumps(PARTS[arguments.inside]()))
    if DEVICE != "cuda" and not arguments.parts:
        sys.exit("torch finds no CUDA device")
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    machine = {"device": torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE,
               "devices": torch.cuda.device_count(), "torch": torch.__version__}
    for name in arguments.parts or PARTS:
        before = results.get(name, {})
        if before.get("ok") and machine.items() <= before.items() and not arguments.again:
            print(f"{name}: done before on this machine{', skipped' * ('skipped' in before)}")
            continue
        start = time.time()
        found = run_part(name)
        results[name] = machine | {"seconds": round(time.time() - start, 1), **found}
        arguments.results.write_text(json.dumps(results, indent=1))
        outcome = found.get("skipped") or ("ok" if found["ok"] else "FAILED")
        print(f"{name}: {outcome}, {results[name]['seconds']:.0f} s")
    print(f"written to {arguments.results}")
    sys.exit(not all(results[name]["ok"] for name in arguments.parts or PARTS))


if __name__ == "__main__":
    main()
