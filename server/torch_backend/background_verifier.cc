#include "server/torch_backend/background_verifier.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "server/base/log.h"
#include "server/base/thread_priority.h"

namespace hearth {
namespace {

void NotVerified(const ModelId& model, const absl::Status& why) {
  log::Warning("weights not verified", {{"model", ToString(model)}, {"reason", FromAbsl(why.message())}});
}

}  // namespace

struct BackgroundVerifier::Job {
  explicit Job(ModelId id) : model(std::move(id)) {}

  const ModelId model;
  std::stop_source stop;
  absl::Status found;                // written before `damaged` is set, and never again
  std::atomic<bool> damaged{false};
  Mutex mu;
  std::vector<Checksummed<FileReader>> parts ABSL_GUARDED_BY(mu);  // until it begins
};

BackgroundVerifier::Check::~Check() {
  job_->stop.request_stop();
  std::vector<Checksummed<FileReader>> parts;  // closed without the lock
  MutexLock lock(job_->mu);
  parts.swap(job_->parts);
}

absl::Status BackgroundVerifier::Check::status() const {
  return job_->damaged.load(std::memory_order_acquire) ? job_->found : absl::OkStatus();
}

BackgroundVerifier::~BackgroundVerifier() {
  closing_.request_stop();
  std::unique_ptr<ThreadPool> thread;
  {
    MutexLock lock(mu_);
    thread = std::move(thread_);
  }
}

std::unique_ptr<BackgroundVerifier::Check> BackgroundVerifier::Prepare(
    const ModelId& model, const std::vector<Checksummed<MappedFile>>& parts) {
  const auto job = std::make_shared<Job>(model);
  auto readers = ForReading(parts);
  if (readers.ok()) {
    MutexLock lock(job->mu);
    job->parts = *std::move(readers);
  } else {
    NotVerified(model, readers.status());
    job->stop.request_stop();
  }
  return std::make_unique<Check>(job);
}

void BackgroundVerifier::Begin(const Check& check) {
  ThreadPool* thread = nullptr;
  {
    MutexLock lock(mu_);
    if (thread_ == nullptr) {
      thread_ = std::make_unique<ThreadPool>(
          ThreadPool::Options{.name = "verify", .threads = 1, .on_thread_start = &RunThisThreadWhenIdle});
    }
    thread = thread_.get();
    ++pending_;
  }
  thread->Post([this, job = check.job_] {
    Run(job);
    MutexLock lock(mu_);
    if (--pending_ == 0) idle_.NotifyAll();
  });
}

void BackgroundVerifier::Run(const std::shared_ptr<Job>& job) {
  const std::stop_callback end(closing_.get_token(), [&job] { job->stop.request_stop(); });
  std::vector<Checksummed<FileReader>> parts;
  {
    MutexLock lock(job->mu);
    parts.swap(job->parts);
  }
  const TimePoint begin = std::chrono::steady_clock::now();
  const Verdict verdict = VerifyAtLeisure(parts, job->stop.get_token());
  if (job->stop.stop_requested()) return;
  if (verdict.status.ok()) {
    verified_.fetch_add(1, std::memory_order_relaxed);
    log::Info("weights verified", {{"model", ToString(job->model)},
                                   {"checksums", parts.size()},
                                   {"ms", ToMilliseconds(std::chrono::steady_clock::now() - begin)}});
  } else {
    Differs(*job, parts, verdict);
  }
}

void BackgroundVerifier::Differs(Job& job, const std::vector<Checksummed<FileReader>>& parts,
                                 const Verdict& verdict) {
  const absl::Status& found = verdict.status;
  for (const Checksummed<FileReader>& part : parts) {
    if (part.file->Intact()) continue;
    // The model notices that itself, and is then loaded from what the file is by now.
    return NotVerified(job.model, absl::AbortedError(StrCat("'", ShortName(part.file->path()),
                                                            "' was written to meanwhile")));
  }
  if (!absl::IsDataLoss(found)) return NotVerified(job.model, found);
  {
    MutexLock lock(mu_);
    for (const Checksummed<FileReader>& part : parts) suspects_.insert(part.file->path());
  }
  if (mapped_ != nullptr) mapped_->Distrust(*verdict.damaged);
  job.found = found;
  job.damaged.store(true, std::memory_order_release);
  damaged_.fetch_add(1, std::memory_order_relaxed);
  log::Error("weights damaged", {{"model", ToString(job.model)}, {"reason", FromAbsl(found.message())}});
}

bool BackgroundVerifier::OnLoad(Integrity asked, const std::vector<SourceFile>& files) const {
  if (asked != Integrity::kBackground) return asked == Integrity::kOnLoad;
  MutexLock lock(mu_);
  return std::any_of(files.begin(), files.end(), [this](const SourceFile& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return suspects_.contains(file.file->path());
  });
}

void BackgroundVerifier::Acquit(const std::vector<SourceFile>& files) {
  MutexLock lock(mu_);
  for (const SourceFile& file : files) suspects_.erase(file.file->path());
}

void BackgroundVerifier::WaitUntilIdle() {
  MutexLock lock(mu_);
  while (pending_ > 0) idle_.Wait(mu_);
}

}  // namespace hearth
