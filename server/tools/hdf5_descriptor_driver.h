// A file driver of libhdf5 that reads from an open descriptor and opens nothing.
//
// It can also tell where values lie instead of reading them. This is how hearth-hdf5-list learns the place
// of a chunk: H5Dget_chunk_info walks a data set's whole index for every chunk (libhdf5 1.10: 7 s for
// 30,000 chunks), H5Dread_chunk looks it up (40 ms in all), and asks its driver for exactly its bytes.
#pragma once

#include <hdf5.h>

#include <cstdint>

namespace hearth {

// Reads of values, while it is on: they are noted and leave their buffer as it is.
// Confined to a thread: there is one file per process.
struct ReadWatch {
  bool on = false;
  std::uint64_t offset = 0, size = 0;  // the latest one's
  unsigned count = 0;
};
ReadWatch& Watch();

// A file access property list whose files are what `descriptor` reads, whatever their names. Negative:
// libhdf5 refused.
hid_t DescriptorAccess(int descriptor);

}  // namespace hearth
