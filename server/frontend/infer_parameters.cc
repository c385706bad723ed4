#include "server/frontend/infer_parameters.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "server/serving/keep_alive.h"

namespace hearth {
namespace {

using inference::InferParameter;
constexpr std::size_t kMaxSequenceId = 128;  // as Triton

using ParameterMap = google::protobuf::Map<std::string, InferParameter>;

absl::Status WrongType(const std::string& name, std::string_view expected) {
  return absl::InvalidArgumentError(
      StrCat("invalid value type for '", name, "' parameter, expected ", expected, "."));
}

absl::Status Timeout(const InferParameter& value, TimePoint now, Deadline& deadline) {
  if (!value.has_int64_param()) return WrongType("timeout", "int64_param");
  const std::int64_t microseconds = value.int64_param();
  if (microseconds < 0) {
    return absl::InvalidArgumentError(StrCat(
        "invalid value ", microseconds, " for 'timeout' parameter, expected microseconds >= 0."));
  }
  if (microseconds == 0) return absl::OkStatus();  // as if it were not there
  // Compared as microseconds before it becomes anything finer: a huge timeout must not wrap round.
  const auto left = std::chrono::floor<std::chrono::microseconds>(deadline - now);
  if (microseconds < left.count()) deadline = now + std::chrono::microseconds(microseconds);
  return absl::OkStatus();
}

absl::Status KeepAlive(const InferParameter& value, std::optional<Duration>& keep_alive) {
  absl::StatusOr<Duration> time = WrongType("keep_alive", "string_param or int64_param");
  if (value.has_string_param()) time = ParseKeepAlive(value.string_param());
  if (value.has_int64_param()) time = KeepAliveSeconds(value.int64_param());
  HEARTH_RETURN_IF_ERROR(time.status());
  keep_alive = *time;
  return absl::OkStatus();
}

absl::Status Priority(const InferParameter& value, int& priority) {
  constexpr std::uint64_t kMost = std::numeric_limits<int>::max();
  std::uint64_t level = 0;
  if (value.has_uint64_param()) {
    level = value.uint64_param();
  } else if (value.has_int64_param() && value.int64_param() >= 0) {
    level = static_cast<std::uint64_t>(value.int64_param());
  } else {
    return WrongType("priority", "uint64_param");
  }
  priority = static_cast<int>(std::min(level, kMost));
  return absl::OkStatus();
}

// As messages have them: numbers bare, texts in quotes, so that 7 and "7" are not the same.
absl::Status SequenceId(const InferParameter& value, std::string& id) {
  switch (value.parameter_choice_case()) {
    case InferParameter::kInt64Param:
      if (value.int64_param() != 0) id = StrCat(value.int64_param());
      return absl::OkStatus();
    case InferParameter::kUint64Param:
      if (value.uint64_param() != 0) id = StrCat(value.uint64_param());
      return absl::OkStatus();
    case InferParameter::kStringParam:
      if (value.string_param().size() > kMaxSequenceId) {
        return absl::InvalidArgumentError(StrCat("'sequence_id' is longer than ", kMaxSequenceId, " bytes"));
      }
      if (!value.string_param().empty()) id = StrCat("'", value.string_param(), "'");
      return absl::OkStatus();
    default:
      return WrongType("sequence_id", "int64_param or string_param");
  }
}

absl::Status OfRequest(const std::string& name, const InferParameter& value, TimePoint now, RequestParameters& read,
                       SequenceControl& sequence) {
  if (name == "keep_alive") return KeepAlive(value, read.keep_alive);
  if (name == "timeout") return Timeout(value, now, read.deadline);
  if (name == "priority") return Priority(value, read.priority);
  if (name == "sequence_id") return SequenceId(value, sequence.id);
  if (name == "sequence_start" || name == "sequence_end" ||
      name == "triton_enable_empty_final_response") {
    if (!value.has_bool_param()) return WrongType(name, "bool_param");
    if (name == "sequence_start") sequence.start = value.bool_param();
    if (name == "sequence_end") sequence.end = value.bool_param();
  }
  return absl::OkStatus();
}

constexpr const char* kClassification = "classification";
constexpr const char* kRegion = "shared_memory_region";
constexpr const char* kOffset = "shared_memory_offset";
constexpr const char* kByteSize = "shared_memory_byte_size";

// A number of bytes; 0 where there is none.
absl::StatusOr<std::uint64_t> Bytes(const ParameterMap& parameters, const char* name) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) return 0;
  if (!found->second.has_int64_param()) return WrongType(name, "int64_param");
  const std::int64_t bytes = found->second.int64_param();
  if (bytes >= 0) return static_cast<std::uint64_t>(bytes);
  return absl::InvalidArgumentError(StrCat("invalid value ", bytes, " for '", name, "' parameter, expected bytes >= 0."));
}

}  // namespace

absl::StatusOr<std::optional<SharedPlace>> ReadSharedPlace(std::string_view kind, const std::string& tensor,
                                                           const ParameterMap& parameters) {
  const auto region = parameters.find(kRegion);
  const bool has_size = parameters.contains(kByteSize);
  if (region == parameters.end()) {
    if (!has_size && !parameters.contains(kOffset)) return std::nullopt;
    return absl::InvalidArgumentError(StrCat("'", has_size ? kByteSize : kOffset, "' is given for ", kind, " '", tensor,
                                             "' without '", kRegion, "'"));
  }
  if (!region->second.has_string_param()) return WrongType(kRegion, "string_param");
  if (!has_size) {
    return absl::InvalidArgumentError(
        StrCat("'", kByteSize, "' must be specified along with '", kRegion, "' for ", kind, " '", tensor, "'"));
  }
  SharedPlace place{.region = region->second.string_param()};
  HEARTH_ASSIGN_OR_RETURN(place.byte_size, Bytes(parameters, kByteSize));
  HEARTH_ASSIGN_OR_RETURN(place.offset, Bytes(parameters, kOffset));
  return place;
}

absl::StatusOr<RequestParameters> ReadParameters(const inference::ModelInferRequest& wire, TimePoint now,
                                                 Deadline deadline) {
  RequestParameters read{.deadline = deadline, .keep_alive = {}, .priority = 0, .sequence = {}};
  SequenceControl sequence;
  for (const auto& [name, value] : wire.parameters()) {
    HEARTH_RETURN_IF_ERROR(OfRequest(name, value, now, read, sequence));
  }
  if (!sequence.id.empty()) read.sequence = std::move(sequence);
  return read;
}

absl::StatusOr<std::size_t> ReadTopClasses(const inference::ModelInferRequest::InferRequestedOutputTensor& output) {
  const auto found = output.parameters().find(kClassification);
  if (found == output.parameters().end()) return std::size_t{0};
  if (!found->second.has_int64_param()) return WrongType(kClassification, "int64_param");
  const std::int64_t top = found->second.int64_param();
  if (top < 0) {
    return absl::InvalidArgumentError(
        StrCat("invalid value ", top, " for 'classification' parameter, expected a number of classes."));
  }
  if (top > 0 && output.parameters().contains(kRegion)) {
    return absl::InvalidArgumentError(StrCat("the classes of output '", output.name(), "' do not go to shared memory: leave "
                                             "out 'classification' or '", kRegion, "'"));
  }
  return static_cast<std::size_t>(top);
}

}  // namespace hearth
