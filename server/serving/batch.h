// Several requests' tensors as one batch along the first dimension, and its outputs as several again.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/tensor/buffer_pool.h"
#include "server/tensor/tensor.h"

namespace hearth {

// Whether Join() takes both: the same inputs, in whatever order, each of one type and one shape but for the first
// dimension. Those named in `pad` may differ in size, not in rank. REQUIRES: every tensor has a first dimension.
[[nodiscard]] bool MayJoin(const TensorList& a, const TensorList& b, const std::vector<std::string>& pad);

// One copy of each tensor, into memory of the pool, rows in the order of `requests`. What is shorter than the longest is
// filled up with zeros at its end, in each dimension. INVALID_ARGUMENT: strings cannot be filled up; RESOURCE_EXHAUSTED:
// filled up, they do not fit into 2^63 bytes. REQUIRES: requests are not empty, and each may join the first.
[[nodiscard]] absl::StatusOr<TensorList> Join(std::span<const TensorList* const> requests, BufferPool& buffers);

// The same tensors, of each the rows that belong to each request; they share the batch's memory. FAILED_PRECONDITION: an
// output has not as many rows as the batch, so nobody can tell whose they are.
[[nodiscard]] absl::StatusOr<std::vector<TensorList>> Split(const TensorList& outputs, std::span<const std::int64_t> rows);

}  // namespace hearth
