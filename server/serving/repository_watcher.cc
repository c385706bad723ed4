#include "server/serving/repository_watcher.h"

#include <sys/stat.h>

#include <set>
#include <system_error>
#include <utility>

#include "server/base/log.h"
#include "server/base/mutex.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

using FileId = std::pair<dev_t, ino_t>;

// Each once: a link may lead to a folder around it. One that goes meanwhile is none.
void AddFolders(const fs::path& folder, std::set<FileId>& seen, std::vector<fs::path>& folders) {
  struct stat st{};
  if (::stat(folder.c_str(), &st) == 0 && !seen.emplace(st.st_dev, st.st_ino).second) return;
  folders.push_back(folder);
  std::error_code error;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator(); at.increment(error)) {
    std::error_code gone;
    const bool hidden = at->path().filename().native().starts_with('.');
    if (!hidden && at->is_directory(gone)) AddFolders(at->path(), seen, folders);
  }
}

std::vector<fs::path> FoldersIn(const std::vector<fs::path>& roots) {
  std::set<FileId> seen;
  std::vector<fs::path> folders;
  for (const fs::path& root : roots) AddFolders(root, seen, folders);
  return folders;
}

}  // namespace

struct RepositoryWatcher::State {
  explicit State(Deps d) : deps(std::move(d)) {}

  void Tell(const absl::Status& now) ABSL_LOCKS_EXCLUDED(mu);
  void SetInterval() ABSL_LOCKS_EXCLUDED(mu);

  const Deps deps;
  Mutex mu;
  Duration poll ABSL_GUARDED_BY(mu){};
  absl::Status watched ABSL_GUARDED_BY(mu);  // why not everything is that is to be
};

RepositoryWatcher::RepositoryWatcher(Deps deps) : state_(std::make_unique<State>(std::move(deps))) {}

RepositoryWatcher::~RepositoryWatcher() { Set({}); }

void RepositoryWatcher::Set(Options options) {
  const Deps& deps = state_->deps;
  if (!options.watch) watcher_.reset();
  {
    MutexLock lock(state_->mu);
    state_->poll = options.poll;
    if (watcher_ == nullptr) state_->watched = absl::OkStatus();  // as far as we know
  }
  if (!options.watch || watcher_ != nullptr) return state_->SetInterval();
  auto started = FolderWatcher::Start([roots = deps.roots] { return FoldersIn(roots); }, deps.timer, deps.clock,
                                      {.settle = RepositoryPoller::kSettle}, [state = state_.get()](const auto& now) {
                                        state->Tell(now);
                                        state->deps.poller.Changed();
                                      });
  if (started.ok()) {
    log::Info("repository watched", {});
    watcher_ = *std::move(started);
    state_->SetInterval();
  } else {
    state_->Tell(started.status());
  }
  deps.poller.Changed();
}

void RepositoryWatcher::State::Tell(const absl::Status& now) {
  bool is_new = false;
  {
    MutexLock lock(mu);
    is_new = !now.ok() && watched != now;
    watched = now;
  }
  if (is_new) log::Error("repository not watched; it is looked at instead", {{"reason", FromAbsl(now.message())}});
  SetInterval();
}

void RepositoryWatcher::State::SetInterval() {
  Duration interval{};
  {
    MutexLock lock(mu);
    interval = poll == Duration::zero() && !watched.ok() ? kInstead : poll;
  }
  deps.poller.SetInterval(interval);
}

}  // namespace hearth
