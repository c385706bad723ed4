#include "server/frontend/model_config_reader.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include "server/frontend/model_config_options.h"

namespace hearth {
namespace {

constexpr int kMaxDepth = 32;  // its messages nest 7 deep

// What is wrong, one a line, as the readers of YAML have it.
class Errors final : public google::protobuf::io::ErrorCollector {
 public:
  explicit Errors(const std::string& source) : source_(source) {}

  void AddError(int line, int column, const std::string& message) override {
    lines_ += StrCat(lines_.empty() ? "" : "\n", source_, ":", line + 1, ":", column + 1, ": ", message);
  }
  const std::string& lines() const { return lines_; }

 private:
  const std::string& source_;
  std::string lines_;
};

absl::Status ParseText(const TritonConfig& config, inference::ModelConfig& parsed) {
  Errors errors(config.source);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.SetRecursionLimit(kMaxDepth);
  if (parser.ParseFromString(config.text, &parsed)) return absl::OkStatus();
  return absl::InvalidArgumentError(errors.lines().empty() ? StrCat(config.source, ": is no model configuration")
                                                           : errors.lines());
}

absl::Status ParseJson(const TritonConfig& config, inference::ModelConfig& parsed) {
  const auto status = google::protobuf::util::JsonStringToMessage(config.text, &parsed);
  if (status.ok()) return absl::OkStatus();
  const auto told = status.message();
  std::string_view why(told.data(), told.size());
  why = why.substr(0, why.find('\n'));  // after it comes what it stopped at, and an arrow
  why.remove_prefix(std::min(why.find_first_not_of(": "), why.size()));
  return absl::InvalidArgumentError(StrCat(config.source, " is no model configuration in JSON: ", why));
}

// The same for the same configuration, so that it can be compared.
std::string Bytes(const inference::ModelConfig& config) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  (void)config.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

}  // namespace

absl::StatusOr<inference::ModelConfig> ParseModelConfig(const TritonConfig& config) {
  inference::ModelConfig parsed;
  HEARTH_RETURN_IF_ERROR(config.form == TritonConfig::Form::kText ? ParseText(config, parsed)
                                                                  : ParseJson(config, parsed));
  return parsed;
}

absl::Status ReadModelConfig(const std::string& model, const TritonConfig& config, ModelOptions& options,
                             std::vector<std::string>& remarks) {
  HEARTH_ASSIGN_OR_RETURN(const inference::ModelConfig parsed, ParseModelConfig(config));
  const absl::Status applied = ApplyModelConfig(model, parsed, options, remarks);
  if (!applied.ok()) return Annotate(applied, config.source);
  std::string bytes = Bytes(parsed);
  if (inference::ModelConfig again; !again.ParseFromString(bytes)) {  // escapes can make any bytes
    return absl::InvalidArgumentError(StrCat(config.source, ": has words that are not UTF-8"));
  }
  options.triton = std::make_shared<const std::string>(std::move(bytes));
  return absl::OkStatus();
}

}  // namespace hearth
