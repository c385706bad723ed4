// The check of what hearth-hdf5-list says; its form stands in server/tools/hdf5_list.cc.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "server/storage/hdf5.h"
#include "server/storage/hdf5_chunks.h"

namespace hearth {
namespace {

using Json = nlohmann::json;
using Bytes = std::span<const std::byte>;

constexpr std::size_t kMaxLineBytes = 1 << 20;
constexpr std::size_t kMaxReasonBytes = 400;
constexpr std::size_t kMaxRank = 32;
// Bytes that may come out of chunks: so many, and for each byte of a tensor so many.
constexpr std::uint64_t kFreeWork = 1 << 30;
constexpr std::uint64_t kMaxWorkRatio = 16;

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(std::string(what)); }

// hearth-hdf5-list does not write such a thing, unless the file made it.
absl::Status BadListing() { return Bad("cannot be listed: what hearth-hdf5-list says about it makes no sense"); }

const Json* Find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

const std::string* FindText(const Json& object, const char* key) {
  const Json* found = Find(object, key);
  return found == nullptr ? nullptr : found->get_ptr<const Json::string_t*>();
}

std::optional<std::vector<std::uint64_t>> Numbers(const Json* list, std::size_t max_count) {
  if (list == nullptr || !list->is_array() || list->size() > max_count) return std::nullopt;
  std::vector<std::uint64_t> numbers;
  for (const Json& item : *list) {
    if (!item.is_number_unsigned()) return std::nullopt;
    numbers.push_back(item.get<std::uint64_t>());
  }
  return numbers;
}

std::optional<Shape> ToShape(const Json* list) {
  const auto numbers = Numbers(list, kMaxRank);
  if (!numbers) return std::nullopt;
  Shape shape;
  for (const std::uint64_t number : *numbers) {
    if (number > INT64_MAX) return std::nullopt;
    shape.push_back(static_cast<std::int64_t>(number));
  }
  return shape;
}

std::optional<std::vector<std::byte>> FromHex(std::string_view text) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  if (text.size() % 2 != 0) return std::nullopt;
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = digit(text[i]), low = digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes.push_back(static_cast<std::byte>(high << 4 | low));
  }
  return bytes;
}

// The names of data sets are paths; those of tensors have dots.
std::string TensorName(std::string_view path) {
  std::string name(path);
  std::replace(name.begin(), name.end(), '/', '.');
  return name;
}

WeightStorage FilledStorage(std::uint64_t size, std::vector<std::byte> element) {
  const auto fill = [element = std::move(element)](std::span<std::byte> out, std::size_t) {
    FillWith(element, out);
    return absl::OkStatus();
  };
  return {.file = nullptr, .offset = 0, .size = size, .unpack = fill};
}

// Reads a list line by line; the text of its errors continues a sentence that begins with the file.
class ListingReader {
 public:
  explicit ListingReader(Bytes file) : file_(file) {}

  absl::Status Read(const Json& line) {
    if (!line.is_object() || ended_) return BadListing();
    if (const std::string* error = FindText(line, "error")) return Bad(error->substr(0, kMaxReasonBytes));
    if (const Json* end = Find(line, "end")) {
      ended_ = true;
      return end->is_number_unsigned() && end->get<std::uint64_t>() == names_.size() + left_out_
                 ? CloseChunks()
                 : BadListing();
    }
    if (const Json* chunks = Find(line, "chunks")) return InSet(AddChunks(*chunks));
    HEARTH_RETURN_IF_ERROR(CloseChunks());
    const std::string* name = FindText(line, "name");
    if (name == nullptr || name->empty()) return BadListing();
    name_ = TensorName(*name);
    if (Find(line, "skipped") != nullptr) {
      ++left_out_;
      return absl::OkStatus();
    }
    if (const std::string* why = FindText(line, "unsupported")) return InSet(Bad(why->substr(0, kMaxReasonBytes)));
    if (!names_.insert(name_).second) return InSet(Bad("is there twice: its groups and dots give one name"));
    return InSet(AddDataSet(line));
  }

  absl::StatusOr<Weights> Finish() && {
    if (!ended_) return Bad("cannot be listed: hearth-hdf5-list ended too soon");
    return std::move(weights_);
  }

 private:
  absl::Status InSet(const absl::Status& status) const {
    if (status.ok()) return status;
    return absl::Status(status.code(), StrCat("has a data set '", name_, "' that ", FromAbsl(status.message())));
  }

  absl::Status AddDataSet(const Json& line) {
    const std::string* type_name = FindText(line, "type");
    const ElementType* type = type_name == nullptr ? nullptr : FindTorchType(*type_name);
    const std::optional<Shape> shape = ToShape(Find(line, "shape"));
    if (type == nullptr || !shape) return BadListing();
    const std::optional<std::int64_t> count = ElementCount(*shape);
    std::uint64_t size = 0;
    if (!count || __builtin_mul_overflow(static_cast<std::uint64_t>(*count), type->size, &size) ||
        __builtin_add_overflow(total_, size, &total_) || total_ > INT64_MAX) {
      return Bad("has an impossible shape");
    }
    weights_.tensors.push_back({.name = name_,
                                .storage = weights_.storages.size(),
                                .type = type,
                                .sizes = *shape,
                                .strides = ContiguousStrides(*shape)});
    HEARTH_ASSIGN_OR_RETURN(WeightStorage storage, ToStorage(line, *shape, *type, size));
    weights_.storages.push_back(std::move(storage));
    return absl::OkStatus();
  }

