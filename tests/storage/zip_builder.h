// Writes zip files for tests, well-formed ones and others.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace hearth::testing_files {

// One record and the lies told about it.
struct ZipRecord {
  std::string name{};
  std::string content{};
  bool deflate = false;
  std::uint16_t flags = 0;
  std::string local_name{};  // empty: the same
  std::string local_extra{};
  // Changes what the table of contents says. Offsets and sizes as they are otherwise.
  std::uint16_t method = 0xffff;  // 0xffff: as `deflate` says
  std::int64_t claimed_size = -1;
  std::int64_t claimed_compressed = -1;
  std::int64_t claimed_offset = -1;
  std::uint16_t disk = 0;
  bool zip64 = false;  // sizes and offset in the zip64 field
};

struct ZipOptions {
  bool zip64 = false;
  std::string comment{};
  std::int64_t claimed_count = -1;
  std::int64_t claimed_directory_offset = -1;
  std::int64_t claimed_directory_size = -1;
  std::uint32_t disks = 0;  // number of this disk
};

std::vector<std::byte> BuildZip(const std::vector<ZipRecord>& records,
                                const ZipOptions& options = {});

}  // namespace hearth::testing_files
