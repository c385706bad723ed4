// hearth-hdf5-list: what lies where in an HDF5 file.
//
//   hearth-hdf5-list 3<FILE | cat
//
// libhdf5 does not survive hostile files, so hearthd does not link it: it runs this program, which lives
// for one file and may do little, and checks every number it gets (server/storage/hdf5.h). On standard
// output, one JSON object a line, of at most 1 MiB:
//
//   {"name":"a/b","type":"float32","shape":[2,3], ...}   a data set, with one of
//       "offset":2048                                    its bytes, from the start of the file
//       "inline":"0000803f"                              its bytes, hexadecimal
//       "chunk":[2,2],"filters":["shuffle","deflate"]    chunks follow; "filters" in the order of writing
//     and "fill":"0000803f", one element, where parts were never written
//   {"chunks":[[0,2,4096,31,0], ...]}      of the data set above: where in it, offset and size in the
//                                          file, and a mask of the filters that it went without
//   {"name":"a/c","unsupported":"has ..."}               numbers, but not as hearthd reads them
//   {"name":"a/d","skipped":"holds text"}                no numbers
//   {"error":"..."}                                      the end, too soon
//   {"end":3}                                            the end, and how many names there were
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/tools/hdf5_descriptor_driver.h"
#include "server/tools/sandbox.h"

namespace hearth {
namespace {

using Json = nlohmann::json;

constexpr int kFile = 3;
constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMaxLinks = 100'000;
constexpr std::size_t kMaxNameBytes = 4096;
constexpr hsize_t kMaxChunks = 4'000'000;     // of one data set, the missing ones counted
constexpr hsize_t kMaxChunkBytes = 256 << 20;  // hearthd unpacks them one at a time, in memory
constexpr std::size_t kChunksPerLine = 256;
constexpr std::size_t kMaxInlineBytes = 64 << 10;  // the format's own limit

// Owner of one of libhdf5's identifiers.
class Id {
 public:
  explicit Id(hid_t id) : id_(id) {}
  ~Id() {
    if (id_ >= 0) H5Idec_ref(id_);
  }
  Id(const Id&) = delete;
  Id& operator=(const Id&) = delete;
  explicit operator bool() const { return id_ >= 0; }
  operator hid_t() const { return id_; }  // NOLINT: as libhdf5's functions want it

 private:
  hid_t id_;
};

// The innermost reason why libhdf5's last call failed.
std::string Reason() {
  std::string reason;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned number, const H5E_error2_t* error, void* out) -> herr_t {
        if (number == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
        return 0;
      },
      &reason);
  return reason.empty() ? "no reason given" : reason.substr(0, 200);
}

void Print(const Json& line) {
  std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace);
  text += '\n';
  std::fwrite(text.data(), 1, text.size(), stdout);
}

// Ends the process. The pages of libhdf5's caches need no tidying, and exit() would run its handlers.
[[noreturn]] void End(const Json& last_line, int code) {
  Print(last_line);
  std::fflush(stdout);
  ::_exit(code);
}

