"""The measuring half of compare_perplexity: runs both tools in turn on the same files and prints tables."""
import argparse, json, os, re, shutil, statistics, subprocess, sys
from pathlib import Path

TYPES = ["F32", "BF16", "F16", "Q8_0", "Q4_0"]
COMPARED = ["Q8_0", "Q4_0"]
N_CTX = 512


def arguments():
    p = argparse.ArgumentParser()
    for name in ["model", "llama-perplexity", "ggufsmith", "scratch", "text"]:
        p.add_argument(f"--{name}", required=True, type=lambda text: Path(os.path.abspath(text)))
    for name in ["runs", "chunks", "threads"]:
        p.add_argument(f"--{name}", required=True, type=int)
    return p.parse_args()


def run(command, codes=(0,)):
    """Standard output and standard error of one process."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode not in codes:
        sys.exit(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return done.stdout, done.stderr


def figure(pattern, text, what):
    found = re.findall(pattern, text, re.MULTILINE)
    if not found:
        sys.exit(f"llama-perplexity's output has no {what}:\n{text[-2000:]}")
    return found[-1]


def ours(a, file):
    out, _ = run([a.ggufsmith, "perplexity", file, "--chunks", a.chunks, "--threads", a.threads, "--json", "--quiet"])
    report = json.loads(out)
    return {"rate": report["tokens_per_second"], "perplexity": report["perplexity"]}


def theirs(a, file):
    """Its rate is taken between the times that it prints when it begins to calculate and with its estimate: loading, warming up and
    tokenizing are left out on both sides."""
    command = [a.llama_perplexity, "-m", file, "-f", a.text, "-c", N_CTX, "--chunks", a.chunks, "-t", a.threads, "-ngl", 0]
    text = "".join(run(command))
    # Minutes, seconds, milliseconds and microseconds; not always at the start of a line.
    stamp = r"(\d+)\.(\d\d)\.(\d{3})\.(\d{3}) I *"
    seconds = lambda parts: 60 * int(parts[0]) + int(parts[1]) + int(parts[2]) / 1e3 + int(parts[3]) / 1e6
    start = seconds(figure(stamp + r"perplexity: calculating perplexity over", text, "start"))
    end = seconds(figure(stamp + r"Final estimate", text, "end"))
    return {
        "rate": a.chunks * N_CTX / (end - start),
        "perplexity": float(figure(r"Final estimate: PPL = ([\d.]+)", text, "estimate")),
        "system": figure(r"system_info: (.*)", text, "system_info"),
    }


def main():
    a = arguments()
    shutil.rmtree(a.scratch, ignore_errors=True)
    a.scratch.mkdir(parents=True)
    files = {kind: a.scratch / f"{kind}.gguf" for kind in TYPES}
    print(f"preparing: {', '.join(TYPES)}", flush=True)
    for kind, file in files.items():
        run([a.ggufsmith, "convert", a.model, "--type", kind, "--out", file, "--no-manifest", "--quiet"])
    results = {kind: [] for kind in TYPES}
    for number in range(a.runs):
        print(f"round {number + 1} of {a.runs}", flush=True)
        for kind, file in files.items():
            results[kind].append((ours(a, file), theirs(a, file)))
    print("KL divergences", flush=True)
    engines = {kind: verify(a, files[kind]) for kind in COMPARED}
    shutil.rmtree(a.scratch)
    report(a, results, engines)


def verify(a, file):
    out, _ = run([a.ggufsmith, "verify", file, "--against", a.model, "--chunks", a.chunks, "--threads", a.threads, "--no-latency",
                  "--no-report", "--llama-perplexity", a.llama_perplexity, "--json", "--quiet"], codes=(0, 1))
    report = json.loads(out)
    return report["kld_mean"], report["engine"]["kld_mean"]


def report(a, results, engines):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown CPU")
    print(f"\n{a.model.name}, {a.chunks} windows of {N_CTX} tokens, {a.threads} threads, medians of {a.runs} rounds, "
          f"{os.cpu_count()} cores ({cpu}), load {os.getloadavg()[0]:.1f} at the end\n"
          f"llama.cpp: {next(iter(results.values()))[0][1]['system']}\n")
    print("| | ggufsmith, tokens/s | llama-perplexity, tokens/s | ratio | ggufsmith, perplexity | llama-perplexity |\n"
          "| --- | ---: | ---: | ---: | ---: | ---: |")
    for kind, rounds in results.items():
        our, their = (statistics.median(pair[side]["rate"] for pair in rounds) for side in (0, 1))
        print(f"| {kind} | {our:.0f} | {their:.0f} | {our / their:.2f} | {rounds[0][0]['perplexity']:.4f} | "
              f"{rounds[0][1]['perplexity']:.4f} |")
    print("\nMean KL divergence from the source, both from ggufsmith's log-probabilities of it (llama.cpp quantizes activations, "
          "ggufsmith does not):\n\n| | ggufsmith | llama.cpp | llama.cpp / ggufsmith | expected |\n| --- | ---: | ---: | ---: | --- |")
    for kind, (our, their) in engines.items():
        expected = {"Q4_0": "0.98 to 1.02", "Q8_0": "about 3"}[kind]
        print(f"| {kind} | {our:.6f} | {their:.6f} | {their / our:.3f} | {expected} |")


if __name__ == "__main__":
    main()
