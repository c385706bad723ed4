// Changing the sample rate of a recording.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace hearth::client {

// How many samples Resample() returns: every output sample whose time lies within the recording.
std::size_t ResampledLength(std::size_t samples, int from_rate, int to_rate);

// Band-limited interpolation: every output sample is a sum of input samples weighted by a sinc, low-passed
// at 0.895 of the lower Nyquist frequency and windowed by a Kaiser window (beta 12) of 32 zero crossings
// to each side. Flat to 0.39 of the lower rate (within 0.0001 dB), more than 100 dB down from 0.5 of it on:
// 48 to 16 kHz keeps 6.2 kHz and lets nothing fold back. The recording counts as silent before its
// beginning and after its end; nothing is delayed: output sample n is the input at time n / to_rate.
// Positions are exact fractions, so long recordings do not drift.
//
// Equal rates return the input unchanged. Cost: about 72 products per sample of the higher rate.
// Thread-safe. REQUIRES: both rates are positive.
std::vector<float> Resample(std::span<const float> input, int from_rate, int to_rate);

}  // namespace hearth::client
