"""The measuring half of compare_llama_cpp: runs the tools in turn, checks that they write the same bytes, prints a table."""
import argparse, hashlib, json, os, shutil, statistics, subprocess, sys, time
from pathlib import Path

# Types whose scales are searched for; seconds that ggufsmith should need for SmolLM2-135M.
SEARCHED = {"Q6_K": "", "Q4_K_M": "0.4 s", "Q3_K_M": "", "IQ4_NL": "2.2 s", "IQ4_XS": ""}


def arguments():
    p = argparse.ArgumentParser()
    for name in ["model", "llama-cpp", "build", "python", "ggufsmith", "scratch"]:
        p.add_argument(f"--{name}", required=True, type=lambda text: Path(os.path.abspath(text)))
    p.add_argument("--runs", type=int, default=5)
    return p.parse_args()


def run(command, log, env):
    """Wall seconds, CPU seconds and peak resident MB of one process, with its standard output."""
    with open(log, "wb") as err:
        start = time.perf_counter()
        process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, env=env)
        out = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{out.decode(errors='replace')}\n{Path(log).read_text(errors='replace')[-2000:]}")
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss * 1024 / 1e6}, out


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def main():
    a = arguments()
    shutil.rmtree(a.scratch, ignore_errors=True)
    a.scratch.mkdir(parents=True)
    out = a.scratch / "out"
    env = os.environ | {"PYTHONPATH": str(a.llama_cpp / "gguf-py"), "HF_HUB_OFFLINE": "1"}
    converter = lambda kind, file: [a.python, a.llama_cpp / "convert_hf_to_gguf.py", a.model, "--outtype", kind, "--outfile", file]
    quantize = lambda kind: [a.build / "bin/llama-quantize", bf16, out / f"ref-{kind}.gguf", kind]
    ours = lambda *kinds: [a.ggufsmith, "convert", a.model, "--out", out / "our-{FTYPE}.gguf", "--json", "--quiet",
                           *(x for kind in kinds for x in ("--type", kind))]
    # The two steps of llama.cpp meet in this file; it also warms the caches.
    bf16 = a.scratch / "bf16.gguf"
    print("preparing: BF16 by convert_hf_to_gguf.py", flush=True)
    run(converter("bf16", bf16), a.scratch / "log", env)
    rows = {
        "cp of model.safetensors": ["cp", *sorted(a.model.glob("*.safetensors")), out],
        "convert_hf_to_gguf.py, Q8_0": converter("q8_0", out / "ref-Q8_0.gguf"),
        "llama-quantize, BF16 to Q8_0": quantize("Q8_0"),
        "llama-quantize, BF16 to Q4_0": quantize("Q4_0"),
        "ggufsmith, BF16": ours("BF16"),
        "ggufsmith, Q8_0": ours("Q8_0"),
        "ggufsmith, Q4_0": ours("Q4_0"),
        "ggufsmith, Q8_0 and Q4_0": ours("Q8_0", "Q4_0"),
    }
    for kind in SEARCHED:
        rows |= {f"llama-quantize, BF16 to {kind}": quantize(kind), f"ggufsmith, {kind}": ours(kind)}
    results = {name: [] for name in rows}
    hashes = {}
    for number in range(a.runs):
        print(f"round {number + 1} of {a.runs}", flush=True)
        for name, command in rows.items():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            os.sync()
            figures, stdout = run(command, a.scratch / "log", env)
            if command[0] == a.ggufsmith:
                seconds = json.loads(stdout)["seconds"]
                figures |= {"prepare": seconds["prepare"], "flush": seconds["flush"]}
            results[name].append(figures)
            if number == 0:
                for file in out.glob("*.gguf"):
                    hashes[name, file.name] = sha256(file)
    same = check(hashes, bf16)
    shutil.rmtree(a.scratch)
    report(a, {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in results.items()}, same)


def check(hashes, bf16):
    """The answer is part of the measurement: both sides wrote the same bytes."""
    pairs = [
        ("convert_hf_to_gguf.py, Q8_0", "ref-Q8_0.gguf", "ggufsmith, Q8_0", "our-Q8_0.gguf"),
        ("llama-quantize, BF16 to Q4_0", "ref-Q4_0.gguf", "ggufsmith, Q4_0", "our-Q4_0.gguf"),
        ("ggufsmith, Q8_0", "our-Q8_0.gguf", "ggufsmith, Q8_0 and Q4_0", "our-Q8_0.gguf"),
        ("ggufsmith, Q4_0", "our-Q4_0.gguf", "ggufsmith, Q8_0 and Q4_0", "our-Q4_0.gguf"),
    ]
    pairs += [(f"llama-quantize, BF16 to {kind}", f"ref-{kind}.gguf", f"ggufsmith, {kind}", f"our-{kind}.gguf") for kind in SEARCHED]
    for left, left_file, right, right_file in pairs:
        if hashes[left, left_file] != hashes[right, right_file]:
            sys.exit(f"{left} and {right} wrote different bytes")
    if hashes["ggufsmith, BF16", "our-BF16.gguf"] != sha256(bf16):
        sys.exit("convert_hf_to_gguf.py and ggufsmith wrote different BF16 files")
    return len(pairs) + 1


def report(a, medians, same):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown CPU")
    load = os.getloadavg()[0]
    print(f"\n{a.model.name}, medians of {a.runs} rounds, {os.cpu_count()} cores ({cpu}), load {load:.1f} at the end; "
          f"{same} pairs of files compared: the same bytes\n")
    print("| | seconds | without fsync | CPU seconds | peak MB |\n| --- | ---: | ---: | ---: | ---: |")
    for name, m in medians.items():
        dry = f"{m['wall'] - m['flush']:.3f}" if "flush" in m else f"{m['wall']:.3f}"
        print(f"| {name} | {m['wall']:.3f} | {dry} | {m['cpu']:.2f} | {m['rss']:.0f} |")
    wall = lambda name: medians[name]["wall"]
    dry = lambda name: medians[name]["wall"] - medians[name]["flush"]
    ratio = lambda what, over, under, target: print(f"| {what} | {over / under:.2f} | {target} |")
    print("\nOnly ggufsmith waits until its files are on the disk (fsync); ratios are without that wait.\n\n"
          "| ratio | | target |\n| --- | ---: | ---: |")
    ratio("converter to Q8_0 / ggufsmith", wall("convert_hf_to_gguf.py, Q8_0"), dry("ggufsmith, Q8_0"), "25 or more")
    ratio("llama-quantize to Q8_0 / ggufsmith", wall("llama-quantize, BF16 to Q8_0"), dry("ggufsmith, Q8_0"), "")
    ratio("llama-quantize to Q4_0 / ggufsmith", wall("llama-quantize, BF16 to Q4_0"), dry("ggufsmith, Q4_0"), "2 or more")
    for kind, target in SEARCHED.items():
        ratio(f"llama-quantize to {kind} / ggufsmith", wall(f"llama-quantize, BF16 to {kind}"), dry(f"ggufsmith, {kind}"), target)
    both = dry("ggufsmith, Q8_0") + dry("ggufsmith, Q4_0")
    ratio("two types in one read / in two runs", dry("ggufsmith, Q8_0 and Q4_0"), both, "below 1")
    print(f"\nBefore the first weight is read (headers, tokenizer, plan): {medians['ggufsmith, Q8_0']['prepare'] * 1000:.0f} ms.")


if __name__ == "__main__":
    main()
