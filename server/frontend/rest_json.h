// Protobuf messages <-> the protocol's JSON.
#pragma once

#include <google/protobuf/map.h>
#include <google/protobuf/message.h>

#include <set>
#include <string>

#include "absl/functional/function_ref.h"
#include "inference.pb.h"
#include "server/base/status.h"
#include "server/frontend/json_reader.h"

namespace hearth {

// Appends `message` with the names of its fields as they are in its .proto. Every number, string and list is there, set
// or not; messages and members of a oneof only when they are set. Numbers are numbers, also those of 64 bits, which
// protobuf's own JSON has as strings: clients of this protocol expect that.
void AppendJson(const google::protobuf::Message& message, std::string& out);
std::string ToJson(const google::protobuf::Message& message);

// Refuses a key that an object has twice, for readers disagree about which of them counts, and more than a thousand of
// them.
class KeysOnce {
 public:
  explicit KeysOnce(const JsonReader& json) : json_(json) {}
  absl::Status Add(const std::string& key);

 private:
  const JsonReader& json_;
  std::set<std::string> keys_;
};

// Reads an object of parameters. `own` reads the value of a name that is its own and says whether it was; all others
// become `parameters`: text, truth, whole numbers (int64, or uint64 beyond that), other numbers. INVALID_ARGUMENT:
// anything else.
absl::Status ReadParameters(JsonReader& json, google::protobuf::Map<std::string, inference::InferParameter>& parameters,
                            absl::FunctionRef<absl::StatusOr<bool>(const std::string& name)> own);

}  // namespace hearth
