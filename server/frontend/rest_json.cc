#include "server/frontend/rest_json.h"

#include <google/protobuf/descriptor.h>

#include <charconv>
#include <cstdint>
#include <system_error>
#include <vector>

#include "server/frontend/json_writer.h"

namespace hearth {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr std::size_t kMostKeys = 1000;

// One value; `index` in a repeated field, else -1.
void AppendValue(const Message& message, const FieldDescriptor& field, int index, std::string& out) {
  const Reflection& r = *message.GetReflection();
  const bool one = index < 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return AppendJsonInt(one ? r.GetInt32(message, &field) : r.GetRepeatedInt32(message, &field, index), out);
    case FieldDescriptor::CPPTYPE_INT64:
      return AppendJsonInt(one ? r.GetInt64(message, &field) : r.GetRepeatedInt64(message, &field, index), out);
    case FieldDescriptor::CPPTYPE_UINT32:
      return AppendJsonUInt(one ? r.GetUInt32(message, &field) : r.GetRepeatedUInt32(message, &field, index), out);
    case FieldDescriptor::CPPTYPE_UINT64:
      return AppendJsonUInt(one ? r.GetUInt64(message, &field) : r.GetRepeatedUInt64(message, &field, index), out);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return AppendJsonNumber(one ? r.GetDouble(message, &field) : r.GetRepeatedDouble(message, &field, index), out);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return AppendJsonNumber(one ? r.GetFloat(message, &field) : r.GetRepeatedFloat(message, &field, index), out);
    case FieldDescriptor::CPPTYPE_BOOL:
      out += (one ? r.GetBool(message, &field) : r.GetRepeatedBool(message, &field, index)) ? "true" : "false";
      return;
    case FieldDescriptor::CPPTYPE_ENUM:
      return AppendJsonString((one ? r.GetEnum(message, &field) : r.GetRepeatedEnum(message, &field, index))->name(), out);
    case FieldDescriptor::CPPTYPE_STRING:
      return AppendJsonString(one ? r.GetString(message, &field) : r.GetRepeatedString(message, &field, index), out);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return AppendJson(one ? r.GetMessage(message, &field) : r.GetRepeatedMessage(message, &field, index), out);
  }
}

void AppendMap(const Message& message, const FieldDescriptor& field, std::string& out) {
  const Reflection& r = *message.GetReflection();
  out += '{';
  for (int i = 0; i < r.FieldSize(message, &field); ++i) {
    const Message& entry = r.GetRepeatedMessage(message, &field, i);
    if (i > 0) out += ',';
    std::string key;
    AppendValue(entry, *entry.GetDescriptor()->FindFieldByNumber(1), -1, key);
    out += key.starts_with('"') ? key : StrCat("\"", key, "\"");
    out += ':';
    AppendValue(entry, *entry.GetDescriptor()->FindFieldByNumber(2), -1, out);
  }
  out += '}';
}

void AppendList(const Message& message, const FieldDescriptor& field, std::string& out) {
  out += '[';
  for (int i = 0; i < message.GetReflection()->FieldSize(message, &field); ++i) {
    if (i > 0) out += ',';
    AppendValue(message, field, i, out);
  }
  out += ']';
}

// One parameter's value.
absl::Status ReadParameter(JsonReader& json, const std::string& name, inference::InferParameter& parameter) {
  switch (json.Peek()) {
    case JsonReader::Kind::kBool: {
      HEARTH_ASSIGN_OR_RETURN(const bool value, json.Bool());
      parameter.set_bool_param(value);
      return absl::OkStatus();
    }
    case JsonReader::Kind::kString: {
      HEARTH_ASSIGN_OR_RETURN(*parameter.mutable_string_param(), json.String());
      return absl::OkStatus();
    }
    case JsonReader::Kind::kNumber:
      break;
    default:
      return json.Error(StrCat("parameter '", name, "' is not a string, a number, true or false"));
  }
  HEARTH_ASSIGN_OR_RETURN(const std::string_view text, json.Number());
  const char* const end = text.data() + text.size();
  std::int64_t whole = 0;
  if (const auto parsed = std::from_chars(text.data(), end, whole); parsed.ec == std::errc() && parsed.ptr == end) {
    parameter.set_int64_param(whole);
    return absl::OkStatus();
  }
  std::uint64_t large = 0;
  if (const auto parsed = std::from_chars(text.data(), end, large); parsed.ec == std::errc() && parsed.ptr == end) {
    parameter.set_uint64_param(large);
    return absl::OkStatus();
  }
  double real = 0;
  if (const auto parsed = std::from_chars(text.data(), end, real); parsed.ec == std::errc() && parsed.ptr == end) {
    parameter.set_double_param(real);
    return absl::OkStatus();
  }
  return json.Error(StrCat("parameter '", name, "' is a number out of range"));
}

}  // namespace

void AppendJson(const Message& message, std::string& out) {
  const Reflection& reflection = *message.GetReflection();
  out += '{';
  bool first = true;
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    const bool optional = !field.is_repeated() && (field.containing_oneof() != nullptr ||
                                                   field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE);
    if (optional && !reflection.HasField(message, &field)) continue;
    if (!std::exchange(first, false)) out += ',';
    AppendJsonString(field.name(), out);
    out += ':';
    if (field.is_map()) {
      AppendMap(message, field, out);
    } else if (field.is_repeated()) {
      AppendList(message, field, out);
    } else {
      AppendValue(message, field, -1, out);
    }
  }
  out += '}';
}

std::string ToJson(const Message& message) {
  std::string out;
  AppendJson(message, out);
  return out;
}

absl::Status KeysOnce::Add(const std::string& key) {
  if (keys_.size() == kMostKeys) return json_.Error(StrCat("more than ", kMostKeys, " keys in one object"));
  if (keys_.insert(key).second) return absl::OkStatus();
  return json_.Error(StrCat("'", key.substr(0, 80), "' comes twice in one object"));
}

absl::Status ReadParameters(JsonReader& json, google::protobuf::Map<std::string, inference::InferParameter>& parameters,
                            absl::FunctionRef<absl::StatusOr<bool>(const std::string& name)> own) {
  KeysOnce keys(json);
  return json.Object([&](const std::string& name) -> absl::Status {
    HEARTH_RETURN_IF_ERROR(keys.Add(name));
    HEARTH_ASSIGN_OR_RETURN(const bool read, own(name));
    if (read) return absl::OkStatus();
    return ReadParameter(json, name, parameters[name]);
  });
}

}  // namespace hearth
