// Bytes of a mapped file as the memory of tensors.
#pragma once

#include <memory>
#include <utility>

#include "server/storage/mapped_file.h"
#include "server/torch_backend/torch_headers.h"

namespace hearth {

// Keeps the mapping for as long as anything points into it.
inline at::DataPtr MappedData(std::shared_ptr<const MappedFile> file, std::uint64_t offset) {
  std::byte* at = file->mutable_data() + offset;
  auto* context = new std::shared_ptr<const MappedFile>(std::move(file));
  return {at, context, [](void* p) { delete static_cast<std::shared_ptr<const MappedFile>*>(p); },
          at::Device(at::kCPU)};
}

}  // namespace hearth
