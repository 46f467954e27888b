"""Writes fuzz/corpus anew, but for inputs that once found something (crash-*) and the files whose makers lie elsewhere (bad-*).

usage: seeds.py
"""
import json
import os
import pathlib
import random
import struct

root = pathlib.Path(__file__).resolve().parent.parent
corpus = root / "fuzz" / "corpus"
fixtures = root / "fixtures"
TARGETS = ["gguf_reader", "safetensors", "config_json", "tokenizer_json", "sentencepiece", "block_decoders", "encode_decode"]


def put(target, name, data):
    (corpus / target / name).write_bytes(data)


def pair(first, second):
    return struct.pack("<H", len(first)) + first + second


def keys_only(data):
    """A GGUF header without its tensors: a whole file."""
    at = 24

    def skip(kind, at):
        sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
        if kind == 8:
            return at + 8 + struct.unpack_from("<Q", data, at)[0]
        if kind == 9:
            inner, count = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(count):
                at = skip(inner, at)
            return at
        return at + sizes[kind]

    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        at = skip(8, at)
        at = skip(struct.unpack_from("<I", data, at)[0], at + 4)
    return data[:8] + struct.pack("<Q", 0) + data[16:at]


for target in TARGETS:
    (corpus / target).mkdir(parents=True, exist_ok=True)
    for file in (corpus / target).iterdir():
        if not file.name.startswith(("crash-", "bad-")):
            file.unlink()

put("gguf_reader", "vocabulary", keys_only((fixtures / "gguf" / "llama-spm.bf16.quantize.header").read_bytes()))
header = json.dumps({"a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
file = struct.pack("<Q", len(header)) + header + bytes(8)
index = json.dumps({"metadata": {"total_size": 8}, "weight_map": {"a": "model.safetensors"}}).encode()
put("safetensors", "index", pair(index, file))
put("safetensors", "plain", pair(b"", file))
for path in sorted((fixtures / "tiny").glob("*/hf/config.json")):
    put("config_json", path.parts[-3], path.read_bytes())
for path in sorted((fixtures / "tokenizer").iterdir()):
    config = path / "tokenizer_config.json"
    config = config.read_bytes() if config.exists() else b""
    if len(config) < 1 << 16:
        for target, name in [("tokenizer_json", "tokenizer.json"), ("sentencepiece", "tokenizer.model")]:
            if (path / name).exists() and (path / name).stat().st_size < 1 << 16:
                put(target, path.name, pair(config, (path / name).read_bytes()))
random.seed(1)
for number in range(28):
    put("block_decoders", f"format-{number}", bytes([number]) + random.randbytes(600))
for number in range(24):
    words = b"".join(struct.pack("<f", random.gauss(0, 0.02)) for _ in range(256))
    put("encode_decode", f"encoder-{number}", bytes([number, 0, number % 2]) + words)
special = [0.0, -0.0, 1e-45, -1e-38, 65504.0, 3e38, float("inf"), float("nan")]
put("encode_decode", "special", bytes([0, 0, 1]) + struct.pack("<8f", *special))
print(sum(len(files) for _, _, files in os.walk(corpus)), "files")
