#include "server/frontend/rest_routes.h"

#include <charconv>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "server/frontend/admin_wire.h"
#include "server/frontend/compression.h"
#include "server/frontend/convert.h"
#include "server/frontend/http_guard.h"
#include "server/frontend/json_reader.h"
#include "server/frontend/json_writer.h"
#include "server/frontend/model_config_wire.h"
#include "server/frontend/model_statistics_wire.h"
#include "server/frontend/output_targets.h"
#include "server/frontend/request_memory.h"
#include "server/frontend/rest_extensions.h"
#include "server/frontend/rest_infer.h"
#include "server/frontend/rest_json.h"
#include "server/frontend/rest_openapi.h"
#include "server/frontend/rest_status.h"

namespace hearth {
namespace {

// What a path names.
struct Target {
  std::string model;
  std::string version;  // empty: none
};

using Route = void (*)(HttpCall, const Target&, const RestDeps&);

void Finish(HttpCall call, const absl::Status& status) { std::move(call).Finish(ErrorResponse(status)); }

void FinishJson(HttpCall call, std::string json) { std::move(call).Finish({200, "application/json", std::move(json)}); }

void FinishReady(HttpCall call, bool ready, std::string json) {
  std::move(call).Finish({ready ? 200 : 503, "application/json", std::move(json)});
}

// --- the server ---

void Server(HttpCall call, const Target&, const RestDeps& deps) {
  inference::ServerMetadataResponse wire;
  FillServer(deps.server_name, deps.server_version, wire);
  wire.add_extensions("logging");
  if (deps.shared_memory.allowed()) wire.add_extensions("system_shared_memory");
  FinishJson(std::move(call), ToJson(wire));
}

void Live(HttpCall call, const Target&, const RestDeps& deps) {
  const bool live = deps.repository.live();
  FinishReady(std::move(call), live, live ? "{\"live\":true}" : "{\"live\":false}");
}

void Ready(HttpCall call, const Target&, const RestDeps& deps) {
  const std::string why_not = deps.repository.why_not_ready();
  if (why_not.empty()) return FinishReady(std::move(call), true, "{\"ready\":true}");
  std::string json = "{\"ready\":false,\"reason\":";
  AppendJsonString(why_not, json);
  FinishReady(std::move(call), false, json + "}");
}

void Description(HttpCall call, const Target&, const RestDeps&) { FinishJson(std::move(call), std::string(OpenApi())); }

// --- models ---

void ModelReady(HttpCall call, const Target& target, const RestDeps& deps) {
  const bool ready = deps.repository.ModelReady(target.model, target.version);
  std::string json = "{\"name\":";
  AppendJsonString(target.model, json);
  FinishReady(std::move(call), ready, json + (ready ? ",\"ready\":true}" : ",\"ready\":false}"));
}

void Metadata(HttpCall call, const Target& target, const RestDeps& deps) {
  deps.repository.Metadata(target.model, target.version, kNoDeadline,
                           [call = std::move(call)](absl::StatusOr<ModelMetadata> answer) mutable {
                             if (!answer.ok()) return Finish(std::move(call), answer.status());
                             inference::ModelMetadataResponse wire;
                             FillMetadata(*answer, wire);
                             FinishJson(std::move(call), ToJson(wire));
                           });
}

void Config(HttpCall call, const Target& target, const RestDeps& deps) {
  deps.repository.Metadata(target.model, target.version, kNoDeadline,
                           [call = std::move(call)](absl::StatusOr<ModelMetadata> answer) mutable {
                             if (!answer.ok()) return Finish(std::move(call), answer.status());
                             inference::ModelConfig wire;
                             FillConfig(*answer, wire);
                             FinishJson(std::move(call), ToJson(wire));
                           });
}

void Statistics(HttpCall call, const Target& target, const RestDeps& deps) {
  inference::ModelStatisticsResponse wire;
  const absl::Status status = FillStatistics(deps.repository, deps.metrics, target.model, target.version, wire);
  if (!status.ok()) return Finish(std::move(call), status);
  FinishJson(std::move(call), ToJson(wire));
}

// How much of the body is JSON; none: all of it.
absl::StatusOr<std::optional<std::size_t>> JsonBytes(const HttpRequest& request) {
  constexpr std::string_view kName = "Inference-Header-Content-Length";
  const std::string* text = request.Header(kName);
  if (text == nullptr) return std::nullopt;
  if (!request.AgreesOn(kName)) {
    return absl::InvalidArgumentError(StrCat(kName, " is there twice, and not the same: where the JSON ends would be anybody's guess"));
  }
  std::size_t bytes = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), bytes);
  if (error != std::errc() || end != text->data() + text->size()) {
    return absl::InvalidArgumentError(
        StrCat("Inference-Header-Content-Length is '", text->substr(0, 40), "', which is no number of bytes"));
  }
  return bytes;
}

