// Work that happens later, on some other thread.
#pragma once

#include <cstddef>

#include "absl/functional/any_invocable.h"

namespace hearth {

// Two implementations: ThreadPool (base/thread_pool.h), and fakes::ManualExecutor, which runs
// queued tasks only when the test says so. Everything asynchronous in the server goes through an
// Executor, so every interleaving that matters can be written down as a single-threaded test.
//
// Thread-safe.
class Executor {
 public:
  using Task = absl::AnyInvocable<void() &&>;

  virtual ~Executor() = default;

  // First in, first out; never runs `task` inline. After shutdown has begun the task is destroyed
  // without being run: one that owes somebody an answer gives it from its destructor.
  virtual void Post(Task task) = 0;

  // One of its threads is stuck in a task. True: another one has taken its place, until EndReplacement(). False: there
  // may be no more.
  [[nodiscard]] virtual bool Replace() { return false; }
  virtual void EndReplacement() {}
  // So many tasks run at once; so many can be stuck and not replaced before nothing runs any more.
  virtual std::size_t width() const { return 1; }
};

}  // namespace hearth
