// Loads of files in a fresh process: what tests/bench/loading.py times. Prints one JSON object.
//
//   load_bench [--device cuda:0] ... where the weights go; from there and back are an answer's, too
//   load_bench jit DIMS FILE         torch::jit::load, one thread
//   load_bench hearth DIMS MODEL...  the daemon's own loader, one model after the other; all stay
//   load_bench reload DIMS MODEL     loaded, dropped, its files populated by hand, loaded again
//   load_bench read FILE THREADS buffered|direct   the limit: reads the file into memory that is there
//
// MODEL: PROGRAM[,WEIGHTS...]. DIMS: of the input, all ones, e.g. 1,4096.
#include <ATen/DeviceAccelerator.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <torch/script.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/model/loader.h"
#include "server/torch_backend/rehearsal.h"
#include "server/torch_backend/runtime.h"
#include "server/torch_backend/torchscript_loader.h"

namespace {

using hearth::LoadPhase;
using SteadyTime = std::chrono::steady_clock;

constexpr int kSteadyRuns = 5;
constexpr std::size_t kReadBytes = 4 << 20;
constexpr std::size_t kBeyondCaches = 256 << 20;  // more than processors of our time keep to themselves

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "load_bench: %s\n", why.c_str());
  std::exit(1);
}

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) Die(value.status().ToString());
  return *std::move(value);
}

double MillisecondsSince(SteadyTime::time_point start) {
  return std::chrono::duration<double, std::milli>(SteadyTime::now() - start).count();
}

long StatusKb(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field, 0) == 0) return std::stol(line.substr(field.size()));
  }
  Die(field + " is not in /proc/self/status");
}

long MajorFaults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_majflt;
}

std::uint64_t Fnv1a(const void* data, std::size_t size) {
  std::uint64_t hash = 1469598103934665603ULL;
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (std::size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 1099511628211ULL;
  return hash;
}

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    parts.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return parts;
}

std::vector<std::int64_t> Dims(const std::string& text) {
  std::vector<std::int64_t> dims;
  for (const std::string& part : Split(text)) dims.push_back(std::stoll(part));
  return dims;
}

// One load, and what it took; the members are the keys of the JSON.
struct Sample {
  double map_ms = 0, bound_ms = 0, populate_ms = 0, read_ms = 0, loaded_ms = 0;
  double first_run_ms = 0, first_answer_ms = 0, second_run_ms = 0, third_run_ms = 0;
  // The latter: with nothing of the weights in the processor's caches, as a first run finds them.
  double steady_ms = 0, uncached_ms = 0;
  long anon_kb = 0, rss_kb = 0, major_faults = 0;
  std::uint64_t copied_bytes = 0, hash = 0;
};

void Print(const std::vector<Sample>& samples, double populate_alone_ms) {
  std::printf("{\"populate_alone_ms\": %.3f, \"loads\": [", populate_alone_ms);
  const char* between = "";
  for (const Sample& s : samples) {
    std::printf(
        "%s{\"map_ms\": %.3f, \"bound_ms\": %.3f, \"populate_ms\": %.3f, \"read_ms\": %.3f, "
        "\"loaded_ms\": %.3f, \"first_run_ms\": %.3f, \"first_answer_ms\": %.3f, \"second_run_ms\": %.3f, "
        "\"third_run_ms\": %.3f, \"steady_ms\": %.3f, \"uncached_ms\": %.3f, "
        "\"anon_kb\": %ld, \"rss_kb\": %ld, \"major_faults\": %ld, \"copied_bytes\": %llu, "
        "\"hash\": \"%016llx\"}",
        std::exchange(between, ", "), s.map_ms, s.bound_ms, s.populate_ms, s.read_ms, s.loaded_ms,
        s.first_run_ms, s.first_answer_ms, s.second_run_ms, s.third_run_ms, s.steady_ms, s.uncached_ms, s.anon_kb, s.rss_kb, s.major_faults,
        static_cast<unsigned long long>(s.copied_bytes), static_cast<unsigned long long>(s.hash));
  }
  std::printf("]}\n");
}

void EmptyProcessorCaches() {
  static std::vector<char> memory(kBeyondCaches, 1);
  for (std::size_t i = 0; i < memory.size(); i += 64) ++memory[i];
}