// So small an answer is not worth the while.
constexpr std::size_t kLeastToCompress = 1024;

// Of what is no binary data: numbers of a model do not get smaller.
void CompressFor(Encoding encoding, HttpResponse& response) {
  if (encoding == Encoding::kIdentity || !response.parts.empty() || response.body.size() < kLeastToCompress) return;
  response.body = Compress(response.body, encoding);
  response.headers.emplace_back("Content-Encoding", ToString(encoding));
}

// Of what the answer takes, binary data lies in the outputs, and JSON in its body.
absl::StatusOr<HttpResponse> WriteCounted(InferResponse& answer, const std::string& id, const BinaryOutputs& binary,
                                          const OutputTargets& targets, Encoding encoding,
                                          const std::shared_ptr<ByteAllowance>& memory) {
  if (!AreSmall(answer.outputs)) HEARTH_RETURN_IF_ERROR(ChargeOutputs(memory, nullptr, answer.outputs));
  HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<ByteCharge> charge,
                          ChargeAnswer(memory, MostJsonBytes(answer, id, binary, targets)));
  HEARTH_ASSIGN_OR_RETURN(HttpResponse response, WriteInferResponse(answer, id, binary, targets));
  answer.outputs.clear();
  CompressFor(encoding, response);
  if (charge != nullptr) charge->ShrinkTo(response.body.size());
  response.until_sent = charge;
  return response;
}

void FinishTraced(HttpCall call, HttpResponse response, const std::string& traceparent) {
  if (!traceparent.empty()) response.headers.emplace_back("traceparent", traceparent);
  std::move(call).Finish(std::move(response));
}

void TellRefused(const RestDeps& deps, const Target& target, const std::string& id, const std::optional<RequestTrace>& trace,
                 TimePoint received, const absl::Status& why) {
  deps.infer.TellRefused({.model = target.model, .version = target.version, .id = id, .trace = trace, .received = received},
                         why);
}

// Of a body that cannot be read.
void Refuse(HttpCall call, const RestDeps& deps, const Target& target, TimePoint received, const absl::Status& why) {
  TellRefused(deps, target, "", std::nullopt, received, why);
  Finish(std::move(call), why);
}

// What goes on once the body has been read.
void Run(HttpCall call, const RestInferRequest& rest, const Target& target, const RestDeps& deps, TimePoint now) {
  OutputTargets targets;
  absl::StatusOr<InferRequest> request =
      ToInferRequest(rest.message, deps.buffers, deps.shared_memory, kNoDeadline, now, targets);
  const std::string* const header = call.request().Header("traceparent");
  const std::optional<RequestTrace> trace = header == nullptr ? std::nullopt : TraceOf(*header);
  const std::string traceparent = trace ? ToTraceParent(trace->span) : "";
  if (!request.ok()) {
    TellRefused(deps, target, rest.message.head.id(), trace, now, request.status());
    return FinishTraced(std::move(call), ErrorResponse(request.status()), traceparent);
  }
  request->trace = trace;
  const std::string* accept = call.request().Header("Accept-Encoding");
  const Encoding encoding = accept == nullptr ? Encoding::kIdentity : ChooseEncoding(*accept);
  call.request() = {};  // its body has been copied to where it is wanted
  request->model = target.model;
  request->version = target.version;
  const std::stop_token cancelled = call.cancelled();
  deps.infer.Infer(*std::move(request), cancelled,
                   [call = std::move(call), memory = deps.buffers.allowance(), id = rest.message.head.id(), binary = rest.binary, encoding,
                    targets = std::move(targets), traceparent](absl::StatusOr<InferResponse> answer) mutable {
                     const absl::Status status = answer.ok() ? Deliver(targets, *answer) : answer.status();
                     if (!status.ok()) return FinishTraced(std::move(call), ErrorResponse(status), traceparent);
                     absl::StatusOr<HttpResponse> response = WriteCounted(*answer, id, binary, targets, encoding, memory);
                     if (!response.ok()) return FinishTraced(std::move(call), ErrorResponse(response.status()), traceparent);
                     FinishTraced(std::move(call), *std::move(response), traceparent);
                   });
}

