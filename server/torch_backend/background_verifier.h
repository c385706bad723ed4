// Compares weights with their checksums while their models are in service (integrity: background).
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/base/thread_pool.h"
#include "server/model/model_spec.h"
#include "server/torch_backend/integrity.h"
#include "server/torch_backend/source_file.h"

namespace hearth {

// One thread, which has what nobody else wants of the processor and the disk. It reads the files and not the
// mappings: what a program writes to its weights is no damage, nothing comes into this process's memory, and a
// model leaves without waiting for it.
//
// A model whose weights are damaged says so from its next run on, is unloaded, and loaded again by the request
// after that. So that this does not go on for ever, the files of a damaged model are suspects: they are verified
// by each load, until one finds them whole.
//
// Thread-safe.
class BackgroundVerifier {
  struct Job;

 public:
  // A model's verification; the model has it. Ends with it: at most a MiB later.
  class Check {
   public:
    explicit Check(std::shared_ptr<Job> job) : job_(std::move(job)) {}
    ~Check();
    Check(const Check&) = delete;
    Check& operator=(const Check&) = delete;

    // OK until something was found; then DATA_LOSS, with its name and its file's. For after each run.
    absl::Status status() const;

   private:
    friend class BackgroundVerifier;
    const std::shared_ptr<Job> job_;
  };

  // `mapped`: who else has mapped what was found damaged hears of it. Null: nobody else has.
  explicit BackgroundVerifier(std::shared_ptr<MappedFiles> mapped = nullptr) : mapped_(std::move(mapped)) {}
  ~BackgroundVerifier();  // ends what is under way

  // Opens the files of `parts` anew, and keeps nothing mapped. The verification itself waits for Begin(): until
  // the model is ready, say.
  std::unique_ptr<Check> Prepare(const ModelId& model, const std::vector<Checksummed<MappedFile>>& parts);
  // Of what Prepare() made; after those that were begun before it. What comes of it is logged.
  void Begin(const Check& check) ABSL_LOCKS_EXCLUDED(mu_);

  // Whether a load of these files has to verify them itself: when it is asked to, and when they are suspects.
  bool OnLoad(Integrity asked, const std::vector<SourceFile>& files) const ABSL_LOCKS_EXCLUDED(mu_);
  void Acquit(const std::vector<SourceFile>& files) ABSL_LOCKS_EXCLUDED(mu_);  // a load found them whole

  // Models verified to the end, and what was found.
  std::uint64_t verified() const { return verified_.load(std::memory_order_relaxed); }
  std::uint64_t damaged() const { return damaged_.load(std::memory_order_relaxed); }

  void WaitUntilIdle() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run(const std::shared_ptr<Job>& job);
  void Differs(Job& job, const std::vector<Checksummed<FileReader>>& parts, const Verdict& found);

  const std::shared_ptr<MappedFiles> mapped_;
  std::atomic<std::uint64_t> verified_{0}, damaged_{0};
  std::stop_source closing_;
  mutable Mutex mu_;
  CondVar idle_;
  int pending_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<std::filesystem::path> suspects_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<ThreadPool> thread_ ABSL_GUARDED_BY(mu_);  // from the first job on
};

}  // namespace hearth
