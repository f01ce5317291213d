// Notices that a file may have changed: written in place, replaced by a rename (editors), or reached by a link that was
// turned to another folder (Kubernetes).
#pragma once

#include <string>

namespace prism::cli {

// inotify on the folders of the file and of what it links to. Not thread-safe. Changes on file systems that report none
// (those of a network) are not noticed: look from time to time.
class FileWatch {
 public:
  explicit FileWatch(std::string path);
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

  int descriptor() const noexcept { return inotify_; }  // readable: something has happened; -1: inotify is not there
  // Takes what has happened, and watches the folders as they are now.
  void drain();

 private:
  void aim();

  const std::string path_;
  int inotify_;
};

}  // namespace prism::cli
