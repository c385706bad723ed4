#include "server/frontend/rest_extensions.h"

#include <cstdint>
#include <limits>
#include <span>

#include "server/base/strings.h"
#include "server/frontend/json_reader.h"
#include "server/frontend/json_writer.h"
#include "server/frontend/rest_json.h"
#include "server/frontend/rest_status.h"
#include "server/frontend/settings_wire.h"
#include "server/frontend/shared_memory_refusals.h"

namespace hearth {
namespace {

HttpResponse Json(std::string json) { return {200, "application/json", std::move(json)}; }
HttpResponse Done(const absl::Status& status) { return status.ok() ? Json("") : ErrorResponse(status); }

// Reads an object from the whole of a body, which may be empty.
absl::Status ReadObject(std::string_view body, absl::FunctionRef<absl::Status(JsonReader& json, const std::string& key)> member) {
  if (body.empty()) return absl::OkStatus();
  JsonReader json(body);
  KeysOnce keys(json);
  HEARTH_RETURN_IF_ERROR(json.Object([&](const std::string& key) {
    HEARTH_RETURN_IF_ERROR(keys.Add(key));
    return member(json, key);
  }));
  return json.End();
}

// --- shared memory ---

HttpResponse SystemStatus(const HttpRequest&, const std::string& name, SharedMemory& memory) {
  std::string json = "[";
  for (const SharedRegion::Place& place : memory.List()) {
    if (!name.empty() && place.name != name) continue;
    json += json.size() > 1 ? ",{\"name\":" : "{\"name\":";
    AppendJsonString(place.name, json);
    json += ",\"key\":";
    AppendJsonString(place.key, json);
    json += StrCat(",\"offset\":", place.offset, ",\"byte_size\":", place.byte_size, "}");
  }
  if (!name.empty() && json.size() == 1) return ErrorResponse(RegionNotFound("system", name));
  return Json(json + "]");
}

HttpResponse SystemRegister(const HttpRequest& request, const std::string& name, SharedMemory& memory) {
  SharedRegion::Place place{.name = name, .key = {}, .offset = 0, .byte_size = 0};
  bool has_size = false;
  absl::Status read = ReadObject(request.body, [&](JsonReader& json, const std::string& key) -> absl::Status {
    if (key == "key") {
      HEARTH_ASSIGN_OR_RETURN(place.key, json.String());
    } else if (key == "offset") {
      HEARTH_ASSIGN_OR_RETURN(place.offset, json.UInt64());
    } else if (key == "byte_size") {
      has_size = true;
      HEARTH_ASSIGN_OR_RETURN(place.byte_size, json.UInt64());
    } else {
      return json.Skip();
    }
    return absl::OkStatus();
  });
  if (read.ok() && (place.key.empty() || !has_size)) {
    read = absl::InvalidArgumentError("a region needs its 'key' and its 'byte_size'");
  }
  return Done(read.ok() ? memory.Register(place) : read);
}

HttpResponse SystemUnregister(const HttpRequest&, const std::string& name, SharedMemory& memory) {
  memory.Unregister(name);
  return Json("");
}

HttpResponse CudaStatus(const HttpRequest&, const std::string& name, SharedMemory&) {
  return name.empty() ? Json("[]") : ErrorResponse(RegionNotFound("cuda", name));
}

HttpResponse CudaRegister(const HttpRequest&, const std::string&, SharedMemory&) {
  return ErrorResponse(NoCudaMemory());
}

HttpResponse CudaUnregister(const HttpRequest&, const std::string&, SharedMemory&) { return Json(""); }

// `parts` begin with the kind of memory.
std::optional<ExtensionRoute> FindMemory(const std::vector<std::string>& parts) {
  const bool system = parts[0] == "systemsharedmemory";
  std::string name;
  std::size_t at = 1;
  if (parts.size() == 4 && parts[1] == "region") {
    name = parts[2];
    at = 3;
  }
  if (parts.size() != at + 1) return std::nullopt;
  if (parts[at] == "status") {
    return ExtensionRoute{AccessGroup::kControl, "GET", system ? &SystemStatus : &CudaStatus, name};
  }
  if (parts[at] == "unregister") {
    return ExtensionRoute{AccessGroup::kControl, "POST", system ? &SystemUnregister : &CudaUnregister, name};
  }
  if (parts[at] != "register" || name.empty()) return std::nullopt;
  return ExtensionRoute{AccessGroup::kControl, "POST", system ? &SystemRegister : &CudaRegister, name};
}

// --- the log, traces ---

HttpResponse TellLog(const HttpRequest&, const std::string&, SharedMemory&) {
  inference::LogSettingsResponse settings;
  FillLog(settings);
  std::string json;
  for (const auto& [name, value] : settings.settings()) {
    json += json.empty() ? "{" : ",";
    AppendJsonString(name, json);
    json += ':';
    if (value.has_bool_param()) json += value.bool_param() ? "true" : "false";
    if (value.has_uint32_param()) AppendJsonUInt(value.uint32_param(), json);
    if (value.has_string_param()) AppendJsonString(value.string_param(), json);
  }
  return Json(json + "}");
}

HttpResponse SetLog(const HttpRequest& request, const std::string& name, SharedMemory& memory) {
  inference::LogSettingsRequest wanted;
  absl::Status status = ReadObject(request.body, [&](JsonReader& json, const std::string& key) -> absl::Status {
    auto& value = (*wanted.mutable_settings())[key];
    switch (json.Peek()) {
      case JsonReader::Kind::kBool: {
        HEARTH_ASSIGN_OR_RETURN(const bool on, json.Bool());
        value.set_bool_param(on);
        return absl::OkStatus();
      }
      case JsonReader::Kind::kNumber: {
        HEARTH_ASSIGN_OR_RETURN(const std::uint64_t number, json.UInt64());
        if (number > std::numeric_limits<std::uint32_t>::max()) return json.Error(StrCat("'", key, "' is too large"));
        value.set_uint32_param(static_cast<std::uint32_t>(number));
        return absl::OkStatus();
      }
      default:
        HEARTH_ASSIGN_OR_RETURN(*value.mutable_string_param(), json.String());
        return absl::OkStatus();
    }
  });
  if (status.ok()) status = ChangeLog(wanted);
  return status.ok() ? TellLog(request, name, memory) : ErrorResponse(status);
}

HttpResponse TellTrace(const HttpRequest&, const std::string&, SharedMemory&) {
  inference::TraceSettingResponse settings;
  FillTrace(settings);
  std::string json;
  for (const auto& [name, value] : settings.settings()) {
    json += json.empty() ? "{" : ",";
    AppendJsonString(name, json);
    json += name == "trace_level" ? ":[" : ":";
    AppendJsonString(value.value(0), json);
    if (name == "trace_level") json += ']';
  }
  return Json(json + "}");
}

HttpResponse SetTrace(const HttpRequest& request, const std::string& name, SharedMemory& memory) {
  inference::TraceSettingRequest wanted;
  absl::Status status = ReadObject(request.body, [&](JsonReader& json, const std::string& key) -> absl::Status {
    auto& value = (*wanted.mutable_settings())[key];
    if (json.Peek() == JsonReader::Kind::kNull) return json.Null();  // back to its default
    if (json.Peek() == JsonReader::Kind::kArray) {
      return json.Array([&]() -> absl::Status {
        if (value.value_size() == 100) return json.Error("more than 100 values");
        HEARTH_ASSIGN_OR_RETURN(*value.add_value(), json.String());
        return absl::OkStatus();
      });
    }
    if (json.Peek() == JsonReader::Kind::kNumber) {
      HEARTH_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
      value.add_value(std::string(number));
      return absl::OkStatus();
    }
    HEARTH_ASSIGN_OR_RETURN(*value.add_value(), json.String());
    return absl::OkStatus();
  });
  if (status.ok()) status = ChangeTrace(wanted);
  return status.ok() ? TellTrace(request, name, memory) : ErrorResponse(status);
}

// GET and HEAD tell, everything else changes something.
ExtensionRoute Setting(std::string_view method, decltype(ExtensionRoute::answer) tell, decltype(ExtensionRoute::answer) set) {
  const bool tells = method == "GET" || method == "HEAD";
  return {tells ? AccessGroup::kMetadata : AccessGroup::kControl, tells ? "GET" : "POST", tells ? tell : set, "",
          tells ? "POST" : "GET"};
}

}  // namespace

std::optional<ExtensionRoute> FindExtension(const std::vector<std::string>& parts, std::string_view method) {
  if (parts.empty()) return std::nullopt;
  if (parts[0] == "systemsharedmemory" || parts[0] == "cudasharedmemory") return FindMemory(parts);
  if (parts[0] == "logging" && parts.size() == 1) return Setting(method, &TellLog, &SetLog);
  const std::size_t at = parts[0] == "models" ? 2 : 0;
  if (parts.size() == at + 2 && parts[at] == "trace" && parts[at + 1] == "setting") return Setting(method, &TellTrace, &SetTrace);
  return std::nullopt;
}

}  // namespace hearth