std::string Hex(const std::vector<unsigned char>& bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

// What keeps a data set from being listed in full; thrown within this file.
struct Unlisted {
  const char* kind;  // "unsupported" or "skipped"
  std::string why;
};
[[noreturn]] void Unsupported(std::string why) { throw Unlisted{"unsupported", std::move(why)}; }
[[noreturn]] void Skip(std::string why) { throw Unlisted{"skipped", std::move(why)}; }
[[noreturn]] void Unreadable() { Unsupported("cannot be read by libhdf5: " + Reason()); }

void RequireLittleEndian(hid_t type) {
  if (H5Tget_size(type) > 1 && H5Tget_order(type) != H5T_ORDER_LE) {
    Unsupported("is big-endian; write it little-endian ('<f4')");
  }
}

std::string FloatName(hid_t type) {
  struct Layout {
    std::string_view name;
    std::size_t bytes, exponent, mantissa, bias;
  };
  static constexpr Layout kLayouts[] = {
      {"float32", 4, 8, 23, 127}, {"float64", 8, 11, 52, 1023}, {"float16", 2, 5, 10, 15}, {"bfloat16", 2, 8, 7, 127}};
  RequireLittleEndian(type);
  std::size_t sign = 0, exponent_at = 0, exponent = 0, mantissa_at = 0, mantissa = 0;
  if (H5Tget_fields(type, &sign, &exponent_at, &exponent, &mantissa_at, &mantissa) < 0) Unreadable();
  for (const Layout& layout : kLayouts) {
    if (H5Tget_size(type) == layout.bytes && exponent == layout.exponent && mantissa == layout.mantissa &&
        mantissa_at == 0 && exponent_at == mantissa && sign == mantissa + exponent &&
        H5Tget_ebias(type) == layout.bias && H5Tget_norm(type) == H5T_NORM_IMPLIED) {
      return std::string(layout.name);
    }
  }
  Unsupported("has numbers of an unusual form");
}

std::string IntegerName(hid_t type) {
  RequireLittleEndian(type);
  const std::size_t bits = 8 * H5Tget_size(type);
  const bool plain = bits == 8 || bits == 16 || bits == 32 || bits == 64;
  if (!plain || H5Tget_precision(type) != bits || H5Tget_offset(type) != 0) {
    Unsupported("has numbers of an unusual form");
  }
  return (H5Tget_sign(type) == H5T_SGN_NONE ? "uint" : "int") + std::to_string(bits);
}

// As h5py writes truth values: an enumeration of FALSE and TRUE over one byte.
bool IsBool(hid_t type) {
  if (H5Tget_size(type) != 1 || H5Tget_nmembers(type) != 2) return false;
  const Id base(H5Tget_super(type));
  if (!base || H5Tget_class(base) != H5T_INTEGER) return false;
  for (unsigned member = 0; member < 2; ++member) {
    char* name = H5Tget_member_name(type, member);
    signed char value = -1;
    const bool right = name != nullptr && H5Tget_member_value(type, member, &value) >= 0 &&
                       std::string_view(name) == (value == 1 ? "TRUE" : "FALSE") && (value == 0 || value == 1);
    H5free_memory(name);
    if (!right) return false;
  }
  return true;
}

// As PyTorch calls it.
std::string TypeName(hid_t type) {
  switch (H5Tget_class(type)) {
    case H5T_FLOAT:
      return FloatName(type);
    case H5T_INTEGER:
      return IntegerName(type);
    case H5T_ENUM:
      if (IsBool(type)) return "bool";
      Unsupported("has elements of an enumeration that is not h5py's bool");
    case H5T_COMPOUND:
      Unsupported("has compound elements");
    case H5T_STRING:
      Skip("holds text");
    case H5T_REFERENCE:
    case H5T_VLEN:
    case H5T_OPAQUE:
      Skip("holds no numbers");
    case H5T_NO_CLASS:
      Unreadable();
    default:
      Unsupported("has elements that are no plain numbers");
  }
}

// A data set that is described, but for its chunks.
struct DataSet {
  hid_t id, type, properties;
  std::vector<hsize_t> shape;
  hsize_t element_bytes;
};

void AddFill(const DataSet& set, Json& line) {
  H5D_fill_value_t defined = H5D_FILL_VALUE_UNDEFINED;
  if (H5Pfill_value_defined(set.properties, &defined) < 0) Unreadable();
  if (defined != H5D_FILL_VALUE_USER_DEFINED) return;
  std::vector<unsigned char> element(set.element_bytes);
  if (H5Pget_fill_value(set.properties, set.type, element.data()) < 0) Unreadable();
  line["fill"] = Hex(element);
}

void AddContiguous(const DataSet& set, Json& line) {
  if (H5Pget_external_count(set.properties) != 0) Unsupported("has its values in other files");
  if (const haddr_t offset = H5Dget_offset(set.id); offset != HADDR_UNDEF) {
    line["offset"] = offset;
  } else {
    AddFill(set, line);
  }
}

void AddInline(const DataSet& set, Json& line) {
  const hsize_t size = H5Dget_storage_size(set.id);
  const hssize_t elements = H5Sget_simple_extent_npoints(Id(H5Dget_space(set.id)));
  if (size > kMaxInlineBytes || elements < 0 || static_cast<hsize_t>(elements) > kMaxInlineBytes / set.element_bytes) {
    Unsupported("has more bytes in its header than the format allows");
  }
  std::vector<unsigned char> bytes(static_cast<hsize_t>(elements) * set.element_bytes);
  if (!bytes.empty() && H5Dread(set.id, set.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) < 0) Unreadable();
  line["inline"] = Hex(bytes);
}

Json FilterNames(const DataSet& set) {
  Json names = Json::array();
  const int count = H5Pget_nfilters(set.properties);
  if (count < 0) Unreadable();
  for (unsigned i = 0; i < static_cast<unsigned>(count); ++i) {
    unsigned flags = 0, config = 0;
    std::array<unsigned, 8> values{};
    std::size_t value_count = values.size();
    std::array<char, 64> name{};
    const H5Z_filter_t filter = H5Pget_filter2(set.properties, i, &flags, &value_count, values.data(),
                                               name.size() - 1, name.data(), &config);
    if (filter == H5Z_FILTER_DEFLATE) {
      names.push_back("deflate");
    } else if (filter == H5Z_FILTER_SHUFFLE && value_count > 0 && values[0] == set.element_bytes) {
      names.push_back("shuffle");
    } else {
      Unsupported("goes through filter " + std::to_string(filter) + " (" + name.data() +
                  "); gzip and shuffle are read: h5repack -f SHUF -f GZIP=4");
    }
  }
  unsigned options = 0;
  if (H5Pget_chunk_opts(set.properties, &options) < 0) Unreadable();
  if (count > 0 && options != 0) Unsupported("has chunks at its edges without filters; write it without that option");
  return names;
}

void DescribeChunks(const DataSet& set, Json& line) {
  std::vector<hsize_t> chunk(set.shape.size());
  const int rank = H5Pget_chunk(set.properties, static_cast<int>(chunk.size()), chunk.data());
  if (rank < 0 || static_cast<std::size_t>(rank) != chunk.size()) Unreadable();
  hsize_t bytes = set.element_bytes, chunks = 1;
  for (std::size_t d = 0; d < chunk.size(); ++d) {
    if (chunk[d] == 0 || __builtin_mul_overflow(bytes, chunk[d], &bytes) || bytes > kMaxChunkBytes) {
      Unsupported("has chunks of more than 256 MiB; write it with smaller ones");
    }
    const hsize_t here = set.shape[d] / chunk[d] + (set.shape[d] % chunk[d] != 0 ? 1 : 0);
    if (__builtin_mul_overflow(chunks, here, &chunks) || chunks > kMaxChunks) {
      Unsupported("has more than 4 million chunks; write it with larger ones");
    }
  }
  line["chunk"] = chunk;
  line["filters"] = FilterNames(set);
  AddFill(set, line);
}

// Where a chunk lies; nothing where it was never written. See hdf5_descriptor_driver.h.
std::optional<std::array<std::uint64_t, 3>> FindChunk(hid_t id, const hsize_t* at, std::vector<char>& scratch) {
  hsize_t size = 0;
  // libhdf5 1.10 calls a chunk that was never written an error; the caller counts.
  if (H5Dget_chunk_storage_size(id, at, &size) < 0 || size == 0) return std::nullopt;
  if (size > 2 * kMaxChunkBytes) Unsupported("has a chunk of an impossible size");
  if (scratch.size() < size) scratch.resize(size);  // never written to; should it be, there is room
  std::uint32_t mask = 0;
  Watch() = {.on = true};
  const herr_t read = H5Dread_chunk(id, H5P_DEFAULT, at, &mask, scratch.data());
  Watch().on = false;
  if (read < 0) Unreadable();
  if (Watch().count != 1 || Watch().size != size) Unsupported("has a chunk that cannot be found");
  return std::array<std::uint64_t, 3>{Watch().offset, size, mask};
}

void PrintChunks(const DataSet& set, const std::vector<hsize_t>& chunk) {
  H5D_space_status_t status = H5D_SPACE_STATUS_ERROR;
  if (H5Dget_space_status(set.id, &status) < 0) Unreadable();
  const bool empty = std::find(set.shape.begin(), set.shape.end(), 0U) != set.shape.end();
  if (status == H5D_SPACE_STATUS_NOT_ALLOCATED || empty) return;
  hsize_t missing = 0;  // of the chunks that the index has
  if (H5Dget_num_chunks(set.id, Id(H5Dget_space(set.id)), &missing) < 0) Unreadable();
  Json rows = Json::array();
  std::vector<char> scratch;
  std::vector<hsize_t> at(set.shape.size());
  for (bool more = true; more;) {
    if (const auto found = FindChunk(set.id, at.data(), scratch)) {
      Json row(at);
      for (const std::uint64_t number : *found) row.push_back(number);
      rows.push_back(std::move(row));
      --missing;
    }
    more = false;  // the next place, the last dimension first
    for (std::size_t d = at.size(); d-- > 0 && !more;) {
      at[d] += chunk[d];
      more = at[d] < set.shape[d];
      if (!more) at[d] = 0;
    }
    if (rows.size() == kChunksPerLine || (!more && !rows.empty())) {
      Print({{"chunks", std::move(rows)}});
      rows = Json::array();
    }
  }
  if (missing != 0) Unsupported("has chunks that libhdf5 does not find; the file is damaged");
}

std::vector<hsize_t> ShapeOf(hid_t id) {
  const Id space(H5Dget_space(id));
  if (!space) Unreadable();
  const H5S_class_t kind = H5Sget_simple_extent_type(space);
  if (kind == H5S_NULL) Skip("holds nothing");
  const int rank = H5Sget_simple_extent_ndims(space);
  if (kind == H5S_NO_CLASS || rank < 0) Unreadable();
  std::vector<hsize_t> shape(static_cast<std::size_t>(rank));
  if (rank > 0 && H5Sget_simple_extent_dims(space, shape.data(), nullptr) < 0) Unreadable();
  return shape;
}

void ListDataSet(hid_t id, const std::string& name) {
  Json line = {{"name", name}};
  try {
    const Id type(H5Dget_type(id)), properties(H5Dget_create_plist(id));
    if (!type || !properties) Unreadable();
    line["type"] = TypeName(type);
    const DataSet set{id, type, properties, ShapeOf(id), H5Tget_size(type)};
    line["shape"] = set.shape;
    switch (H5Pget_layout(properties)) {
      case H5D_CONTIGUOUS:
        AddContiguous(set, line);
        return Print(line);
      case H5D_COMPACT:
        AddInline(set, line);
        return Print(line);
      case H5D_CHUNKED:
        DescribeChunks(set, line);
        Print(line);
        return PrintChunks(set, line["chunk"]);
      case H5D_VIRTUAL:
        Unsupported("is put together from other data sets");
      default:
        Unreadable();
    }
  } catch (const Unlisted& unlisted) {
    Print({{"name", name}, {unlisted.kind, unlisted.why}});
  }
}

// Everything below one group, in the order of names.
class Walker {
 public:
  void ListGroup(hid_t group, const std::string& prefix) {
    if (groups_.size() == kMaxDepth) End({{"error", "nests groups too deep"}}, 1);
    H5O_info_t info{};
    if (H5Oget_info(group, &info) < 0) End({{"error", "cannot be read by libhdf5: " + Reason()}}, 1);
    // A group that links to one above it has nothing new to tell.
    if (std::find(groups_.begin(), groups_.end(), info.addr) != groups_.end()) return;
    groups_.push_back(info.addr);
    for (const auto& [name, kind] : Links(group)) List(group, name, prefix + name, kind);
    groups_.pop_back();
  }
  std::size_t names() const { return names_; }

 private:
  using Link = std::pair<std::string, H5L_type_t>;

  std::vector<Link> Links(hid_t group) {
    std::vector<Link> links;
    const auto add = [](hid_t, const char* name, const H5L_info_t* info, void* out) -> herr_t {
      auto* all = static_cast<std::vector<Link>*>(out);
      all->emplace_back(name, info->type);
      return all->size() > kMaxLinks ? 1 : 0;
    };
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &links) < 0) {
      End({{"error", "cannot be read by libhdf5: " + Reason()}}, 1);
    }
    links_ += links.size();
    if (links_ > kMaxLinks) End({{"error", "has more than 100000 names"}}, 1);
    return links;
  }

  void List(hid_t group, const std::string& name, const std::string& path, H5L_type_t kind) {
    if (path.size() > kMaxNameBytes) End({{"error", "has a name of more than 4096 bytes"}}, 1);
    if (kind != H5L_TYPE_HARD) {
      ++names_;
      return Print({{"name", path}, {"unsupported", "is a soft or external link; write a hard one"}});
    }
    const Id object(H5Oopen(group, name.c_str(), H5P_DEFAULT));
    if (!object) {
      ++names_;
      return Print({{"name", path}, {"unsupported", "cannot be read by libhdf5: " + Reason()}});
    }
    switch (H5Iget_type(object)) {
      case H5I_GROUP:
        return ListGroup(object, path + "/");
      case H5I_DATASET:
        ++names_;
        return ListDataSet(object, path);
      default:  // a named type
        return;
    }
  }

  std::vector<haddr_t> groups_;  // from the root to the one at hand
  std::size_t links_ = 0, names_ = 0;
};

int Main() {
  H5open();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  H5PLset_loading_state(0);  // filters from elsewhere are code
  if (!LimitResources() || !ForbidSystemCalls()) {
    End({{"error", "was not opened: this system does not let hearth-hdf5-list limit itself"}}, 1);
  }
  const hid_t file = H5Fopen("file", H5F_ACC_RDONLY, DescriptorAccess(kFile));
  if (file < 0) {
    End({{"error", "cannot be read by libhdf5: " + Reason() +
                       "; is it whole, closed by its writer, and of HDF5 1.10 or older (libver='v110')?"}},
        1);
  }
  Walker walker;
  walker.ListGroup(Id(H5Gopen2(file, "/", H5P_DEFAULT)), "");
  End({{"end", walker.names()}}, 0);
}

}  // namespace
}  // namespace hearth

int main() { return hearth::Main(); }
