#include "server/serving/run_queue.h"

#include <algorithm>
#include <iterator>

#include "server/base/check.h"

namespace hearth {
namespace {

constexpr std::chrono::milliseconds kSoon{100};  // for who waited too long

}  // namespace

void RunQueue::SetPolicy(const RunPolicy& policy) {
  std::vector<Level> before = std::exchange(levels_, std::vector<Level>(static_cast<std::size_t>(policy.queue.priorities) + 1));
  policy_ = policy;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const bool late = i + 1 == before.size();
    for (RunJob::Ptr& job : before[i]) {
      Level& level = late ? levels_.back() : levels_[LevelOf(*job)];
      level.push_back(std::move(job));
    }
  }
}

std::size_t RunQueue::LevelOf(const RunJob& job) const {
  const bool known = job.priority >= 1 && job.priority <= policy_.queue.priorities;
  return static_cast<std::size_t>((known ? job.priority : policy_.queue.default_priority) - 1);
}

bool RunQueue::Push(RunJob::Ptr& job, TimePoint now) {
  if (policy_.queue.max_size != 0 && size_ >= policy_.queue.max_size) return false;
  job->posted = now;
  ++size_;
  rows_ += job->rows;
  levels_[LevelOf(*job)].push_back(std::move(job));
  return true;
}

const RunQueue::Level* RunQueue::FirstLevel() const {
  for (const Level& level : levels_) {
    if (!level.empty()) return &level;
  }
  return nullptr;
}

const RunJob& RunQueue::front() const {
  const Level* level = FirstLevel();
  HEARTH_CHECK(level != nullptr);
  return *level->front();
}

bool RunQueue::Waited(const RunJob& job, TimePoint now) const { return now - job.posted >= policy_.batching.max_delay; }

std::vector<RunQueue::Place> RunQueue::Gather(TimePoint now) const {
  const RunJob& first = front();
  const std::vector<std::int64_t>& preferred = policy_.batching.preferred;
  std::vector<Place> places;
  std::size_t best = 0;  // so many of them make a preferred size
  std::int64_t rows = 0;
  for (std::size_t l = 0; l < levels_.size() && rows < policy_.max_batch_size; ++l) {
    for (std::size_t i = 0; i < levels_[l].size() && rows < policy_.max_batch_size; ++i) {
      const RunJob& job = *levels_[l][i];
      if (&job != &first && (rows + job.rows > policy_.max_batch_size || !first.MayJoin(job, policy_.batching))) continue;
      places.push_back({l, i});
      rows += job.rows;
      if (std::binary_search(preferred.begin(), preferred.end(), rows)) best = places.size();
    }
  }
  if (best > 0) {
    places.resize(best);
  } else if (rows < policy_.max_batch_size && !Waited(first, now)) {
    places.clear();
  }
  return places;
}

TimePoint RunQueue::due(TimePoint now) const {
  const RunJob& first = front();
  if (!policy_.batches() || Waited(first, now) || !Gather(now).empty()) return TimePoint::min();
  return first.posted + policy_.batching.max_delay;
}

std::size_t RunQueue::runs() const {
  if (size_ == 0 || !policy_.batches()) return size_;
  return std::min<std::size_t>(size_, static_cast<std::size_t>((rows_ - 1) / policy_.max_batch_size + 1));
}

std::vector<RunJob::Ptr> RunQueue::Take(TimePoint now) {
  std::vector<RunJob::Ptr> batch;
  if (policy_.batches() && size_ > 1) {
    const std::vector<Place> places = Gather(now);
    HEARTH_CHECK(!places.empty());
    batch.reserve(places.size());
    for (const Place& place : places) batch.push_back(std::move(levels_[place.level][place.index]));
    for (auto place = places.rbegin(); place != places.rend(); ++place) {
      Level& level = levels_[place->level];
      level.erase(level.begin() + static_cast<std::ptrdiff_t>(place->index));
    }
  } else {
    auto level = std::find_if(levels_.begin(), levels_.end(), [](const Level& l) { return !l.empty(); });
    batch.push_back(std::move(level->front()));
    level->pop_front();
  }
  size_ -= batch.size();
  for (const RunJob::Ptr& job : batch) rows_ -= job->rows;
  return batch;
}

std::vector<RunQueue::Refusal> RunQueue::Expire(TimePoint now) {
  std::vector<Refusal> refused;
  const Duration timeout = policy_.queue.timeout;
  Level late;
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    const bool may_be_late = l + 1 < levels_.size() && timeout > Duration::zero();
    Level kept;
    for (RunJob::Ptr& job : levels_[l]) {
      absl::Status status = job->StillWanted(now);
      const bool is_late = may_be_late && now - job->posted >= timeout;
      if (status.ok() && is_late && policy_.queue.on_timeout == QueueOptions::OnTimeout::kReject) {
        status = WithRetryAfter(absl::UnavailableError("Request timeout expired"), kSoon);
      }
      if (!status.ok()) {
        --size_;
        rows_ -= job->rows;
        refused.emplace_back(std::move(job), std::move(status));
      } else {
        (is_late ? late : kept).push_back(std::move(job));
      }
    }
    levels_[l] = std::move(kept);
  }
  std::move(late.begin(), late.end(), std::back_inserter(levels_.back()));
  return refused;
}

std::vector<RunJob::Ptr> RunQueue::Drain() {
  std::vector<RunJob::Ptr> all;
  for (Level& level : levels_) {
    std::move(level.begin(), level.end(), std::back_inserter(all));
    level.clear();
  }
  size_ = 0;
  rows_ = 0;
  return all;
}

}  // namespace hearth
