#include "server/frontend/grpc_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/frontend/server_stack.h"

namespace hearth {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using testing::ElementsAre;
using testing::HasSubstr;

ModelInferRequest FloatRequest(const std::string& model, std::size_t elements = 4) {
  ModelInferRequest request;
  request.set_model_name(model);
  auto* input = request.add_inputs();
  input->set_name("x");
  input->set_datatype("FP32");
  input->add_shape(static_cast<std::int64_t>(elements));
  request.add_raw_input_contents(std::string(elements * 4, '\x11'));
  return request;
}

// An echo that says what it takes, so that the answers to metadata and wrong inputs are telling.
fakes::FakeLoader::Script Echo() {
  fakes::FakeLoader::Script script;
  script.model.signature = {
      "fake", {{"x", DType::kFp32, Shape{-1}, false}}, {{"x", DType::kFp32, Shape{-1}, false}}, true, {}};
  script.model.footprint.host_bytes = 1000;
  script.model.report[LoadPhase::kMap].wall = std::chrono::milliseconds(3);
  script.model.report.parts = {{LoadPhase::kMap, std::chrono::milliseconds(1), std::chrono::milliseconds(2)},
                               {LoadPhase::kMap, std::chrono::milliseconds(5), std::chrono::milliseconds(1)}};
  return script;
}

// Until something that another thread does has happened.
template <typename Predicate>
void Await(Predicate happened) {
  while (!happened()) std::this_thread::yield();
}

class GrpcServerTest : public testing::Test {
 protected:
  grpc::Status Infer(const ModelInferRequest& request, ModelInferResponse* response) {
    grpc::ClientContext context;
    return stub_->ModelInfer(&context, request, response);
  }
  grpc::Status Infer(const ModelInferRequest& request) {
    ModelInferResponse response;
    return Infer(request, &response);
  }
  // Any other method: Call(&Stub::ServerLive, request).
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (inference::GRPCInferenceService::Stub::*method)(
                        grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return ((*stub_).*method)(&context, request, response);
  }

  ServerStack stack_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_ = stack_.Stub();
};

using Stub = inference::GRPCInferenceService::Stub;

// --- inference ---

TEST_F(GrpcServerTest, AnswersAnInference) {
  stack_.AddModel("echo", Echo());
  ModelInferRequest request = FloatRequest("echo");
  request.set_id("42");
  ModelInferResponse response;
  const grpc::Status status = Infer(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.model_name(), "echo");
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_EQ(response.id(), "42");
  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).datatype(), "FP32");
  EXPECT_THAT(response.raw_output_contents(), ElementsAre(request.raw_input_contents(0)));
}

TEST_F(GrpcServerTest, AnswersManyClientsAtOnce) {
  stack_.AddModel("echo", Echo());
  std::vector<std::future<int>> clients;
  for (std::size_t i = 0; i < 8; ++i) {
    clients.push_back(std::async(std::launch::async, [this, i] {
      const auto stub = stack_.Stub();
      int right = 0;
      for (std::size_t n = 1; n <= 50; ++n) {
        ModelInferRequest request = FloatRequest("echo", n + i);
        grpc::ClientContext context;
        ModelInferResponse response;
        right += stub->ModelInfer(&context, request, &response).ok() &&
                 response.raw_output_contents(0) == request.raw_input_contents(0);
      }
      return right;
    }));
  }
  for (auto& client : clients) EXPECT_EQ(client.get(), 50);
  EXPECT_EQ(stack_.loader.loads("echo"), 1);
}