// Of kSteadyRuns.
template <typename Run>
double MedianOf(const Run& run, void (*before)()) {
  std::vector<double> times;
  for (int i = 0; i < kSteadyRuns; ++i) {
    before();
    const auto begin = SteadyTime::now();
    run();
    times.push_back(MillisecondsSince(begin));
  }
  std::nth_element(times.begin(), times.begin() + kSteadyRuns / 2, times.end());
  return times[kSteadyRuns / 2];
}

// Runs `run` for its first answer and then until it is steady. `run` returns the answer's hash.
template <typename Run>
void TimeRuns(SteadyTime::time_point start, const Run& run, Sample& sample) {
  auto begin = SteadyTime::now();
  const auto answer = run();
  sample.first_run_ms = MillisecondsSince(begin);
  sample.first_answer_ms = MillisecondsSince(start);
  sample.hash = Fnv1a(answer.first, answer.second);
  for (double* next : {&sample.second_run_ms, &sample.third_run_ms}) {
    begin = SteadyTime::now();
    run();
    *next = MillisecondsSince(begin);
  }
  sample.steady_ms = MedianOf(run, [] {});
  sample.uncached_ms = MedianOf(run, EmptyProcessorCaches);
}

void Synchronize(const at::Device& device) {
  if (!device.is_cpu()) at::accelerator::synchronizeDevice(device.index());
}

Sample LoadWithTorch(const std::string& file, const at::Device& device, const at::Tensor& input) {
  Sample sample;
  const long anon = StatusKb("RssAnon:"), faults = MajorFaults();
  const auto start = SteadyTime::now();
  torch::jit::Module module = torch::jit::load(file, device);
  Synchronize(device);
  sample.bound_ms = sample.loaded_ms = MillisecondsSince(start);
  sample.anon_kb = StatusKb("RssAnon:") - anon;
  const c10::InferenceMode guard;
  at::Tensor answer;
  TimeRuns(start, [&] {
    answer = module.forward({input.to(device)}).toTensor().contiguous().cpu();
    return std::pair(answer.const_data_ptr(), answer.nbytes());
  }, sample);
  sample.major_faults = MajorFaults() - faults;
  sample.rss_kb = StatusKb("VmRSS:");
  return sample;
}

hearth::ModelSpec SpecOf(const std::string& model, const at::Device& device) {
  const std::vector<std::string> files = Split(model);
  hearth::ModelSpec spec{.id = {model, 1}, .format = "torchscript", .file = files[0], .options = {}};
  spec.weights.assign(files.begin() + 1, files.end());
  spec.options.device = device.str();
  return spec;
}

struct Loaded {
  std::unique_ptr<hearth::Model> model;
  Sample sample;
};

Loaded LoadWithHearth(const hearth::Loader& loader, const std::string& model, const at::Device& device,
                      const at::Tensor& input) {
  Loaded loaded;
  Sample& sample = loaded.sample;
  const hearth::ModelSpec spec = SpecOf(model, device);
  const long anon = StatusKb("RssAnon:"), faults = MajorFaults();
  const auto start = SteadyTime::now();
  loaded.model = OrDie(loader.Load(spec, {}));
  sample.loaded_ms = MillisecondsSince(start);
  sample.anon_kb = StatusKb("RssAnon:") - anon;
  const hearth::LoadReport& report = loaded.model->load_report();
  sample.map_ms = hearth::ToMilliseconds(report[LoadPhase::kOpen].wall + report[LoadPhase::kMap].wall);
  sample.populate_ms = hearth::ToMilliseconds(report[LoadPhase::kPopulate].wall);
  sample.read_ms = hearth::ToMilliseconds(report[LoadPhase::kRead].wall);
  // All but what brings pages in and what a first run would otherwise do.
  sample.bound_ms = sample.loaded_ms - sample.populate_ms -
                    hearth::ToMilliseconds(report[LoadPhase::kWarmUp].wall);
  sample.copied_bytes = report.copied_bytes;
  hearth::Tensor in;
  in.dtype = hearth::DType::kFp32;
  in.shape = input.sizes().vec();
  in.data = {static_cast<const std::byte*>(input.const_data_ptr()), input.nbytes()};
  in.owner = std::make_shared<at::Tensor>(input);
  const hearth::TensorList inputs = {{loaded.model->signature().inputs.at(0).name, in}};
  hearth::TensorList answer;
  TimeRuns(start, [&] {
    answer = OrDie(loaded.model->Run(inputs, nullptr));
    const hearth::Tensor& out = answer.at(0).tensor;
    return std::pair<const void*, std::size_t>(out.data.data(), out.data.size());
  }, sample);
  sample.major_faults = MajorFaults() - faults;
  sample.rss_kb = StatusKb("VmRSS:");
  return loaded;
}

