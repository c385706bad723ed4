#include "server/storage/aoti_metadata.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "server/base/strings.h"

namespace hearth {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxRank = 64;

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(StrCat("has metadata that cannot be understood: ", what));
}

// The words of AOTI_CPU_ISA, torch's names of sets of compiler flags, as the kernel's features.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kVectorSets = {{
    {"AVX2", "avx2 fma f16c"},
    {"AVX512", "avx512f avx512dq avx512vl avx512bw fma"},
    {"AVX512_VNNI", "avx512_vnni"},
    {"AMX_TILE", "amx_tile amx_bf16 amx_int8"},
    {"NEON", "asimd"},
    {"INVALID_VEC_ISA", ""},  // none at all
}};

void AddVectorSets(const std::string& text, std::vector<std::string>& features) {
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const auto known = std::find_if(kVectorSets.begin(), kVectorSets.end(),
                                    [&](const auto& set) { return set.first == word; });
    if (known == kVectorSets.end()) {
      std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
      features.push_back(word);
      continue;
    }
    std::istringstream names{std::string(known->second)};
    for (std::string name; names >> name;) features.push_back(name);
  }
}

absl::StatusOr<AotiTensor> ReadTensor(const Json& json) {
  const auto name = json.find("name"), datatype = json.find("datatype"), shape = json.find("shape");
  if (!json.is_object() || name == json.end() || !name->is_string() || datatype == json.end() ||
      !datatype->is_string() || shape == json.end() || !shape->is_array() || shape->size() > kMaxRank) {
    return Bad("a tensor needs a name, a datatype and a shape");
  }
  AotiTensor tensor;
  tensor.info.name = name->get<std::string>();
  const auto dtype = ParseDType(datatype->get<std::string>());
  if (!dtype || *dtype == DType::kUnknown || *dtype == DType::kBytes) {
    return Bad(StrCat("no tensor is a '", datatype->get<std::string>(), "'"));
  }
  tensor.info.dtype = *dtype;
  Shape sizes;
  for (const Json& dimension : *shape) {
    if (dimension.is_string()) {
      sizes.push_back(-1);
      tensor.dimensions.push_back(dimension.get<std::string>());
    } else if (dimension.is_number_integer() && dimension.get<std::int64_t>() >= -1) {
      sizes.push_back(dimension.get<std::int64_t>());
      tensor.dimensions.emplace_back();
    } else {
      return Bad("a dimension is a size, -1 or a name");
    }
  }
  tensor.info.shape = std::move(sizes);
  return tensor;
}

absl::Status ReadTensors(const Json& own, const char* key, std::vector<AotiTensor>& tensors) {
  const auto list = own.find(key);
  if (list == own.end() || !list->is_array()) return Bad(StrCat("\"", key, "\" has to be a list"));
  for (const Json& json : *list) {
    HEARTH_ASSIGN_OR_RETURN(AotiTensor tensor, ReadTensor(json));
    tensors.push_back(std::move(tensor));
  }
  return absl::OkStatus();
}

absl::Status ReadFeatures(const Json& own, std::vector<std::string>& names) {
  const auto features = own.find("cpu_features");
  if (features == own.end()) return absl::OkStatus();
  if (!features->is_array()) return Bad("\"cpu_features\" has to be a list");
  for (const Json& feature : *features) {
    if (!feature.is_string()) return Bad("\"cpu_features\" has to be a list of names");
    names.push_back(feature.get<std::string>());
  }
  return absl::OkStatus();
}

// Each member of the object `key`, as a list of whole numbers.
template <typename Take>
absl::Status ReadNumbers(const Json& own, const char* key, Take&& take) {
  const auto object = own.find(key);
  if (object == own.end()) return absl::OkStatus();
  if (!object->is_object()) return Bad(StrCat("\"", key, "\" has to be an object"));
  for (const auto& [name, list] : object->items()) {
    Shape numbers;
    for (const Json& number : list) {
      if (!number.is_number_integer()) return Bad(StrCat("\"", key, "\" has lists of whole numbers"));
      numbers.push_back(number.get<std::int64_t>());
    }
    HEARTH_RETURN_IF_ERROR(take(name, std::move(numbers)));
  }
  return absl::OkStatus();
}

absl::Status ReadOwn(const std::string& text, AotiMetadata& metadata) {
  const Json own = Json::parse(text, nullptr, false);
  if (!own.is_object()) return Bad("\"hearth\" is not a JSON object");
  HEARTH_RETURN_IF_ERROR(ReadFeatures(own, metadata.cpu_features));
  HEARTH_RETURN_IF_ERROR(ReadNumbers(own, "constants", [&](const std::string& name, Shape shape) {
    metadata.constants[name] = std::move(shape);
    return absl::OkStatus();
  }));
  HEARTH_RETURN_IF_ERROR(ReadNumbers(own, "strides", [&](const std::string& name, Shape strides) {
    const auto shape = metadata.constants.find(name);
    if (shape == metadata.constants.end() || shape->second.size() != strides.size() ||
        std::any_of(strides.begin(), strides.end(), [](std::int64_t stride) { return stride < 0; })) {
      return Bad("\"strides\" go with the shapes in \"constants\"");
    }
    metadata.strides[name] = std::move(strides);
    return absl::OkStatus();
  }));
  HEARTH_RETURN_IF_ERROR(ReadNumbers(own, "dimensions", [&](const std::string& name, const Shape& range) {
    if (range.size() != 2) return Bad("a range is [least, most]");
    metadata.dimensions[name] = {range[0], range[1]};
    return absl::OkStatus();
  }));
  if (!own.contains("inputs")) return absl::OkStatus();
  metadata.has_signature = true;
  HEARTH_RETURN_IF_ERROR(ReadTensors(own, "inputs", metadata.inputs));
  return ReadTensors(own, "outputs", metadata.outputs);
}

}  // namespace

absl::StatusOr<AotiMetadata> ParseAotiMetadata(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return Bad("it is not a JSON object");
  const auto find = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  AotiMetadata metadata;
  metadata.machine = find("AOTI_MACHINE");
  metadata.device = find("AOTI_DEVICE_KEY");
  AddVectorSets(find("AOTI_CPU_ISA"), metadata.cpu_features);
  if (const std::string own = find("hearth"); !own.empty()) HEARTH_RETURN_IF_ERROR(ReadOwn(own, metadata));
  auto& features = metadata.cpu_features;
  std::sort(features.begin(), features.end());
  features.erase(std::unique(features.begin(), features.end()), features.end());
  return metadata;
}

absl::Status CheckMachine(const AotiMetadata& metadata, std::string_view machine, const CpuFeatures& features) {
  if (!metadata.machine.empty() && metadata.machine != machine) {
    return absl::FailedPreconditionError(StrCat("was compiled for ", metadata.machine, ", and this machine is ",
                                                machine, "; make it with `hearth pack` on a machine like this one"));
  }
  std::vector<std::string_view> missing;
  for (const std::string& feature : metadata.cpu_features) {
    if (!features.contains(feature)) missing.push_back(feature);
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      StrCat("was compiled for a CPU with ", QuotedList(missing),
             ", which this machine lacks; make it with `hearth pack` on a machine like this one"));
}

}  // namespace hearth
