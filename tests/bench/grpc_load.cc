// A closed loop of ModelInfer calls: N clients, each with a connection of its own, send the next request when the answer
// to the last one is there. Prints one line of JSON. What is measured is the server: the request's bytes are made once,
// and of most answers only the size is looked at.
//
//   grpc_load --address 127.0.0.1:8001 --model identity [--input x] [--bytes 4096] [--clients 8] [--threads 0]
//             [--seconds 5] [--warm_up 1] [--answers echo|any] [--int64 sr=16000] [--sequences 1] [--shared_memory 1]
//
// --threads: so many share the clients; 0: each client has one. --answers any: another model than an identity. --int64: one more input, of one number. --sequences: each client is a
// sequence of its own. --shared_memory: tensors in regions of /dev/shm, one in and one out for each client.
//
// Exit code 1 when a call failed or an answer was not the bytes that were sent.
#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
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
  int threads = 0;  // 0: as many as clients
  double seconds = 5;
  double warm_up = 1;
  bool echo = true;
  std::string number_name;  // of one more input; empty: none
  std::int64_t number = 0;
  bool sequences = false;
  bool shared_memory = false;
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
    else if (name == "--threads")
      options.threads = std::atoi(value.c_str());
    else if (name == "--seconds")
      options.seconds = std::atof(value.c_str());
    else if (name == "--warm_up")
      options.warm_up = std::atof(value.c_str());
    else if (name == "--answers")
      options.echo = value == "echo";
    else if (name == "--sequences")
      options.sequences = value == "1";
    else if (name == "--shared_memory")
      options.shared_memory = value == "1";
    else if (name == "--int64" && value.find('=') != value.npos) {
      options.number_name = value.substr(0, value.find('='));
      options.number = std::strtoll(value.c_str() + value.find('=') + 1, nullptr, 10);
    } else
      return false;
  }
  return options.clients > 0 && options.bytes > 0 && options.seconds > 0;
}

// What one thread's clients saw.
struct Result {
  std::vector<std::uint32_t> microseconds;  // of each call in the measured time
  std::string error;                        // of the first call that went wrong
};

// An object in /dev/shm that the server knows by its name. Gone with this.
class Region {
 public:
  Region(const Options& options, const std::string& name) : options_(options), name_(name), bytes_(options.bytes) {
    const std::string key = "/" + name;
    const int fd = ::shm_open(key.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes_)) != 0) std::abort();
    data_ = static_cast<char*>(::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ::close(fd);
    if (data_ == MAP_FAILED) std::abort();
    std::memset(data_, '\x11', bytes_);
    inference::SystemSharedMemoryRegisterRequest request;
    request.set_name(name);
    request.set_key(key);
    request.set_byte_size(bytes_);
    inference::SystemSharedMemoryRegisterResponse response;
    grpc::ClientContext context;
    const grpc::Status status = Stub()->SystemSharedMemoryRegister(&context, request, &response);
    if (!status.ok()) std::fprintf(stderr, "grpc_load: %s\n", status.error_message().c_str());
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() {
    inference::SystemSharedMemoryUnregisterRequest request;
    request.set_name(name_);
    inference::SystemSharedMemoryUnregisterResponse response;
    grpc::ClientContext context;
    (void)Stub()->SystemSharedMemoryUnregister(&context, request, &response);
    ::munmap(data_, bytes_);
    ::shm_unlink(("/" + name_).c_str());
  }

  template <typename Tensor>
  void Place(Tensor& tensor) const {
    (*tensor.mutable_parameters())["shared_memory_region"].set_string_param(name_);
    (*tensor.mutable_parameters())["shared_memory_byte_size"].set_int64_param(static_cast<std::int64_t>(bytes_));
  }
  const char* data() const { return data_; }

 private:
  std::unique_ptr<inference::GRPCInferenceService::Stub> Stub() const {
    return inference::GRPCInferenceService::NewStub(grpc::CreateChannel(options_.address, grpc::InsecureChannelCredentials()));
  }
  const Options& options_;
  const std::string name_;
  const std::size_t bytes_;
  char* data_ = nullptr;
};

struct Regions {
  std::unique_ptr<Region> in, out;  // null: tensors are in the messages
};

Regions MakeRegions(const Options& options, int client) {
  if (!options.shared_memory) return {};
  const std::string name = "grpc_load_" + std::to_string(::getpid()) + "_" + std::to_string(client);
  return {std::make_unique<Region>(options, name + "_in"), std::make_unique<Region>(options, name + "_out")};
}

// What each of `client`'s requests says; `first`: the first one.
inference::ModelInferRequest MakeRequest(const Options& options, const Regions& regions, int client, bool first) {
  inference::ModelInferRequest request;
  request.set_model_name(options.model);
  auto* input = request.add_inputs();
  input->set_name(options.input);
  input->set_datatype("FP32");
  input->add_shape(1);
  input->add_shape(static_cast<std::int64_t>(options.bytes / 4));
  if (regions.in != nullptr) {
    regions.in->Place(*input);
    auto* output = request.add_outputs();
    output->set_name("OUTPUT__0");
    regions.out->Place(*output);
  } else {
    request.add_raw_input_contents(std::string(options.bytes, '\x11'));
  }
  if (!options.number_name.empty()) {
    auto* number = request.add_inputs();
    number->set_name(options.number_name);
    number->set_datatype("INT64");
    number->add_shape(1);
    request.add_raw_input_contents(&options.number, sizeof(options.number));
  }
  if (options.sequences) {
    (*request.mutable_parameters())["sequence_id"].set_int64_param(client + 1);
    if (first) (*request.mutable_parameters())["sequence_start"].set_bool_param(true);
  }
  return request;
}