// What a load's mapping cannot be faster than, warm: the page tables of the same files.
double PopulateByHand(const std::string& model) {
  double sum = 0;
  for (const std::string& file : Split(model)) {
    const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat st {};
    if (fd < 0 || fstat(fd, &st) != 0) Die("cannot open " + file);
    const auto size = static_cast<std::size_t>(st.st_size);
    const auto start = SteadyTime::now();
    void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED || madvise(data, size, MADV_POPULATE_READ) != 0) Die("cannot populate " + file);
    sum += MillisecondsSince(start);
    munmap(data, size);
    close(fd);
  }
  return sum;
}

double ReadRaw(const std::string& file, int threads, bool direct) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
  struct stat st {};
  if (fd < 0 || fstat(fd, &st) != 0) Die("cannot open " + file);
  std::atomic<std::size_t> next{0};
  const auto read_blocks = [&](char* buffer) {
    for (std::size_t at = next.fetch_add(kReadBytes); at < static_cast<std::size_t>(st.st_size);
         at = next.fetch_add(kReadBytes)) {
      if (pread(fd, buffer, kReadBytes, static_cast<off_t>(at)) < 0) Die("cannot read " + file);
    }
  };
  const auto bytes = kReadBytes * static_cast<std::size_t>(threads);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) Die("no memory");
  const auto start = SteadyTime::now();
  std::vector<std::jthread> readers;
  for (int i = 0; i < threads; ++i) {
    readers.emplace_back(read_blocks, static_cast<char*>(memory) + kReadBytes * static_cast<std::size_t>(i));
  }
  readers.clear();
  return MillisecondsSince(start);
}

int Usage() {
  std::fprintf(stderr, "usage: load_bench [--device DEVICE] jit|hearth|reload DIMS MODEL...\n"
                       "       load_bench read FILE THREADS buffered|direct\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  at::Device device = at::kCPU;
  if (argc > 2 && argv[1] == std::string("--device")) {
    device = at::Device(argv[2]);
    argv += 2;
    argc -= 2;
  }
  if (argc < 4) return Usage();
  const std::string how = argv[1];
  if (how == "read" && argc == 5) {
    std::printf("{\"ms\": %.3f}\n", ReadRaw(argv[2], std::stoi(argv[3]), argv[4] == std::string("direct")));
    return 0;
  }
  hearth::InitialiseTorch();
  hearth::RehearseLoad();
  hearth::ConfigureTorchThread(1, 1);
  // LibTorch's own one-time start-up is nobody's load.
  const at::Tensor eight = at::ones({8, 8}, device);
  const at::Tensor ready = eight.matmul(eight).cpu();
  const at::Tensor input = at::ones(Dims(argv[2]));
  const std::vector<std::string> models(argv + 3, argv + argc);
  if (how == "jit") {
    Print({LoadWithTorch(models[0], device, input)}, 0);
    return 0;
  }
  const auto loader = hearth::MakeTorchScriptLoader({.populate = true, .kept_program_bytes = 64 << 20});
  if (how == "hearth") {
    std::vector<Loaded> all;
    std::vector<Sample> samples;
    for (const std::string& model : models) {
      all.push_back(LoadWithHearth(*loader, model, device, input));
      samples.push_back(all.back().sample);
    }
    Print(samples, 0);
    return 0;
  }
  if (how != "reload") return Usage();
  const Sample first = LoadWithHearth(*loader, models[0], device, input).sample;
  const double populate_ms = PopulateByHand(models[0]);
  Print({first, LoadWithHearth(*loader, models[0], device, input).sample}, populate_ms);
  return 0;
}
