// Any bytes as a model file: opened, listed, unpacked and walked, in whatever shape they are.
#include <cstddef>
#include <cstdint>

#include "server/storage/archive.h"
#include "server/storage/torchscript_archive.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto archive = hearth::Archive::Open({reinterpret_cast<const std::byte*>(data), size});
  if (!archive.ok()) return 0;
  for (const hearth::Archive::Record& record : archive->records()) {
    (void)archive->Read(record, 1 << 20);
  }
  (void)hearth::ReadTorchScript(*archive);
  return 0;
}
