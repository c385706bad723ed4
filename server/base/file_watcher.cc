#include "server/base/file_watcher.h"

#include <fstream>
#include <iterator>
#include <system_error>

#include "server/base/strings.h"

namespace hearth {

namespace fs = std::filesystem;

namespace {

constexpr int kMostLinks = 16;

std::optional<std::string> Read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return std::nullopt;
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return std::nullopt;
  return text;
}

// Of every link on the way to `file`.
void AddFoldersOfLinks(const fs::path& file, int links_left, std::vector<fs::path>& folders) {
  fs::path way;
  for (auto part = file.begin(); part != file.end(); ++part) {
    way /= *part;
    std::error_code error;
    if (!fs::is_symlink(way, error) || links_left == 0) continue;
    folders.push_back(way.parent_path());
    fs::path next = way.parent_path() / fs::read_symlink(way, error);  // an absolute one replaces it
    if (error) return;
    for (auto rest = std::next(part); rest != file.end(); ++rest) next /= *rest;
    return AddFoldersOfLinks(next, links_left - 1, folders);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileWatcher>> FileWatcher::Start(std::vector<fs::path> files, Timer& timer,
                                                                const Clock& clock, Options options,
                                                                std::function<void()> changed) {
  for (fs::path& file : files) {
    std::error_code error;
    const fs::path absolute = fs::absolute(file, error);
    if (error) return ErrnoStatus(error.value(), StrCat("cannot watch ", file.string()));
    file = absolute;
  }
  std::unique_ptr<FileWatcher> watcher(new FileWatcher(std::move(files), std::move(changed)));
  for (const fs::path& file : watcher->files_) watcher->contents_.push_back(Read(file));
  // What is written before that is watched is seen at the next report.
  HEARTH_ASSIGN_OR_RETURN(
      watcher->folders_,
      FolderWatcher::Start([w = watcher.get()] { return w->Folders(); }, timer, clock, {.settle = options.settle},
                           [w = watcher.get()](const absl::Status&) { w->Look(); }));  // the folder may be gone
  return watcher;
}

// As they are now: where the links lead may have changed.
std::vector<fs::path> FileWatcher::Folders() const {
  std::vector<fs::path> folders;
  for (const fs::path& file : files_) {
    folders.push_back(file.parent_path());
    AddFoldersOfLinks(file, kMostLinks, folders);
    std::error_code error;
    const fs::path target = fs::canonical(file, error);
    if (!error) folders.push_back(target.parent_path());
  }
  return folders;
}

void FileWatcher::Look() {
  bool changed = false;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    std::optional<std::string> content = Read(files_[i]);
    if (!content || content == contents_[i]) continue;
    contents_[i] = std::move(content);
    changed = true;
  }
  if (changed) changed_();
}

}  // namespace hearth
