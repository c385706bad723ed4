// The parts of Triton's HTTP protocol beside inference and the repository: shared memory, the log, traces.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/access_groups.h"
#include "server/frontend/http_call.h"
#include "server/serving/shared_memory.h"

namespace hearth {

// Answers at once.
struct ExtensionRoute {
  AccessGroup group;
  std::string_view method;
  HttpResponse (*answer)(const HttpRequest& request, const std::string& name, SharedMemory& memory);
  std::string name;  // of a region; empty: all
  std::string_view others = {};  // methods that the path takes beside it
};

// `parts`: of a path below /v2, decoded. Nothing: it is none of these.
//   systemsharedmemory, cudasharedmemory   [/region/NAME]/status, /register, /unregister
//   logging                                GET tells, POST changes
//   [models/MODEL/]trace/setting           likewise
std::optional<ExtensionRoute> FindExtension(const std::vector<std::string>& parts, std::string_view method);

}  // namespace hearth
