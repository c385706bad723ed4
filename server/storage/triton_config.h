// Triton's model configuration, as a catalog comes by it. This room does not know protobuf: whoever makes a catalog says
// what reads it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/model/model_spec.h"

namespace hearth {

struct TritonConfig {
  enum class Form { kText, kJson };
  Form form = Form::kText;
  std::string text;
  std::string source;  // as messages call it: "net/config.pbtxt", "parameter 'config'"
};

// Lays what `config` says of `model` over `options`; what it does not say stays. INVALID_ARGUMENT: a sentence, with line
// and column where there are any. `remarks`: what it says that has no effect, a sentence each.
using TritonConfigReader = std::function<absl::Status(const std::string& model, const TritonConfig& config,
                                                      ModelOptions& options, std::vector<std::string>& remarks)>;

}  // namespace hearth