bool IsEcho(const grpc::ByteBuffer& answer, const inference::ModelInferRequest& request) {
  grpc::Slice slice;
  inference::ModelInferResponse response;
  return answer.DumpToSingleSlice(&slice).ok() &&
         response.ParseFromArray(slice.begin(), static_cast<int>(slice.size())) &&
         response.raw_output_contents_size() == 1 &&
         response.raw_output_contents(0) == request.raw_input_contents(0);
}

grpc::ByteBuffer Serialized(const inference::ModelInferRequest& request) {
  const grpc::Slice slice(request.SerializeAsString());
  return {&slice, 1};
}

// Whether it may be the answer; `look`: whether it is.
bool IsGood(const Options& options, const grpc::ByteBuffer& answer, const Regions& regions,
            const inference::ModelInferRequest& request, bool look) {
  if (!options.echo) return answer.Length() > 0;
  if (regions.out != nullptr) return !look || std::memcmp(regions.in->data(), regions.out->data(), options.bytes) == 0;
  return answer.Length() >= options.bytes && (!look || IsEcho(answer, request));
}

// One client: a connection, and one call at a time. `queue` says when a call has ended, with the client as its tag.
class Client {
 public:
  Client(const Options& options, int number, grpc::CompletionQueue& queue)
      : options_(options),
        queue_(queue),
        stub_(Connect(options)),
        regions_(MakeRegions(options, number)),
        request_(MakeRequest(options, regions_, number, false)),
        bytes_(Serialized(request_)),
        first_(Serialized(MakeRequest(options, regions_, number, true))) {}

  void Start() {
    start_ = Clock::now();
    context_.emplace();
    answer_.Clear();
    reader_ = stub_.PrepareUnaryCall(&*context_, "/inference.GRPCInferenceService/ModelInfer",
                                     calls_ == 0 ? first_ : bytes_, &queue_);
    reader_->StartCall();
    reader_->Finish(&answer_, &status_, this);
  }

  // The call has ended. False: it went wrong.
  bool Ended(Clock::time_point from, Clock::time_point until, Result& result) {
    const auto end = Clock::now();
    if (!status_.ok()) {
      result.error = status_.error_message();
    } else if (!IsGood(options_, answer_, regions_, request_, calls_ % kLookedAt == 0)) {
      result.error = "the answer is not the bytes that were sent";
    } else if (start_ >= from && end <= until) {
      result.microseconds.push_back(static_cast<std::uint32_t>(
          std::chrono::duration_cast<std::chrono::microseconds>(end - start_).count()));
    }
    ++calls_;
    return result.error.empty();
  }

 private:
  static std::shared_ptr<grpc::Channel> Connect(const Options& options) {
    grpc::ChannelArguments arguments;
    // A connection of its own: channels to one address share theirs otherwise.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    return grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments);
  }

  const Options& options_;
  grpc::CompletionQueue& queue_;
  grpc::GenericStub stub_;
  const Regions regions_;
  const inference::ModelInferRequest request_;
  const grpc::ByteBuffer bytes_, first_;
  std::size_t calls_ = 0;  // ended
  Clock::time_point start_;
  std::optional<grpc::ClientContext> context_;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader_;
  grpc::ByteBuffer answer_;
  grpc::Status status_;
};

// Every `step`th client from `first` on, until the time is over or one of their calls goes wrong.
void RunClients(const Options& options, int first, int step, Clock::time_point from, Clock::time_point until,
                Result& result) {
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<Client>> clients;
  for (int number = first; number < options.clients; number += step) {
    clients.push_back(std::make_unique<Client>(options, number, queue));
    clients.back()->Start();
  }
  for (std::size_t running = clients.size(); running > 0;) {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    auto& client = *static_cast<Client*>(tag);
    if (client.Ended(from, until, result) && Clock::now() < until) {
      client.Start();
    } else {
      --running;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: grpc_load --address HOST:PORT --model NAME [--input x] [--bytes 4096] "
                 "[--clients 8] [--threads 0] [--seconds 5] [--warm_up 1] [--answers echo|any] [--int64 NAME=N] "
                 "[--sequences 1] [--shared_memory 1]\n");
    return 64;
  }
  const auto ticks = [](double seconds) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  };
  const auto from = Clock::now() + ticks(options.warm_up);
  const auto until = from + ticks(options.seconds);
  const int count = options.threads > 0 ? std::min(options.threads, options.clients) : options.clients;
  std::vector<Result> results(static_cast<std::size_t>(count));
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    Result& result = results[static_cast<std::size_t>(i)];
    threads.emplace_back([&options, i, count, from, until, &result] { RunClients(options, i, count, from, until, result); });
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