TEST_F(GrpcServerTest, AnUnknownModelIsNotFound) {
  const grpc::Status status = Infer(FloatRequest("nobody"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "Request for unknown model: 'nobody' is not found");
}

TEST_F(GrpcServerTest, ARequestThatCannotBeReadIsRefused) {
  stack_.AddModel("echo", Echo());
  ModelInferRequest request = FloatRequest("echo");
  request.mutable_inputs(0)->set_datatype("FP7");
  const grpc::Status status = Infer(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("unknown data-type 'FP7'"));
  EXPECT_EQ(stack_.loader.loads("echo"), 0);
}

TEST_F(GrpcServerTest, ARequestThatDoesNotFitTheModelIsRefused) {
  stack_.AddModel("echo", Echo());
  ModelInferRequest request = FloatRequest("echo");
  request.set_raw_input_contents(0, "123");
  const grpc::Status status = Infer(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("input byte size mismatch for input 'x'"));
}

TEST_F(GrpcServerTest, ARecentFailureComesWithAHintWhenToAskAgain) {
  fakes::FakeLoader::Script broken;
  broken.load_error = absl::InvalidArgumentError("not a model at all");
  stack_.AddModel("broken", broken);
  grpc::ClientContext context;
  ModelInferResponse response;
  EXPECT_FALSE(Infer(FloatRequest("broken")).ok());
  const grpc::Status status = stub_->ModelInfer(&context, FloatRequest("broken"), &response);
  EXPECT_THAT(status.error_message(), HasSubstr("not a model at all"));
  EXPECT_TRUE(context.GetServerTrailingMetadata().contains("grpc-retry-pushback-ms"));
}

TEST_F(GrpcServerTest, ARequestWhoseModelIsNeverLoadedInTimeIsRefusedAtOnceWithAHint) {
  fakes::FakeLoader::Script big = Echo();
  big.model.report = {};
  big.model.report[LoadPhase::kBind].wall = std::chrono::hours(1);  // so it says
  stack_.AddModel("big", big);
  ASSERT_TRUE(Infer(FloatRequest("big")).ok());
  std::promise<void> gone;
  stack_.manager.Unload({"big", 1}, [&gone] { gone.set_value(); });
  gone.get_future().wait();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(5));
  ModelInferResponse response;
  const grpc::Status status = stub_->ModelInfer(&context, FloatRequest("big"), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto hint = trailers.find("grpc-retry-pushback-ms");
  ASSERT_NE(hint, trailers.end());
  EXPECT_EQ(hint->second, "3600000");
}

TEST_F(GrpcServerTest, AClientThatGoesAwayNoLongerWaits) {
  std::promise<void> loading;
  std::promise<void> go_on;
  fakes::FakeLoader::Script slow = Echo();
  slow.on_load = [&loading, may_go_on = go_on.get_future().share()](const ModelSpec&, std::stop_token) {
    loading.set_value();
    may_go_on.wait();  // its own: the test may be over before this is reached
  };
  stack_.AddModel("slow", slow);
  grpc::ClientContext context;
  auto status = std::async(std::launch::async, [&] {
    ModelInferResponse response;
    return stub_->ModelInfer(&context, FloatRequest("slow"), &response);
  });
  loading.get_future().wait();
  EXPECT_EQ(stack_.infer.in_flight(), 1);
  context.TryCancel();
  EXPECT_EQ(status.get().error_code(), grpc::StatusCode::CANCELLED);
  Await([&] { return stack_.infer.in_flight() == 0; });  // while the load still runs
  go_on.set_value();
}

TEST_F(GrpcServerTest, AMessageAboveTheLimitIsRefused) {
  GrpcServer::Options options;
  options.max_receive_bytes = 1000;
  ServerStack stack(options);
  stack.AddModel("echo", Echo());
  const auto stub = stack.Stub();
  for (const std::size_t elements : {10u, 1000u}) {
    grpc::ClientContext context;
    ModelInferResponse response;
    const grpc::Status status =
        stub->ModelInfer(&context, FloatRequest("echo", elements), &response);
    EXPECT_EQ(status.error_code(),
              elements == 10 ? grpc::StatusCode::OK : grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
}

TEST_F(GrpcServerTest, ACompressedMessageIsInflatedNoFurtherThanItMayBeLarge) {
  GrpcServer::Options options;
  options.max_receive_bytes = 100'000;
  ServerStack stack(options);
  stack.AddModel("echo", Echo());
  const auto stub = stack.Stub();
  for (const grpc_compression_algorithm algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    for (const std::size_t elements : {20'000u, 20'000'000u}) {
      grpc::ClientContext context;
      context.set_compression_algorithm(algorithm);
      ModelInferResponse response;
      const ModelInferRequest request = FloatRequest("echo", elements);
      const grpc::Status status = stub->ModelInfer(&context, request, &response);
      if (elements < 25'000) {
        ASSERT_TRUE(status.ok()) << status.error_message();
        EXPECT_EQ(response.raw_output_contents(0), request.raw_input_contents(0));
      } else {
        EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
        EXPECT_THAT(status.error_message(), HasSubstr("(100001 vs. 100000)"));
      }
    }
  }
}

TEST_F(GrpcServerTest, CompressedMessagesHaveSoMuchTogether) {
  GrpcServer::Options options;
  options.max_messages_bytes = 1 << 20;
  ServerStack stack(options);
  stack.AddModel("echo", Echo());
  const auto stub = stack.Stub();
  for (const std::size_t elements : {1'000'000u, 10'000u}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    ModelInferResponse response;
    const grpc::Status status = stub->ModelInfer(&context, FloatRequest("echo", elements), &response);
    EXPECT_EQ(status.error_code(), elements == 10'000 ? grpc::StatusCode::OK : grpc::StatusCode::INTERNAL) << status.error_message();
  }
}

TEST_F(GrpcServerTest, TensorsAboveGrpcsDefaultLimitPass) {
  stack_.AddModel("echo", Echo());
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  const auto stub = inference::GRPCInferenceService::NewStub(grpc::CreateCustomChannel(
      StrCat("127.0.0.1:", stack_.server->port()), grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  ModelInferResponse response;
  const ModelInferRequest request = FloatRequest("echo", 3 << 20);  // 12 MiB
  const grpc::Status status = stub->ModelInfer(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.raw_output_contents(0), request.raw_input_contents(0));
}

// --- administration ---

TEST_F(GrpcServerTest, SaysWhoItIs) {
  GrpcServer::Options options;
  options.server_name = "somebody";
  options.server_version = "1.2.3";
  ServerStack stack(options);
  inference::ServerMetadataResponse metadata;
  grpc::ClientContext context;
  ASSERT_TRUE(stack.Stub()->ServerMetadata(&context, {}, &metadata).ok());
  EXPECT_EQ(metadata.name(), "somebody");
  EXPECT_EQ(metadata.version(), "1.2.3");
  EXPECT_THAT(metadata.extensions(), testing::Contains("model_repository"));
}

TEST_F(GrpcServerTest, IsLiveAtOnceAndReadyWhenTold) {
  inference::ServerLiveResponse live;
  inference::ServerReadyResponse ready;
  ASSERT_TRUE(Call(&Stub::ServerLive, inference::ServerLiveRequest(), &live).ok());
  EXPECT_TRUE(live.live());
  ASSERT_TRUE(Call(&Stub::ServerReady, inference::ServerReadyRequest(), &ready).ok());
  EXPECT_FALSE(ready.ready());
  stack_.repository.SetWhyNotReady("");
  ASSERT_TRUE(Call(&Stub::ServerReady, inference::ServerReadyRequest(), &ready).ok());
  EXPECT_TRUE(ready.ready());
}

TEST_F(GrpcServerTest, TellsWhatAModelTakes) {
  stack_.AddModel("echo", Echo());
  inference::ModelMetadataRequest request;
  request.set_name("echo");
  inference::ModelMetadataResponse metadata;
  ASSERT_TRUE(Call(&Stub::ModelMetadata, request, &metadata).ok());
  EXPECT_EQ(metadata.name(), "echo");
  EXPECT_EQ(metadata.platform(), "fake");
  EXPECT_THAT(metadata.versions(), ElementsAre("1"));
  ASSERT_EQ(metadata.inputs_size(), 1);
  EXPECT_EQ(metadata.inputs(0).name(), "x");
  EXPECT_EQ(metadata.inputs(0).datatype(), "FP32");
  EXPECT_THAT(metadata.inputs(0).shape(), ElementsAre(-1));
  EXPECT_EQ(metadata.outputs_size(), 1);
  EXPECT_EQ(metadata.properties().at("hearth_host_bytes"), "1000");
}

TEST_F(GrpcServerTest, LoadsAndUnloads) {
  stack_.AddModel("echo", Echo());
  const auto ready = [&] {
    inference::ModelReadyRequest request;
    request.set_name("echo");
    inference::ModelReadyResponse response;
    EXPECT_TRUE(Call(&Stub::ModelReady, request, &response).ok());
    return response.ready();
  };
  const auto state = [&] {
    inference::RepositoryIndexResponse index;
    EXPECT_TRUE(Call(&Stub::RepositoryIndex, inference::RepositoryIndexRequest(), &index).ok());
    return index.models_size() == 1 ? index.models(0).name() + " " + index.models(0).state()
                                    : "none";
  };
  EXPECT_FALSE(ready());
  EXPECT_EQ(state(), "echo ");

  inference::RepositoryModelLoadRequest load;
  load.set_model_name("echo");
  inference::RepositoryModelLoadResponse loaded;
  ASSERT_TRUE(Call(&Stub::RepositoryModelLoad, load, &loaded).ok());
  EXPECT_TRUE(ready());
  EXPECT_EQ(state(), "echo READY");

  inference::RepositoryModelUnloadRequest unload;
  unload.set_model_name("echo");
  (*unload.mutable_parameters())["unload_dependents"].set_bool_param(false);
  inference::RepositoryModelUnloadResponse unloaded;
  ASSERT_TRUE(Call(&Stub::RepositoryModelUnload, unload, &unloaded).ok());
  EXPECT_FALSE(ready());
  EXPECT_EQ(state(), "echo UNAVAILABLE");
  EXPECT_EQ(stack_.loader.alive(), 0);
}

TEST_F(GrpcServerTest, RefusesWhatALoadCannotDo) {
  stack_.AddModel("echo", Echo());
  const auto refused = [&](const inference::RepositoryModelLoadRequest& request) {
    inference::RepositoryModelLoadResponse response;
    return Call(&Stub::RepositoryModelLoad, request, &response);
  };
  inference::RepositoryModelLoadRequest request;
  EXPECT_EQ(refused(request).error_message(), "Model name cannot be empty");
  request.set_model_name("echo");
  (*request.mutable_parameters())["file:1/model.pt"].set_bytes_param("x");
  EXPECT_EQ(refused(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request.clear_parameters();
  (*request.mutable_parameters())["speed"].set_int64_param(1);
  EXPECT_EQ(refused(request).error_message(), "unrecognized load parameter 'speed'");
  request.clear_parameters();
  request.set_repository_name("other");
  EXPECT_EQ(refused(request).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(refused(request).error_message(), "'repository_name' specification is not supported");
  EXPECT_EQ(stack_.loader.loads("echo"), 0);
}

TEST_F(GrpcServerTest, RefusesWhatAnUnloadOrAnIndexCannotDo) {
  stack_.AddModel("echo", Echo());
  inference::RepositoryModelUnloadRequest unload;
  inference::RepositoryModelUnloadResponse unloaded;
  unload.set_model_name("echo");
  (*unload.mutable_parameters())["unload_dependents"].set_string_param("yes");
  EXPECT_EQ(Call(&Stub::RepositoryModelUnload, unload, &unloaded).error_message(),
            "invalid value type for 'unload_dependents' parameter, expected bool_param.");
  unload.clear_parameters();
  (*unload.mutable_parameters())["speed"].set_int64_param(1);
  EXPECT_EQ(Call(&Stub::RepositoryModelUnload, unload, &unloaded).error_message(),
            "unrecognized unload parameter 'speed'");
  inference::RepositoryIndexRequest index;
  inference::RepositoryIndexResponse indexed;
  index.set_repository_name("other");
  EXPECT_EQ(Call(&Stub::RepositoryIndex, index, &indexed).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(GrpcServerTest, StatTellsWhatIsResident) {
  stack_.AddModel("echo", Echo());
  stack_.AddModel("other", Echo());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Infer(FloatRequest("echo")).ok());
  ASSERT_TRUE(Infer(FloatRequest("other")).ok());

  const auto stub = hearth::v1::Cache::NewStub(stack_.Channel());
  hearth::v1::StatRequest request;
  request.set_model("echo");
  hearth::v1::StatResponse stat;
  do {  // a request counts as in flight until a moment after its answer is out
    grpc::ClientContext context;
    ASSERT_TRUE(stub->Stat(&context, request, &stat).ok());
  } while (stat.server().in_flight() != 0);
  EXPECT_EQ(stat.server().name(), "hearth");
  EXPECT_GT(stat.server().uptime_seconds(), 0);
  EXPECT_FALSE(stat.server().ready());
  EXPECT_EQ(stat.server().not_ready_reason(), "starting");
  ASSERT_EQ(stat.budgets_size(), 3);
  EXPECT_EQ(stat.budgets(1).dimension(), "host");
  EXPECT_EQ(stat.budgets(1).capacity_bytes(), 1u << 30);
  EXPECT_EQ(stat.budgets(1).used_bytes(), 2000u);
  EXPECT_EQ(stat.budgets(1).resident_bytes(), 2000u);

  ASSERT_EQ(stat.models_size(), 1);
  const hearth::v1::Model& model = stat.models(0);
  EXPECT_EQ(model.name(), "echo");
  EXPECT_EQ(model.version(), 1);
  EXPECT_EQ(model.state(), "ready");
  EXPECT_EQ(model.bytes().host(), 1000u);
  EXPECT_EQ(model.hits(), 2u);
  EXPECT_EQ(model.requests_succeeded(), 3u);
  EXPECT_EQ(model.requests_failed(), 0u);
  EXPECT_GT(model.mean_request_seconds(), 0);
  ASSERT_EQ(model.load_phases_size(), 1);
  EXPECT_EQ(model.load_phases(0).name(), "map");
  EXPECT_DOUBLE_EQ(model.load_phases(0).milliseconds(), 3);
  ASSERT_EQ(model.load_phases(0).parts_size(), 2);
  EXPECT_DOUBLE_EQ(model.load_phases(0).parts(1).start_milliseconds(), 5);
  EXPECT_DOUBLE_EQ(model.load_phases(0).parts(1).milliseconds(), 1);
  EXPECT_GE(model.last_used().seconds(), model.loaded_at().seconds());
}

// --- the port, reflection, shutdown ---

TEST_F(GrpcServerTest, APortInUseIsAnErrorThatNamesIt) {
  GrpcServer::Options options;
  options.address = "127.0.0.1";
  options.port = stack_.server->port();
  const auto second = GrpcServer::Start(
      {stack_.infer, stack_.repository, stack_.cache, stack_.buffers, stack_.shared_memory, stack_.metrics, stack_.clock,
       stack_.access},
      options);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().ToString(), HasSubstr(StrCat("127.0.0.1:", options.port)));
  EXPECT_THAT(second.status().ToString(), HasSubstr("in use"));
}

TEST_F(GrpcServerTest, AnAddressThatIsNotOursIsAnError) {
  GrpcServer::Options options;
  options.address = "192.0.2.1";  // reserved for documentation
  options.port = 0;
  const auto server = GrpcServer::Start(
      {stack_.infer, stack_.repository, stack_.cache, stack_.buffers, stack_.shared_memory, stack_.metrics, stack_.clock,
       stack_.access},
      options);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(server.status().ToString(), HasSubstr("192.0.2.1"));
}

TEST_F(GrpcServerTest, AnIpv6AddressMayHaveItsBrackets) {
  for (const char* address : {"::1", "[::1]"}) {
    GrpcServer::Options options;
    options.address = address;
    options.port = 0;
    const auto server = GrpcServer::Start(
        {stack_.infer, stack_.repository, stack_.cache, stack_.buffers, stack_.shared_memory, stack_.metrics, stack_.clock,
       stack_.access},
      options);
    // A machine without IPv6 says so; what it must not say is that the name is unknown.
    if (!server.ok()) {
      EXPECT_THAT(server.status().ToString(), HasSubstr("[::1]:0: bind"));
    }
  }
}

TEST_F(GrpcServerTest, ReloadTellsWhatChangedAndWhatIsWrong) {
  const auto stub = hearth::v1::Config::NewStub(stack_.Channel());
  const auto call = [&](bool dry_run, hearth::v1::ReloadResponse& response) {
    grpc::ClientContext context;
    hearth::v1::ReloadRequest request;
    request.set_dry_run(dry_run);
    return stub->Reload(&context, request, &response);
  };
  hearth::v1::ReloadResponse response;
  ASSERT_TRUE(call(true, response).ok());
  ASSERT_EQ(response.changes_size(), 1);
  EXPECT_EQ(response.changes(0).key(), "grpc.port");
  EXPECT_EQ(response.changes(0).before(), "8001");
  EXPECT_EQ(response.changes(0).after(), "9001");
  EXPECT_TRUE(response.changes(0).needs_restart());
  EXPECT_EQ(response.notes(0), "a note");
  const grpc::Status bad = call(false, response);
  EXPECT_EQ(bad.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(bad.error_message(), "one mistake\nanother");
}

TEST_F(GrpcServerTest, HealthKnowsEveryServiceAndFollowsSetServing) {
  const auto stub = grpc::health::v1::Health::NewStub(stack_.Channel());
  for (const bool serving : {true, false}) {
    stack_.server->SetServing(serving);
    for (const char* name :
         {"", "inference.GRPCInferenceService", "hearth.v1.Cache", "hearth.v1.Config", "readiness"}) {
      grpc::ClientContext context;
      grpc::health::v1::HealthCheckRequest request;
      request.set_service(name);
      grpc::health::v1::HealthCheckResponse response;
      ASSERT_TRUE(stub->Check(&context, request, &response).ok()) << name;
      EXPECT_EQ(response.status() == grpc::health::v1::HealthCheckResponse::SERVING, serving)
          << name;
    }
  }
}

// What reflection answers to "list services", as bytes; the status when it does not answer.
absl::StatusOr<std::string> ListServices(const ServerStack& stack) {
  ReflectionStream stream(stack);
  stream.Next();
  grpc::ByteBuffer answer;
  stream.call->WriteLast(grpc::ByteBuffer(&stream.list, 1), {}, nullptr);
  stream.Next();
  stream.call->Read(&answer, nullptr);
  const bool answered = stream.Next();
  grpc::Status status;
  stream.call->Finish(&status, nullptr);
  stream.Next();
  if (!answered) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }
  grpc::Slice slice;
  EXPECT_TRUE(answer.DumpToSingleSlice(&slice).ok());
  return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

TEST_F(GrpcServerTest, ReflectionListsEveryService) {
  const auto services = ListServices(stack_);
  ASSERT_TRUE(services.ok()) << services.status();
  EXPECT_THAT(*services, HasSubstr("inference.GRPCInferenceService"));
  EXPECT_THAT(*services, HasSubstr("hearth.v1.Cache"));
  EXPECT_THAT(*services, HasSubstr("hearth.v1.Config"));
  EXPECT_THAT(*services, HasSubstr("grpc.health.v1.Health"));
}

TEST_F(GrpcServerTest, ReflectionCanBeSwitchedOff) {
  GrpcServer::Options options;
  options.reflection = false;
  EXPECT_EQ(ListServices(ServerStack(options)).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace hearth
