#include "server/residency/dimensions.h"

#include <string_view>

#include "server/base/bytes.h"
#include "server/base/strings.h"

namespace hearth {

Bytes& operator+=(Bytes& a, const Bytes& b) {
  for (DeviceNumber d = 0; d < b.device_bytes.end(); ++d) a.device_bytes.Set(d, a.device_bytes[d] + b.device_bytes[d]);
  a.host_bytes += b.host_bytes;
  a.mapped_bytes += b.mapped_bytes;
  return a;
}

Bytes operator+(Bytes a, const Bytes& b) { return a += b; }

Bytes operator-(const Bytes& a, const Bytes& b) {
  return Combine(a, b, [](std::uint64_t x, std::uint64_t y) { return x - y; });
}

Bytes AtLeast(const Bytes& a, const Bytes& b) {
  return Combine(a, b, [](std::uint64_t x, std::uint64_t y) { return std::max(x, y); });
}

Bytes AtMost(const Bytes& a, const Bytes& b) {
  return Combine(a, b, [](std::uint64_t x, std::uint64_t y) { return std::min(x, y); });
}

Bytes Beyond(const Bytes& bytes, const Bytes& limit) {
  return Combine(bytes, limit, [](std::uint64_t x, std::uint64_t y) { return x > y ? x - y : 0; });
}

Bytes Where(const Bytes& bytes, const Bytes& marked) {
  return Combine(bytes, marked, [](std::uint64_t b, std::uint64_t m) { return m == 0 ? 0 : b; });
}

bool operator<=(const Bytes& a, const Bytes& b) {
  if (a.host_bytes > b.host_bytes || a.mapped_bytes > b.mapped_bytes) return false;
  for (DeviceNumber d = 0; d < a.device_bytes.end(); ++d) {
    if (a.device_bytes[d] > b.device_bytes[d]) return false;
  }
  return true;
}

Bytes SumOf(const Footprint& footprint) {
  Bytes sum{{}, footprint.host_bytes, footprint.mapped_bytes()};
  sum.device_bytes.Set(footprint.device, footprint.device_bytes);
  return sum;
}

Bytes CapacityFor(const Footprint& need, const Bytes& held, const Bytes& capacity) {
  Bytes concerned = capacity;
  for (DeviceNumber d = 0; d < held.device_bytes.end(); ++d) {
    if (d == need.device && need.device_bytes > 0) continue;
    concerned.device_bytes.Set(d, std::max(capacity.device_bytes[d], held.device_bytes[d]));
  }
  return concerned;
}

std::string_view ToString(Dimension::Kind kind) {
  switch (kind) {
    case Dimension::kDevice:
      return "device";
    case Dimension::kHost:
      return "host";
    case Dimension::kMapped:
      return "mapped";
  }
  return "";
}

std::uint64_t Of(const Bytes& bytes, Dimension dimension) {
  switch (dimension.kind) {
    case Dimension::kDevice:
      return bytes.device_bytes[dimension.device];
    case Dimension::kHost:
      return bytes.host_bytes;
    case Dimension::kMapped:
      return bytes.mapped_bytes;
  }
  return 0;
}

std::vector<Dimension> Dimensions(std::size_t devices) {
  std::vector<Dimension> all;
  for (DeviceNumber d = 0; d < devices; ++d) all.emplace_back(Dimension::kDevice, d);
  all.emplace_back(Dimension::kHost);
  all.emplace_back(Dimension::kMapped);
  return all;
}

std::string NameOf(DeviceNumber device, const DeviceNames& names) {
  return device < names.size() ? names[device] : std::string(ToString(Dimension::kDevice));
}

std::string NameOf(Dimension dimension, const DeviceNames& names) {
  if (dimension.kind == Dimension::kDevice) return NameOf(dimension.device, names);
  return std::string(ToString(dimension.kind));
}

std::string Describe(const Bytes& bytes, const DeviceNames& names) {
  std::string text;
  for (const Dimension dimension : Dimensions(bytes.device_bytes.end())) {
    const std::uint64_t count = Of(bytes, dimension);
    if (count == 0) continue;
    text += StrCat(text.empty() ? "" : " and ", FormatBytes(count), " of ", NameOf(dimension, names));
  }
  return text.empty() ? "no memory" : text + " memory";
}

std::optional<std::string> Shortage(const Bytes& need, const Bytes& held, const Bytes& configured,
                                    const DeviceNames& names, const Bytes& lost) {
  const Bytes capacity = Beyond(configured, lost);
  for (const Dimension dimension : Dimensions(need.device_bytes.end())) {
    const std::uint64_t most = Of(capacity, dimension);
    const std::uint64_t left = most - std::min(Of(held, dimension), most);
    if (Of(need, dimension) <= left) continue;
    std::string text = StrCat(FormatBytes(Of(need, dimension)), " of ", NameOf(dimension, names), " memory, and ",
                              FormatBytes(left), " of the ", FormatBytes(Of(configured, dimension)),
                              " of cache.budget.", ToString(dimension.kind), " are left");
    if (const std::uint64_t gone = Of(lost, dimension); gone > 0) {
      const std::string_view who = dimension.kind == Dimension::kDevice ? "the device" : "hearthd";
      text += StrCat(", of which ", FormatBytes(gone), " were lost when ", who, " could not free them, until hearthd is started again");
    }
    return text;
  }
  return std::nullopt;
}

}  // namespace hearth