  absl::StatusOr<WeightStorage> ToStorage(const Json& line, const Shape& shape, const ElementType& type,
                                          std::uint64_t size) {
    std::vector<std::byte> fill;
    if (const std::string* text = FindText(line, "fill")) {
      auto bytes = FromHex(*text);
      if (!bytes || bytes->size() != type.size) return BadListing();
      fill = std::move(*bytes);
    }
    if (Find(line, "chunk") != nullptr) {
      HEARTH_RETURN_IF_ERROR(OpenChunks(line, shape, type, std::move(fill)));
      return WeightStorage{.file = nullptr, .offset = 0, .size = size, .unpack = {}};  // see CloseChunks()
    }
    if (size == 0) return WeightStorage{};
    if (const Json* offset = Find(line, "offset")) {
      if (!offset->is_number_unsigned()) return BadListing();
      const auto at = offset->get<std::uint64_t>();
      if (at > file_.size() || size > file_.size() - at) return Bad("is cut short: it ends behind the end of the file");
      return WeightStorage{.file = nullptr, .offset = at, .size = size, .unpack = {}};
    }
    if (const std::string* text = FindText(line, "inline")) {
      const auto bytes = FromHex(*text);
      if (!bytes || bytes->size() != size) return BadListing();
      return FilledStorage(size, *bytes);
    }
    return FilledStorage(size, std::move(fill));
  }

  absl::Status OpenChunks(const Json& line, const Shape& shape, const ElementType& type,
                          std::vector<std::byte> fill) {
    const std::optional<Shape> chunk = ToShape(Find(line, "chunk"));
    const Json* names = Find(line, "filters");
    if (!chunk || chunk->size() != shape.size() || names == nullptr || !names->is_array()) return BadListing();
    std::vector<ChunkedDataSet::Filter> filters;
    for (const Json& name : *names) {
      if (name != "shuffle" && name != "deflate") return BadListing();
      filters.push_back(name == "shuffle" ? ChunkedDataSet::Filter::kShuffle : ChunkedDataSet::Filter::kDeflate);
    }
    HEARTH_ASSIGN_OR_RETURN(chunked_,
                            ChunkedDataSet::Make(shape, *chunk, type.size, std::move(filters), std::move(fill)));
    return absl::OkStatus();
  }

  // [[place ..., offset, size, mask], ...]
  absl::Status AddChunks(const Json& rows) {
    if (!chunked_ || !rows.is_array()) return BadListing();
    for (const Json& row : rows) {
      const auto numbers = Numbers(&row, kMaxRank + 3);
      if (!numbers || numbers->size() < 3) return BadListing();
      const std::span<const std::uint64_t> all(*numbers);
      const auto last = all.last(3);
      if (last[1] > UINT32_MAX || last[2] > UINT32_MAX) return BadListing();
      HEARTH_RETURN_IF_ERROR(chunked_->Add(all.first(all.size() - 3),
                                           {.offset = last[0],
                                            .size = static_cast<std::uint32_t>(last[1]),
                                            .mask = static_cast<std::uint32_t>(last[2])},
                                           file_.size()));
    }
    return absl::OkStatus();
  }

  // The data set at hand has all its chunks.
  absl::Status CloseChunks() {
    if (!chunked_) return absl::OkStatus();
    HEARTH_RETURN_IF_ERROR(InSet(chunked_->Finish()));
    // Chunks may be larger than what is in them, but a file of hardly anything else is a bomb.
    work_ += chunked_->work();
    if (work_ > kFreeWork && (work_ - kFreeWork) / kMaxWorkRatio > total_) {
      return Bad("has chunks that are far larger than what is in them; write it with smaller ones");
    }
    if (chunked_->size() > 0) {
      const auto set = std::make_shared<const ChunkedDataSet>(*std::move(chunked_));
      WeightStorage& storage = weights_.storages.back();
      storage.parts = set->parts();
      storage.unpack = [set, file = file_, name = name_](std::span<std::byte> out, std::size_t part) {
        return Annotate(set->Unpack(file, out, part), StrCat("'", name, "'"));
      };
    }
    chunked_.reset();
    return absl::OkStatus();
  }

  const Bytes file_;
  Weights weights_;
  std::string name_;                       // of the data set at hand
  std::optional<ChunkedDataSet> chunked_;  // the data set at hand, where it has chunks
  std::unordered_set<std::string> names_;
  std::uint64_t left_out_ = 0, total_ = 0, work_ = 0;
  bool ended_ = false;
};

}  // namespace

absl::StatusOr<Weights> hdf5_internal::ParseListing(std::string_view listing, Bytes file) {
  ListingReader reader(file);
  while (!listing.empty()) {
    const std::size_t length = std::min(listing.find('\n'), listing.size());
    if (length > kMaxLineBytes) return BadListing();
    const std::string_view line = listing.substr(0, length);
    HEARTH_RETURN_IF_ERROR(reader.Read(Json::parse(line.begin(), line.end(), nullptr, false)));
    listing.remove_prefix(std::min(length + 1, listing.size()));
  }
  return std::move(reader).Finish();
}

}  // namespace hearth
