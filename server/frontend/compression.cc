#include "server/frontend/compression.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>

#include "absl/strings/ascii.h"
#include "server/base/check.h"
#include "server/frontend/growing_buffer.h"
#include "server/frontend/request_memory.h"

namespace hearth {
namespace {

constexpr int kGzipHeader = 16;  // added to the window's bits: gzip's header instead of zlib's
constexpr std::size_t kStep = 64 * 1024;

int WindowBits(Encoding encoding) { return encoding == Encoding::kGzip ? MAX_WBITS + kGzipHeader : MAX_WBITS; }

// zlib counts in 32 bits and takes no const.
void SetInput(z_stream& stream, std::string_view& left) {
  const std::size_t size = std::min<std::size_t>(left.size(), std::numeric_limits<uInt>::max());
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(left.data()));
  stream.avail_in = static_cast<uInt>(size);
  left.remove_prefix(size);
}

struct Deflater {
  explicit Deflater(Encoding encoding) {
    if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, WindowBits(encoding), 8, Z_DEFAULT_STRATEGY) != Z_OK) {
      throw std::bad_alloc();
    }
  }
  ~Deflater() { deflateEnd(&stream); }
  z_stream stream{};
};

struct Inflater {
  explicit Inflater(Encoding encoding) { ok = inflateInit2(&stream, WindowBits(encoding)) == Z_OK; }
  ~Inflater() { inflateEnd(&stream); }
  z_stream stream{};
  bool ok = false;
};

absl::StatusOr<BufferPool::Buffer> Inflate(std::string_view body, Encoding encoding, std::uint64_t max_bytes,
                                           BufferPool& pool) {
  const auto bad = [&](std::string_view why) {
    return absl::InvalidArgumentError(StrCat("the body is not ", ToString(encoding), ": ", why));
  };
  Inflater inflater(encoding);
  if (!inflater.ok) return absl::ResourceExhaustedError("no memory to decompress the body");
  z_stream& stream = inflater.stream;
  GrowingBuffer out(pool);
  std::array<Bytef, kStep> piece;
  int result = Z_OK;
  while (result != Z_STREAM_END) {
    if (stream.avail_in == 0) SetInput(stream, body);
    stream.next_out = piece.data();
    stream.avail_out = static_cast<uInt>(piece.size());
    result = inflate(&stream, Z_NO_FLUSH);
    if (result == Z_MEM_ERROR) return absl::ResourceExhaustedError("no memory to decompress the body");
    if (result == Z_BUF_ERROR) return bad("it is cut short");
    if (result != Z_OK && result != Z_STREAM_END) return bad(stream.msg != nullptr ? stream.msg : "it is damaged");
    const std::size_t got = piece.size() - stream.avail_out;
    if (out.size() + got > max_bytes) {
      return absl::OutOfRangeError(StrCat("the body is more than ", max_bytes, " bytes when it is decompressed"));
    }
    out.Append(piece.data(), got);
  }
  if (stream.avail_in > 0 || !body.empty()) return bad("something follows it");
  return out.Take();
}

bool IsRefused(std::string_view parameters) {
  const auto q = parameters.find("q=0");
  if (q == parameters.npos) return false;
  return parameters.find_first_not_of("0.", q + 2) == parameters.npos;
}

std::string_view Trim(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

}  // namespace

std::string_view ToString(Encoding encoding) {
  switch (encoding) {
    case Encoding::kIdentity:
      return "identity";
    case Encoding::kGzip:
      return "gzip";
    case Encoding::kDeflate:
      return "deflate";
  }
  return "";
}

std::optional<Encoding> ParseEncoding(std::string_view name) {
  const std::string lower = absl::AsciiStrToLower(ToAbsl(Trim(name)));
  for (const Encoding encoding : {Encoding::kIdentity, Encoding::kGzip, Encoding::kDeflate}) {
    if (lower == ToString(encoding)) return encoding;
  }
  return std::nullopt;
}

Encoding ChooseEncoding(std::string_view accept) {
  Encoding chosen = Encoding::kIdentity;
  while (!accept.empty()) {
    const std::string_view item = accept.substr(0, accept.find(','));
    accept.remove_prefix(std::min(item.size() + 1, accept.size()));
    const auto semicolon = std::min(item.find(';'), item.size());
    if (IsRefused(Trim(item.substr(semicolon)))) continue;
    const auto encoding = ParseEncoding(item.substr(0, semicolon));
    if (encoding == Encoding::kGzip) return Encoding::kGzip;
    if (encoding == Encoding::kDeflate) chosen = Encoding::kDeflate;
  }
  return chosen;
}

absl::StatusOr<BufferPool::Buffer> Decompress(std::string_view body, Encoding encoding, std::uint64_t max_bytes,
                                              BufferPool& pool) {
  HEARTH_CHECK(encoding != Encoding::kIdentity);
  try {
    return Inflate(body, encoding, max_bytes, pool);
  } catch (const std::bad_alloc& why) {
    return NoMemoryFor("the decompressed body", why);
  }
}

std::string Compress(std::string_view text, Encoding encoding) {
  HEARTH_CHECK(encoding != Encoding::kIdentity);
  Deflater deflater(encoding);
  z_stream& stream = deflater.stream;
  std::string out;
  std::array<Bytef, kStep> piece;
  int result = Z_OK;
  while (result != Z_STREAM_END) {
    if (stream.avail_in == 0) SetInput(stream, text);
    stream.next_out = piece.data();
    stream.avail_out = static_cast<uInt>(piece.size());
    result = deflate(&stream, text.empty() ? Z_FINISH : Z_NO_FLUSH);
    out.append(reinterpret_cast<const char*>(piece.data()), piece.size() - stream.avail_out);
  }
  return out;
}

}  // namespace hearth
