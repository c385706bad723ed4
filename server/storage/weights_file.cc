#include "server/storage/weights_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>

#include "server/base/parallel.h"
#include "server/storage/foreign_file.h"
#include "server/storage/hdf5.h"
#include "server/storage/safetensors.h"
#include "server/storage/state_dict.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexSuffix = ".index.json";
constexpr std::size_t kMaxIndexBytes = 100'000'000;
constexpr std::size_t kMaxShards = 10'000;

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(std::string(what)); }

// Only the names of files in "weight_map" are kept.
class IndexReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::set<std::string> files;
  std::string error;
  bool has_map = false;

  bool start_object(std::size_t) override {
    if (++depth_ == 2 && key_ == "weight_map") has_map = in_map_ = true;
    return depth_ <= kMaxDepth || Fail("is nested too deep");
  }
  bool end_object() override {
    if (depth_-- == 2) in_map_ = false;
    return true;
  }
  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }
  bool string(string_t& text) override {
    if (!in_map_ || depth_ != 2) return true;
    // A plain name beside the index: "..", "/" and what is hidden lead elsewhere.
    if (!IsFileName(text)) return Fail("names a shard that is not a plain file name beside it");
    files.insert(text);
    return files.size() <= kMaxShards || Fail("names too many shards");
  }
  bool start_array(std::size_t) override {
    return in_map_ ? Fail("maps a tensor to something other than a file")
                   : ++depth_ <= kMaxDepth || Fail("is nested too deep");
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool null() override { return Scalar(); }
  bool boolean(bool) override { return Scalar(); }
  bool number_integer(number_integer_t) override { return Scalar(); }
  bool number_unsigned(number_unsigned_t) override { return Scalar(); }
  bool number_float(number_float_t, const string_t&) override { return Scalar(); }
  bool binary(binary_t&) override { return Scalar(); }
  bool parse_error(std::size_t at, const std::string&, const nlohmann::detail::exception&) override {
    return Fail(StrCat("is not JSON (at byte ", at, ")"));
  }

 private:
  static constexpr int kMaxDepth = 100;
  bool Scalar() { return !in_map_ || Fail("maps a tensor to something other than a file"); }
  bool Fail(std::string what) {
    if (error.empty()) error = std::move(what);
    return false;
  }

  int depth_ = 0;
  bool in_map_ = false;
  std::string key_;
};

absl::StatusOr<Weights> ReadByContent(const std::shared_ptr<const MappedFile>& file) {
  const std::span<const std::byte> bytes = file->bytes();
  if (StartsWith(bytes, "PK\x03\x04")) return ReadStateDict(file);
  if (LooksLikeHdf5(bytes)) return ReadHdf5(file, Hdf5ListerBesideProgram());
  if (LooksLikeSafetensors(bytes)) return ReadSafetensors(file);
  // A damaged one does not look like one, and its reader knows why.
  const bool named = file->path().extension() == ".safetensors";
  if (named && HasSafetensorsBrace(bytes)) return ReadSafetensors(file);
  if (const std::optional<std::string_view> foreign = ForeignFile(bytes)) return Bad(*foreign);
  if (named) return ReadSafetensors(file);
  return Bad("is none of the formats of weights that are known: safetensors, torch.save, HDF5");
}

}  // namespace

absl::StatusOr<std::vector<std::string>> weights_internal::ParseIndex(std::string_view text) {
  IndexReader reader;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) return Bad(reader.error);
  if (!reader.has_map) return Bad("has no \"weight_map\"");
  if (reader.files.empty()) return Bad("names no shards");
  return std::vector<std::string>(reader.files.begin(), reader.files.end());
}

absl::StatusOr<std::vector<fs::path>> WeightFiles(const fs::path& path) {
  if (!path.filename().string().ends_with(kIndexSuffix)) return std::vector<fs::path>{path};
  HEARTH_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxIndexBytes));
  const absl::StatusOr<std::vector<std::string>> names = weights_internal::ParseIndex(text);
  if (!names.ok()) return AboutFile(path, names.status());
  std::vector<fs::path> files;
  for (const std::string& name : *names) files.push_back(path.parent_path() / name);
  return files;
}

absl::StatusOr<Weights> ReadWeights(const fs::path& path) {
  HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  return ReadWeights(file);
}

absl::StatusOr<Weights> ReadWeights(const std::shared_ptr<const MappedFile>& file) {
  absl::StatusOr<Weights> weights = ReadByContent(file);
  if (!weights.ok()) return AboutFile(file->path(), weights.status());
  return weights;
}

absl::StatusOr<Weights> JoinWeights(std::vector<Weights> shards) {
  Weights all;
  std::unordered_set<std::string_view> names;
  for (const Weights& shard : shards) {
    for (const WeightTensor& tensor : shard.tensors) {
      if (!names.insert(tensor.name).second) {
        return Bad(StrCat("tensor '", tensor.name, "' is in two shards"));
      }
    }
  }
  for (Weights& shard : shards) {
    const std::size_t first = all.storages.size();
    for (WeightStorage& storage : shard.storages) all.storages.push_back(std::move(storage));
    for (WeightTensor& tensor : shard.tensors) {
      tensor.storage += first;
      all.tensors.push_back(std::move(tensor));
    }
  }
  return all;
}

absl::StatusOr<Weights> ReadAllWeights(const std::vector<fs::path>& paths, const OpenWeights& open) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    HEARTH_ASSIGN_OR_RETURN(const std::vector<fs::path> shards, WeightFiles(path));
    files.insert(files.end(), shards.begin(), shards.end());
  }
  std::vector<Weights> shards(files.size());
  HEARTH_RETURN_IF_ERROR(
      ParallelFor(files.size(), std::thread::hardware_concurrency(), [&](std::size_t i) -> absl::Status {
        HEARTH_ASSIGN_OR_RETURN(const auto file, open(files[i]));
        HEARTH_ASSIGN_OR_RETURN(shards[i], ReadWeights(file));
        return absl::OkStatus();
      }));
  return JoinWeights(std::move(shards));
}

}  // namespace hearth
