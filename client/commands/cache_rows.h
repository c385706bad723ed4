// What the commands about the cache have in common: the looks of a model and of a time.
#pragma once

#include <optional>
#include <string>

#include "client/client.h"
#include "client/table.h"
#include "nlohmann/json.hpp"

namespace hearth::client {

// "ready"; "loading (hung)".
Cell StateCell(const ModelStat& model);
// RFC 3339, in UTC; null when it never happened.
nlohmann::ordered_json TimeJson(const std::optional<WallTime>& time);
double SecondsSince(WallTime time);
// "8.0 MiB on cuda:1".
std::string DeviceCell(const ModelStat& model);
// As in `hearth ps --json`.
nlohmann::ordered_json ToJson(const ModelStat& model);

}  // namespace hearth::client
