// Plain POSIX files: an owned descriptor, whole reads and writes. Blocking: offload threads only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"

namespace prism::filesystem {

// Closes the descriptor when it is destroyed. Closing the last descriptor of a removed large file frees its blocks,
// which takes time: not on a loop's thread.
class Fd {
 public:
  Fd() noexcept = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Fd() { reset(); }
  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  int release() noexcept { return std::exchange(fd_, -1); }
  void reset() noexcept;

 private:
  int fd_ = -1;
};

// The functions below give 0 or an errno.
// All of `pieces`, one after the other, at `offset`.
int write_at(int fd, std::span<const Bytes> pieces, std::uint64_t offset);
int write_at(int fd, std::string_view data, std::uint64_t offset);
// Exactly n bytes, or fewer at the end of the file; `got` says how many.
int read_at(int fd, char* to, std::size_t n, std::uint64_t offset, std::size_t& got);
// open(2) with O_CLOEXEC, again after EINTR.
int open_at(int directory, const std::string& path, int flags, Fd& fd, unsigned mode = 0);
int sync_data(int fd);       // fdatasync
int sync_directory(int fd);  // fsync

}  // namespace prism::filesystem
