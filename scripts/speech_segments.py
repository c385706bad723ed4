#!/usr/bin/env python3
"""Speech segments from the probabilities of a voice activity model.

    hearth infer silero_vad -i x=@talk.wav:16000 -i sr=16000 --json | scripts/speech_segments.py

Reads the reply of `hearth infer --json`: one probability per window. Speech begins where the
probability reaches --threshold, and ends where it stays 0.15 below that for --min-silence. Standard
library only.
"""

import argparse
import json
import sys


def segments(probabilities, window, threshold=0.5, min_speech=0.25, min_silence=0.1, pad=0.03):
    """[(begin, end)] in seconds. `window`: seconds per probability."""
    leave = threshold - 0.15  # a dip just under the threshold ends nothing
    found, begin, silent_since = [], None, None
    for i, probability in enumerate(probabilities):
        now = i * window
        if probability >= threshold:
            silent_since = None
            if begin is None:
                begin = now
        elif begin is not None and probability < leave:
            if silent_since is None:
                silent_since = now
            if now + window - silent_since >= min_silence:
                found.append((begin, silent_since))
                begin = silent_since = None
    length = len(probabilities) * window
    if begin is not None:
        found.append((begin, length if silent_since is None else silent_since))
    found = [(b, e) for b, e in found if e - b >= min_speech]
    return padded(found, pad, length)


def padded(found, pad, length):
    """Each segment a little longer on both sides, where that touches no neighbour."""
    result = []
    for i, (begin, end) in enumerate(found):
        before = found[i - 1][1] if i else 0.0
        after = found[i + 1][0] if i + 1 < len(found) else length
        room_before = (begin - before) / (2 if i else 1)
        room_after = (after - end) / (2 if i + 1 < len(found) else 1)
        result.append((begin - min(pad, room_before), end + min(pad, room_after)))
    return result


def picture(probabilities, width=72):
    """The probabilities as one line of blocks, at most `width` wide."""
    blocks = " ▁▂▃▄▅▆▇█"
    step = max(1, -(-len(probabilities) // width))
    columns = [max(probabilities[i:i + step]) for i in range(0, len(probabilities), step)]
    return "".join(blocks[min(8, int(p * 8 + 0.5))] for p in columns)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rate", type=int, default=16000, help="samples per second (16000)")
    parser.add_argument("--window", type=int, default=512, help="samples per probability (512)")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--min-speech", type=float, default=0.25, metavar="SECONDS")
    parser.add_argument("--min-silence", type=float, default=0.1, metavar="SECONDS")
    arguments = parser.parse_args()
    try:
        (output,) = json.load(sys.stdin)["outputs"]
        probabilities = [float(p) for p in output["data"]]
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"speech_segments: standard input is no reply of `hearth infer --json`: {error!r}")
    window = arguments.window / arguments.rate
    print(f"  |{picture(probabilities)}| {len(probabilities) * window:.2f} s")
    found = segments(probabilities, window, arguments.threshold, arguments.min_speech,
                     arguments.min_silence)
    for begin, end in found:
        print(f"  speech from {begin:5.2f} s to {end:5.2f} s")
    if not found:
        print("  no speech")


if __name__ == "__main__":
    main()
