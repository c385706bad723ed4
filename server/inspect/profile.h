// `hearthd profile PATH`: loads one model as the daemon would, and says where the time went.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "server/base/status.h"
#include "server/model/loader.h"

namespace hearth {

// `path`: a TorchScript file, an AOTInductor package, a version's folder, or a model's folder (its highest
// version). A program with weights beside it is loaded with them, as its version. Returns report_json.h's JSON. The model is gone again afterwards.
using MakeLoader = std::function<std::unique_ptr<Loader>(std::string_view format)>;
absl::StatusOr<std::string> Profile(const std::filesystem::path& path, const MakeLoader& make_loader);

namespace inspect_internal {
absl::StatusOr<ModelSpec> SpecOf(const std::filesystem::path& path);
}  // namespace inspect_internal

}  // namespace hearth
