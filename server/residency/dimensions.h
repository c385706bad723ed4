// Bytes of memory of every kind, a number each: every device's, the host's, and mapped ones.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/check.h"
#include "server/model/footprint.h"

namespace hearth {

// A number for each device, 0 for all that were not set: a machine without devices pays next to nothing for them. A
// value. Thread-compatible.
class DeviceBytes {
 public:
  DeviceBytes() = default;
  DeviceBytes(std::uint64_t of_the_first) { Set(0, of_the_first); }  // NOLINT: most machines have one
  DeviceBytes(std::initializer_list<std::uint64_t> in_order) {
    DeviceNumber device = 0;
    for (const std::uint64_t bytes : in_order) Set(device++, bytes);
  }

  std::uint64_t operator[](DeviceNumber device) const { return device < end_ ? bytes_[device] : 0; }
  // REQUIRES: device < kMaxDevices
  void Set(DeviceNumber device, std::uint64_t bytes) {
    HEARTH_CHECK(device < kMaxDevices);
    bytes_[device] = bytes;
    if (bytes > 0) end_ = std::max(end_, device + 1);
    while (end_ > 0 && bytes_[end_ - 1] == 0) --end_;
  }
  // All devices from here on have 0.
  DeviceNumber end() const { return end_; }
  std::uint64_t total() const { return std::accumulate(bytes_.begin(), bytes_.begin() + end_, std::uint64_t{0}); }

  friend bool operator==(const DeviceBytes&, const DeviceBytes&) = default;

 private:
  std::array<std::uint64_t, kMaxDevices> bytes_{};
  DeviceNumber end_ = 0;
};

// model/footprint.h says what the dimensions mean.
struct Bytes {
  DeviceBytes device_bytes = {};
  std::uint64_t host_bytes = 0;
  std::uint64_t mapped_bytes = 0;
  friend bool operator==(const Bytes&, const Bytes&) = default;
};

// `op(a, b)` of every number of both. REQUIRES: op(0, 0) is 0, as it is for the devices that neither has.
template <typename Op>
Bytes Combine(const Bytes& a, const Bytes& b, Op&& op) {
  Bytes result{{}, op(a.host_bytes, b.host_bytes), op(a.mapped_bytes, b.mapped_bytes)};
  for (DeviceNumber d = 0; d < std::max(a.device_bytes.end(), b.device_bytes.end()); ++d) {
    result.device_bytes.Set(d, op(a.device_bytes[d], b.device_bytes[d]));
  }
  return result;
}

Bytes& operator+=(Bytes& a, const Bytes& b);
Bytes operator+(Bytes a, const Bytes& b);
Bytes operator-(const Bytes& a, const Bytes& b);  // REQUIRES: b <= a
Bytes AtLeast(const Bytes& a, const Bytes& b);    // the larger number of both, in every dimension
Bytes AtMost(const Bytes& a, const Bytes& b);
Bytes Beyond(const Bytes& bytes, const Bytes& limit);  // by how much they are more; 0 where they are not
Bytes Where(const Bytes& bytes, const Bytes& marked);  // 0 where `marked` is

// In every dimension.
bool operator<=(const Bytes& a, const Bytes& b);

// What somebody is charged who shares nothing with anybody.
Bytes SumOf(const Footprint& footprint);

// `capacity` as far as `need` is concerned where so much is held: of devices that it does not use, as much as is held
// there, if that is more. What is short on one device keeps nobody off another.
Bytes CapacityFor(const Footprint& need, const Bytes& held, const Bytes& capacity);

// One of the numbers.
struct Dimension {
  enum Kind : std::uint8_t { kDevice, kHost, kMapped };
  constexpr Dimension(Kind k, DeviceNumber d = 0) : kind(k), device(d) {}  // NOLINT: two kinds need no more
  Kind kind;
  DeviceNumber device;  // of kDevice
  friend auto operator<=>(const Dimension&, const Dimension&) = default;
};
// "device", "host", "mapped".
std::string_view ToString(Dimension::Kind kind);
std::uint64_t Of(const Bytes& bytes, Dimension dimension);
// The first `devices` devices in order, host, mapped.
std::vector<Dimension> Dimensions(std::size_t devices);

// "fake:1"; "device" where it has no name.
std::string NameOf(DeviceNumber device, const DeviceNames& names);
// "fake:1", "host", "mapped".
std::string NameOf(Dimension dimension, const DeviceNames& names);

// "3 MiB of host and 412 MiB of mapped memory"; "no memory".
std::string Describe(const Bytes& bytes, const DeviceNames& names);

// The first dimension in which `need` and `held` come to more than `configured` without `lost`, for people: "12 GiB of
// fake:1 memory, and 3 GiB of the 8 GiB of cache.budget.device are left". None: it fits.
std::optional<std::string> Shortage(const Bytes& need, const Bytes& held, const Bytes& configured,
                                    const DeviceNames& names, const Bytes& lost = {});

}  // namespace hearth