// The model says what the body is.
void InferRaw(HttpCall call, const Target& target, const RestDeps& deps, TimePoint now) {
  deps.repository.Metadata(target.model, target.version, kNoDeadline,
                           [call = std::move(call), target, deps, now](absl::StatusOr<ModelMetadata> model) mutable {
                             if (!model.ok()) return Refuse(std::move(call), deps, target, now, model.status());
                             const absl::StatusOr<RestInferRequest> rest =
                                 ReadRawRequest(call.request().body, model->signature, deps.buffers);
                             if (!rest.ok()) return Refuse(std::move(call), deps, target, now, rest.status());
                             Run(std::move(call), *rest, target, deps, now);
                           });
}

void Infer(HttpCall call, const Target& target, const RestDeps& deps) {
  const TimePoint now = deps.clock.Now();
  const absl::StatusOr<std::optional<std::size_t>> json_bytes = JsonBytes(call.request());
  if (!json_bytes.ok()) return Refuse(std::move(call), deps, target, now, json_bytes.status());
  if (*json_bytes == 0) return InferRaw(std::move(call), target, deps, now);
  absl::StatusOr<RestInferRequest> rest = ReadInferRequest(call.request().body, *json_bytes, deps.buffers);
  if (!rest.ok()) return Refuse(std::move(call), deps, target, now, rest.status());
  rest->message.head.set_model_name(target.model);  // for messages
  Run(std::move(call), *rest, target, deps, now);
}

// --- the repository ---

absl::StatusOr<bool> ReadyOnly(std::string_view body) {
  bool ready = false;
  if (body.empty()) return ready;
  JsonReader json(body);
  const absl::Status read = json.Object([&](const std::string& key) -> absl::Status {
    if (key != "ready") return json.Skip();
    HEARTH_ASSIGN_OR_RETURN(ready, json.Bool());
    return absl::OkStatus();
  });
  HEARTH_RETURN_IF_ERROR(read);
  HEARTH_RETURN_IF_ERROR(json.End());
  return ready;
}

void Index(HttpCall call, const Target&, const RestDeps& deps) {
  const absl::StatusOr<bool> ready = ReadyOnly(call.request().body);
  if (!ready.ok()) return Finish(std::move(call), ready.status());
  inference::RepositoryIndexResponse wire;
  FillIndex(deps.repository.Index(*ready), wire);
  std::string json = "[";
  for (const auto& model : wire.models()) {
    if (json.size() > 1) json += ',';
    AppendJson(model, json);
  }
  FinishJson(std::move(call), json + "]");
}

// The parameters of a load or an unload, which may have no body at all.
absl::StatusOr<RepositoryParameters> ReadRepositoryParameters(std::string_view body) {
  RepositoryParameters parameters;
  if (body.empty()) return parameters;
  JsonReader json(body);
  const auto parameter = [&](const std::string& name) -> absl::Status {
    if (parameters.size() > 1000) return json.Error("more than 1000 parameters");
    inference::ModelRepositoryParameter& value = parameters[name];
    switch (json.Peek()) {
      case JsonReader::Kind::kBool: {
        HEARTH_ASSIGN_OR_RETURN(const bool truth, json.Bool());
        value.set_bool_param(truth);
        return absl::OkStatus();
      }
      case JsonReader::Kind::kNumber: {
        HEARTH_ASSIGN_OR_RETURN(const std::int64_t number, json.Int64());
        value.set_int64_param(number);
        return absl::OkStatus();
      }
      case JsonReader::Kind::kObject: {  // of a load's config: as good as its text
        const std::size_t begin = json.position();
        HEARTH_RETURN_IF_ERROR(json.Skip());
        value.set_string_param(std::string(body.substr(begin, json.position() - begin)));
        return absl::OkStatus();
      }
      default:
        HEARTH_ASSIGN_OR_RETURN(*value.mutable_string_param(), json.String());
        return absl::OkStatus();
    }
  };
  HEARTH_RETURN_IF_ERROR(json.Object(
      [&](const std::string& key) { return key == "parameters" ? json.Object(parameter) : json.Skip(); }));
  HEARTH_RETURN_IF_ERROR(json.End());
  return parameters;
}

