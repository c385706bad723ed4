// Which content of which file: what fstat() says of it.
#pragma once

#include <sys/stat.h>

#include "server/model/footprint.h"

namespace hearth {

inline FileId FileIdOf(const struct stat& st) {
  return {.device = static_cast<std::uint64_t>(st.st_dev),
          .inode = static_cast<std::uint64_t>(st.st_ino),
          .mtime_ns = static_cast<std::int64_t>(st.st_mtim.tv_sec) * 1'000'000'000 + st.st_mtim.tv_nsec,
          .size = static_cast<std::uint64_t>(st.st_size)};
}

}  // namespace hearth
