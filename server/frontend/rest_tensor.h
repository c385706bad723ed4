// A tensor's elements as JSON has them <-> the tensor's bytes.
#pragma once

#include <string>
#include <string_view>

#include "server/base/status.h"
#include "server/frontend/json_reader.h"
#include "server/tensor/buffer_pool.h"
#include "server/tensor/tensor.h"

namespace hearth {

// Reads an array of elements, nested in any way (row-major order is the same), into memory of `pool`. How many there
// have to be is not judged here. BYTES elements are strings, and taken as UTF-8. A number that does not fit the type is
// refused: cut, it would be another one.
// INVALID_ARGUMENT: no such array; FP16 and BF16, for which JSON has no way. `input` is for messages. Throws
// std::bad_alloc.
// REQUIRES: dtype is known.
absl::StatusOr<BufferPool::Buffer> ReadElements(JsonReader& json, DType dtype, std::string_view input, BufferPool& pool);

// Appends the flat array. INVALID_ARGUMENT: FP16 and BF16; BYTES that are not UTF-8. `output` is for messages.
absl::Status AppendElements(const Tensor& tensor, std::string_view output, std::string& out);

}  // namespace hearth
