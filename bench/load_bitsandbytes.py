"""The comparing half of load_bitsandbytes: every method for every model, once by transformers and once by ggufsmith."""
import argparse, os, shutil, subprocess, sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
import torch, transformers, bitsandbytes  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig  # noqa: E402

METHODS = {
    "NF4": (dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"), ["--type", "NF4"]),
    "NF4, double quantization": (
        dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
        ["--type", "NF4", "--double-quant"],
    ),
    "FP4": (dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"), ["--type", "FP4"]),
    "INT8": (dict(load_in_8bit=True), ["--type", "INT8"]),
}


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--ggufsmith", required=True)
    p.add_argument("--scratch", required=True, type=Path)
    p.add_argument("models", nargs="+", type=Path)
    return p.parse_args()


def tensors(folder):
    """Every tensor of a checkpoint: type, shape, bytes."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                t = file.get_tensor(name)
                found[name] = (t.dtype, tuple(t.shape), t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found


def difference(left, right):
    """The tensors that differ."""
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def logits(folder, vocabulary):
    """Of 64 tokens [64, vocabulary], and how many linear layers bitsandbytes computes."""
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu").eval()
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    layers = sum(isinstance(module, kinds) for module in model.modules())
    ids = torch.randint(0, vocabulary, (1, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(ids).logits[0].float(), layers


def same_bits(a, b):
    return a.shape == b.shape and bool((a.view(torch.int32) == b.view(torch.int32)).all())


def compare(model, method, scratch, ggufsmith):
    """A table's line, and whether all is as it should be."""
    options, flags = METHODS[method]
    theirs, ours = scratch / "transformers", scratch / "ggufsmith"
    for folder in (theirs, ours):
        shutil.rmtree(folder, ignore_errors=True)
    config = AutoConfig.from_pretrained(model)
    quantized = AutoModelForCausalLM.from_pretrained(
        model, quantization_config=BitsAndBytesConfig(**options), dtype=config.dtype, device_map="cpu"
    )
    quantized.save_pretrained(theirs)
    del quantized
    command = [ggufsmith, "convert", model, "--format", "safetensors", "--out", ours, "--quiet", *flags]
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL)
    a, b = tensors(theirs), tensors(ours)
    differing = difference(a, b)
    # The comparison itself: one flipped bit is a difference.
    name = next(name for name in a if name.endswith("weight"))
    damaged = a | {name: (*a[name][:2], bytes([a[name][2][0] ^ 1]) + a[name][2][1:])}
    assert difference(a, damaged) == [name]
    (x, layers), (y, our_layers) = logits(theirs, config.vocab_size), logits(ours, config.vocab_size)
    assert torch.isfinite(x).all() and layers > 0 and not same_bits(x, x.flip(0))
    equal = same_bits(x, y)
    print(f"| {model} | {method} | {len(a) - len(differing)} of {len(a | b)} | {our_layers} of {layers} | "
          f"{'the same bits' if equal else f'differ by up to {(x - y).abs().max():.3g}'} |", flush=True)
    for name in differing[:5]:
        print(f"differs: {name}: {a.get(name, ('missing',))[:2]} {b.get(name, ('missing',))[:2]}")
    return not differing and equal and layers == our_layers


def main():
    a = arguments()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, bitsandbytes {bitsandbytes.__version__}, CPU\n")
    print("| model | method | equal tensors | quantized layers | logits of 64 tokens |\n| --- | --- | --- | --- | --- |")
    a.scratch.mkdir(parents=True, exist_ok=True)
    try:
        good = [compare(model, method, a.scratch, a.ggufsmith) for model in a.models for method in METHODS]
    finally:
        shutil.rmtree(a.scratch)
    if not all(good):
        sys.exit(f"{good.count(False)} of {len(good)} checkpoints are not those of transformers")


if __name__ == "__main__":
    main()
