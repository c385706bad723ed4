#include "server/frontend/infer_parameters.h"

#include <chrono>
#include <cstdint>
#include <string>

#include "server/serving/keep_alive.h"

namespace hearth {
namespace {

using inference::InferParameter;
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

absl::Status Priority(const InferParameter& value) {
  if (value.has_uint64_param()) return absl::OkStatus();
  if (value.has_int64_param() && value.int64_param() >= 0) return absl::OkStatus();
  return WrongType("priority", "uint64_param");
}

absl::Status SequenceId(const InferParameter& value) {
  bool none = false;
  switch (value.parameter_choice_case()) {
    case InferParameter::kInt64Param:
      none = value.int64_param() == 0;
      break;
    case InferParameter::kUint64Param:
      none = value.uint64_param() == 0;
      break;
    case InferParameter::kStringParam:
      none = value.string_param().empty();
      break;
    default:
      return WrongType("sequence_id", "int64_param or string_param");
  }
  if (none) return absl::OkStatus();
  return absl::UnimplementedError(
      "sequences are not supported: leave 'sequence_id' out, or send 0; every request starts from "
      "the "
      "model's initial state");
}

absl::Status OfRequest(const std::string& name, const InferParameter& value, TimePoint now,
                       Deadline& deadline, std::optional<Duration>& keep_alive) {
  if (name == "keep_alive") return KeepAlive(value, keep_alive);
  if (name == "timeout") return Timeout(value, now, deadline);
  if (name == "priority") return Priority(value);
  if (name == "sequence_id") return SequenceId(value);
  if (name == "sequence_start" || name == "sequence_end" ||
      name == "triton_enable_empty_final_response") {
    return value.has_bool_param() ? absl::OkStatus() : WrongType(name, "bool_param");
  }
  return absl::OkStatus();
}

absl::Status OfTensor(std::string_view kind, const std::string& tensor,
                      const ParameterMap& parameters) {
  for (const auto& [name, value] : parameters) {
    if (name == "classification") {
      return absl::UnimplementedError(StrCat("'classification' is not supported for ", kind, " '",
                                             tensor,
                                             "': ask for the plain output and rank its values"));
    }
  }
  return absl::OkStatus();
}

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

absl::Status CheckParameters(const inference::ModelInferRequest& wire, TimePoint now,
                             Deadline& deadline, std::optional<Duration>& keep_alive) {
  for (const auto& [name, value] : wire.parameters()) {
    HEARTH_RETURN_IF_ERROR(OfRequest(name, value, now, deadline, keep_alive));
  }
  for (const auto& input : wire.inputs()) {
    HEARTH_RETURN_IF_ERROR(OfTensor("input", input.name(), input.parameters()));
  }
  for (const auto& output : wire.outputs()) {
    HEARTH_RETURN_IF_ERROR(OfTensor("output", output.name(), output.parameters()));
  }
  return absl::OkStatus();
}

}  // namespace hearth
