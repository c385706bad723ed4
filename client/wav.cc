#include "client/wav.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>

#include "client/status_macros.h"
#include "client/strings.h"

namespace hearth::client {
namespace {

constexpr std::uint16_t kPcm = 1;
constexpr std::uint16_t kFloat = 3;
constexpr std::uint16_t kExtensible = 0xFFFE;
constexpr std::uint32_t kUntilTheEnd = 0xFFFFFFFF;

absl::Status Bad(std::string_view why) {
  return absl::InvalidArgumentError(Cat("not a WAVE file that can be read: ", why));
}

// REQUIRES: at + sizeof(T) <= bytes.size()
template <typename T>
T Little(std::string_view bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

struct Format {
  bool is_float = false;
  std::size_t channels = 0;
  int sample_rate = 0;
  std::size_t sample_bytes = 0;
};

// An extensible header names its encoding by a GUID: the old code, then these fourteen bytes.
constexpr std::string_view kGuidTail("\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71", 14);

absl::StatusOr<Format> ParseFormat(std::string_view chunk) {
  if (chunk.size() < 16) return Bad("its fmt chunk is cut short");
  auto encoding = Little<std::uint16_t>(chunk, 0);
  const auto channels = Little<std::uint16_t>(chunk, 2);
  const auto rate = Little<std::uint32_t>(chunk, 4);
  const auto frame_bytes = Little<std::uint16_t>(chunk, 12);
  const auto bits = Little<std::uint16_t>(chunk, 14);
  if (encoding == kExtensible) {
    if (chunk.size() < 40) return Bad("its fmt chunk is cut short");
    if (chunk.substr(26, 14) != kGuidTail) return Bad("its encoding is not known");
    encoding = Little<std::uint16_t>(chunk, 24);
  }
  if (encoding != kPcm && encoding != kFloat) {
    return Bad(Cat("its encoding ", encoding, " is compressed or unknown; convert it to PCM"));
  }
  const bool is_float = encoding == kFloat;
  const bool good_bits = is_float ? bits == 32 : bits == 8 || bits == 16 || bits == 24 || bits == 32;
  if (!good_bits) return Bad(Cat(bits, "-bit ", is_float ? "float" : "PCM", " is not supported"));
  if (rate < kMinSampleRate || rate > kMaxSampleRate) {
    return Bad(Cat("its sample rate of ", rate, " is not between ", kMinSampleRate, " and ",
                   kMaxSampleRate));
  }
  if (channels == 0 || frame_bytes != channels * (bits / 8)) {
    return Bad("its channels, bits and frame size contradict each other");
  }
  return Format{is_float, channels, static_cast<int>(rate), std::size_t{bits} / 8};
}

// One sample in [-1, 1).
double Sample(const char* at, const Format& format) {
  const std::string_view bytes(at, format.sample_bytes);
  switch (format.sample_bytes) {
    case 1: return (Little<std::uint8_t>(bytes, 0) - 128) / 128.0;
    case 2: return Little<std::int16_t>(bytes, 0) / 32768.0;
    case 3: {
      // The three bytes as the upper ones of an int32: the sign comes for free.
      std::uint32_t value = 0;
      std::memcpy(reinterpret_cast<char*>(&value) + 1, at, 3);
      return static_cast<std::int32_t>(value) / 2147483648.0;
    }
    default:
      return format.is_float ? double{Little<float>(bytes, 0)}
                             : Little<std::int32_t>(bytes, 0) / 2147483648.0;
  }
}

absl::StatusOr<Recording> Decode(std::string_view data, const Format& format) {
  const std::size_t frame_bytes = format.channels * format.sample_bytes;
  const std::size_t frames = data.size() / frame_bytes;  // a torn last frame is dropped
  Recording recording{format.sample_rate, {}};
  recording.samples.reserve(frames);
  for (std::size_t i = 0; i < frames; ++i) {
    double sum = 0;
    for (std::size_t c = 0; c < format.channels; ++c) {
      sum += Sample(data.data() + i * frame_bytes + c * format.sample_bytes, format);
    }
    const auto sample = static_cast<float>(sum / static_cast<double>(format.channels));
    if (!std::isfinite(sample)) return Bad(Cat("sample ", i, " is not a finite number"));
    recording.samples.push_back(sample);
  }
  return recording;
}

}  // namespace

absl::StatusOr<Recording> ParseWav(std::string_view content) {
  if (content.size() < 12 || content.substr(0, 4) != "RIFF" || content.substr(8, 4) != "WAVE") {
    return Bad("it does not begin with RIFF and WAVE");
  }
  std::optional<Format> format;
  std::size_t at = 12;
  while (content.size() - at >= 8) {
    const std::string_view id = content.substr(at, 4);
    std::size_t size = Little<std::uint32_t>(content, at + 4);
    at += 8;
    const std::size_t left = content.size() - at;
    if (id == "data" && size == kUntilTheEnd) size = left;
    if (size > left) {
      return Bad(Cat("its '", id == "data" || id == "fmt " ? id : "last", "' chunk claims ", size,
                     " bytes where ", left, " are left"));
    }
    const std::string_view chunk = content.substr(at, size);
    if (id == "fmt ") {
      if (format) return Bad("it has two fmt chunks");
      CLIENT_ASSIGN_OR_RETURN(format, ParseFormat(chunk));
    } else if (id == "data") {
      if (!format) return Bad("its data comes before its format");
      return Decode(chunk, *format);
    }
    // Chunks begin at even offsets. The pad byte of the last one is often forgotten.
    at += std::min(size + size % 2, left);
  }
  return Bad("it has no data chunk");
}

}  // namespace hearth::client
