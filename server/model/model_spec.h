// Where a model is and how it is to be served. Plain data, from the catalog.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/clock.h"
#include "server/model/signature.h"

namespace hearth {

// One made-up request that is run before a model is called ready.
struct WarmUpSample {
  enum class Fill { kZeros, kRandom };
  struct Input {
    std::string name;
    DType dtype = DType::kFp32;
    Shape shape;  // no -1
    Fill fill = Fill::kZeros;
    // A number for every element instead of `fill`: sampling rates, lengths and other scalars.
    std::optional<double> value;
  };
  std::vector<Input> inputs;
  int count = 2;  // TorchScript's profiling executor settles after two runs of a shape
  std::string name = {};  // may be empty
};

// Where a model's mapped weights are while it is resident.
//   kMapped     wherever the kernel has them; a run waits for what it has to read
//   kPopulated  brought into memory by the load; the kernel may take them when memory is short
//   kLocked     the same, and the kernel may not
//   kSealed     a copy in memory, which nothing that happens to the files can reach
enum class Residency : std::uint8_t { kMapped, kPopulated, kLocked, kSealed };

// When weights are compared with the checksums that their files state: never, before their model is ready, or
// while it is in service.
enum class Integrity : std::uint8_t { kOff, kOnLoad, kBackground };

// Which of a model's versions are served. Neither: all of them.
struct VersionPolicy {
  int latest = 0;                      // so many of the highest
  std::vector<std::int64_t> specific;  // these, of those that are there
};

// Whether requests that wait are run together, as one batch along their first dimension.
struct BatchingOptions {
  bool enabled = false;
  std::vector<std::int64_t> preferred = {};  // ascending; such a batch goes at once, and none is made larger than need be
  // How long a request waits at most for others to join it. Zero: not at all, so only those run together that find
  // every thread busy.
  Duration max_delay{};
  // Inputs that are filled up with zeros to the longest of their batch; of all others, only those of one shape go together.
  std::vector<std::string> pad = {};
};

// Requests of one model that wait for a compute thread.
struct QueueOptions {
  std::size_t max_size = 0;  // more are refused; 0: no limit
  Duration timeout{};        // of waiting; zero: none but the request's own
  // What then: refused, or run when nobody else is waiting.
  enum class OnTimeout : std::uint8_t { kReject, kDelay } on_timeout = OnTimeout::kReject;
  int priorities = 1;        // levels that a request may ask for, 1 first
  int default_priority = 1;  // of a request that says nothing
};

// Sequences of a model that has a state of its own.
struct SequenceOptions {
  Duration idle_timeout = std::chrono::minutes(1);  // one that nobody asked for so long ends
  std::size_t max = 1024;                           // at the same time; more are refused
  bool required = false;                            // a request that belongs to none is refused
  // When room is needed that their model holds: it waits for them, or those that nobody waits for an answer of end.
  enum class OnPressure : std::uint8_t { kKeep, kEnd } on_pressure = OnPressure::kKeep;
};

// The names of an output's classes, from a file beside model.yaml.
struct ClassNames {
  std::string file;                                       // its name
  std::shared_ptr<const std::vector<std::string>> names;  // null until it has been read
};

// What <model>/model.yaml and config.pbtxt say. Every field that model.yaml has a key for has its meaning (docs/models.md).
struct ModelOptions {
  std::string method = "forward";
  std::string device = "cpu";
  std::vector<std::string> weights;  // names of files beside the program; empty: whatever is there
  std::int64_t max_batch_size = 0;
  int instances = 0;                 // runs of this model at the same time; 0: as many as compute threads
  int intra_op_threads = 0;          // of one run; 0: as many as the configuration says
  BatchingOptions batching;
  QueueOptions queue;
  SequenceOptions sequences;
  bool response_cache = false;  // the same inputs may be given the answer that they were given before
  std::optional<Residency> residency = std::nullopt;  // none: as the configuration's loading.populate says
  Integrity integrity = Integrity::kOff;
  std::vector<TensorInfo> inputs;    // empty: from the program's schema
  std::vector<TensorInfo> outputs;
  std::vector<WarmUpSample> warm_up;
  std::optional<Duration> idle_unload = std::nullopt;  // none: as the configuration says; 0: never
  std::optional<Duration> min_residency = std::nullopt;  // likewise
  VersionPolicy versions;
  std::map<std::string, std::int64_t> labels;  // versions by names that clients may use
  bool resource_preserving = false;  // the version that answered leaves before a higher one is loaded
  std::string program = {};          // name of the program's file in a version's folder; empty: model.pt and the like
  std::string format = {};           // as ModelSpec's: programs of others do not count; empty: of any
  std::map<std::string, ClassNames> class_names = {};  // of outputs
  // Triton's configuration, in protobuf's wire format, for whoever repeats it; null: none was given.
  std::shared_ptr<const std::string> triton = nullptr;
  std::string source = "model.yaml";  // who says all this, for messages
};

struct ModelSpec {
  ModelId id;
  std::string format;          // "torchscript"
  std::filesystem::path file;  // the program, with its weights if `weights` is empty
  ModelOptions options;
  std::vector<std::filesystem::path> weights = {};  // files of weights, or an index of shards
  // Which content of its files was found when it was asked for: another number, something was written,
  // replaced or removed since. Only to be compared with an earlier one of the same model.
  std::uint64_t revision = 0;
};

}  // namespace hearth
