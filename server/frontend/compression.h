// Bodies that are compressed on their way, as HTTP's Content-Encoding has them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/base/status.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

enum class Encoding { kIdentity, kGzip, kDeflate };

std::string_view ToString(Encoding encoding);  // "gzip"

// Of Content-Encoding, in any case of letters. Nothing: it is none of these, or several of them.
std::optional<Encoding> ParseEncoding(std::string_view name);

// What a client takes, of Accept-Encoding: gzip before deflate, and identity for what it does not name or refuses (q=0).
Encoding ChooseEncoding(std::string_view accept);

// INVALID_ARGUMENT: it is damaged, cut short, or something follows it. OUT_OF_RANGE: it is more than `max_bytes`.
// RESOURCE_EXHAUSTED: there is no memory. Never takes more than thrice `max_bytes`. REQUIRES: not kIdentity.
absl::StatusOr<BufferPool::Buffer> Decompress(std::string_view body, Encoding encoding, std::uint64_t max_bytes,
                                              BufferPool& pool);

// Fast rather than small. Throws std::bad_alloc. REQUIRES: not kIdentity.
std::string Compress(std::string_view text, Encoding encoding);

}  // namespace hearth