void Load(HttpCall call, const Target& target, const RestDeps& deps) {
  const absl::StatusOr<RepositoryParameters> parameters = ReadRepositoryParameters(call.request().body);
  if (!parameters.ok()) return Finish(std::move(call), parameters.status());
  const auto config = ReadLoadParameters(*parameters);
  if (!config.ok()) return Finish(std::move(call), config.status());
  deps.repository.Load(target.model, *config, kNoDeadline, [call = std::move(call)](absl::StatusOr<LoadReport> report) mutable {
    if (!report.ok()) return Finish(std::move(call), report.status());
    HttpResponse done{200, "application/json", "{}"};
    done.headers.emplace_back("Server-Timing", ServerTiming(*report));
    std::move(call).Finish(std::move(done));
  });
}

void Unload(HttpCall call, const Target& target, const RestDeps& deps) {
  const absl::StatusOr<RepositoryParameters> parameters = ReadRepositoryParameters(call.request().body);
  const absl::Status status = parameters.ok() ? CheckUnloadParameters(*parameters) : parameters.status();
  if (!status.ok()) return Finish(std::move(call), status);
  deps.repository.Unload(target.model, [call = std::move(call)](const absl::Status& done) mutable {
    if (!done.ok()) return Finish(std::move(call), done);
    FinishJson(std::move(call), "{}");
  });
}

// --- paths ---

struct Found {
  AccessGroup group;
  std::string_view method;
  Route route = nullptr;
  Target target = {};
  std::optional<ExtensionRoute> extension = {};  // instead of a route
};

constexpr std::string_view kPaths =
    "there is nothing here; see GET /v2, /v2/openapi.json, /v2/health/live, /v2/health/ready, "
    "/v2/models/MODEL[/versions/VERSION] with /ready, /config, /stats after it or not, POST .../infer, /v2/repository/index, "
    "/v2/repository/models/MODEL/load and /unload, /v2/systemsharedmemory/status, /v2/logging";

// "a%20b" -> "a b". Nothing: it is no such escape.
std::optional<std::string> Decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= text.size()) return std::nullopt;
    const char* const digits = text.data() + i + 1;
    if (std::from_chars(digits, digits + 2, value, 16).ptr != digits + 2) return std::nullopt;
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

// The parts of a path between its slashes; a last one that is empty is dropped. Nothing: an escape is broken.
std::optional<std::vector<std::string>> Split(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    path.remove_prefix(1);  // a slash
    const std::string_view part = path.substr(0, path.find('/'));
    path.remove_prefix(part.size());
    if (part.empty() && path.empty()) break;
    std::optional<std::string> decoded = Decode(part);
    if (!decoded) return std::nullopt;
    parts.push_back(*std::move(decoded));
  }
  return parts;
}

std::optional<Found> FindModelRoute(const std::vector<std::string>& parts) {
  if (parts.size() == 3 && parts[2] == "stats") return Found{AccessGroup::kStatistics, "GET", &Statistics};
  Target target{parts[2], ""};
  std::size_t at = 3;
  if (parts.size() > 4 && parts[3] == "versions") {
    target.version = parts[4];
    at = 5;
  }
  if (parts.size() == at) return Found{AccessGroup::kMetadata, "GET", &Metadata, target};
  if (parts.size() != at + 1) return std::nullopt;
  const std::string& last = parts[at];
  if (last == "ready") return Found{AccessGroup::kHealth, "GET", &ModelReady, target};
  if (last == "config") return Found{AccessGroup::kMetadata, "GET", &Config, target};
  if (last == "stats") return Found{AccessGroup::kStatistics, "GET", &Statistics, target};
  if (last == "infer") return Found{AccessGroup::kInference, "POST", &Infer, target};
  return std::nullopt;
}

