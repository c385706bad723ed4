#include "tests/storage/zip_builder.h"

#include <zlib.h>

#include "tests/storage/files.h"

namespace hearth::testing_files {
namespace {

template <typename T>
void Put(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i));
}

std::string Deflate(const std::string& content) {
  z_stream stream{};
  EXPECT_EQ(::deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(::deflateBound(&stream, content.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  return out;
}

struct Written {
  std::uint64_t offset = 0;
  std::uint64_t packed = 0;
  std::uint32_t crc = 0;
};

Written PutRecord(std::string& out, const ZipRecord& r) {
  const std::string packed = r.deflate ? Deflate(r.content) : r.content;
  const std::string& name = r.local_name.empty() ? r.name : r.local_name;
  Written w{.offset = out.size(), .packed = packed.size()};
  w.crc = static_cast<std::uint32_t>(
      ::crc32_z(0, reinterpret_cast<const Bytef*>(r.content.data()), r.content.size()));
  Put<std::uint32_t>(out, 0x04034b50);
  Put<std::uint16_t>(out, 20);
  Put<std::uint16_t>(out, r.flags);
  Put<std::uint16_t>(out, r.deflate ? 8 : 0);
  Put<std::uint32_t>(out, 0);
  Put<std::uint32_t>(out, w.crc);
  Put<std::uint32_t>(out, static_cast<std::uint32_t>(packed.size()));
  Put<std::uint32_t>(out, static_cast<std::uint32_t>(r.content.size()));
  Put<std::uint16_t>(out, static_cast<std::uint16_t>(name.size()));
  Put<std::uint16_t>(out, static_cast<std::uint16_t>(r.local_extra.size()));
  out += name + r.local_extra + packed;
  return w;
}

void PutEntry(std::string& out, const ZipRecord& r, const Written& w) {
  const auto claim = [](std::int64_t lie, std::uint64_t truth) {
    return lie < 0 ? truth : static_cast<std::uint64_t>(lie);
  };
  const std::uint64_t size = claim(r.claimed_size, r.content.size());
  const std::uint64_t packed = claim(r.claimed_compressed, w.packed);
  const std::uint64_t offset = claim(r.claimed_offset, w.offset);
  const auto narrow = [&](std::uint64_t v) {
    return r.zip64 ? 0xffffffffU : static_cast<std::uint32_t>(v);
  };
  std::string extra;
  if (r.zip64) {
    Put<std::uint16_t>(extra, 0x4246);  // an unknown field before it
    Put<std::uint16_t>(extra, 2);
    extra += "xx";
    Put<std::uint16_t>(extra, 1);
    Put<std::uint16_t>(extra, 24);
    Put<std::uint64_t>(extra, size);
    Put<std::uint64_t>(extra, packed);
    Put<std::uint64_t>(extra, offset);
  }
  Put<std::uint32_t>(out, 0x02014b50);
  Put<std::uint32_t>(out, 0x00140014);
  Put<std::uint16_t>(out, r.flags);
  Put<std::uint16_t>(out, r.method != 0xffff ? r.method : r.deflate ? 8 : 0);
  Put<std::uint32_t>(out, 0);
  Put<std::uint32_t>(out, w.crc);
  Put<std::uint32_t>(out, narrow(packed));
  Put<std::uint32_t>(out, narrow(size));
  Put<std::uint16_t>(out, static_cast<std::uint16_t>(r.name.size()));
  Put<std::uint16_t>(out, static_cast<std::uint16_t>(extra.size()));
  Put<std::uint16_t>(out, 0);
  Put<std::uint16_t>(out, r.disk);
  Put<std::uint16_t>(out, 0);
  Put<std::uint32_t>(out, 0);
  Put<std::uint32_t>(out, narrow(offset));
  out += r.name + extra;
}

}  // namespace

std::vector<std::byte> BuildZip(const std::vector<ZipRecord>& records, const ZipOptions& options) {
  std::string out;
  std::vector<Written> written;
  for (const ZipRecord& record : records) written.push_back(PutRecord(out, record));
  std::uint64_t offset = out.size();
  for (std::size_t i = 0; i < records.size(); ++i) PutEntry(out, records[i], written[i]);
  std::uint64_t size = out.size() - offset;
  std::uint64_t count = records.size();
  if (options.claimed_count >= 0) count = static_cast<std::uint64_t>(options.claimed_count);
  if (options.claimed_directory_offset >= 0) {
    offset = static_cast<std::uint64_t>(options.claimed_directory_offset);
  }
  if (options.claimed_directory_size >= 0) {
    size = static_cast<std::uint64_t>(options.claimed_directory_size);
  }
  if (options.zip64) {
    const std::uint64_t end64 = out.size();
    Put<std::uint32_t>(out, 0x06064b50);
    Put<std::uint64_t>(out, 44);
    Put<std::uint32_t>(out, 0x00140014);
    Put<std::uint32_t>(out, options.disks);
    Put<std::uint32_t>(out, options.disks);
    for (const std::uint64_t v : {count, count, size, offset}) Put(out, v);
    Put<std::uint32_t>(out, 0x07064b50);
    Put<std::uint32_t>(out, 0);
    Put<std::uint64_t>(out, end64);
    Put<std::uint32_t>(out, 1);
    count = 0xffff;
    size = offset = 0xffffffff;
  }
  Put<std::uint32_t>(out, 0x06054b50);
  Put<std::uint16_t>(out, static_cast<std::uint16_t>(options.disks));
  Put<std::uint16_t>(out, static_cast<std::uint16_t>(options.disks));
  Put<std::uint16_t>(out, static_cast<std::uint16_t>(count));
  Put<std::uint16_t>(out, static_cast<std::uint16_t>(count));
  Put<std::uint32_t>(out, static_cast<std::uint32_t>(size));
  Put<std::uint32_t>(out, static_cast<std::uint32_t>(offset));
  Put<std::uint16_t>(out, static_cast<std::uint16_t>(options.comment.size()));
  out += options.comment;
  return ToBytes(out);
}

}  // namespace hearth::testing_files
