#include "server/base/file_watcher.h"

#include <fstream>
#include <iterator>
#include <system_error>

#include "server/base/strings.h"

namespace hearth {

namespace fs = std::filesystem;

absl::StatusOr<std::unique_ptr<FileWatcher>> FileWatcher::Start(fs::path file, Timer& timer, const Clock& clock,
                                                                Options options, std::function<void()> changed) {
  std::error_code error;
  const fs::path absolute = fs::absolute(file, error);
  if (error) return ErrnoStatus(error.value(), StrCat("cannot watch ", file.string()));
  std::unique_ptr<FileWatcher> watcher(new FileWatcher(absolute, std::move(changed)));
  watcher->content_ = watcher->Read();
  // What is written before that is watched is seen at the next report.
  HEARTH_ASSIGN_OR_RETURN(
      watcher->folders_,
      FolderWatcher::Start([w = watcher.get()] { return w->Folders(); }, timer, clock, {.settle = options.settle},
                           [w = watcher.get()](const absl::Status&) { w->Look(); }));  // the folder may be gone
  return watcher;
}

// As they are now: where the links lead may have changed.
std::vector<fs::path> FileWatcher::Folders() const {
  std::vector<fs::path> folders = {file_.parent_path()};
  std::error_code error;
  const fs::path target = fs::canonical(file_, error);
  if (!error) folders.push_back(target.parent_path());
  return folders;
}

void FileWatcher::Look() {
  std::optional<std::string> content = Read();
  if (!content || content == content_) return;
  content_ = std::move(content);
  changed_();
}

std::optional<std::string> FileWatcher::Read() const {
  std::ifstream in(file_, std::ios::binary);
  if (!in) return std::nullopt;
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return std::nullopt;
  return text;
}

}  // namespace hearth