std::optional<Found> FindRoute(const std::string& path, std::string_view method) {
  if (!path.starts_with('/')) return std::nullopt;
  const auto split = Split(path);
  if (!split || split->empty() || (*split)[0] != "v2") return std::nullopt;
  const std::vector<std::string>& parts = *split;
  const auto is = [&parts](std::size_t i, std::string_view name) { return parts.size() > i && parts[i] == name; };
  if (parts.size() == 1) return Found{AccessGroup::kMetadata, "GET", &Server};
  if (auto extension = FindExtension({parts.begin() + 1, parts.end()}, method)) {
    return Found{extension->group, extension->method, nullptr, {}, std::move(extension)};
  }
  if (is(1, "openapi.json") && parts.size() == 2) return Found{AccessGroup::kMetadata, "GET", &Description};
  if (is(1, "health") && parts.size() == 3) {
    if (is(2, "live")) return Found{AccessGroup::kHealth, "GET", &Live};
    if (is(2, "ready")) return Found{AccessGroup::kHealth, "GET", &Ready};
  }
  if (is(1, "models") && parts.size() > 2) return FindModelRoute(parts);
  if (is(1, "repository") && is(2, "index") && parts.size() == 3) return Found{AccessGroup::kMetadata, "POST", &Index};
  if (is(1, "repository") && is(2, "models") && parts.size() == 5) {
    if (is(4, "load")) return Found{AccessGroup::kRepository, "POST", &Load, {parts[3], ""}};
    if (is(4, "unload")) return Found{AccessGroup::kRepository, "POST", &Unload, {parts[3], ""}};
  }
  return std::nullopt;
}

// Nothing: the body is plain, or it is now.
std::optional<HttpResponse> DecompressBody(HttpRequest& request, const RestDeps& deps) {
  const std::string* name = request.Header("Content-Encoding");
  if (name == nullptr || request.body.empty()) return std::nullopt;
  const std::optional<Encoding> encoding = ParseEncoding(*name);
  if (!encoding) {
    return HttpError(415, StrCat("a body in the encoding '", name->substr(0, 40),
                                 "' is not understood: send gzip, deflate, or it as it is"));
  }
  if (*encoding == Encoding::kIdentity) return std::nullopt;
  const absl::StatusOr<BufferPool::Buffer> plain = Decompress(request.body, *encoding, deps.max_body_bytes, deps.buffers);
  if (absl::IsOutOfRange(plain.status())) {
    return HttpError(413, StrCat(FromAbsl(plain.status().message()), " (rest.max_body_bytes)"));
  }
  if (!plain.ok()) return ErrorResponse(plain.status());
  request.body = {reinterpret_cast<const char*>(plain->bytes.data()), plain->bytes.size()};
  request.owner = plain->owner;
  return std::nullopt;
}

void Handle(HttpCall call, const RestDeps& deps) {
  const HttpRequest& request = call.request();
  const std::optional<Found> found = FindRoute(request.path, request.method);
  if (!found) return std::move(call).Finish(HttpError(404, kPaths));
  if (std::optional<HttpResponse> refusal = RefusalOf(deps.access, Listener::kRest, found->group, request)) {
    return std::move(call).Finish(*std::move(refusal));
  }
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  if (method != found->method) {
    std::string allowed(found->method);
    if (found->extension && !found->extension->others.empty()) allowed += StrCat(", ", found->extension->others);
    HttpResponse refusal = HttpError(405, StrCat("this path takes ", allowed, ", not ", request.method));
    if (allowed.find("GET") != allowed.npos) allowed += ", HEAD";
    refusal.headers.emplace_back("Allow", std::move(allowed));
    return std::move(call).Finish(std::move(refusal));
  }
  if (const std::optional<HttpResponse> refusal = DecompressBody(call.request(), deps)) {
    return std::move(call).Finish(*refusal);
  }
  if (!found->extension) return found->route(std::move(call), found->target, deps);
  HttpResponse answer = found->extension->answer(call.request(), found->extension->name, deps.shared_memory);
  std::move(call).Finish(std::move(answer));
}

}  // namespace

HttpCallHandler MakeRestHandler(RestDeps deps) {
  return [deps = std::move(deps)](HttpCall call) { Handle(std::move(call), deps); };
}

}  // namespace hearth
