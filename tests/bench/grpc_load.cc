// A closed loop of ModelInfer calls: N clients, each with a connection and a thread of its own,
// send the next request when the answer to the last one is there. Prints one line of JSON. What is measured is the
// server: the request's bytes are made once, and of most answers only the size is looked at.
//
//   grpc_load --address 127.0.0.1:8001 --model identity [--input x] [--bytes 4096] [--clients 8]
//             [--seconds 5] [--warm_up 1]
//
// Exit code 1 when a call failed or an answer was not the bytes that were sent.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "inference.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kLookedAt = 64;  // one answer in so many is compared, from the first on

struct Options {
  std::string address = "127.0.0.1:8001";
  std::string model = "identity";
  std::string input = "x";
  std::size_t bytes = 4096;
  int clients = 8;
  double seconds = 5;
  double warm_up = 1;
};

bool Parse(int argc, char** argv, Options& options) {
  std::map<std::string, std::string> values;
  for (int i = 1; i + 1 < argc; i += 2) values[argv[i]] = argv[i + 1];
  if (argc % 2 == 0) return false;
  for (const auto& [name, value] : values) {
    if (name == "--address")
      options.address = value;
    else if (name == "--model")
      options.model = value;
    else if (name == "--input")
      options.input = value;
    else if (name == "--bytes")
      options.bytes = std::strtoull(value.c_str(), nullptr, 10) / 4 * 4;
    else if (name == "--clients")
      options.clients = std::atoi(value.c_str());
    else if (name == "--seconds")
      options.seconds = std::atof(value.c_str());
    else if (name == "--warm_up")
      options.warm_up = std::atof(value.c_str());
    else
      return false;
  }
  return options.clients > 0 && options.bytes > 0 && options.seconds > 0;
}

// What one client saw.
struct Result {
  std::vector<std::uint32_t> microseconds;  // of each call in the measured time
  std::string error;                        // of the first call that went wrong
};

inference::ModelInferRequest MakeRequest(const Options& options) {
  inference::ModelInferRequest request;
  request.set_model_name(options.model);
  auto* input = request.add_inputs();
  input->set_name(options.input);
  input->set_datatype("FP32");
  input->add_shape(1);
  input->add_shape(static_cast<std::int64_t>(options.bytes / 4));
  request.add_raw_input_contents(std::string(options.bytes, '\x11'));
  return request;
}

grpc::Status Call(grpc::GenericStub& stub, grpc::ClientContext& context, const grpc::ByteBuffer& request,
                  grpc::CompletionQueue& queue, grpc::ByteBuffer& answer) {
  const auto reader =
      stub.PrepareUnaryCall(&context, "/inference.GRPCInferenceService/ModelInfer", request, &queue);
  reader->StartCall();
  grpc::Status status;
  reader->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status;
}

bool IsEcho(const grpc::ByteBuffer& answer, const inference::ModelInferRequest& request) {
  grpc::Slice slice;
  inference::ModelInferResponse response;
  return answer.DumpToSingleSlice(&slice).ok() &&
         response.ParseFromArray(slice.begin(), static_cast<int>(slice.size())) &&
         response.raw_output_contents_size() == 1 &&
         response.raw_output_contents(0) == request.raw_input_contents(0);
}

void Client(const Options& options, Clock::time_point from, Clock::time_point until,
            Result& result) {
  grpc::ChannelArguments arguments;
  // A connection of its own: channels to one address share theirs otherwise.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(-1);
  grpc::GenericStub stub(
      grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments));
  const inference::ModelInferRequest request = MakeRequest(options);
  const grpc::Slice slice(request.SerializeAsString());
  const grpc::ByteBuffer bytes(&slice, 1);
  grpc::CompletionQueue queue;
  for (std::size_t calls = 0; result.error.empty(); ++calls) {
    const auto start = Clock::now();
    if (start >= until) return;
    grpc::ClientContext context;
    grpc::ByteBuffer answer;
    const grpc::Status status = Call(stub, context, bytes, queue, answer);
    const auto end = Clock::now();
    if (!status.ok()) {
      result.error = status.error_message();
    } else if (answer.Length() < options.bytes || (calls % kLookedAt == 0 && !IsEcho(answer, request))) {
      result.error = "the answer is not the bytes that were sent";
    } else if (start >= from && end <= until) {
      result.microseconds.push_back(static_cast<std::uint32_t>(
          std::chrono::duration_cast<std::chrono::microseconds>(end - start).count()));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: grpc_load --address HOST:PORT --model NAME [--input x] [--bytes 4096] "
                 "[--clients 8] [--seconds 5] [--warm_up 1]\n");
    return 64;
  }
  const auto ticks = [](double seconds) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  };
  const auto from = Clock::now() + ticks(options.warm_up);
  const auto until = from + ticks(options.seconds);
  std::vector<Result> results(static_cast<std::size_t>(options.clients));
  std::vector<std::thread> threads;
  for (Result& result : results) {
    threads.emplace_back([&] { Client(options, from, until, result); });
  }
  for (std::thread& thread : threads) thread.join();

  std::vector<std::uint32_t> all;
  for (const Result& result : results) {
    all.insert(all.end(), result.microseconds.begin(), result.microseconds.end());
    if (!result.error.empty()) {
      std::fprintf(stderr, "grpc_load: %s\n", result.error.c_str());
      return 1;
    }
  }
  std::sort(all.begin(), all.end());
  const auto quantile = [&all](double q) {
    return all.empty() ? 0u
                       : all[static_cast<std::size_t>(q * static_cast<double>(all.size() - 1))];
  };
  std::printf(
      "{\"model\": \"%s\", \"clients\": %d, \"bytes\": %zu, \"requests\": %zu, "
      "\"requests_per_second\": %.1f, \"p50_us\": %u, \"p99_us\": %u, \"p999_us\": %u}\n",
      options.model.c_str(), options.clients, options.bytes, all.size(),
      static_cast<double>(all.size()) / options.seconds, quantile(0.50), quantile(0.99), quantile(0.999));
  return 0;
}
