#include "cli/watch.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <set>

namespace prism::cli {
namespace {

// The folders of a path and of each link that it leads through.
std::set<std::string> folders_of(const std::string& path) {
  constexpr int kMostLinks = 16;
  std::set<std::string> out;
  std::error_code problem;
  auto at = std::filesystem::absolute(path, problem);
  for (int i = 0; i < kMostLinks && !problem; ++i) {
    out.insert(at.parent_path().string());
    if (!std::filesystem::is_symlink(at, problem) || problem) break;
    const auto target = std::filesystem::read_symlink(at, problem);
    if (!problem) at = target.is_absolute() ? target : at.parent_path() / target;
  }
  // Where a folder on the way is a link (..data), the one that it names now.
  const auto real = std::filesystem::canonical(path, problem);
  if (!problem) out.insert(real.parent_path().string());
  return out;
}

}  // namespace

FileWatch::FileWatch(std::string path) : path_(std::move(path)), inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
  aim();
}

FileWatch::~FileWatch() {
  if (inotify_ >= 0) ::close(inotify_);
}

void FileWatch::aim() {
  // A folder that was removed and made again is another one: adding it again costs nothing where it is not.
  for (const auto& folder : folders_of(path_)) {
    ::inotify_add_watch(inotify_, folder.c_str(),
                        IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_DELETE_SELF);
  }
}

void FileWatch::drain() {
  std::array<char, 4096> buffer;
  while (inotify_ >= 0 && ::read(inotify_, buffer.data(), buffer.size()) > 0) {
  }
  aim();
}

}  // namespace prism::cli
