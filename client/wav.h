// Sound from RIFF WAVE files, as the FP32 samples in [-1, 1] that speech models take.
//
// Read: PCM of 8 (unsigned), 16, 24 and 32 bits, 32-bit float (taken as it is, also beyond 1), plain and
// WAVE_FORMAT_EXTENSIBLE headers, any number of channels, which are mixed down to one by their mean. A
// full-scale negative sample is exactly -1. Files are not trusted: every size is checked against what
// is there; only the data size of an unfinished stream (0xFFFFFFFF) means "to the end of the file".
//
// Thread-safe: pure functions.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace hearth::client {

// Sample rates that make sense, in files and to resample to.
inline constexpr int kMinSampleRate = 1000;
inline constexpr int kMaxSampleRate = 768000;

struct Recording {
  int sample_rate = 0;  // per second
  std::vector<float> samples;
};

// `content` is the whole file.
absl::StatusOr<Recording> ParseWav(std::string_view content);

}  // namespace hearth::client
