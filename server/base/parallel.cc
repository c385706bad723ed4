#include "server/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "server/base/mutex.h"

namespace hearth {

absl::Status ParallelFor(std::size_t count, std::size_t threads,
                         const std::function<absl::Status(std::size_t)>& fn) {
  std::atomic<std::size_t> next{0};
  Mutex mu;
  std::size_t failed_at = count;
  absl::Status failure;
  const auto work = [&] {
    for (std::size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      absl::Status status = fn(i);
      if (status.ok()) continue;
      next.store(count);
      MutexLock lock(mu);
      if (i < failed_at) {
        failed_at = i;
        failure = std::move(status);
      }
    }
  };
  {
    std::vector<std::jthread> others;
    const std::size_t wanted = std::min(count, std::max<std::size_t>(threads, 1));
    for (std::size_t i = 1; i < wanted; ++i) others.emplace_back(work);
    work();
  }
  return failure;
}

}  // namespace hearth
