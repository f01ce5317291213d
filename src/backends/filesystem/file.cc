#include "backends/filesystem/file.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

namespace prism::filesystem {

void Fd::reset() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

int write_at(int fd, std::span<const Bytes> pieces, std::uint64_t offset) {
  constexpr std::size_t kVectors = 64;
  std::array<iovec, kVectors> vectors;
  std::size_t skip = 0;  // bytes of the first piece that are written already
  while (!pieces.empty()) {
    const std::size_t n = std::min(kVectors, pieces.size());
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t from = i == 0 ? skip : 0;
      vectors[i] = {const_cast<char*>(pieces[i].data()) + from, pieces[i].size() - from};
    }
    const ssize_t written = ::pwritev(fd, vectors.data(), static_cast<int>(n), static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    offset += static_cast<std::uint64_t>(written);
    std::size_t left = static_cast<std::size_t>(written) + skip;
    while (!pieces.empty() && left >= pieces.front().size()) {
      left -= pieces.front().size();
      pieces = pieces.subspan(1);
    }
    skip = left;
  }
  return 0;
}

int write_at(int fd, std::string_view data, std::uint64_t offset) {
  const Bytes piece = Bytes::from_static(data);
  return write_at(fd, std::span(&piece, 1), offset);
}

int read_at(int fd, char* to, std::size_t n, std::uint64_t offset, std::size_t& got) {
  got = 0;
  while (got < n) {
    const ssize_t r = ::pread(fd, to + got, n - got, static_cast<off_t>(offset + got));
    if (r < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (r == 0) break;
    got += static_cast<std::size_t>(r);
  }
  return 0;
}

int open_at(int directory, const std::string& path, int flags, Fd& fd, unsigned mode) {
  int opened;
  do {
    opened = ::openat(directory, path.c_str(), flags | O_CLOEXEC, mode);
  } while (opened < 0 && errno == EINTR);
  if (opened < 0) return errno;
  fd = Fd(opened);
  return 0;
}

// A sync that failed is never tried again: the kernel may have dropped the pages and would report success.
int sync_data(int fd) { return ::fdatasync(fd) == 0 ? 0 : errno; }
int sync_directory(int fd) { return ::fsync(fd) == 0 ? 0 : errno; }

}  // namespace prism::filesystem
