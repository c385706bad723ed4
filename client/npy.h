// NumPy's .npy files, as numpy.save writes and numpy.load reads them.
//
// Read: format versions 1 to 3, C and Fortran order (the tensor is always row-major), bool, (u)int8 to
// 64, float16, 32 and 64, fixed-width byte (S) and Unicode (U) strings, which become BYTES; Unicode as
// UTF-8. Refused with a reason: big-endian data, complex numbers, dates, records, and Python objects
// (pickles are never executed). Files are not trusted: every size is checked against what is there.
//
// Thread-safe: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "client/tensor.h"

namespace hearth::client {

// `content` is the whole file. Bytes behind the array are ignored, as numpy does.
absl::StatusOr<Tensor> ParseNpy(std::string_view content);

// Format version 1, C order. BF16, which numpy lacks, is written as float32, without loss. BYTES are
// written as S strings; an element that ends in a zero byte is refused, since numpy would drop it.
absl::StatusOr<std::string> FormatNpy(const Tensor& tensor);

}  // namespace hearth::client
