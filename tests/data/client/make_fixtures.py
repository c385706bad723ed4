#!/usr/bin/env python3
"""Writes the fixtures of tests/client with NumPy, so that what we read was not written by us.

Usage: make_fixtures.py [FOLDER]. Deterministic: running it again changes nothing. WAVE headers are put
together by hand, because Python's wave module knows neither float nor WAVE_FORMAT_EXTENSIBLE.
"""
import math
import os
import struct
import sys

import numpy as np

FOLDER = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))


def path(name):
    return os.path.join(FOLDER, name)


def write(name, content):
    with open(path(name), "wb") as file:
        file.write(content)


def save_npy(name, array, version=None):
    with open(path(name), "wb") as file:
        np.lib.format.write_array(file, array, version=version)


def npy_files():
    for code in ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]:
        dtype = np.dtype("<" + code)
        if dtype.kind == "f":
            values = [-1.5, 0.0, 0.1, 65504.0]
        else:
            info = np.iinfo(dtype)
            values = [info.min, 0, 1, info.max]
        save_npy(f"{code}.npy", np.array(values, dtype=dtype).reshape(2, 2))
    save_npy("b1.npy", np.array([[True, False, True]]))
    save_npy("scalar.npy", np.array(2.5, dtype="<f4"))
    save_npy("empty.npy", np.zeros((0, 3), dtype="<i8"))
    save_npy("fortran.npy", np.asfortranarray(np.arange(24, dtype="<i4").reshape(2, 3, 4)))
    save_npy("bytes.npy", np.array([[b"a", b"bcd"], [b"", b"x\x00y"]]))
    save_npy("unicode.npy", np.array(["grün", "日本", "", "😀 ok"]))
    save_npy("version2.npy", np.arange(3, dtype="<i2"), version=(2, 0))
    save_npy("version3.npy", np.arange(3, dtype="<i2"), version=(3, 0))
    save_npy("big_endian.npy", np.arange(3, dtype=">i4"))
    save_npy("complex.npy", np.array([1 + 2j]))
    save_npy("records.npy", np.zeros(2, dtype=[("a", "<i4"), ("b", "<f4")]))
    save_npy("object.npy", np.array([None], dtype=object))


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def fmt(encoding, channels, rate, bits, extensible=False):
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", 0xFFFE if extensible else encoding, channels, rate, rate * frame, frame, bits)
    if extensible:
        guid = struct.pack("<H", encoding) + bytes.fromhex("000000001000800000aa00389b71")
        head += struct.pack("<HHI", 22, bits, 0) + guid
    return chunk(b"fmt ", head)


def wav(name, encoding, channels, rate, bits, data, extensible=False, before=b""):
    body = b"WAVE" + fmt(encoding, channels, rate, bits, extensible) + before + chunk(b"data", data)
    write(name, b"RIFF" + struct.pack("<I", len(body)) + body)


def wav_files():
    steps = np.array([-1.0, -0.5, 0.0, 0.25, 0.5])  # exact in every format
    wav("pcm8.wav", 1, 1, 8000, 8, (steps * 128 + 128).astype("<u1").tobytes())
    wav("pcm16.wav", 1, 1, 16000, 16, (steps * 2**15).astype("<i2").tobytes())
    wide = (steps * 2**23).astype("<i4")
    wav("pcm24.wav", 1, 1, 44100, 24, b"".join(int(v).to_bytes(3, "little", signed=True) for v in wide))
    wav("pcm32.wav", 1, 1, 48000, 32, (steps * 2**31).astype("<i4").tobytes())
    wav("float32.wav", 3, 1, 48000, 32, steps.astype("<f4").tobytes())
    stereo = np.stack([steps, np.zeros(5)], axis=1)
    wav("stereo16.wav", 1, 2, 48000, 16, (stereo * 2**15).astype("<i2").tobytes())
    # A chunk of odd length before the data: what follows begins at an even offset.
    wav("extensible24.wav", 1, 1, 48000, 24,
        b"".join(int(v).to_bytes(3, "little", signed=True) for v in wide), True, chunk(b"LIST", b"odd"))
    wav("extensible_float.wav", 3, 1, 48000, 32, steps.astype("<f4").tobytes(), True)


def resample(samples, from_rate, to_rate):
    """The formula of client/resample.h, evaluated directly: no table, no interpolation."""
    divisor = math.gcd(from_rate, to_rate)
    start, stop = from_rate // divisor, to_rate // divisor
    count = -(-len(samples) * stop // start)
    bandwidth = 0.895 * min(1.0, stop / start)
    inputs = np.arange(len(samples))
    out = np.zeros(count)
    for n in range(count):
        x = (inputs - n * start / stop) * bandwidth
        inside = np.clip(1 - (x / 32) ** 2, 0, None)
        window = np.where(np.abs(x) < 32, np.i0(12 * np.sqrt(inside)) / np.i0(12.0), 0)
        out[n] = bandwidth * np.sum(samples * np.sinc(x) * window)
    return out


def resampled_files():
    noise = np.random.default_rng(7).uniform(-1, 1, 600).astype("<f4")
    save_npy("noise.npy", noise)
    for source, target in [(48000, 16000), (44100, 16000), (8000, 16000), (16000, 44100)]:
        save_npy(f"noise_{source}_{target}.npy", resample(noise.astype("f8"), source, target).astype("<f4"))


npy_files()
wav_files()
resampled_files()
